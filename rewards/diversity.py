"""How the captions drawn for an image differ from one another, judged by their words without the end token.

Captions that ride along are compared with the drawn ones, but belong to no set.
"""

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from rlcap.config import Positive
from rlcap.contracts import Candidates, Reward
from rlcap.data.references import References
from rlcap.metrics.bleu import SMALL, TINY
from rlcap.metrics.diversity import NO_PART
from rlcap.metrics.ngrams import ORDERS
from rlcap.metrics.packed_words import NOTHING, number_ngrams, said_words, tabulate
from rlcap.metrics.packing import pack_with_end


class Distinct(Reward):
    """The share of a caption's n-grams that no other drawn caption of the image has.

    1: all are its own, as where nothing else was drawn. 0: none is, or there are none.
    """

    def __init__(self, references: References, *, n: Positive = 2) -> None:
        self.references = references
        self.n = n

    def __call__(self, candidates: Candidates) -> Tensor:
        said = said_words(candidates, self.references.vocabulary.end)
        counts, most = _counts(said, candidates.drawn, self.n, self.references.dtype)[-1]
        return (counts * (most == 0)).sum(-1) / counts.sum(-1).clamp_min(1)


class SelfBleu(Reward):
    """BLEU-n of a caption with the other drawn captions of the image as references (Zhu et al. 2018).

    Smoothed by coco-caption's tiny constants. A penalty: 1 repeats another caption, 0 has nothing of them, as
    where nothing else was drawn. Its mean over drawn captions is mBLEU.
    """

    def __init__(self, references: References, *, n: Literal[1, 2, 3, 4] = 4) -> None:
        self.references = references
        self.n = n

    def __call__(self, candidates: Candidates) -> Tensor:
        said = said_words(candidates, self.references.vocabulary.end)
        length = (said != NOTHING).sum(-1)
        closest = _closest(length, candidates.drawn).to(self.references.dtype)
        length = length.to(self.references.dtype)
        product = torch.ones_like(length)
        for counts, most in _counts(said, candidates.drawn, self.n, self.references.dtype):
            product = product * (torch.minimum(counts, most).sum(-1) + TINY) / (counts.sum(-1) + SMALL)
        ratio = (length + TINY) / (closest + SMALL)
        scores = product ** (1 / self.n) * (1 - 1 / ratio).clamp_max(0).exp()
        return scores * _others(scores.shape[1], candidates.drawn, scores.device).any(-1)


class SelfCider(Reward):
    """The diversity of the captions drawn for an image, by the eigenvalues of their similarities in plain CIDEr.

    1: they have nothing in common. 0: they are all the same, or there is one. Every caption of the image has it,
    also one that rides along (metrics/diversity.py, Wang & Chan 2019). Rounding would show in the roots of small
    eigenvalues, so these are computed in double precision; a GPU makes the host wait for them.
    """

    def __init__(self, references: References) -> None:
        self.references = references
        self.packed = references.once(pack_with_end)

    def __call__(self, candidates: Candidates) -> Tensor:
        number = min(candidates.drawn, candidates.words.shape[1])
        if number < 2:
            return torch.zeros_like(candidates.lengths, dtype=self.references.dtype)
        drawn = replace(candidates, words=candidates.words[:, :number], lengths=candidates.lengths[:, :number])
        said = said_words(drawn, self.references.vocabulary.end)
        found = self.packed.match(replace(drawn, words=said)).rarities  # (orders, T, B·N)
        rarities = self.packed.squared_idf.double().sqrt()[found].mT.unflatten(1, said.shape[:2])
        similarity = torch.zeros((), dtype=torch.double, device=said.device)
        for (ngrams, there), rarity in zip(number_ngrams(said, ORDERS), rarities, strict=True):
            similarity = similarity + _cosines(tabulate(ngrams, rarity * there))
        values = torch.linalg.eigvalsh(similarity)
        roots = values.where(values > NO_PART * values.sum(-1, keepdim=True), 0).sqrt()
        share = roots[:, -1] / roots.sum(-1).clamp_min(torch.finfo(torch.double).tiny)
        diversity: Tensor = -share.where(share > 0, 1).log() / math.log(number)  # share 0: no caption has a word
        return diversity.to(self.references.dtype)[:, None].repeat(1, candidates.words.shape[1])


def _cosines(weights: Tensor) -> Tensor:
    """(B, N, n-grams) -> (B, N, N); 0 for a caption without any weight."""
    norms = weights.square().sum(-1, keepdim=True).sqrt()
    units = weights / norms.clamp_min(torch.finfo(weights.dtype).tiny)
    return units @ units.mT


def _counts(said: Tensor, drawn: int, n: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Of each order up to `n`, (B, N, N·T) by n-gram: how often the caption has it, and the other that has it most."""
    return [_with_most(tabulate(number, there.to(dtype)), drawn) for number, there in number_ngrams(said, n)]


def _with_most(counts: Tensor, drawn: int) -> tuple[Tensor, Tensor]:
    first = second = torch.zeros_like(counts[:, 0])  # the highest counts among drawn captions
    for each in counts[:, :drawn].unbind(1):
        second = torch.maximum(second, torch.minimum(first, each))
        first = torch.maximum(first, each)
    most = first[:, None].where(counts < first[:, None], second[:, None])
    most[:, drawn:] = first[:, None]
    return counts, most


def _closest(length: Tensor, drawn: int) -> Tensor:
    """(B, N): of the lengths of the others the one closest to the caption's; the shorter of two as close."""
    theirs = length[:, None]  # (B, 1, N)
    distance = (theirs - length[..., None]).abs() * 2 + (theirs > length[..., None])
    others = _others(length.shape[1], drawn, length.device)
    return length.gather(1, distance.masked_fill(~others, torch.iinfo(distance.dtype).max).argmin(-1))


def _others(number: int, drawn: int, device: torch.device) -> Tensor:
    """(N, N) bool: whether caption m is one that caption n is compared with."""
    n = torch.arange(number, device=device)
    return (n < drawn) & (n != n[:, None])
