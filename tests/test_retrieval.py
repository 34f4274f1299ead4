"""What a scorer finds in a split, against the enumeration of every order that ties allow."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from rlcap import retrieval
from rlcap.contracts import Features
from rlcap.data.dataset import Split
from rlcap.data.records import Record
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import ComponentError
from rlcap.models.contrastive import Contrastive
from rlcap.models.scorer import Scorer

CPU = torch.device("cpu")


class Told(Scorer):
    """Scores that are told beforehand: image i (its feature) with the caption whose first word is w."""

    def __init__(self, codec: Vocabulary, scores: Tensor) -> None:
        super().__init__()
        self.codec, self.scores = codec, scores

    def forward(self, features: Features, words: Tensor) -> Tensor:
        return self.scores[features.values[:, 0, 0].long()[:, None], words[..., 0]]


class Numbered:
    """A source whose images are known by their row."""

    def read(self, rows: np.ndarray) -> Features:
        values = torch.tensor(rows).float()[:, None, None]
        return Features(values, torch.ones(len(rows), 1, dtype=torch.bool))


class Held:
    """Features in memory as a source."""

    def __init__(self, features: Features) -> None:
        self.features = features

    def read(self, rows: np.ndarray) -> Features:
        return Features(self.features.values[rows], self.features.mask[rows])


def split_of(tokens: list[list[list[str]]]) -> Split:
    return Split(
        "val", [Record(f"{i}.png", "val", tuple(map(" ".join, some))) for i, some in enumerate(tokens)], tokens
    )


TOKENS = [[["a"], ["red"]], [["ball"]], [["and"], ["blue"], ["box"]]]  # images with 2, 1 and 3 captions


def by_enumeration(scores: np.ndarray, owner: list[int]) -> dict[str, float]:
    """All orders of the captions and of the images, each followed by a stable sort: ties fall all ways."""
    hits: dict[str, list[float]] = {}
    for order in itertools.permutations(range(len(owner))):
        for image in range(len(scores)):
            ranked = sorted(order, key=lambda c: -scores[image, c])
            place = min(place for place, caption in enumerate(ranked, 1) if owner[caption] == image)
            for k in (1, 5):
                hits.setdefault(f"caption_recall_at_{k}", []).append(place <= k)
            hits.setdefault(f"rank {image}", []).append(place)
    for order in itertools.permutations(range(len(scores))):
        for caption, image in enumerate(owner):
            ranked = sorted(order, key=lambda i: -scores[i, caption])
            hits.setdefault("image_recall_at_1", []).append(ranked[0] == image)
    for image in range(len(scores)):
        pairs = [
            (scores[image, c], scores[image, d]) for c in range(6) for d in range(6) if owner[c] == image != owner[d]
        ]
        hits.setdefault("preference", []).append(np.mean([(a > b) + (a == b) / 2 for a, b in pairs]))
    means = {name: float(np.mean(values)) for name, values in hits.items()}
    return means | {"caption_median_rank": float(np.median([means.pop(f"rank {i}") for i in range(3)]))}


@pytest.mark.parametrize("seed", range(6))
def test_retrieval_equals_enumeration(codec, seed, monkeypatch):
    monkeypatch.setattr(retrieval, "IMAGES_AT_ONCE", 2)
    monkeypatch.setattr(retrieval, "CAPTIONS_AT_ONCE", 4)
    ids = [codec.encode(caption)[0] for some in TOKENS for caption in some]
    table = torch.from_numpy(np.random.default_rng(seed).integers(0, 3, (3, codec.size))).float()  # many ties
    found = retrieval.retrieve(Told(codec, table), Numbered(), np.arange(3), split_of(TOKENS), CPU, 20)
    expected = by_enumeration(table[:, ids].numpy(), [0, 0, 1, 2, 2, 2])
    for name, value in expected.items():
        assert found.corpus[name] == pytest.approx(value, abs=1e-12), name
    assert found.corpus["recall_at_1"] == pytest.approx(
        (expected["caption_recall_at_1"] + expected["image_recall_at_1"]) / 2
    )


def test_an_undecided_scorer_gets_chance(codec, tmp_path):
    tokens = [[["a"], ["red"]]] * 20
    told = Told(codec, torch.full((20, codec.size), 0.3))
    found = retrieval.retrieve(told, Numbered(), np.arange(20), split_of(tokens), CPU, 20)
    assert found.corpus["caption_recall_at_1"] == pytest.approx(2 / 40)
    assert found.corpus["image_recall_at_5"] == pytest.approx(5 / 20)
    assert found.corpus["image_median_rank"] == 10.5
    assert found.corpus["preference"] == 0.5
    assert len(found.table().splitlines()) == len(found.corpus) == len(retrieval.RETRIEVED) + len(retrieval.RANKS)
    found.save(tmp_path, "val")
    assert (tmp_path / "val_scores.json").exists()
    with pytest.raises(ComponentError, match="scores nan"):
        retrieval.retrieve(Told(codec, told.scores * torch.nan), Numbered(), np.arange(20), split_of(tokens), CPU, 20)


def test_towers_and_pairs_agree(codec, shape, features):
    # the same scorer as towers, and as a black box that is asked pair by pair
    torch.manual_seed(1)
    scorer = Contrastive(codec, shape, width=16, embedding=8, gazes=2)
    black_box = Told(codec, torch.zeros(0))
    black_box.forward = scorer.forward
    arguments = Held(features), np.array([2, 0, 1]), split_of(TOKENS), CPU, 20
    towers = retrieval.retrieve(scorer, *arguments)
    assert towers.corpus == pytest.approx(retrieval.retrieve(black_box, *arguments).corpus)
