"""CIDEr-D and CIDEr (Vedantam et al. 2015, https://arxiv.org/abs/1411.5726) of whole batches, on any device.

They equal `rlcap.metrics.cider` with the document frequencies of the training split.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from rlcap.contracts import Candidates, Reward
from rlcap.data.references import References
from rlcap.metrics.cider import SCALE, SIGMA, CiderReferences
from rlcap.metrics.ngrams import ORDERS, Result, Words
from rlcap.metrics.packed import PatternTable
from rlcap.metrics.packing import pack_with_end, pack_without_end, spelt_out


class _Cider(Reward):
    """10 · the mean cosine, over orders and references, of weighted n-gram counts."""

    def __init__(self, references: References, *, end_token: bool = True) -> None:
        """With `end_token`, the end of a caption and of a reference counts as a word."""
        self._references, self._end_token = references, end_token
        self._packed = packed = references.once(pack_with_end if end_token else pack_without_end)
        self._table = PatternTable(packed, self._shares)
        each = ORDERS * (packed.lengths >= 0).sum(-1)[:, None, None]
        self._weights = torch.where(packed.norms > 0, SCALE / (packed.norms * each), 0.0)  # (images, 4, R)

    def __call__(self, candidates: Candidates) -> Tensor:
        with torch.inference_mode():  # operations start sooner
            scores = self._scores(candidates)
        return scores.clone()  # may be saved for a backward pass

    def _scores(self, candidates: Candidates) -> Tensor:
        found = self._packed.match(candidates)
        weights = self._packed.squared_idf.index_select(0, found.ranks.view(-1)).view_as(found.inside)
        sums = found.sums(self._table.for_length(found.longest), weights.mul_(found.inside))
        products, squares = sums[..., :-1], sums[..., -1:]
        cosines = products * squares.clamp_min(torch.finfo(sums.dtype).tiny).rsqrt()  # of a norm 0 the product is 0
        cosines *= self._weights.index_select(0, candidates.images).transpose(0, 1)[:, :, None]
        lengths = self._packed.lengths.index_select(0, candidates.images)[:, None]
        return self._penalised(cosines.sum(0), found.lengths[..., None] - lengths).sum(-1)

    def plain(self, captions: Sequence[Words], ended: Sequence[bool], images: Sequence[int]) -> list[float]:
        """The same by the string-level code: words without the end token, and whether it was said."""
        said, references = spelt_out(self._references, captions, ended, images, self._end_token)
        prepared = CiderReferences(references, self._references.frequencies)
        scores: list[float] = self._plain(prepared, said).per_image.tolist()
        return scores

    def _shares(self, counts: Tensor, repeat: Tensor) -> Tensor:
        """Of an n-gram in the products with each reference, and in the caption's own squared norm."""
        own = (2 * repeat + 1).expand(-1, len(counts), 1)
        return torch.cat([self._products(counts, repeat).expand(len(repeat), *counts.shape), own], -1)

    @staticmethod
    @abstractmethod
    def _products(counts: Tensor, repeat: Tensor) -> Tensor: ...

    @staticmethod
    @abstractmethod
    def _penalised(cosines: Tensor, longer: Tensor) -> Tensor: ...

    @staticmethod
    @abstractmethod
    def _plain(references: CiderReferences, captions: Sequence[Words]) -> Result: ...


class CiderD(_Cider):
    """No n-gram counts for more than in the reference, and a difference in length costs."""

    @staticmethod
    def _products(counts: Tensor, repeat: Tensor) -> Tensor:
        return torch.where(repeat < counts, counts, 0.0)

    @staticmethod
    def _penalised(cosines: Tensor, longer: Tensor) -> Tensor:
        return cosines * longer.square().mul_(-1 / (2 * SIGMA**2)).exp_()

    @staticmethod
    def _plain(references: CiderReferences, captions: Sequence[Words]) -> Result:
        return references.cider_d(captions)


class Cider(_Cider):
    """Plain cosines: fooled by repeating confident words."""

    @staticmethod
    def _products(counts: Tensor, repeat: Tensor) -> Tensor:
        return counts

    @staticmethod
    def _penalised(cosines: Tensor, longer: Tensor) -> Tensor:
        return cosines

    @staticmethod
    def _plain(references: CiderReferences, captions: Sequence[Words]) -> Result:
        return references.cider(captions)
