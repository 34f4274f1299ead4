"""The pictures that go with each evaluation: the same images, with what the evaluation says of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rlcap import pictures
from rlcap.album import Album
from rlcap.config import Component, Decoding, Experiment, Training
from rlcap.data.dataset import Split
from rlcap.data.features import EncoderCard, FeatureStore, FeatureWriter
from rlcap.data.records import Record
from rlcap.evaluation import caption_split
from rlcap.models.encoders import load_encoder
from rlcap.models.seeing import Seeing
from rlcap.models.soft_attention import SoftAttention
from rlcap.samples import SHOWN, album_of, sample_pictures

CPU = torch.device("cpu")
SETTINGS = Decoding(length=5)
ROWS = np.array([3, 0, 2, 1, 4])
EXPERIMENT = Experiment(
    name="sampled", trainer=Component("cross_entropy"), training=Training(updates=1), decoding=SETTINGS
)
FILES = {3: "deep/3.bmp"}
SPLIT = Split("val", [Record(f"{row}.png", "val", ("a cat",), file=FILES.get(row)) for row in ROWS], [])


class Blindfold(SoftAttention):
    """Does not tell where it looks."""

    def step(self, *arguments, **options):
        return replace(super().step(*arguments, **options), attention=None)


def store_of(path: Path, kind: str, card: EncoderCard | None = None) -> FeatureStore:
    dice = np.random.default_rng(0)
    rows = dice.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8) if kind == "pixels" else dice.normal(size=(6, 4, 8))
    with FeatureWriter(path, kind, card=card, grid=(2, 2) if kind == "grid" else None) as writer:
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
    said, seen, draw = [], [], getattr(pictures, drawn)

    def noted(images, words, *more, **options):
        said.append(" ".join(words))
        seen.append(np.asarray(images).reshape(32, 32, 3).transpose(2, 0, 1))
        return draw(images, words, *more, **options)

    monkeypatch.setattr(pictures, drawn, noted)
    found = sample_pictures(policy, Album(SPLIT, store, ROWS), EXPERIMENT, CPU)
    assert len(found) == SHOWN
    assert np.array_equal(np.stack(seen) / np.float32(255), store.read(ROWS[:SHOWN]).pixels.numpy())
    assert said == [hypothesis.text for hypothesis in caption_split(policy, store, ROWS, SETTINGS, CPU)][:SHOWN]


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_with_features_pictures_come_from_a_folder(codec, tmp_path, monkeypatch, resize):
    store = store_of(tmp_path / "grid.h5", "grid", EncoderCard("my:Encoder", {}, 32, resize, "none"))
    policy = SoftAttention(codec, store.shape, hidden=8, embedding=8, attention=8)
    for record in SPLIT.records:
        path = tmp_path / "pictures" / (record.file or record.image)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), (40 * int(record.image[0]), 0, 0)).save(path)
    shown, draw = [], pictures.attention_picture

    def noted(picture, words, attention, **options):
        shown.append((picture.getpixel((0, 0))[0] // 40, " ".join(words), attention.shape[-1], options["resize"]))
        return draw(picture, words, attention, **options)

    monkeypatch.setattr(pictures, "attention_picture", noted)
    album = Album(SPLIT, store, ROWS, tmp_path / "pictures")
    assert len(sample_pictures(policy, album, EXPERIMENT, CPU)) == SHOWN
    said = [hypothesis.text for hypothesis in caption_split(policy, store, ROWS, SETTINGS, CPU)]
    assert shown == [(row, text, 4, resize) for row, text in zip(ROWS[:SHOWN], said, strict=False)]


def test_regions_are_framed(codec, tmp_path):
    with FeatureWriter(tmp_path / "regions.h5", "regions") as writer:
        boxes = np.tile(np.float32([0.2, 0.2, 0.8, 0.8]), (6, 4, 1))
        writer.append([f"{row}.png" for row in range(6)], np.ones((6, 4, 8), np.float32), boxes=boxes)
    store = FeatureStore(tmp_path / "regions.h5")
    policy = SoftAttention(codec, store.shape, hidden=8, embedding=8, attention=8)
    for record in SPLIT.records:
        (tmp_path / (record.file or record.image)).parent.mkdir(exist_ok=True)
        Image.new("RGB", (30, 20)).save(tmp_path / (record.file or record.image))
    for picture in sample_pictures(policy, Album(SPLIT, store, ROWS, tmp_path), EXPERIMENT, CPU):
        assert (np.asarray(picture) == pictures.FRAME).all(-1).any()


def test_features_without_pixels_or_files_have_no_pictures(tmp_path):
    assert album_of(EXPERIMENT, store_of(tmp_path / "regions.h5", "regions"), SPLIT) is None
