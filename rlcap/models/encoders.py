"""Encoders by name: those of the table, and any nn.Module as a plug-in; and what tells one from another."""

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlcap.components import find
from rlcap.contracts import Encoder, Features
from rlcap.data.features import EncoderCard
from rlcap.data.images import check_resize
from rlcap.errors import ComponentError, ConfigError, RlcapError, did_you_mean
from rlcap.models.encoder_parts import Resting, as_features, check_size, one_line, shape_by_trial

PLUG_IN_OPTIONS = ("size", "resize")
SEED = 0  # of the weights of a frozen encoder that has none: the same each time it is made


class PlugIn(Resting):
    """Any nn.Module that turns images in [0, 1] into (B, D, h, w), (B, R, D) or (B, D).

    It cannot say its `size`, so the user does. A square number of regions R is taken for a grid, row by row.
    """

    def __init__(self, module: nn.Module, size: int = 224, resize: str = "squash") -> None:
        super().__init__()
        self.module = module
        self.size, self.resize = check_size(size, 1), check_resize(resize)
        self.shape = shape_by_trial(self)

    def forward(self, images: Tensor) -> Features:
        return as_features(self.module(images))


def load_encoder(spec: str, options: Mapping[str, Any] | None = None, weights_follow: bool = False) -> Encoder:
    """By a short name or `module:Name`. A plain nn.Module becomes a PlugIn, and takes its options too.

    `weights_follow`: a state_dict is loaded afterwards, so an encoder that knows this word needs no weights of others.
    """
    make = find("encoder", spec)
    signature = inspect.signature(make)
    if weights_follow and "weights_follow" in signature.parameters:
        options = {**(options or {}), "weights_follow": True}
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
        raise ComponentError(f"encoder {spec}: cannot be made ({one_line(error)}); see its options") from error


def frozen_encoder(spec: str, options: Mapping[str, Any], weights_follow: bool = False) -> Encoder:
    """To extract features with: no gradient, and the same each time even if the weights are random."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        encoder = load_encoder(spec, options, weights_follow).eval().requires_grad_(False)
    if encoder.shape.earlier:
        raise ConfigError(
            f"encoder {spec}: gives several layers, and a feature file holds one; name one layer, or let pictures "
            "(--encoder pixels) be seen while a policy is trained"
        )
    return encoder


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
