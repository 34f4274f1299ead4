"""A split -> free-running captions -> the table of metrics, and files that any other tool can score."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from rlcap.config import Decoding
from rlcap.contracts import Policy
from rlcap.data.batches import FeatureSource, feature_batches, pad
from rlcap.data.dataset import Split
from rlcap.data.frequencies import END, DocumentFrequencies
from rlcap.decoding.decode import Hypothesis, decode
from rlcap.files import write_text
from rlcap.metrics import JAVA_NAMES, METRICS, NAMES, evaluate_captions
from rlcap.metrics.cider import cider_d
from rlcap.metrics.diversity import health
from rlcap.metrics.pointing import Pointing, movement, pointing
from rlcap.progress import track

IMAGES_AT_ONCE = 50
EVALUATED = {
    **{key: name for key, name in NAMES.items() if key != "cider"},
    "cider_d_training": "CIDEr-D, training's frequencies and end token",
}
# What else shows whether captions are sound; the length is in words, the rest are shares.
HEALTH = {
    "length": "words a caption",
    "bad_ending": "captions that end in the middle",
    "repetition": "word pairs said again in the caption",
    "vocabulary_use": "words of the vocabulary that are said",
    "distinct_1": "different words among all said",
    "distinct_2": "different word pairs among all said",
}


@dataclass(frozen=True)
class Evaluation:
    """The captions of a split and what they are worth."""

    names: ClassVar[Mapping[str, str]] = EVALUATED | JAVA_NAMES | HEALTH  # of figures, for people
    as_they_are: ClassVar[Sequence[str]] = ("length",)  # figures that are not shown x100
    telling: ClassVar[Sequence[str]] = ("bleu_4", "rouge_l", "cider_d")  # figures for one line
    unit: ClassVar[str] = "images"
    split: str
    image_ids: list[int | str]
    captions: list[str]
    corpus: dict[str, float]  # metric -> value over the whole split, between 0 and 1 (CIDEr: 0 and 10)
    health: dict[str, float]  # by the keys of HEALTH
    per_image: dict[str, list[float]] = field(repr=False)

    def table(self) -> str:
        """For people: a line a figure, metrics and shares x100 as papers print them."""
        figures = self.corpus | self.health
        shown = {self.names[key]: self._shown(key, value) for key, value in figures.items()}
        width = max(map(len, shown))
        return "\n".join(f"{name:<{width}}  {value:7.2f}" for name, value in shown.items())

    def line(self) -> str:
        """The figures that tell most."""
        told = {key: self.corpus[key] for key in self.telling if key in self.corpus}
        digits = {key: 2 if key in self.as_they_are else 1 for key in told}
        return ", ".join(f"{self.names[key]} {self._shown(key, told[key]):.{digits[key]}f}" for key in told)

    def save(self, folder: Path, name: str) -> None:
        """`name.json`: the coco results format; `name_scores.json`: the metrics, corpus and per image."""
        results = [
            {"image_id": image, "caption": caption}
            for image, caption in zip(self.image_ids, self.captions, strict=True)
        ]
        write_text(folder / f"{name}.json", json.dumps(results, ensure_ascii=False, indent=0))
        scores: dict[str, Any] = {"split": self.split, "corpus": self.corpus, "health": self.health}
        scores["per_image"] = self.per_image
        write_text(folder / f"{name}_scores.json", json.dumps(scores))

    def _shown(self, key: str, value: float) -> float:
        return value if key in self.as_they_are else 100 * value


def caption_split(
    policy: Policy,
    source: FeatureSource,
    rows: np.ndarray,
    settings: Decoding,
    device: torch.device,
    seed: int = 1,
    what: str = "captioning",
) -> list[Hypothesis]:
    """One caption an image, in the order of `rows`."""
    hypotheses: list[Hypothesis] = []
    batches = feature_batches(source, rows, IMAGES_AT_ONCE)
    for features in track(batches, what, total=-(-len(rows) // IMAGES_AT_ONCE)):
        keys = torch.arange(len(hypotheses), len(hypotheses) + features.images, device=device)
        found = decode(policy, features.to(device), settings, keys=keys, seed=seed)
        hypotheses += [best[0] for best in found]
    return hypotheses


def evaluate(
    policy: Policy,
    source: FeatureSource,
    rows: np.ndarray,
    split: Split,
    frequencies: DocumentFrequencies,
    settings: Decoding,
    device: torch.device,
    seed: int = 1,
    metrics: Sequence[str] = (),
) -> Evaluation:
    """Captions this split and scores it, by `metrics` (the Java ones, say) besides the usual ones.

    Teacher forcing has no part in it.
    """
    hypotheses = caption_split(policy, source, rows, settings, device, seed, f"captioning {split.name}")
    words = [list(hypothesis.words) for hypothesis in hypotheses]
    scores = dict(evaluate_captions(words, split.tokens, (*METRICS, *metrics)))
    scores["cider_d_training"] = cider_d(
        [[*caption, END] for caption in words],
        [[[*reference, END] for reference in references] for references in split.tokens],
        frequencies=frequencies,
    )
    return Evaluation(
        split=split.name,
        image_ids=[record.image if record.image_id is None else record.image_id for record in split.records],
        captions=[hypothesis.text for hypothesis in hypotheses],
        corpus={name: float(result.corpus) for name, result in scores.items()},
        health=health(words, [len(caption) < settings.length for caption in words], policy.codec.size),
        per_image={name: result.per_image.tolist() for name, result in scores.items()},
    )


@dataclass(frozen=True)
class Looks:
    """Where a policy looks while it hears the references."""

    pointing: Pointing
    moved: float  # see rlcap.metrics.pointing.movement; mean over words


@torch.inference_mode()
def point(
    policy: Policy,
    source: FeatureSource,
    rows: np.ndarray,
    split: Split,
    grid: tuple[int, int],
    device: torch.device,
    max_words: int,
) -> Looks | None:
    """Where attention goes while the references' object words are said, against the objects' known places.

    None for a policy without attention or records that name no objects.
    """
    policy.eval()
    found, moved = [], []
    for first in range(0, len(rows), IMAGES_AT_ONCE):
        some = slice(first, first + IMAGES_AT_ONCE)
        captions = [_ids(tokens, policy, max_words) for tokens in split.tokens[some]]
        fewest = min(len(image) for image in captions)
        words = pad([image[:fewest] for image in captions], policy.codec.pad).to(device)
        features = source.read(rows[some]).to(device)
        attention = policy.score(policy.remember(features), words, want=["attention"]).attention
        if attention is None:
            return None
        looks = attention.float().cpu().numpy()
        for record, look, said in zip(split.records[some], looks, captions, strict=True):
            boxes = [thing.box for thing in record.objects]
            moved += [movement(of_caption[: len(ids)]) for of_caption, ids in zip(look, said, strict=False)]
            for mentions, of_caption in zip(record.mentions, look, strict=False):
                within = [(word, thing) for word, thing in mentions if word < len(of_caption)]
                found.append(pointing(of_caption, within, boxes, grid))
    return Looks(Pointing.total(found), float(np.concatenate(moved).mean())) if found else None


def _ids(tokens: Sequence[Sequence[str]], policy: Policy, max_words: int) -> list[list[int]]:
    return [policy.codec.encode(words)[:max_words] for words in tokens]
