"""Uniform numbers that depend on what they are for, not on the batch that they are drawn in.

Each is a hash of (seed, update, image, sample, word, stream), so the same image gets the same sample alone or in
a batch, on one process or on several, on CPU or GPU.
"""

import torch
from torch import Tensor

# The finaliser of SplitMix64 (Steele, Lea & Flood 2014), as signed 64-bit integers, which wrap around in torch.
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)
_BITS = 23  # (k + 0.5) / 2^23 is exact in float32, and never 0 or 1


def keyed_uniforms(seed: int, update: int, images: Tensor, samples: int, words: int, streams: int = 1) -> Tensor:
    """images (B,) integer keys -> (B, samples, words, streams) float32 in (0, 1), on the device of `images`."""
    device = images.device
    state = _mix(torch.tensor(seed, dtype=torch.int64, device=device) + _STEP)
    state = _mix(state + update * 2 + 1)
    state = _mix(state + images.long() * 2 + 1)
    for size in (samples, words, streams):
        key = torch.arange(size, device=device) * 2 + 1
        state = _mix(state[..., None] + key * _STEP)
    return (_shift_right(state, 64 - _BITS).float() + 0.5) / (1 << _BITS)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """A logical shift: torch's own is arithmetic on signed integers."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
