"""Regions by Faster R-CNN, all real but the weights: which are chosen, what is stored, and captions from pixels."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rlcap.cli import main
from rlcap.data.features import FeatureStore, FeatureWriter
from rlcap.errors import CheckpointError, DataError, RlcapError
from rlcap.extraction import Report, extract
from rlcap.models.encoders import frozen_encoder, load_encoder
from rlcap.models.faster_rcnn import OVERLAP, FasterRCNN
from rlcap.recipe import load_recipe
from rlcap.run import load
from rlcap.training import train

SIZE = 64
OPTIONS = {"weights": "none", "size": SIZE, "fewest": 3, "most": 5}


@pytest.fixture(scope="module")
def encoder() -> FasterRCNN:
    """Its batch norms have seen noise: untrained ones let nothing of a picture through."""
    encoder = frozen_encoder("faster_rcnn_mobile", OPTIONS)
    norms = [module for module in encoder.detector.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        nn.Module.train(norm)
    encoder.detector.backbone(torch.randn(16, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)))
    return encoder.eval()


@pytest.fixture(scope="module")
def options(encoder: FasterRCNN, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """To make the same again."""
    file = tmp_path_factory.mktemp("weights") / "noise.pth"
    torch.save(encoder.detector.state_dict(), file)
    return OPTIONS | {"weights": str(file)}


@pytest.fixture(scope="module")
def scenes(options: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 12 scenes, with a folder of their pictures and the file of what the detector saw in them."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    assert main(["--quiet", "prepare", "scenes", "--out", str(folder), "--count", "12"]) == 0
    store = FeatureStore(folder / "scenes.h5")
    (folder / "pictures").mkdir()
    for name, pixels in zip(store.names, store.read(np.arange(len(store))).pixels, strict=True):
        Image.fromarray((pixels.numpy().transpose(1, 2, 0) * 255).astype(np.uint8)).save(folder / "pictures" / name)
    extract(folder / "pictures", folder / "regions.h5", encoder="faster_rcnn_mobile", options=options, batch=8)
    return folder


def overlap(one: list[float], other: list[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    return both / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - both)


@pytest.mark.parametrize(("fewest", "most", "confidence"), [(1, 200, 0.2), (20, 200, 0.6), (1, 4, 0.0), (9, 9, 1.0)])
def test_which_boxes_are_chosen(encoder, monkeypatch, fewest, most, confidence):
    """Plain Python: the surest first, none beside a surer one of its class; of the confident ones as many as may be."""
    generator = torch.Generator().manual_seed(3)
    scores = (3 * torch.randn(60, 4, generator=generator)).softmax(-1)  # background and three classes
    corners = 80 * torch.rand(60, 4, 4, generator=generator) - 8
    boxes = torch.cat((corners[..., :2], corners[..., :2] + corners[..., 2:].abs() + 4), -1)
    kept: list[tuple[float, int, list[float]]] = []
    for place in torch.argsort(scores[:, 1:].amax(-1), descending=True).tolist():
        kind = 1 + int(scores[place, 1:].argmax())
        box = boxes[place, kind].clamp(0, SIZE).tolist()
        seen = box[2] - box[0] >= 1 and box[3] - box[1] >= 1
        if seen and all(overlap(box, other) <= OVERLAP for _, same, other in kept if same == kind):
            kept.append((float(scores[place, kind]), kind, box))
    sure = sum(score >= confidence for score, _, _ in kept)
    for name, value in (("fewest", fewest), ("most", most), ("confidence", confidence)):
        monkeypatch.setattr(encoder, name, value)
    wanted = [box for _, _, box in kept[: min(max(sure, fewest), most)]]
    chosen = encoder._chosen(scores, boxes, (SIZE, SIZE))
    assert len(kept) > 20
    torch.testing.assert_close(chosen, torch.tensor(wanted))


def test_a_region_is_what_the_box_head_sees_in_its_box(encoder):
    images = torch.rand(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))  # more than go at once
    features = encoder(images)
    assert (encoder.shape.regions, encoder.shape.width, encoder.shape.grid) == (5, 1024, None)
    counts = features.mask.sum(1)
    assert counts.min() >= 3
    last = 5
    detector, count = encoder.detector, int(counts[last])
    boxes = features.boxes[last, :count] * SIZE
    maps = detector.backbone((images[last:] - encoder.mean) / encoder.std)
    pooled = detector.roi_heads.box_roi_pool(maps, [boxes], [(SIZE, SIZE)])
    seen = detector.roi_heads.box_head(pooled)
    # float32 in batches of another size, and values up to 10
    torch.testing.assert_close(features.values[last, :count], seen, rtol=0, atol=1e-3)
    assert (seen - seen[-1]).abs().max() > 0.1, "regions would be told apart"
    assert (seen - features.values[0, :count]).abs().amax(-1).min() > 0.1, "and pictures"
    assert not encoder.train().training, "a detector in training mode wants targets"
    assert not any(each.requires_grad for each in encoder.parameters())


def test_a_folder_becomes_regions_and_goes_on_after_an_error(options, scenes, tmp_path):
    folder, out = tmp_path / "pictures", tmp_path / "x.h5"
    folder.mkdir()
    whole = FeatureStore(scenes / "regions.h5")
    for name in whole.names[:3]:
        (folder / name).write_bytes((scenes / "pictures" / name).read_bytes())
    broken = folder / whole.names[2]
    broken.write_bytes(b"")
    how = {"encoder": "faster_rcnn_mobile", "options": options, "batch": 1, "strict": True}
    with pytest.raises(DataError, match="is empty"):
        extract(folder, out, **how)
    broken.write_bytes((scenes / "pictures" / broken.name).read_bytes())
    assert extract(folder, out, **how) == Report(done=3, resumed=2, skipped=[])
    store = FeatureStore(out)
    one, other = store.read(np.arange(3)), whole.read(whole.rows(store.names))
    assert torch.equal(one.mask, other.mask)
    torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=1e-4)
    torch.testing.assert_close(one.values, other.values, rtol=1e-2, atol=1e-4)  # fp16, and batches of 1 and 8
    assert store.kind == "regions"
    assert store.encoder.spec == "faster_rcnn_mobile"
    assert (one.boxes >= 0).all()
    assert (one.boxes <= 1).all()
    assert (one.boxes[..., :2] <= one.boxes[..., 2:]).all()


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory) -> Path:
    changes = {
        "data.path": str(scenes),
        "data.features": str(scenes / "regions.h5"),
        "encoder": None,
        "policy": {"name": "bottom_up_top_down", "hidden": 8, "embedding": 8, "attention": 8, "project": 8},
        "training.updates": 2,
        "training.evaluate_every": "2 updates",
        "training.images": 4,
        "training.device": "cpu",
    }
    return train(load_recipe("scenes", changes), tmp_path_factory.mktemp("runs") / "regions")


def test_captions_from_pixels_look_at_boxes(run, scenes):
    store = FeatureStore(scenes / "regions.h5")
    picture = load(run, "cpu").look([scenes / "pictures" / store.names[0]])[0]
    np.testing.assert_allclose(picture.boxes, store.read(np.arange(1)).boxes[0], atol=1e-4)  # batches of 1 and 8
    look = picture.captions[0].attention
    assert picture.grid is None
    assert picture.boxes.shape == (5, 4)
    assert look.shape == (len(picture.captions[0].words), 5)
    np.testing.assert_allclose(look.sum(1), 1, atol=1e-5)


def test_features_of_another_width_are_refused_by_name(run, scenes, tmp_path):
    names = FeatureStore(scenes / "regions.h5").names
    with FeatureWriter(tmp_path / "wide.h5", "regions") as writer:
        writer.append(names, np.ones((len(names), 5, 2048), np.float32))
    with pytest.raises(CheckpointError) as caught:
        load(run, "cpu").evaluate(features=str(tmp_path / "wide.h5"))
    said = str(caught.value)
    assert "wide.h5: holds regions of width 2048" in said
    assert "trained on regions of width 1024 by faster_rcnn_mobile at 64 pixels" in said
    assert "use features of the same encoder" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": 16}, "size=16: must be a whole number, 32 or more"),
        ({"fewest": 9}, "fewest=9 regions of an image are more than most=5"),
        ({"confidence": 20}, "confidence=20: is a probability"),
        ({"layer": "layer4"}, "has no option 'layer'"),
        ({"weights": "nowhere.pth"}, "weights=nowhere.pth: no such file; give coco, none"),
    ],
)
def test_wrong_options(change, said):
    with pytest.raises(RlcapError) as caught:
        load_encoder("faster_rcnn_mobile", OPTIONS | change)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The folder where torch.hub looks for weights, behind a proxy that refuses everybody."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


def test_weights_of_coco(encoder, offline):
    """Without network: where to put them, and there they are found."""
    with pytest.raises(DataError) as caught:
        load_encoder("faster_rcnn_mobile", {"size": SIZE})
    file = offline / "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth"
    assert "the COCO weights cannot be downloaded (URLError: <urlopen error" in str(caught.value)
    assert f"https://download.pytorch.org/models/{file.name} elsewhere and put it there as {file}" in str(caught.value)
    state = encoder.detector.state_dict()
    torch.save(state, file)
    found = load_encoder("faster_rcnn_mobile", {"size": SIZE}).detector.state_dict()
    assert all(torch.equal(found[name], state[name]) for name in state)
