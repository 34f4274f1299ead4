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
    """The n-gram of each order that begins at each of K words, caption behind caption; (4, K) where nothing is said.

    On a CPU the words are those that count, elsewhere all B·N·T.
    """

    rows: Tensor  # repeat · patterns + pattern: a row of a PatternTable
    ranks: Tensor  # of its rarity: a row of PackedReferences.squared_idf
    inside: Tensor  # 1.0 where the n-gram ends within the caption, else 0.0
    starts: Tensor  # (4 · B·N,): where each order of each caption starts among the 4 · K
    lengths: Tensor  # (B, N): words that count, as the scores' dtype
    places: Tensor  # (K,): where the words stand among all places of all captions, B·N·T
    longest: int  # T

    def sums(self, table: Tensor, weights: Tensor) -> Tensor:
        """Of the rows of a table, each times its weight (4, K), by order and caption: (4, B, N, columns)."""
        rows, weights = self.rows.view(-1), weights.view(-1)
        sums = F.embedding_bag(rows, table, self.starts, mode="sum", per_sample_weights=weights)
        return sums.view(ORDERS, *self.lengths.shape, -1)

    @property
    def rarities(self) -> Tensor:
        """(4, T, B·N): the ranks by place; 0 where none of the words stands."""
        captions = self.ranks.new_zeros(ORDERS, self.lengths.numel() * self.longest)
        captions.index_copy_(1, self.places, self.ranks)
        return captions.view(ORDERS, -1, self.longest).mT


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
        lengths, t = candidates.lengths.flatten(), candidates.words.shape[-1]
        # Words end to end, so that each step of an n-gram is one stretch of memory. On a CPU only those that count:
        # elsewhere, to ask how many they are would be to wait for the device.
        on_cpu = lengths.device.type == "cpu"
        spans = lengths if on_cpu else torch.full_like(lengths, t)
        caption = torch.repeat_interleave(spans, output_size=int(spans.sum()) if on_cpu else len(spans) * t)
        starts = spans.cumsum(0).sub_(spans)
        place = torch.arange(len(caption), device=caption.device).sub_(starts.index_select(0, caption))
        everywhere = torch.add(place, caption, alpha=t)
        words = candidates.words.reshape(-1).index_select(0, everywhere).clamp_(0, len(self.numbers) - 1)
        if not self.end_token:
            last = candidates.words.flatten(0, 1).gather(1, (lengths - 1).clamp_min_(0)[:, None])[:, 0]
            lengths = lengths - ((last == self.end) & (lengths > 0)).to(lengths.dtype)

        found, ranks = self.ngrams.find(self._keys(words))
        images = candidates.images[:, None].expand_as(candidates.lengths).reshape(-1).index_select(0, caption)
        # An unknown n-gram has another n-gram's place, but no n-gram's rarity: so no image has it.
        patterns = self.matches.find(found.add_(ranks, alpha=1 << self.ngrams.bits), images)
        repeat = repeats(words.add_(caption, alpha=len(self.numbers)), t)
        rows = patterns.add_(repeat, alpha=len(self.counts))

        counted = lengths.to(self.squared_idf.dtype)
        left = counted.index_select(0, caption).sub_(place)  # words, this one among them
        orders = torch.arange(ORDERS, device=words.device)[:, None]
        inside = (left - orders).clamp_(0, 1)
        starts = (starts + orders * len(words)).view(-1)
        return Matches(rows, ranks, inside, starts, counted.view_as(candidates.lengths), everywhere, t)

    def _keys(self, words: Tensor) -> Tensor:
        """(K,) ids -> (4, K): the key of the n-gram of each order that begins at each word."""
        numbers = F.pad(self.numbers.index_select(0, words), (0, ORDERS - 1))
        steps = numbers.unfold(0, len(words), 1)
        keys = steps.new_empty(steps.shape).copy_(steps)
        for n in range(1, ORDERS):
            keys[n].add_(keys[n - 1], alpha=self.factor)
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


def repeats(words: Tensor, longest: int) -> Tensor:
    """(K,) words, different in different captions -> (4, K): at how many earlier places the n-gram stands."""
    k = len(words) + ORDERS - 1
    # 32 bits are enough: words of captions as near as this remain different.
    padded = F.pad(words.to(torch.int32), (longest, ORDERS - 1), value=-1)
    later, earlier = padded[longest:], padded.unfold(0, k, 1)  # (lag from `longest` to 0, k)
    equal = torch.eq(later, earlier, out=padded.new_empty(earlier.shape))  # out of bool is ten times slower
    # All lags end to end, for speed: what reaches into the next lag begins behind the last word, or has lag 0.
    both = torch.empty(ORDERS, earlier.numel(), dtype=torch.uint8, device=words.device)
    both[0] = equal.view(-1)
    for n in range(1, ORDERS):
        torch.bitwise_and(both[n - 1, :-n], both[0, n:], out=both[n, :-n])
    counts = both.view(ORDERS, -1, k)[:, :-1].sum(1, dtype=torch.uint8 if longest <= 256 else torch.int32)
    return counts[:, : len(words)]
