"""The pictures that go with each evaluation: the same images, with what the evaluation says of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rlcap import samples
from rlcap.config import Decoding
from rlcap.data.features import FeatureStore, FeatureWriter
from rlcap.evaluation import caption_split
from rlcap.models.encoders import load_encoder
from rlcap.models.seeing import Seeing
from rlcap.models.soft_attention import SoftAttention
from rlcap.samples import SHOWN, sample_pictures

CPU = torch.device("cpu")
SETTINGS = Decoding(length=5)


class Blindfold(SoftAttention):
    """Does not tell where it looks."""

    def step(self, *arguments, **options):
        return replace(super().step(*arguments, **options), attention=None)


def store_of(path: Path, kind: str) -> FeatureStore:
    dice = np.random.default_rng(0)
    rows = dice.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8) if kind == "pixels" else dice.normal(size=(6, 4, 8))
    with FeatureWriter(path, kind) as writer:
        writer.append([f"{row}.png" for row in range(6)], rows)
    return FeatureStore(path)


def seeing(codec, kind=SoftAttention) -> Seeing:
    torch.manual_seed(0)
    encoder = load_encoder("small_cnn", {"size": 32, "width": 32}, False)
    policy = kind(codec, encoder.shape, hidden=8, embedding=8, attention=8)
    return Seeing(policy, encoder)


@pytest.mark.parametrize(("kind", "drawn"), [(SoftAttention, "attention_picture"), (Blindfold, "contact_sheet")])
def test_the_captions_are_those_of_the_evaluation(codec, tmp_path, monkeypatch, kind, drawn):
    policy, store = seeing(codec, kind), store_of(tmp_path / "pixels.h5", "pixels")
    rows, said, seen, draw = np.array([4, 0, 2, 1, 3]), [], [], getattr(samples, drawn)

    def noted(pictures, words, *more, **options):
        said.append(" ".join(words))
        seen.append(np.asarray(pictures).reshape(32, 32, 3).transpose(2, 0, 1))
        return draw(pictures, words, *more, **options)

    monkeypatch.setattr(samples, drawn, noted)
    found = sample_pictures(policy, store, rows, SETTINGS, CPU, seed=1)
    assert len(found) == SHOWN
    assert np.array_equal(np.stack(seen) / np.float32(255), store.read(rows[:SHOWN]).pixels.numpy())
    assert said == [hypothesis.text for hypothesis in caption_split(policy, store, rows, SETTINGS, CPU)][:SHOWN]


def test_features_without_pixels_have_no_pictures(codec, tmp_path):
    store = store_of(tmp_path / "regions.h5", "regions")
    policy = SoftAttention(codec, store.shape, hidden=8, embedding=8, attention=8)
    assert sample_pictures(policy, store, np.arange(5), SETTINGS, CPU, seed=1) == []
