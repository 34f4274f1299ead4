"""BLEU-1 to BLEU-4 of single captions, of whole batches and on any device.

Bleu1, …, Bleu4 equal `rlcap.metrics.bleu` per image: an order without a match makes them nearly 0, so they say little
of captions that share no four words in a row with a reference. SmoothBleu does not collapse: the better reward.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from rlcap.contracts import Candidates, Reward
from rlcap.data.references import References
from rlcap.metrics.bleu import SMALL, TINY, bleu, smooth_bleu
from rlcap.metrics.ngrams import Words
from rlcap.metrics.packed import PatternTable
from rlcap.metrics.packing import pack_with_end, pack_without_end, spelt_out

FAR = 1 << 20  # words: further than any reference


class _Bleu(Reward):
    """The geometric mean of the precisions up to an order, times the penalty for being short."""

    order: int

    def __init__(self, references: References, *, end_token: bool = True) -> None:
        """With `end_token`, the end of a caption and of a reference counts as a word."""
        self._references, self._end_token = references, end_token
        self._packed = packed = references.once(pack_with_end if end_token else pack_without_end)
        self._table = PatternTable(packed, _in_some_reference)
        lengths = packed.lengths.where(packed.lengths >= 0, FAR)
        self._longest = int(packed.lengths.max())  # of a caption that is longer, the closest reference is the same
        every = [_closest(lengths, words) for words in range(self._longest + 1)]
        self._closest = torch.stack(every, 1)  # (images, longest + 1)

    def __call__(self, candidates: Candidates) -> Tensor:
        with torch.inference_mode():  # operations start sooner
            scores = self._scores(candidates)
        return scores.clone()  # may be saved for a backward pass

    def _scores(self, candidates: Candidates) -> Tensor:
        found = self._packed.match(candidates)
        table = self._table.for_length(found.longest)
        matches = found.sums(table, found.inside)[: self.order, ..., 0]
        words = found.lengths
        beyond = torch.arange(self.order, device=words.device)[:, None, None]
        places = words.long().clamp_max_(self._longest)
        places.add_(candidates.images[:, None], alpha=self._longest + 1)
        closest = self._closest.view(-1).index_select(0, places.view(-1)).view_as(words)
        return self._score(matches, (words - beyond).clamp_min_(0), words, closest)

    def plain(self, captions: Sequence[Words], ended: Sequence[bool], images: Sequence[int]) -> list[float]:
        """The same by the string-level code: words without the end token, and whether it was said."""
        said, references = spelt_out(self._references, captions, ended, images, self._end_token)
        return self._plain(said, references)

    @abstractmethod
    def _score(self, matches: Tensor, ngrams: Tensor, words: Tensor, closest: Tensor) -> Tensor:
        """Counts (order, B, N), words (B, N), words of the closest reference (B, N) -> (B, N)."""

    @abstractmethod
    def _plain(self, captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]: ...


def _closest(references: Tensor, words: int) -> Tensor:
    """(images, R) lengths -> (images,): the one closest to a caption of so many words, the shorter of two as close."""
    longer = references - words
    nearest = (longer.abs() + 0.25 * longer.sign()).argmin(-1, keepdim=True)  # a quarter decides: lengths are whole
    return references.gather(-1, nearest)[:, 0]


def _in_some_reference(counts: Tensor, repeat: Tensor) -> Tensor:
    """A match is an n-gram of the caption, counted as often as in the reference that has it most."""
    return (repeat < counts.amax(-1, keepdim=True)).to(counts.dtype)


class _CocoBleu(_Bleu):
    """With coco-caption's constants. In logarithms: the products are too small for float32."""

    def _score(self, matches: Tensor, ngrams: Tensor, words: Tensor, closest: Tensor) -> Tensor:
        precision = ((matches + TINY) / (ngrams + SMALL)).log_().mean(0)
        return (precision + (1 - (closest + SMALL) / (words + TINY)).clamp_max_(0)).exp_()

    def _plain(self, captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
        scores: list[float] = bleu(captions, references)[self.order - 1].per_image.tolist()
        return scores


class Bleu1(_CocoBleu):
    order = 1


class Bleu2(_CocoBleu):
    order = 2


class Bleu3(_CocoBleu):
    order = 3


class Bleu4(_CocoBleu):
    order = 4


class SmoothBleu(_Bleu):
    """One more match and one more n-gram in every order above the first (Lin & Och 2004)."""

    def __init__(self, references: References, *, order: Literal[1, 2, 3, 4] = 4, end_token: bool = True) -> None:
        super().__init__(references, end_token=end_token)
        self.order = order  # from n-grams of one word up to this many

    def _score(self, matches: Tensor, ngrams: Tensor, words: Tensor, closest: Tensor) -> Tensor:
        more = (torch.arange(self.order, device=words.device) > 0)[:, None, None]
        precision = ((matches + more) / (ngrams + more).clamp_min_(1)).log_().mean(0)
        return (precision + (1 - closest / words.clamp_min(TINY)).clamp_max_(0)).exp_()

    def _plain(self, captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
        return smooth_bleu(captions, references, self.order)
