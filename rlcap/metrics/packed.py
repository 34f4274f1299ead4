"""References as tensors: the n-grams of whole batches counted, weighed and matched without a loop over captions.

Words have numbers: 1 for a word that no reference has, and from 2 on the words of the references and of the document
frequencies. A reference's word outside the vocabulary has a number of its own, so that no candidate can match it.

The key of an n-gram (a, b, c) is (a·P + b)·P + c in 64 bits. Up to 65,534 words P = 2^16, and the key is exact. Beyond,
P is a random odd number for which the data set's own n-grams all have different keys; then only an n-gram that the
data set does not know can be taken for a known one, with a probability of (n-grams known) / 2^64.

The *repeat* of a place is how often its n-gram stood before in the caption. It turns sums over distinct n-grams into
sums over places: Σ (count·w)² = Σ (2·repeat + 1)·w², and a count clipped to k is the number of places with repeat < k.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rlcap.contracts import Candidates
from rlcap.metrics.lookup import Lookup, Sections
from rlcap.metrics.ngrams import ORDERS


@dataclass(frozen=True)
class Matches:
    """The n-gram of each order that begins at each word of each caption; (4, T, B·N) but for `lengths`."""

    rows: Tensor  # repeat · patterns + pattern: a row of a PatternTable
    rarities: Tensor  # a row of PackedReferences.squared_idf
    inside: Tensor  # 1.0 where the n-gram ends within the caption, else 0.0
    lengths: Tensor  # (B, N): words that count, as the scores' dtype


@dataclass(frozen=True)
class PackedReferences:
    """What BLEU and CIDEr know of the references of a split."""

    end_token: bool
    end: int
    factor: int  # P
    numbers: Tensor  # (V,): the number of each token id
    ngrams: Lookup  # key of an n-gram -> its rarity; its place there is its name
    matches: Sections  # of each image: rarity and name of an n-gram -> the pattern of its counts in the references
    squared_idf: Tensor  # (rarities + 2,); the first and the last are an unknown n-gram's
    counts: Tensor  # (patterns + 2, R): how often an n-gram stands in each reference; first and last: in none
    lengths: Tensor  # (images, R): words of each reference; -1 where an image has fewer
    norms: Tensor  # (images, 4, R): of the weighted counts of each order; 0 where an image has fewer

    @property
    def nbytes(self) -> int:
        tensors = (self.numbers, self.squared_idf, self.counts, self.lengths, self.norms)
        return self.ngrams.nbytes + self.matches.nbytes + sum(tensor.nbytes for tensor in tensors)

    def match(self, candidates: Candidates) -> Matches:
        words, lengths = candidates.words.flatten(0, 1), candidates.lengths.flatten()
        if words.device.type == "cpu":  # elsewhere, to ask for the longest would be to wait for the device
            words = words[:, : max(1, int(lengths.max()))]
        # Captions stand side by side, so that each step of an n-gram is one stretch of memory. What stands behind a
        # caption's length does not count, but has to be some word; the last n-grams need room.
        padded = F.pad(words.t(), (0, 0, 0, ORDERS - 1)).clamp_(0, len(self.numbers) - 1)
        words = padded[: words.shape[1]]
        if not self.end_token:
            last = words.gather(0, (lengths - 1).clamp_min(0)[None])[0]
            lengths = lengths - ((last == self.end) & (lengths > 0)).to(lengths.dtype)
        place, rarities = self.ngrams.find(self._keys(padded))
        images = candidates.images[:, None].expand_as(candidates.lengths).reshape(-1)
        # An unknown n-gram has another n-gram's place, but no n-gram's rarity: so no image has it.
        patterns = self.matches.find(place.add_(rarities, alpha=1 << self.ngrams.bits), images)
        rows = patterns.add_(repeats(words), alpha=len(self.counts))
        counted = lengths.to(self.squared_idf.dtype)
        ends = torch.arange(len(padded), device=counted.device, dtype=counted.dtype).unfold(0, len(words), 1)
        inside = (counted - ends[..., None]).clamp_(0, 1)
        return Matches(rows, rarities, inside, counted.view(candidates.lengths.shape))

    def _keys(self, padded: Tensor) -> Tensor:
        """(T + 3, captions) ids -> (4, T, captions): the key of the n-gram of each order that begins at each word."""
        t = len(padded) - ORDERS + 1
        numbers = self.numbers.index_select(0, padded.view(-1)).view(padded.shape)
        keys = numbers.new_empty(ORDERS, t, numbers.shape[1])
        keys[0] = numbers[:t]
        for n in range(1, ORDERS):
            torch.add(numbers[n : n + t], keys[n - 1], alpha=self.factor, out=keys[n])
        return keys


class PatternTable:
    """What an n-gram of each pattern is worth at its first, second, … place: rows for `Matches.rows`."""

    def __init__(self, packed: PackedReferences, worth: Callable[[Tensor, Tensor], Tensor]) -> None:
        """`worth`: counts (patterns, R) and repeats (T, 1, 1) -> (T, patterns, columns)."""
        self._packed, self._worth = packed, worth
        self._rows = packed.counts[:0]

    def for_length(self, t: int) -> Tensor:
        """(T · patterns or more, columns): no n-gram of T words has more than T places."""
        counts = self._packed.counts
        if len(self._rows) < t * len(counts):
            repeat = torch.arange(t, device=counts.device, dtype=counts.dtype)[:, None, None]
            self._rows = self._worth(counts, repeat).flatten(0, 1).contiguous()
        return self._rows


def repeats(words: Tensor) -> Tensor:
    """(T, captions) ids -> (4, T, captions): at how many earlier places the n-gram that begins here stands."""
    t = len(words)
    words = words.to(torch.int32)
    earlier = F.pad(words, (0, 0, t - 1, 0), value=-1).unfold(0, t, 1).transpose(1, 2)[:-1]  # (lag, T, captions)
    same = torch.eq(words, earlier, out=torch.empty_like(earlier)).to(torch.uint8)  # out of bool is ten times slower
    found = torch.zeros(ORDERS, *words.shape, dtype=torch.uint8 if t <= 256 else torch.int32, device=words.device)
    both = same
    for order in range(min(ORDERS, t)):
        if order:
            both = both[:, :-1] & same[:, order:]
        torch.sum(both, 0, dtype=found.dtype, out=found[order, : t - order])
    return found
