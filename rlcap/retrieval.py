"""How well a scorer tells right captions from wrong ones: it looks for them in a whole split, both ways."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlcap.contracts import Features
from rlcap.data.batches import FeatureSource, encode_captions, feature_batches, pad
from rlcap.data.dataset import Split
from rlcap.errors import ComponentError
from rlcap.files import write_text
from rlcap.models.scorer import Scorer, Towers
from rlcap.progress import track

IMAGES_AT_ONCE, CAPTIONS_AT_ONCE = 50, 500
TIE = 1e-6  # scores this close, relative to theirs if that is above 1, are equal: rounding differs from batch to batch
DEPTHS = (1, 5, 10)
# More of these is better, so they may choose a checkpoint.
RETRIEVED = {
    "recall_at_1": "recall@1, mean of both ways",
    **{f"caption_recall_at_{k}": f"image to caption, recall@{k}" for k in DEPTHS},
    **{f"image_recall_at_{k}": f"caption to image, recall@{k}" for k in DEPTHS},
    "preference": "own caption before a random other",
}
RANKS = {
    "caption_median_rank": "image to caption, median rank",
    "image_median_rank": "caption to image, median rank",
}


@dataclass(frozen=True)
class Retrieval:
    """What a scorer found in a split. Where scores tie, each order of them is as likely as any other.

    An image looks for any one of its captions among those of the whole split, a caption for its image.
    `preference`: of an image's caption and one of another image, drawn at random, how often the own scores higher.
    """

    split: str
    image_ids: list[int | str]
    corpus: dict[str, float]  # shares between 0 and 1, median ranks from 1
    per_image: dict[str, list[float]] = field(repr=False)

    def table(self) -> str:
        """For people: a line a figure; shares x100."""
        width = max(map(len, (*RETRIEVED.values(), *RANKS.values())))
        shares = [f"{name:<{width}}  {100 * self.corpus[key]:7.2f}" for key, name in RETRIEVED.items()]
        return "\n".join([*shares, *(f"{name:<{width}}  {self.corpus[key]:7.1f}" for key, name in RANKS.items())])

    def line(self) -> str:
        """The figures that tell most, x100."""
        return ", ".join(f"{RETRIEVED[key]} {100 * self.corpus[key]:.1f}" for key in ("recall_at_1", "preference"))

    def save(self, folder: Path, name: str) -> None:
        """`name_scores.json`: the figures, corpus and per image."""
        scores: dict[str, Any] = {"split": self.split, "corpus": self.corpus, "images": self.image_ids}
        write_text(folder / f"{name}_scores.json", json.dumps({**scores, "per_image": self.per_image}))


@torch.inference_mode()
def retrieve(
    scorer: Scorer,
    source: FeatureSource,
    rows: np.ndarray,
    split: Split,
    device: torch.device,
    max_words: int,
) -> Retrieval:
    """Every image of the split with every caption; never more at once than a few images with all captions."""
    scorer.eval()
    captions = encode_captions(split.tokens, scorer.codec, max_words)
    owner = torch.tensor([i for i, some in enumerate(captions) for _ in some], device=device)  # (C,)
    own = torch.cat(list(_own_scores(scorer, source, rows, captions, device)))  # (C,)
    slack = TIE * own.abs().clamp_min(1)
    above, level = torch.zeros_like(own), torch.zeros_like(own)  # of each caption: the other images, by their score
    found, preferred = [], []
    batches = track(_all_scores(scorer, source, rows, captions, device), f"retrieving {split.name}", len(rows))
    for image, scores in enumerate(batches):
        mine = owner == image
        above += (scores > own + slack) & ~mine
        level += ((scores - own).abs() <= slack) & ~mine
        others = scores[~mine]
        better = others > (own + slack)[mine][:, None]  # (own captions, others)
        equal = ~better & (others >= (own - slack)[mine][:, None])
        preferred.append(float(1 - (better.double() + equal.double() / 2).mean()) if len(others) else 1.0)
        best = int(own[mine].argmax())
        rivals = int(((own[mine][best] - own[mine]) <= slack[mine][best]).sum())
        found.append((int(better[best].sum()), int(equal[best].sum()), rivals))
    ranks = [_expected_rank(*place) for place in found]
    places = [(int(a), int(b), 1) for a, b in zip(above, level, strict=True)]
    corpus = {f"caption_recall_at_{k}": float(np.mean([_share_found(*place, k) for place in found])) for k in DEPTHS}
    corpus |= {f"image_recall_at_{k}": float(np.mean([_share_found(*place, k) for place in places])) for k in DEPTHS}
    corpus |= {
        "recall_at_1": (corpus["caption_recall_at_1"] + corpus["image_recall_at_1"]) / 2,
        "preference": float(np.mean(preferred)),
        "caption_median_rank": median(ranks),
        "image_median_rank": median(_expected_rank(*place) for place in places),
    }
    return Retrieval(
        split=split.name,
        image_ids=[record.image if record.image_id is None else record.image_id for record in split.records],
        corpus=corpus,
        per_image={"caption_rank": ranks, "preference": preferred},
    )


def _own_scores(
    scorer: Scorer,
    source: FeatureSource,
    rows: np.ndarray,
    captions: Sequence[Sequence[Sequence[int]]],
    device: torch.device,
) -> Iterator[Tensor]:
    """Of each image with its own captions, (captions,) a batch of images."""
    for first, features in _batches(source, rows, device):
        some = captions[first : first + features.images]
        most = max(map(len, some))
        words = pad([[*own, *[own[0]] * (most - len(own))] for own in some], scorer.codec.pad).to(device)
        real = torch.arange(most, device=device) < torch.tensor([[len(own)] for own in some], device=device)
        yield _finite(scorer(features, words)[real].double(), scorer)


def _all_scores(
    scorer: Scorer,
    source: FeatureSource,
    rows: np.ndarray,
    captions: Sequence[Sequence[Sequence[int]]],
    device: torch.device,
) -> Iterator[Tensor]:
    """Of each image with all captions, (C,) an image."""
    flat = [caption for some in captions for caption in some]
    parts = [flat[first : first + CAPTIONS_AT_ONCE] for first in range(0, len(flat), CAPTIONS_AT_ONCE)]
    words = [pad([part], scorer.codec.pad).to(device) for part in parts]  # each (1, captions, T)
    embedded = torch.cat([scorer.embed_captions(part[0]) for part in words]) if isinstance(scorer, Towers) else None
    for _, features in _batches(source, rows, device):
        if isinstance(scorer, Towers) and embedded is not None:
            scores = scorer.embed_images(features) @ embedded.T
        else:
            scores = torch.cat([scorer(features, part.expand(features.images, -1, -1)) for part in words], 1)
        yield from _finite(scores.double(), scorer)


def _finite(scores: Tensor, scorer: Scorer) -> Tensor:
    if not scores.isfinite().all():  # NaN would win every comparison
        raise ComponentError(f"{type(scorer).__name__}: scores {scores[~scores.isfinite()][0]}; it cannot be evaluated")
    return scores


def _batches(source: FeatureSource, rows: np.ndarray, device: torch.device) -> Iterator[tuple[int, Features]]:
    first = 0
    for features in feature_batches(source, rows, IMAGES_AT_ONCE):
        yield first, features.to(device)
        first += features.images


def _share_found(above: int, level: int, own: int, depth: int) -> float:
    """P(one of `own` tied things is among the first `depth`), `level` others tied with them and `above` before them."""
    free = depth - above
    if free <= 0:
        return 0.0
    missed = 1.0
    for place in range(min(free, level + 1)):  # each free place goes to another thing, one after the other
        missed *= (level - place) / (level + own - place)
    return 1 - missed


def _expected_rank(above: int, level: int, own: int) -> float:
    """Of the first of `own` tied things, from 1."""
    return above + 1 + level / (own + 1)
