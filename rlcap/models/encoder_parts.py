"""What encoders share: batch norms that rest, maps that become regions, and a shape found by trial."""

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from rlcap.contracts import Encoder, Features, FeatureShape
from rlcap.errors import ComponentError, ConfigError


class Resting(Encoder):
    """An encoder made of a network that may have been trained before.

    If so, its batch norms stay in evaluation mode whatever train() says: their statistics belong to the weights,
    and a batch of a few images would spoil them.
    """

    pretrained = True

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.modules():
            if self.pretrained and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
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
        values, grid = (features := encoder.eval()(images)).values, features.grid
    encoder.train()
    if len(values) != len(images):
        raise ComponentError(f"two images gave {len(values)} rows; its output must begin with the batch")
    return FeatureShape(values.shape[1], values.shape[2], grid)


def check_size(value: Any, least: int, name: str = "size") -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name}={value!r}: must be a whole number, {least} or more")
    return value


def one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
