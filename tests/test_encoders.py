"""Encoders: what comes out, where, with which weights; torchvision's own networks are the reference."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rlcap.contracts import Encoder, Features
from rlcap.errors import ComponentError, ConfigError, DataError, RlcapError
from rlcap.models.encoders import card_of, frozen_encoder, load_encoder, weights_hash
from rlcap.models.small_cnn import SmallCNN


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    """torchvision's own, with statistics in its batch norms that matter."""
    from torchvision import models

    torch.manual_seed(1)
    network = models.resnet18(weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.fixture(scope="module")
def weights(resnet18: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resnet18.state_dict(), path)
    return path


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def error_of(spec: str, **options: object) -> str:
    with pytest.raises(RlcapError) as caught:
        load_encoder(spec, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The small one


def test_small_cnn_keeps_the_contract(images: Tensor) -> None:
    encoder = load_encoder("small_cnn")
    assert isinstance(encoder, SmallCNN)
    assert (encoder.size, encoder.resize) == (64, "squash")
    assert (encoder.shape.regions, encoder.shape.width, encoder.shape.grid) == (64, 128, (8, 8))
    features = encoder(images)
    assert features.values.shape == (2, 64, 128)
    assert features.grid == (8, 8)
    assert features.mask.all()
    features.values.square().mean().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_small_cnn_knows_no_batch_when_evaluated_and_no_brightness(images: Tensor) -> None:
    torch.manual_seed(0)
    encoder = SmallCNN()
    encoder.train()(images)
    together = encoder.eval()(images).values
    # the same arithmetic in another order: float32 rounding
    torch.testing.assert_close(encoder(images[1:]).values, together[1:], rtol=0, atol=1e-5)
    darker = images * 0.5
    torch.testing.assert_close(encoder(darker + 0.25).values, encoder(darker).values, rtol=0, atol=1e-4)


def test_small_cnn_tells_places_apart() -> None:
    """A spot in two places far from the border: a plain convolution would give both the same features."""
    torch.manual_seed(0)
    images = torch.zeros(2, 3, 64, 64)
    images[0, :, 26:30, 18:22] = 1
    images[1, :, 26:30, 34:38] = 1  # two regions further to the right
    maps = SmallCNN()(images).values.unflatten(1, (8, 8))
    assert not torch.allclose(maps[0, 3, 2], maps[1, 3, 4], atol=0.05)


def test_small_cnn_learns_left_and_right() -> None:
    torch.manual_seed(0)
    encoder = SmallCNN(size=32, width=32)
    head = nn.Linear(32, 1)
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(60):
        left = torch.rand(32) < 0.5
        images = torch.zeros(32, 3, 32, 32)
        for image, is_left in zip(images, left, strict=True):
            x, y = int(torch.randint(0, 10, ())) + (0 if is_left else 18), int(torch.randint(0, 28, ()))
            image[:, y : y + 4, x : x + 4] = 1
        answer = head(encoder(images).values.mean(1))[:, 0]  # the mean over regions hides where each was
        loss = nn.functional.binary_cross_entropy_with_logits(answer, left.float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1  # chance is 0.69


@pytest.mark.parametrize("options", [{"size": 60}, {"size": 0}, {"width": 100}, {"size": "64"}, {"resize": "cut"}])
def test_small_cnn_refuses(options: dict[str, object]) -> None:
    (name,) = options
    assert f"{name}=" in error_of("small_cnn", **options)


# torchvision's


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("layer", ["layer2", "layer4"])
def test_resnet_is_torchvisions_up_to_the_layer(
    resnet18: nn.Module, weights: Path, images: Tensor, tmp_path: Path, suffix: str, layer: str
) -> None:
    from torchvision.models import ResNet18_Weights

    if suffix == ".safetensors":
        save_file(resnet18.state_dict(), weights := tmp_path / "x.safetensors")
    encoder = load_encoder("resnet18", {"layer": layer, "weights": str(weights), "size": 64})
    seen: list[Tensor] = []
    hook = resnet18.get_submodule(layer).register_forward_hook(lambda module, given, made: seen.append(made))
    prepared = ResNet18_Weights.IMAGENET1K_V1.transforms(crop_size=64, resize_size=64)(images)
    with torch.no_grad():
        resnet18(prepared)
        features = encoder.train()(images)
    hook.remove()
    high, wide = seen[0].shape[2:]
    assert (encoder.shape.width, encoder.shape.grid) == (seen[0].shape[1], (high, wide))
    # the same operations on the same numbers: only the normalisation may round otherwise
    for y, x in ((0, 0), (0, wide - 1), (high - 1, 0)):
        torch.testing.assert_close(features.values[:, y * wide + x], seen[0][:, :, y, x], rtol=1e-4, atol=1e-4)


def test_given_weights_learn_but_their_statistics_rest(weights: Path, images: Tensor) -> None:
    given = load_encoder("resnet18", {"weights": str(weights), "size": 64})
    random = load_encoder("resnet18", {"weights": "none", "size": 64})
    for encoder, trains in ((given, False), (random, True)):
        for parent in (
            encoder,
            nn.Sequential(encoder).train(),
        ):  # also when a policy around it is set to train
            norms = [module for module in parent.modules() if isinstance(module, nn.BatchNorm2d)]
            assert len(norms) == 20
            assert all(norm.training == trains for norm in norms)
    before = weights_hash(given)
    given.train()(images).values.square().mean().backward()
    assert weights_hash(given) == before, "the statistics of its batch norms rest"
    assert all(parameter.grad.abs().max() > 0 for name, parameter in given.named_parameters() if "conv" in name)


@pytest.mark.parametrize(("grid", "expected"), [(4, (4, 4)), (1, None)])
def test_another_grid(images: Tensor, grid: int, expected: tuple[int, int] | None) -> None:
    options = {"weights": "none", "size": 64}
    plain, other = frozen_encoder("resnet18", options), frozen_encoder("resnet18", {**options, "grid": grid})
    features = other(images)
    assert other.shape.grid == features.grid == expected
    assert other.shape.regions == features.values.shape[1] == grid * grid
    # 4 and 1 fit into the map's 2x2, so that every region counts the same in the mean; float32 rounding
    torch.testing.assert_close(features.values.mean(1), plain(images).values.mean(1), rtol=1e-4, atol=1e-5)


def test_several_layers_are_each_as_if_it_were_the_only_one(images: Tensor) -> None:
    options = {"weights": "none", "size": 64}
    both = load_encoder("resnet18", {**options, "layers": ("layer3", "layer1")}).eval()
    features = both(images)
    assert len(features.layers) == len(both.shape.layers) == 2
    for layer, found, shape in zip(("layer1", "layer3"), features.layers, both.shape.layers, strict=True):
        alone = load_encoder("resnet18", {**options, "layer": layer}).eval()
        alone.load_state_dict({key: both.state_dict()[key] for key in alone.state_dict()})
        assert torch.equal(found.values, alone(images).values)
        assert (found.grid, shape.layers[-1].grid) == (alone.shape.grid, alone.shape.grid)
        assert (shape.regions, shape.width) == (alone.shape.regions, alone.shape.width)
    with pytest.raises(ConfigError, match="encoder resnet18: gives several layers, and a feature file holds one"):
        frozen_encoder("resnet18", {**options, "layers": ("layer3", "layer1")})


def test_all_layers_travel_together() -> None:
    first = Features(torch.ones(1, 4, 2), torch.ones(1, 4, dtype=torch.bool), (2, 2))
    there = Features(torch.ones(1, 1, 2), torch.ones(1, 1, dtype=torch.bool), earlier=(first,)).to("meta")
    tensors = [tensor for layer in there.layers for tensor in (layer.values, layer.mask)]
    assert [tensor.device.type for tensor in tensors] == ["meta"] * 4
    assert there.layers[0].grid == (2, 2)


def kept_bytes(encoder: Encoder, images: Tensor) -> int:
    """What a forward pass keeps for the gradient, weights left out."""
    weights = {tensor.data_ptr() for tensor in (*encoder.parameters(), *encoder.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        features = encoder.train()(images)
    assert features.values.requires_grad == any(parameter.requires_grad for parameter in encoder.parameters())
    return sum(kept.values())


def test_what_lies_before_train_from_is_frozen(images: Tensor) -> None:
    options = {"weights": "none", "size": 64, "layer": "layer3"}
    whole, part, none = (
        load_encoder("resnet18", {**options, "train_from": each}) for each in ("all", "layer3", "none")
    )
    before = {name: tensor.clone() for name, tensor in part.state_dict().items()}
    assert kept_bytes(none, images) == 0
    # layer3 has a quarter of the values of layer2 and an eighth of what lies before, and as many layers
    assert 0 < kept_bytes(part, images) < kept_bytes(whole, images) / 4
    optimiser = torch.optim.SGD((each for each in part.parameters() if each.requires_grad), lr=0.1)
    part(images).values.square().mean().backward()
    optimiser.step()
    changed = {name for name, tensor in part.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("body.layer3.")}, "statistics of batch norms too"


def test_vgg_by_the_names_of_its_layers() -> None:
    options = {"weights": "none", "layers": ("pool1", "conv3_2"), "train_from": "conv2_2"}
    with torch.device("meta"):
        encoder = load_encoder("vgg16", options)
    assert [(layer.grid, layer.width) for layer in encoder.shape.layers] == [((112, 112), 64), ((56, 56), 256)]
    trained = [each.requires_grad for each in encoder.parameters()]
    assert trained == [False] * 6 + [True] * 6  # a weight and a bias of conv1_1 to conv2_1, of conv2_2 to conv3_2


def test_vgg_layers_and_grids() -> None:
    with torch.device("meta"):  # shapes without numbers
        vgg16, vgg19 = load_encoder("vgg16", {"weights": "none"}), load_encoder("vgg19", {"weights": "none"})
        pooled = load_encoder("vgg16", {"weights": "none", "layer": "pool5"})
    for encoder, convolutions in ((vgg16, 13), (vgg19, 16)):
        modules = list(encoder.modules())
        assert sum(isinstance(module, nn.Conv2d) for module in modules) == convolutions
        assert isinstance(modules[-1], nn.ReLU)
        assert (encoder.shape.regions, encoder.shape.width, encoder.shape.grid) == (196, 512, (14, 14))
    assert pooled.shape.grid == (7, 7)
    names = [
        "conv1_1",
        "conv1_2",
        "pool1",
        "conv2_1",
        "conv2_2",
        "pool2",
        "conv3_1",
        "conv3_2",
        "conv3_3",
        "pool3",
    ]
    with torch.device("meta"):
        assert f"there are {', '.join(names)}, conv4_1" in error_of("vgg16", weights="none", layer="conv6_1")


def test_torchvision_options_that_are_wrong() -> None:
    assert "there are layer1, layer2, layer3, layer4" in error_of("resnet18", layer="layer5", weights="none")
    assert "no layers='layer0'" in error_of("resnet18", layers=("layer3", "layer0"), weights="none")
    assert "give one of the two" in error_of("resnet18", layer="layer3", layers=("layer2",), weights="none")
    said = error_of("resnet18", layer="layer3", train_from="layer4", weights="none")
    assert "no train_from='layer4'; there are all, none, layer1, layer2, layer3" in said
    with torch.device("meta"):
        said = error_of("vgg16", layer="conv2_1", train_from="pool1", weights="none")
    assert "no train_from='pool1'; there are all, none, conv1_1, conv1_2, conv2_1" in said
    assert "size=31: must be a whole number, 32 or more, the stride of layer4" in error_of(
        "resnet18", size=31, weights="none"
    )
    assert load_encoder("resnet18", {"size": 31, "layer": "layer3", "weights": "none"}).shape.grid == (2, 2)
    assert "did you mean 'weights'" in error_of("resnet18", wieghts="none")
    assert "nowhere.pth: no such file" in error_of("resnet18", weights="nowhere.pth")
    assert "did you mean 'resnet18'" in error_of("resnet8")


def change(state: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    match kind:
        case "unknown":
            return {**state, "layer3.6.conv1.weight": torch.zeros(1)}  # as of a deeper network
        case "missing":
            return {name: tensor for name, tensor in state.items() if name != "layer1.0.conv1.weight"}
        case "of another shape":
            return {**state, "conv1.weight": torch.zeros(64, 1, 7, 7)}
        case "headless":
            return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
        case "ten classes":
            return {**state, "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("kind", ["unknown", "missing", "of another shape"])
def test_weights_of_another_network(weights: Path, tmp_path: Path, kind: str) -> None:
    torch.save(change(torch.load(weights, weights_only=True), kind), tmp_path / "other.pth")
    said = error_of("resnet18", weights=str(tmp_path / "other.pth"), size=64)
    assert f"other.pth does not fit resnet18: 1 weights are {kind}" in said


@pytest.mark.parametrize("kind", ["headless", "ten classes", "old"])
def test_weights_that_differ_where_it_does_not_matter(weights: Path, tmp_path: Path, kind: str) -> None:
    torch.save(change(torch.load(weights, weights_only=True), kind), tmp_path / "like.pth")
    like, same = ({"weights": str(path), "size": 64} for path in (tmp_path / "like.pth", weights))
    assert weights_hash(load_encoder("resnet18", like)) == weights_hash(load_encoder("resnet18", same))


def test_files_that_are_no_weights(weights: Path, resnet18: nn.Module, tmp_path: Path) -> None:
    cut, module, part, text = (tmp_path / name for name in ("cut.pth", "module.pth", "part.pth", "x.safetensors"))
    cut.write_bytes(weights.read_bytes()[:100_000])
    torch.save(resnet18, module)
    torch.save({"epoch": 3, "state_dict": {}}, part)
    text.write_text("no weights")
    for path in (cut, module, part, text):
        said = error_of("resnet18", weights=str(path), size=64)
        assert str(path) in said
        assert "save the network's state_dict()" in said


class Intruder:
    """Unpickled carelessly, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_file_of_weights_runs_no_code(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Intruder(tmp_path / "was here")}, tmp_path / "x.pth")
    assert "cannot be read as weights" in error_of("resnet18", weights=str(tmp_path / "x.pth"), size=64)
    assert not (tmp_path / "was here").exists()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The folder where torch.hub looks for weights, behind a proxy that refuses everybody."""
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


def test_imagenet_without_network(offline: Path, weights: Path) -> None:
    file = offline / "resnet18-f37072fd.pth"
    said = error_of("resnet18", size=64)
    assert f"put it there as {file}" in said
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in said
    file.write_bytes(weights.read_bytes())
    found = load_encoder("resnet18", {"size": 64})
    assert weights_hash(found) == weights_hash(load_encoder("resnet18", {"size": 64, "weights": str(weights)}))


# Plug-ins

PLUG_INS = """
import torch
from torch import nn
from rlcap.contracts import Encoder, Features, FeatureShape

class Maps(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, width, 8, 8), nn.BatchNorm2d(width), nn.Dropout(0.5))
    def forward(self, images):
        return self.layers(images)

class Regions(Maps):
    def forward(self, images):
        return super().forward(images).flatten(2).transpose(1, 2)

class Seven(Regions):
    def forward(self, images):
        return super().forward(images)[:, :7]

class Vector(Maps):
    def __init__(self, size: int = 40, resize: str = "crop"):
        super().__init__()
    def forward(self, images):
        return super().forward(images).mean((2, 3))

class Whole(Encoder):
    size, resize, shape = 16, "crop", FeatureShape(1, 3)
    def forward(self, images):
        return Features(images.mean((2, 3))[:, None], torch.ones(len(images), 1, dtype=torch.bool))

class Flat(Maps):
    def forward(self, images):
        return super().forward(images).flatten()[:, None]

class Pair(Maps):
    def forward(self, images):
        return images, images

class Fussy(Maps):
    def forward(self, images):
        assert images.shape[-1] == 99, "99 pixels\\nplease"

def made(width: int):
    return Maps(width)

def number():
    return 3
"""


@pytest.fixture
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_encoders_for_tests.py").write_text(PLUG_INS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "shape", "size", "resize"),
    [
        ("Maps", {"size": 32}, (16, 4, (4, 4)), 32, "squash"),
        ("Maps", {"width": 6}, (784, 6, (28, 28)), 224, "squash"),
        ("Regions", {"size": 24, "resize": "crop"}, (9, 4, (3, 3)), 24, "crop"),
        ("Seven", {"size": 64}, (7, 4, None), 64, "squash"),
        ("Vector", {}, (1, 4, None), 40, "crop"),
        ("Vector", {"size": 48}, (1, 4, None), 48, "crop"),
        ("Whole", {}, (1, 3, None), 16, "crop"),
        ("made", {"width": 5, "size": 16}, (4, 5, (2, 2)), 16, "squash"),
    ],
)
@pytest.mark.usefixtures("plug_ins")
def test_plug_ins(name: str, options: dict[str, object], shape: tuple[object, ...], size: int, resize: str) -> None:
    encoder = load_encoder(f"my_encoders_for_tests:{name}", options)
    assert isinstance(encoder, Encoder)
    assert (encoder.shape.regions, encoder.shape.width, encoder.shape.grid) == shape
    assert (encoder.size, encoder.resize) == (size, resize)
    features = encoder(torch.rand(3, 3, size, size))
    assert features.values.shape == (3, *shape[:2])
    assert features.grid == shape[2]
    assert features.mask.shape == (3, shape[0])
    assert all(m.training != isinstance(m, nn.BatchNorm2d) for m in encoder.train().modules())


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("Map", {}, "did you mean 'Maps'"),
        ("Maps", {"widht": 3}, "did you mean 'width'"),
        ("Maps", {"sise": 3}, "did you mean 'size'"),
        ("Maps", {"size": 2}, "cannot be made (RuntimeError"),
        ("Maps", {"size": 0}, "size=0: must be a whole number"),
        ("Whole", {"size": 32}, "unexpected keyword argument 'size'"),
        ("Flat", {}, "must begin with the batch"),
        ("Pair", {}, "not tuple"),
        ("Fussy", {}, "99 pixels please"),
        ("made", {}, "missing 1 required positional argument: 'width'"),
        ("number", {}, "it makes a int"),
    ],
)
@pytest.mark.usefixtures("plug_ins")
def test_plug_ins_that_do_not_fit(name: str, options: dict[str, object], said: str) -> None:
    spec = f"my_encoders_for_tests:{name}"
    message = error_of(spec, **options)
    assert said in message
    assert spec in message


# What a feature file keeps


def test_the_hash_is_of_names_types_shapes_and_bytes() -> None:
    layer = nn.Linear(2, 1, bias=True)
    layer.weight.data = torch.tensor([[1.0, -2.0]])
    layer.bias.data = torch.tensor([0.5])
    layer.register_buffer("count", torch.tensor(7))
    told = (
        b"bias torch.float32 (1,)\n\x00\x00\x00\x3f"
        b"count torch.int64 ()\n\x07\0\0\0\0\0\0\0"
        b"weight torch.float32 (1, 2)\n\x00\x00\x80\x3f\x00\x00\x00\xc0"
    )
    assert weights_hash(layer) == hashlib.sha256(told).hexdigest()[:16]


def test_the_hash_is_of_values_not_of_how_they_lie_in_memory() -> None:
    encoder = SmallCNN()
    before = weights_hash(encoder)
    assert weights_hash(encoder.to(memory_format=torch.channels_last)) == before
    with torch.no_grad():
        next(encoder.parameters())[0, 0, 0, 0] += 1e-3
    assert weights_hash(encoder) != before


def test_a_frozen_encoder_is_the_same_each_time(images: Tensor) -> None:
    state = torch.get_rng_state()
    options = {"weights": "none", "size": 64}
    first, second = frozen_encoder("resnet18", options), frozen_encoder("resnet18", options)
    assert torch.equal(torch.get_rng_state(), state)
    assert weights_hash(first) == weights_hash(second) != weights_hash(load_encoder("resnet18", options))
    assert torch.equal(first(images).values, second(images).values)
    assert not first.training
    assert not any(parameter.requires_grad for parameter in first.parameters())


@pytest.mark.usefixtures("offline")
def test_weights_that_follow_are_not_fetched(weights: Path) -> None:
    exported = frozen_encoder("resnet18", {"size": 64, "weights": str(weights)})
    loaded = frozen_encoder("resnet18", {"size": 64}, weights_follow=True)
    loaded.load_state_dict(exported.state_dict())
    assert weights_hash(loaded) == weights_hash(exported)


def test_the_card(weights: Path, monkeypatch: pytest.MonkeyPatch, images: Tensor) -> None:
    monkeypatch.chdir(weights.parent)
    options = {"weights": weights.name, "size": 64, "resize": "crop"}
    encoder = frozen_encoder("resnet18", options)
    card = card_of("resnet18", options, encoder)
    assert (card.spec, card.size, card.resize, card.weights) == (
        "resnet18",
        64,
        "crop",
        weights_hash(encoder),
    )
    monkeypatch.chdir("/")
    again = frozen_encoder(card.spec, card.options)  # wherever one stands
    assert torch.equal(again(images).values, encoder(images).values)


def test_a_component_error_stays_one() -> None:
    with pytest.raises(ComponentError):
        load_encoder("no_such_module:Encoder")
    with pytest.raises(ConfigError):
        load_encoder("resnet18", {"weights": "none", "layer": "fc"})
    with pytest.raises(DataError):
        load_encoder("resnet18", {"weights": __file__})
