"""ResNets and VGGs of torchvision, up to any layer, with ImageNet's weights, other weights or none."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlcap.contracts import Features
from rlcap.data.images import check_resize
from rlcap.errors import ConfigError
from rlcap.models.encoder_parts import Resting, as_features, check_size, shape_by_trial
from rlcap.models.pretrained import check_weights, fetch_weights, read_weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TorchvisionEncoder(Resting):
    """An ImageNet network of torchvision up to `layer`: the map there, (B, h·w, channels).

    `layers` names several instead: Features of the last of them, with the earlier ones. `grid` averages or repeats
    each map to grid x grid regions; 1 gives one vector an image.
    `weights`: "imagenet" (the first version of torchvision's, as in the literature), "none", or the file of
    the network's state_dict (.pth, .safetensors).
    `train_from`: what is trained along with a policy: "all", "none", or from the beginning of a layer on. What lies
    before is frozen, and neither computes gradients nor keeps what they would need.
    """

    network: ClassVar[str]  # in torchvision.models
    layer: ClassVar[str]  # unless another is named
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        layer: str | None = None,
        layers: tuple[str, ...] = (),
        weights: str = "imagenet",
        train_from: str = "all",
        size: int = 224,
        resize: str = "squash",
        grid: int | None = None,
        weights_follow: bool = False,  # a run's own weights are loaded next: these need not be read
    ) -> None:
        super().__init__()
        from torchvision import models  # takes seconds, and only these encoders need it

        if layer and layers:
            raise ConfigError(f"layer={layer!r} and layers={list(layers)}: give one of the two")
        whole = getattr(models, self.network)(weights=None)
        known = _layers(whole)
        names = layers or (layer or self.layer,)
        for name in names:
            if name not in known:
                option = "layers" if layers else "layer"
                raise ConfigError(f"no {option}={name!r}; there are {', '.join(known)}")
        deepest = max(names, key=lambda name: known[name].end)
        last = known[deepest]
        self.ends = {known[name].end for name in names}
        self.body = _up_to(whole, last.end)
        self._freeze(train_from, {name: each for name, each in known.items() if each.end <= last.end})
        self.size = check_size(size, last.stride, why=f", the stride of {deepest}")
        self.resize = check_resize(resize)
        self.grid = grid if grid is None else check_size(grid, 1, "grid")
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        self.pretrained = weights != "none"
        if self.pretrained and not weights_follow:
            file = Path(weights)
            if weights == "imagenet":
                file = fetch_weights(self.network, "IMAGENET1K_V1", "ImageNet")
            state = read_weights(file, "imagenet")
            check_weights(state, self.body, whole, f"{file} does not fit {self.network}")
            self.body.load_state_dict(state, strict=False)
        self.shape = shape_by_trial(self)

    def forward(self, images: Tensor) -> Features:
        maps, seen = (images - self.mean) / self.std, []
        for place, module in enumerate(_chain(self.body), 1):
            maps = module(maps)
            if place in self.ends:
                seen.append(as_features(maps if self.grid is None else F.adaptive_avg_pool2d(maps, self.grid)))
        return replace(seen[-1], earlier=tuple(seen[:-1]))

    def _freeze(self, train_from: str, layers: Mapping[str, "_Layer"]) -> None:
        chain = _chain(self.body)
        trainable = {name: layer.begin for name, layer in layers.items() if layer.learns}
        begins = {"all": 0, "none": len(chain), **trainable}
        if train_from not in begins:
            raise ConfigError(f"no train_from={train_from!r}; there are {', '.join(begins)}")
        for module in chain[: begins[train_from]]:
            module.requires_grad_(False)


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


@dataclass(frozen=True)
class _Layer:
    begin: int  # its modules along the chain
    end: int
    stride: int
    learns: bool = True  # it has weights


def _chain(network: nn.Module) -> list[nn.Module]:
    """What a ResNet, a VGG's convolutions, or the beginning of either does one after the other."""
    return list(getattr(network, "features", network).children())


def _up_to(network: nn.Module, end: int) -> nn.Sequential:
    """The beginning of the chain, its weights named as before."""
    features = getattr(network, "features", None)
    if features is None:
        return nn.Sequential(OrderedDict(list(network.named_children())[:end]))
    return nn.Sequential(OrderedDict(features=features[:end]))


def _layers(network: nn.Module) -> dict[str, _Layer]:
    """Of a ResNet or VGG, in order."""
    if not hasattr(network, "features"):
        names = [name for name, _ in network.named_children()]
        places = {name: place for place, name in enumerate(names) if name.startswith("layer")}
        return {name: _Layer(place, place + 1, 2 ** (int(name[-1]) + 1)) for name, place in places.items()}
    found: dict[str, _Layer] = {}
    begin, block, convolution = 0, 1, 0
    for end, module in enumerate(_chain(network), 1):
        if isinstance(module, nn.ReLU):
            convolution += 1
            found[f"conv{block}_{convolution}"] = _Layer(begin, end, 2 ** (block - 1))
            begin = end
        elif isinstance(module, nn.MaxPool2d):
            found[f"pool{block}"] = _Layer(begin, end, 2**block, learns=False)
            begin, block, convolution = end, block + 1, 0
    return found
