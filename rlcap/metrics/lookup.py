"""Hash tables over integer keys that answer a whole tensor of them in one round, on any device.

Both are perfect hashes (Belazzougui et al. 2009, "Hash, displace, and compress"): keys fall into small groups, and each
group has a number, chosen when the table was made, that sends its keys to places of their own. So a look-up reads
that number and one place, never searches, and is exact: the place says which key it belongs to.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]
Places = NDArray[np.int32]
LOAD = 0.8  # the largest share of places that are taken
TRIES = 10_000  # numbers for a group, before its table gives up
LOWER_HALF = (1 << 32) - 1
HASH = 44  # a sectioned table's places come from the product's bits above this one


@dataclass(frozen=True)
class Lookup:
    """64-bit keys -> values.

    A key is folded, that its upper half count in all of the product, and multiplied by an odd number mod 2^64: no two
    keys give one product. The top `bits` of it are the key's home, the next its group. Its place is home XOR the
    group's displacement. There stand the product's other bits, which together with the place tell the key, and the
    value.
    """

    multiplier: int
    bits: int  # there are 2^bits places
    group_bits: int
    displacements: Tensor  # (groups,) int32
    places: Tensor  # (2^bits,) int64
    absent: int  # larger than every value

    def find(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """The place of each key, and its value: 0 or `absent` where the table does not hold it. Shapes are kept."""
        product = (keys >> 32).bitwise_and_(LOWER_HALF).bitwise_xor_(keys).mul_(self.multiplier)
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
        """Of keys and their values, 1 or more."""
        if (np.diff(np.sort(keys)) == 0).any():
            raise ValueError("a key stands twice")
        absent = int(values.max(initial=0)) + 1
        needed = int(len(keys) / LOAD) + 1
        bits = max(1, needed.bit_length(), absent.bit_length())
        group_bits = max(1, needed.bit_length() - 1)
        random = np.random.default_rng(0)
        while True:
            multiplier = int(random.integers(-(1 << 62), 1 << 62)) * 2 + 1
            product = (((keys >> 32) & LOWER_HALF) ^ keys) * np.int64(multiplier)
            home, group = _field(product, 0, bits), _field(product, bits, group_bits)
            displacements = _displacements(home, group, bits, group_bits, random)
            if displacements is not None:
                break
        places = np.zeros(1 << bits, np.int64)
        places[home ^ displacements[group]] = (product << bits) | values
        return Lookup(multiplier, bits, group_bits, torch.from_numpy(displacements), torch.from_numpy(places), absent)


@dataclass(frozen=True)
class Sections:
    """Keys from 1 to 2^key_bits - 1 -> values, in many sections (one an image), each a stretch of 2^k places.

    What one section holds lies together in memory, so that a batch of few images touches few pages. The place is
    the bits above HASH of key · multiplier of the group; the key itself stands there, and the value.
    """

    key_bits: int
    sections: Tensor  # (2, sections) int64: first place, places - 1; a quarter as many groups
    multipliers: Tensor  # (places / 4,) int64, odd: of each group
    places: Tensor  # int64
    absent: int

    def find(self, keys: Tensor, section: Tensor) -> Tensor:
        """Of keys (…, K) in the sections (K,): their values; 0 or `absent` for what is not there."""
        first, mask = (each.index_select(0, section) for each in self.sections)
        group = (keys & (mask >> 2)).add_(first >> 2)
        product = self.multipliers.index_select(0, group.view(-1)).view(keys.shape).mul_(keys)
        place = product.bitwise_right_shift_(HASH).bitwise_and_(mask).add_(first)
        word = self.places.index_select(0, place.view(-1)).view(keys.shape)
        return word.bitwise_xor_(keys << (63 - self.key_bits)).clamp_(0, self.absent)

    @property
    def nbytes(self) -> int:
        return self.sections.nbytes + self.multipliers.nbytes + self.places.nbytes

    def to(self, device: torch.device) -> "Sections":
        sections, multipliers = self.sections.to(device), self.multipliers.to(device)
        return Sections(self.key_bits, sections, multipliers, self.places.to(device), self.absent)


class SectionsBuilder:
    """Sections, added some at a time and in order."""

    def __init__(self, key_bits: int) -> None:
        self._key_bits = key_bits
        self._random = np.random.default_rng(0)
        self._parts: list[tuple[Ints, Ints, Ints]] = []
        self._places = 0
        self._absent = 1

    def add(self, section: Ints, keys: Ints, values: Ints, sections: int) -> None:
        """The keys of the next `sections` sections, in any order; in each, all keys differ. Values from 1 on."""
        if keys.min(initial=1) < 1:
            raise ValueError("a key is 0 or less: no multiplier could move it from its place")
        needed = np.bincount(section, minlength=sections) / LOAD
        sizes = 1 << np.maximum(2, np.ceil(np.log2(needed.clip(1))).astype(np.int64))
        first, mask = sizes.cumsum() - sizes, sizes - 1
        group = (first[section] >> 2) + (keys & (mask[section] >> 2))
        order = group.argsort()
        section, keys, values = section[order], keys[order], values[order]
        multipliers, place = self._placed(group[order], keys, first[section], mask[section], int(sizes.sum()))
        places = np.zeros(int(sizes.sum()), np.int64)
        places[place] = (keys << (63 - self._key_bits)) | values
        first += self._places
        self._parts.append((np.stack([first, mask]), multipliers, places))
        self._places += len(places)
        self._absent = max(self._absent, int(values.max(initial=0)) + 1)

    def done(self) -> Sections:
        sections, multipliers, places = (
            torch.from_numpy(np.concatenate(parts, -1)) for parts in zip(*self._parts, strict=True)
        )
        return Sections(self._key_bits, sections, multipliers, places, self._absent)

    def _placed(self, group: Ints, keys: Ints, first: Ints, mask: Ints, total: int) -> tuple[Ints, Ints]:
        """The multiplier of each group, the largest groups first, and the place of each key."""
        sizes = np.bincount(group, minlength=total >> 2)
        begin = sizes.cumsum() - sizes
        multipliers = np.ones(total >> 2, np.int64)
        place = np.zeros(len(keys), np.int64)
        taken = np.zeros(total, np.bool_)
        claims = np.zeros(total, np.int32)
        for size in range(int(sizes.max(initial=0)), 0, -1):
            waiting = np.flatnonzero(sizes == size)
            for _ in range(TRIES):
                if not len(waiting):
                    break
                members = begin[waiting, None] + np.arange(size)
                multiplier = self._random.integers(-(1 << 62), 1 << 62) * 2 + 1
                tried = first[members] + ((keys[members] * multiplier >> HASH) & mask[members])
                claims[tried] = members  # of several claims on a place one stands
                won = ((claims[tried] == members) & ~taken[tried]).all(1)
                taken[tried[won]] = True
                place[members[won]] = tried[won]
                multipliers[waiting[won]] = multiplier
                waiting = waiting[~won]
            else:
                raise ValueError("too many keys of one section have the same low bits")
        return multipliers, place


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
