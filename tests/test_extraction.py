"""From a folder of pictures to a feature file: what is in it, what was skipped, how it goes on."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from rlcap.data.features import FeatureStore
from rlcap.data.images import fit, list_images, read_image
from rlcap.errors import DataError, RlcapError
from rlcap.extraction import Report, extract
from rlcap.models.encoders import frozen_encoder, load_encoder, weights_hash

RESNET = {"weights": "none", "size": 32}
MODES = ("RGB", "L", "CMYK", "P", "RGB", "1", "RGB")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven pictures of several sizes and modes, one of them in a subfolder."""
    random = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for place, mode in enumerate(MODES):
        noise = random.integers(0, 256, (20 + place, 40 - place, 3), dtype=np.uint8)
        name = f"{'more/' if place == 3 else ''}{place}.{'jpg' if mode == 'CMYK' else 'png'}"
        Image.fromarray(noise).convert(mode).save(folder / name)
    return folder


NAMES = ["0.png", "1.png", "2.jpg", "4.png", "5.png", "6.png", "more/3.png"]


def all_values(path: Path) -> torch.Tensor:
    store = FeatureStore(path)
    return store.read(np.arange(len(store))).values


def test_a_folder_becomes_features(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    report = extract(folder, out, encoder="resnet18", options=RESNET | {"layer": "layer3"}, batch=3)
    assert report == Report(done=7, resumed=0, skipped=[])
    store = FeatureStore(out)
    assert store.names == NAMES
    assert (store.kind, store.shape.regions, store.shape.width, store.shape.grid) == ("grid", 4, 256, (2, 2))
    assert store.encoder is not None
    # the card alone leads from a picture to the same features: what `caption` needs
    card = store.encoder
    encoder = frozen_encoder(card.spec, card.options)
    assert (card.size, card.resize, card.weights) == (32, "squash", weights_hash(encoder))
    pixels = np.stack([fit(read_image(folder / name), card.size, card.resize) for name in NAMES])
    expected = encoder(torch.from_numpy(pixels).float() / 255).values
    torch.testing.assert_close(all_values(out), expected, rtol=1e-3, atol=1e-4)  # fp16 keeps 11 bits


def test_one_picture(folder: Path, tmp_path: Path) -> None:
    report = extract(folder / "more" / "3.png", tmp_path / "x.h5", encoder="resnet18", options=RESNET)
    assert report.done == 1
    assert FeatureStore(tmp_path / "x.h5").names == ["3.png"]


def test_pixels_are_kept_as_they_are(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    extract(folder, out, encoder="pixels", options={"size": 16, "resize": "crop"})
    store = FeatureStore(out)
    assert store.kind == "pixels"
    pixels = store.read(store.rows(["more/3.png"])).pixels
    assert pixels is not None
    assert np.array_equal(pixels[0].mul(255).round(), fit(read_image(folder / "more" / "3.png"), 16, "crop"))
    assert store.encoder is not None
    assert (store.encoder.spec, store.encoder.size, store.encoder.resize) == ("pixels", 16, "crop")


def test_unreadable_pictures_are_skipped_and_listed(folder: Path, tmp_path: Path) -> None:
    (folder / "1.png").write_bytes(b"")
    (folder / "more" / "text.jpg").write_text("a dog")
    not_utf8 = os.fsencode(folder) + b"/\xff.png"
    Path(os.fsdecode(not_utf8)).write_bytes((folder / "0.png").read_bytes())
    report = extract(folder, tmp_path / "x.h5", encoder="pixels")
    assert report.done == 6
    assert FeatureStore(tmp_path / "x.h5").names == [name for name in NAMES if name != "1.png"]
    reasons = dict(report.skipped)
    assert list(reasons) == ["1.png", "more/text.jpg", "\N{REPLACEMENT CHARACTER}.png"]
    assert f"{folder / '1.png'}: is empty" in reasons["1.png"]
    assert "no picture" in reasons["more/text.jpg"]
    assert "not UTF-8" in reasons["\N{REPLACEMENT CHARACTER}.png"]
    with pytest.raises(DataError, match=r"1\.png: is empty"):
        extract(folder, tmp_path / "strict.h5", encoder="pixels", strict=True)
    assert not (tmp_path / "strict.h5").exists()


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "pictures" / name).write_text("no picture")
    with pytest.raises(DataError, match=r"none of 2 pictures can be read; .*a\.jpg"):
        extract(tmp_path / "pictures", tmp_path / "x.h5", encoder="pixels")
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


PLUG_INS = """
import torch
from torch import nn
from rlcap.contracts import Encoder, Features, FeatureShape

class Interrupted(nn.Module):
    # sees five images a process, two of them when it is tried out
    def __init__(self, images=10_000):
        super().__init__()
        self.left = images
    def forward(self, images):
        self.left -= len(images)
        if self.left < 0:
            raise KeyboardInterrupt
        return images[:, :, ::8, ::8]

class Detector(Encoder):
    # as many regions as the first pixel is bright, three at most
    size, resize, shape = 16, "squash", FeatureShape(3, 2)
    def forward(self, images):
        count = 1 + (images[:, 0, 0, 0] * 2).round().long()
        mask = torch.arange(3) < count[:, None]
        values = images[:, :2, 0, :3].transpose(1, 2) * mask[..., None]
        return Features(values, mask, boxes=torch.arange(4).div(4).expand(len(images), 3, 4))
"""


@pytest.fixture
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_extractors_for_tests.py").write_text(PLUG_INS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("plug_ins")
def test_an_interrupted_extraction_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, whole, encoder = tmp_path / "x.h5", tmp_path / "whole.h5", "my_extractors_for_tests:Interrupted"
    extract(folder, whole, encoder=encoder, batch=2)
    extractors = pytest.importorskip("my_extractors_for_tests")
    with monkeypatch.context() as patch:
        patch.setattr(extractors.Interrupted.__init__, "__defaults__", (6,))  # two of them for the trial
        with pytest.raises(KeyboardInterrupt):
            extract(folder, out, encoder=encoder, batch=2)
    assert not out.exists()
    assert extract(folder, out, encoder=encoder, batch=2) == Report(done=7, resumed=4, skipped=[])
    assert FeatureStore(out).names == NAMES
    assert torch.equal(all_values(out), all_values(whole))


@pytest.mark.usefixtures("plug_ins")
def test_regions_of_varying_number(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, level in (("a", 0), ("b", 128), ("c", 255)):
        Image.new("RGB", (9, 9), (level,) * 3).save(folder / f"{name}.png")
    extract(folder, tmp_path / "x.h5", encoder="my_extractors_for_tests:Detector")
    features = FeatureStore(tmp_path / "x.h5").read(np.arange(3))
    assert features.mask.sum(1).tolist() == [1, 2, 3]
    assert features.boxes is not None
    assert features.boxes[2, 0].tolist() == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": "nowhere"}, "nowhere: no such folder"),
        ({"out": "."}, "is a folder; name the file"),
        ({"batch": 0}, "batch=0"),
        ({"workers": -1}, "workers=-1"),
        ({"device": "cuda:77"}, "device=cuda:77: torch cannot use it here"),
        ({"device": "gpu"}, "device=gpu: should be auto, cpu, cuda"),
        ({"encoder": "pixel"}, "'pixel'"),
        ({"encoder": "pixels", "options": {"sise": 3}}, "did you mean 'size'"),
        ({"encoder": "pixels", "options": {"size": 0}}, "size=0"),
        ({"encoder": "pixels", "options": {"resize": "cut"}}, "resize='cut'"),
    ],
)
def test_wrong_arguments(folder: Path, tmp_path: Path, change: dict[str, object], said: str) -> None:
    arguments = {"source": folder, "out": tmp_path / "x.h5", "encoder": "resnet18", "options": RESNET}
    with pytest.raises(RlcapError) as caught:
        extract(**(arguments | change))  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.real
