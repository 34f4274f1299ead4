"""Encoders: images in [0, 1] -> Features. A small one, torchvision's, and any nn.Module as a plug-in.

Where the weights were trained before, batch norms stay in evaluation mode whatever train() says: their
statistics belong to the weights, and a batch of a few images would spoil them.
"""

import hashlib
import inspect
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import load_file as load_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from rlcap.components import find
from rlcap.contracts import Encoder, Features, FeatureShape
from rlcap.data.features import EncoderCard
from rlcap.data.images import check_resize
from rlcap.errors import ComponentError, ConfigError, DataError, RlcapError, did_you_mean

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLUG_IN_OPTIONS = ("size", "resize")
SEED = 0  # of the weights of a frozen encoder that has none: the same each time it is made


class SmallCNN(Encoder):
    """For the made-up scenes, trained along with the captioner: (size/8)² regions.

    Coordinate channels (Liu et al. 2018, arXiv:1807.03247) tell it where things are, for "left of". Group
    norm knows no batch: an image has the same features in training and evaluation, in a batch of any size.
    """

    stride = 8

    def __init__(self, *, size: int = 64, width: int = 128, resize: str = "squash") -> None:
        super().__init__()
        self.size, self.resize = _check_size(size, self.stride), check_resize(resize)
        if size % self.stride or width < 32 or width % 32:
            raise ConfigError(
                f"size={size}, width={width}: must be a multiple of {self.stride}, and one of 32"
            )
        side = size // self.stride
        self.shape = FeatureShape(side * side, width, (side, side))
        self.halve = nn.Sequential(
            _conv(3 + 2, width // 8, stride=2),
            _conv(width // 8, width // 4, stride=2),
            _conv(width // 4, width // 2, stride=2),
        )
        self.last = _conv(width // 2 + 2, width, stride=1)

    def forward(self, images: Tensor) -> Features:
        maps = self.last(_with_coordinates(self.halve(_with_coordinates(images * 2 - 1))))
        return _as_features(maps)


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(4, outputs), nn.ReLU())


def _with_coordinates(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C + 2, h, w): how far right and how far down each place lies, from -1 to 1."""
    batch, _, high, wide = maps.shape
    right = torch.linspace(-1, 1, wide, device=maps.device, dtype=maps.dtype).expand(batch, 1, high, wide)
    down = torch.linspace(-1, 1, high, device=maps.device, dtype=maps.dtype)[:, None].expand(
        batch, 1, high, wide
    )
    return torch.cat([maps, right, down], 1)


class Resting(Encoder):
    """An encoder made of a network that may have been trained before."""

    pretrained = True

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.modules():
            if self.pretrained and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


class TorchvisionEncoder(Resting):
    """An ImageNet network of torchvision up to `layer`: the map there, (B, h·w, channels).

    `weights`: "imagenet" (the first version of torchvision's, as in the literature), "none", or the file of
    the network's state_dict (.pth, .safetensors). Given weights are frozen: they ask for no gradient.
    `grid` averages or repeats the map to grid x grid regions; 1 gives one vector an image.
    """

    network: ClassVar[str]  # in torchvision.models
    layer: ClassVar[str]  # unless another is named
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        layer: str | None = None,
        weights: str = "imagenet",
        size: int = 224,
        resize: str = "squash",
        grid: int | None = None,
    ) -> None:
        super().__init__()
        from torchvision import models  # takes seconds, and only these encoders need it

        whole = getattr(models, self.network)(weights=None)
        layers = {name: (body, stride) for name, body, stride in _layers(whole)}
        layer = layer or self.layer
        if layer not in layers:
            raise ConfigError(f"no layer={layer!r}; there are {', '.join(layers)}")
        self.body, stride = layers[layer]
        self.size, self.resize = _check_size(size, stride), check_resize(resize)
        self.grid = grid if grid is None else _check_size(grid, 1, "grid")
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.pretrained = weights != "none"
        if self.pretrained:
            file = _fetch_imagenet(self.network) if weights == "imagenet" else Path(weights)
            _check_weights(
                state := _read_weights(file), self.body, whole, f"{file} does not fit {self.network}"
            )
            self.body.load_state_dict(state, strict=False)
            self.requires_grad_(False)
        self.shape = _shape_by_trial(self)

    def forward(self, images: Tensor) -> Features:
        maps = self.body((images - self.mean) / self.std)
        return _as_features(maps if self.grid is None else F.adaptive_avg_pool2d(maps, self.grid))


class ResNet18(TorchvisionEncoder):
    network, layer = "resnet18", "layer4"


class ResNet50(TorchvisionEncoder):
    network, layer = "resnet50", "layer4"


class ResNet101(TorchvisionEncoder):
    network, layer = "resnet101", "layer4"


class VGG16(TorchvisionEncoder):
    network, layer = "vgg16", "conv5_3"


class VGG19(TorchvisionEncoder):
    """At conv5_4, before its pooling: the 14x14x512 map of Xu et al. 2015."""

    network, layer = "vgg19", "conv5_4"


def _layers(network: nn.Module) -> Iterator[tuple[str, nn.Sequential, int]]:
    """Of a ResNet or VGG: each layer's name, the network up to it (weights named as before), its stride."""
    features = getattr(network, "features", None)
    if features is None:
        children = list(network.named_children())
        for place, (name, _) in enumerate(children):
            if name.startswith("layer"):
                yield name, nn.Sequential(OrderedDict(children[: place + 1])), 2 ** (int(name[-1]) + 1)
        return
    block, convolution = 1, 0
    for place, module in enumerate(features):
        body = nn.Sequential(OrderedDict(features=features[: place + 1]))
        if isinstance(module, nn.ReLU):
            convolution += 1
            yield f"conv{block}_{convolution}", body, 2 ** (block - 1)
        elif isinstance(module, nn.MaxPool2d):
            yield f"pool{block}", body, 2**block
            block, convolution = block + 1, 0


def _fetch_imagenet(network: str) -> Path:
    """Where torch.hub keeps the weights; they are downloaded if they are not there."""
    from torchvision import models

    url: str = models.get_model_weights(network)["IMAGENET1K_V1"].url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rpartition("-")[2])
        except (OSError, HTTPException, RuntimeError) as error:
            raise DataError(
                f"the ImageNet weights cannot be downloaded ({_one_line(error)}); fetch {url} "
                f"elsewhere and put it there as {file}, or set weights to its path, or to 'none'"
            ) from error
    return file


def _read_weights(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise ConfigError(
            f"weights={file}: no such file; give imagenet, none, or a .pth or .safetensors file"
        )
    try:
        if file.suffix == ".safetensors":
            state = load_safetensors(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip, torch and safetensors each have errors of their own
        raise DataError(
            f"{file}: cannot be read as weights ({type(error).__name__}); it may be cut short, or hold more "
            "than tensors: save the network's state_dict() with torch.save or safetensors"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise DataError(f"{file}: holds more than tensors; save the network's state_dict() alone")
    return state


def _check_weights(state: Mapping[str, Tensor], body: nn.Module, whole: nn.Module, problem: str) -> None:
    """Weights behind the layer are passed over, if the network has them; old files count no batches."""
    own, known = body.state_dict(), whole.state_dict()
    unknown = [name for name in state if name not in known]
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unlike = [name for name in own if name in state and own[name].shape != state[name].shape]
    for what, names in (("unknown", unknown), ("missing", missing), ("of another shape", unlike)):
        if names:
            raise DataError(
                f"{problem}: {len(names)} weights are {what}, such as '{names[0]}'; name the right encoder"
            )


class PlugIn(Resting):
    """Any nn.Module that turns images in [0, 1] into (B, D, h, w), (B, R, D) or (B, D).

    It cannot say its `size`, so the user does. A square number of regions R is taken for a grid, row by row.
    """

    def __init__(self, module: nn.Module, size: int = 224, resize: str = "squash") -> None:
        super().__init__()
        self.module = module
        self.size, self.resize = _check_size(size, 1), check_resize(resize)
        self.shape = _shape_by_trial(self)

    def forward(self, images: Tensor) -> Features:
        return _as_features(self.module(images))


def _as_features(output: Any) -> Features:
    if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4):
        what = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ComponentError(f"its output must be (B, D, h, w), (B, R, D) or (B, D), not {what}")
    grid: tuple[int, int] | None = None
    if output.ndim == 4:
        grid = (output.shape[2], output.shape[3])
        output = output.flatten(2).transpose(1, 2)
    elif output.ndim == 3:
        side = math.isqrt(output.shape[1])
        grid = (side, side) if side * side == output.shape[1] else None
    else:
        output = output[:, None]
    mask = torch.ones(output.shape[:2], dtype=torch.bool, device=output.device)
    return Features(output, mask, grid if output.shape[1] > 1 else None)


def _shape_by_trial(encoder: Encoder) -> FeatureShape:
    """What comes out for two black images. Leaves the encoder in training mode, as a new module is."""
    device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    images = torch.zeros(2, 3, encoder.size, encoder.size, device=device)
    with torch.no_grad():
        values, grid = (features := encoder.eval()(images)).values, features.grid
    encoder.train()
    if len(values) != len(images):
        raise ComponentError(f"two images gave {len(values)} rows; its output must begin with the batch")
    return FeatureShape(values.shape[1], values.shape[2], grid)


def _check_size(value: Any, least: int, name: str = "size") -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name}={value!r}: must be a whole number, {least} or more")
    return value


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def load_encoder(spec: str, options: Mapping[str, Any] | None = None) -> Encoder:
    """By a short name or `module:Name`. A plain nn.Module becomes a PlugIn, and takes its options too."""
    make = find("encoder", spec)
    signature = inspect.signature(make)
    inner, outer = dict(options or {}), {}
    known = set(signature.parameters)
    if not (isinstance(make, type) and issubclass(make, Encoder)):
        outer = {name: inner.pop(name) for name in PLUG_IN_OPTIONS if name in inner and name not in known}
        known.update(PLUG_IN_OPTIONS)
    unknown = [name for name in inner if name not in known]
    if unknown and not any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values()):
        raise ConfigError(f"encoder {spec}: has no option '{unknown[0]}'{did_you_mean(unknown[0], known)}")
    try:
        made = make(**inner)
        if isinstance(made, Encoder):
            return made
        if not isinstance(made, nn.Module):
            raise ComponentError(f"it makes a {type(made).__name__}, not an nn.Module")
        taken = signature.bind(**inner)
        taken.apply_defaults()
        outer |= {name: taken.arguments[name] for name in PLUG_IN_OPTIONS if name in taken.arguments}
        return PlugIn(made, **outer)
    except RlcapError as error:
        raise type(error)(f"encoder {spec}: {error}") from error
    except Exception as error:
        raise ComponentError(
            f"encoder {spec}: cannot be made ({_one_line(error)}); see its options"
        ) from error


def frozen_encoder(spec: str, options: Mapping[str, Any], weights_follow: bool = False) -> Encoder:
    """To extract features with: no gradient, and the same each time even if the weights are random.

    `weights_follow`: a state_dict is loaded afterwards, so torchvision's weights need not be at hand.
    """
    make = find("encoder", spec)
    if weights_follow and isinstance(make, type) and issubclass(make, TorchvisionEncoder):
        options = {**options, "weights": "none"}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        return load_encoder(spec, options).eval().requires_grad_(False)


def weights_hash(encoder: nn.Module) -> str:
    """Of all parameters and buffers in the order of their names; the same on every device."""
    digest = hashlib.sha256()
    tensors = {**dict(encoder.named_parameters()), **dict(encoder.named_buffers())}
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def card_of(spec: str, options: Mapping[str, Any], encoder: Encoder) -> EncoderCard:
    """What a feature file keeps of its encoder; a file of weights by its full path."""
    kept = dict(options)
    if isinstance(kept.get("weights"), str) and Path(kept["weights"]).is_file():
        kept["weights"] = str(Path(kept["weights"]).resolve())
    return EncoderCard(spec, kept, encoder.size, encoder.resize, weights_hash(encoder))
