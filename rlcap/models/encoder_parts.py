"""What encoders share: batch norms that rest, maps that become regions, and a shape found by trial."""

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from rlcap.contracts import Encoder, Features, FeatureShape
from rlcap.errors import ComponentError, ConfigError


class Resting(Encoder):
    """An encoder made of a network that may have been trained before, or is frozen in part.

    Batch norms of such weights stay in evaluation mode whatever train() says: their statistics belong to the
    weights, and a batch of a few images would spoil them.
    """

    pretrained = True

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                frozen = not any(parameter.requires_grad for parameter in module.parameters())
                module.train(mode and not self.pretrained and not frozen)
        return self


def as_features(output: Any) -> Features:
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


def shape_by_trial(encoder: Encoder) -> FeatureShape:
    """What comes out for two black images. Leaves the encoder in training mode, as a new module is."""
    device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    images = torch.zeros(2, 3, encoder.size, encoder.size, device=device)
    with torch.no_grad():
        features: Features = encoder.eval()(images)
    encoder.train()
    if features.images != len(images):
        raise ComponentError(f"two images gave {features.images} rows; its output must begin with the batch")
    return _shape_of(features)


def _shape_of(features: Features) -> FeatureShape:
    regions, width = features.values.shape[1:]
    return FeatureShape(regions, width, features.grid, tuple(_shape_of(each) for each in features.earlier))


def check_size(value: Any, least: int, name: str = "size", why: str = "") -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name}={value!r}: must be a whole number, {least} or more{why}")
    return value


def one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
