"""The pictures that go with each evaluation: the same images, with what the evaluation says of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rlcap import samples
from rlcap.config import Decoding
from rlcap.data.dataset import Split
from rlcap.data.features import EncoderCard, FeatureStore, FeatureWriter
from rlcap.data.records import Record
from rlcap.errors import DataError
from rlcap.evaluation import caption_split
from rlcap.models.encoders import load_encoder
from rlcap.models.seeing import Seeing
from rlcap.models.soft_attention import SoftAttention
from rlcap.pictures import attention_picture
from rlcap.samples import SHOWN, picture_files, sample_pictures

CPU = torch.device("cpu")
SETTINGS = Decoding(length=5)


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


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_with_features_pictures_come_from_a_folder(codec, tmp_path, monkeypatch, resize):
    store = store_of(tmp_path / "grid.h5", "grid", EncoderCard("my:Encoder", {}, 32, resize, "none"))
    policy = SoftAttention(codec, store.shape, hidden=8, embedding=8, attention=8)
    records = [
        Record(f"{row}.png", "val", ("a cat",), file=f"deep/{row}.bmp" if row == 3 else None) for row in range(6)
    ]
    split, rows = Split("val", records, []), np.array([3, 0, 2, 1, 4])
    for record in records:
        path = tmp_path / "pictures" / (record.file or record.image)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), (40 * int(record.image[0]), 0, 0)).save(path)
    files = picture_files(tmp_path / "pictures", split, store, rows)
    shown, draw = [], attention_picture

    def noted(picture, words, attention, **options):
        shown.append((picture.getpixel((0, 0))[0] // 40, " ".join(words), attention.shape[-1], options["resize"]))
        return draw(picture, words, attention, **options)

    monkeypatch.setattr(samples, "attention_picture", noted)
    assert len(sample_pictures(policy, store, rows, SETTINGS, CPU, seed=1, files=files)) == SHOWN
    said = [hypothesis.text for hypothesis in caption_split(policy, store, rows, SETTINGS, CPU)]
    assert shown == [(row, text, 4, resize) for row, text in zip(rows[:SHOWN], said, strict=False)]
    files[1].unlink()
    with pytest.raises(DataError, match=r"0\.png: there is no such picture; data\.pictures is to be the folder"):
        picture_files(tmp_path / "pictures", split, store, rows)


def test_features_without_pixels_or_files_have_no_pictures(codec, tmp_path):
    store = store_of(tmp_path / "regions.h5", "regions")
    policy = SoftAttention(codec, store.shape, hidden=8, embedding=8, attention=8)
    assert sample_pictures(policy, store, np.arange(5), SETTINGS, CPU, seed=1) == []
