"""ResNets and VGGs of torchvision, up to any layer, with ImageNet's weights, other weights or none."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file as load_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from rlcap.contracts import Features
from rlcap.data.images import check_resize
from rlcap.errors import ConfigError, DataError
from rlcap.models.encoder_parts import Resting, as_features, check_size, one_line, shape_by_trial

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TorchvisionEncoder(Resting):
    """An ImageNet network of torchvision up to `layer`: the map there, (B, h·w, channels).

    `weights`: "imagenet" (the first version of torchvision's, as in the literature), "none", or the file of
    the network's state_dict (.pth, .safetensors). They train along unless they are frozen.
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
        weights_follow: bool = False,  # a run's own weights are loaded next: these need not be read
    ) -> None:
        super().__init__()
        from torchvision import models  # takes seconds, and only these encoders need it

        whole = getattr(models, self.network)(weights=None)
        layers = {name: (body, stride) for name, body, stride in _layers(whole)}
        layer = layer or self.layer
        if layer not in layers:
            raise ConfigError(f"no layer={layer!r}; there are {', '.join(layers)}")
        self.body, stride = layers[layer]
        self.size, self.resize = check_size(size, stride), check_resize(resize)
        self.grid = grid if grid is None else check_size(grid, 1, "grid")
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.pretrained = weights != "none"
        if self.pretrained and not weights_follow:
            file = _fetch_imagenet(self.network) if weights == "imagenet" else Path(weights)
            _check_weights(state := _read_weights(file), self.body, whole, f"{file} does not fit {self.network}")
            self.body.load_state_dict(state, strict=False)
        self.shape = shape_by_trial(self)

    def forward(self, images: Tensor) -> Features:
        maps = self.body((images - self.mean) / self.std)
        return as_features(maps if self.grid is None else F.adaptive_avg_pool2d(maps, self.grid))


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
                f"the ImageNet weights cannot be downloaded ({one_line(error)}); fetch {url} "
                f"elsewhere and put it there as {file}, or set weights to its path, or to 'none'"
            ) from error
    return file


def _read_weights(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise ConfigError(f"weights={file}: no such file; give imagenet, none, or a .pth or .safetensors file")
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
            raise DataError(f"{problem}: {len(names)} weights are {what}, such as '{names[0]}'; name the right encoder")
