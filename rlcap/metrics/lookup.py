"""A hash table over int64 keys that answers a whole tensor of them in one round, on any device.

A key is multiplied by an odd number (mod 2^64, which is invertible): the top `bits` of the product give its home,
the next bits its group, and every group has a displacement that was chosen when the table was made so that
home XOR displacement is free for each of its keys (hash and displace: Belazzougui et al. 2009). A place holds one
word: the rest of the product, which together with the place says which key it is, and the key's value. So a look-up
reads two numbers, never searches, and is exact for any 64-bit key.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]
Places = NDArray[np.int32]
LOAD = 0.8  # the largest share of places that are taken
TRIES = 10_000  # displacements for a group, before another multiplier is chosen


@dataclass(frozen=True)
class Lookup:
    multiplier: int
    bits: int  # there are 2^bits places
    group_bits: int
    displacements: Tensor  # (groups,) int32
    places: Tensor  # (2^bits,) int64
    absent: int  # larger than every value

    def find(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """The place of each key, and its value: 0 or `absent` where the table does not hold it. Shapes are kept."""
        product = keys * self.multiplier
        group = (product >> (64 - self.bits - self.group_bits)).bitwise_and_((1 << self.group_bits) - 1)
        place = (product >> (64 - self.bits)).bitwise_and_((1 << self.bits) - 1)
        place.bitwise_xor_(self.displacements.index_select(0, group.view(-1)).view_as(keys))
        word = self.places.index_select(0, place.view(-1)).view_as(keys)
        # The right word differs from the key's in its low bits only, which hold the value.
        value = product.bitwise_left_shift_(self.bits).bitwise_xor_(word).clamp_(0, self.absent)
        return place, value

    @property
    def nbytes(self) -> int:
        return self.displacements.nbytes + self.places.nbytes

    def to(self, device: torch.device) -> "Lookup":
        displacements, places = self.displacements.to(device), self.places.to(device)
        return Lookup(self.multiplier, self.bits, self.group_bits, displacements, places, self.absent)

    @staticmethod
    def build(keys: Ints, values: Ints) -> "Lookup":
        """Of distinct keys and their values, 1 or more."""
        absent = int(values.max(initial=0)) + 1
        needed = int(len(keys) / LOAD) + 1
        bits = max(1, needed.bit_length(), absent.bit_length())
        group_bits = max(1, needed.bit_length() - 1)
        random = np.random.default_rng(0)
        while True:
            multiplier = int(random.integers(-(1 << 62), 1 << 62)) * 2 + 1
            product = keys * np.int64(multiplier)
            home, group = _field(product, 0, bits), _field(product, bits, group_bits)
            displacements = _displacements(home, group, bits, group_bits, random)
            if displacements is not None:
                break
        places = np.zeros(1 << bits, np.int64)
        places[home ^ displacements[group]] = (product << bits) | values
        return Lookup(multiplier, bits, group_bits, torch.from_numpy(displacements), torch.from_numpy(places), absent)


def _field(product: Ints, skipped: int, width: int) -> Ints:
    """`width` bits of each product, below the `skipped` top ones."""
    field: Ints = (product >> (64 - skipped - width)) & ((1 << width) - 1)
    return field


def _displacements(home: Ints, group: Ints, bits: int, group_bits: int, random: np.random.Generator) -> Places | None:
    """Of each group, the largest groups first; None if two keys of a group have one home, or luck runs out."""
    order = ((group << bits) | home).argsort()
    home, group = home[order], group[order]
    if ((np.diff(group) == 0) & (np.diff(home) == 0)).any():
        return None
    sizes = np.bincount(group, minlength=1 << group_bits)
    first = sizes.cumsum() - sizes  # of each group's keys
    chosen = np.zeros(1 << group_bits, np.int32)
    taken = np.zeros(1 << bits, np.bool_)
    claims = np.zeros(1 << bits, np.int32)
    for size in range(int(sizes.max()), 1, -1):
        waiting = np.flatnonzero(sizes == size)
        for _ in range(TRIES):
            if not len(waiting):
                break
            tried = random.integers(0, 1 << bits, len(waiting))
            places = home[first[waiting, None] + np.arange(size)] ^ tried[:, None]
            free = ~taken[places].any(1)
            owners, places, tried = waiting[free], places[free], tried[free]
            claims[places] = owners[:, None]  # of several claims on a place one stands
            won = (claims[places] == owners[:, None]).all(1)
            taken[places[won]] = True
            chosen[owners[won]] = tried[won]
            waiting = np.concatenate([waiting[~free], owners[~won]])
        else:
            return None
    alone = np.flatnonzero(sizes == 1)
    chosen[alone] = np.flatnonzero(~taken)[: len(alone)] ^ home[first[alone]]
    return chosen