def test_a_plug_in_repeats_the_features_of_flickr8k(monkeypatch: pytest.MonkeyPatch) -> None:
    """The photos are those that the file was made from; its bytes were rounded by another program."""
    data = Path(os.environ["RLCAP_DATA"])
    monkeypatch.syspath_prepend(data.parent / "encoders")
    encoder = load_encoder("mobilenet_v2:MobileNetV2").eval()
    assert (encoder.shape.regions, encoder.shape.width, encoder.shape.grid) == (49, 1280, (7, 7))
    paths = list_images(data / "flickr8k" / "images")[::8]
    pixels = np.stack([fit(read_image(path), encoder.size, encoder.resize) for path in paths])
    with torch.inference_mode():
        made = encoder(torch.from_numpy(pixels).float() / 255).values.numpy()
    store = FeatureStore(data / "flickr8k" / "mobilenet_v2_7x7.h5")
    stored = store.read(store.rows([path.name for path in paths])).values.numpy()
    with h5py.File(store.path) as file:
        step = file["features"].attrs["scale"]
    away = np.abs(made - stored) / step
    # rounding to bytes moves by half a step at most; 0.6 and the share leave room for the weights' fp16
    assert away.max() < 0.6
    assert (away <= 0.5).mean() > 0.995
    assert np.corrcoef(made.ravel(), stored.ravel())[0, 1] > 0.99999
