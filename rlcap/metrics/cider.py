"""CIDEr-D and CIDEr (Vedantam et al. 2015, https://arxiv.org/abs/1411.5726); CIDEr-D exact to coco-caption.

Both compare a caption with each reference by the cosine of their n-gram counts, where an n-gram weighs the
more the fewer images' references have it. CIDEr-D, coco-caption's "CIDEr", clips repeated n-grams
and penalises a difference in length; plain CIDEr does neither, and is fooled by repeating confident words.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rlcap.metrics.ngrams import ORDERS, Ngram, Result, Words, check_pairs, check_references, count_ngrams

SIGMA = 6.0  # words: the width of CIDEr-D's penalty on length
SCALE = 10.0


class Frequencies(Protocol):
    """In how many of `images` images some reference has an n-gram. An end token counts as a word."""

    @property
    def images(self) -> int: ...

    def count(self, ngram: Ngram) -> int: ...


def cider_d(
    captions: Sequence[Words],
    references: Sequence[Sequence[Words]],
    frequencies: Frequencies | None = None,
) -> Result:
    """Between 0 and 10. Without `frequencies`, those of the references given."""
    check_pairs(captions, references)
    return CiderReferences(references, frequencies).cider_d(captions)


def cider(
    captions: Sequence[Words],
    references: Sequence[Sequence[Words]],
    frequencies: Frequencies | None = None,
) -> Result:
    """Plain CIDEr, between 0 and 10: no clipping, no penalty on length."""
    check_pairs(captions, references)
    return CiderReferences(references, frequencies).cider(captions)


@dataclass(frozen=True)
class _Vector:
    """A caption as weights of n-grams: the weight of each is its count times its rarity."""

    counts: Counter[Ngram]
    norms: list[float]  # of the n-grams of each order
    length: int  # in words


class CiderReferences:
    """References weighed once, for many rounds of captions."""

    def __init__(self, references: Sequence[Sequence[Words]], frequencies: Frequencies | None = None) -> None:
        check_references(references)
        counts = [[count_ngrams(reference) for reference in image] for image in references]
        self._frequencies = _OwnFrequencies(counts) if frequencies is None else frequencies
        ngrams = {ngram for image in counts for reference in image for ngram in reference}
        self._rarities = {ngram: self._rarity(ngram) for ngram in ngrams}
        self._images = [[self._vector(reference) for reference in image] for image in counts]

    def cider_d(self, captions: Sequence[Words]) -> Result:
        return self._score(captions, self._similarity_d)

    def cider(self, captions: Sequence[Words]) -> Result:
        return self._score(captions, self._similarity)

    def _score(self, captions: Sequence[Words], similarity: Callable[[_Vector, _Vector], float]) -> Result:
        scores = np.empty(len(self._images))
        for row, (caption, image) in enumerate(zip(captions, self._images, strict=True)):
            vector = self._vector(count_ngrams(caption))
            scores[row] = SCALE * sum(similarity(vector, reference) for reference in image) / len(image)
        return Result(float(scores.mean()), scores)

    def _rarity(self, ngram: Ngram) -> float:
        """log(images / images that have it); one that no image has counts as if one had it."""
        return math.log(self._frequencies.images) - math.log(max(1, self._frequencies.count(ngram)))

    def _vector(self, counts: Counter[Ngram]) -> _Vector:
        squares = [0.0] * ORDERS
        length = 0
        for ngram, count in counts.items():
            rarity = self._rarities.get(ngram)
            squares[len(ngram) - 1] += (count * (self._rarity(ngram) if rarity is None else rarity)) ** 2
            if len(ngram) == 1:
                length += count
        return _Vector(counts, [math.sqrt(square) for square in squares], length)

    def _similarity_d(self, caption: _Vector, reference: _Vector) -> float:
        """No n-gram counts for more than in the reference; a difference in length costs."""
        products = [0.0] * ORDERS
        for ngram, count in caption.counts.items():
            if there := reference.counts.get(ngram):
                products[len(ngram) - 1] += min(count, there) * there * self._rarities[ngram] ** 2
        penalty = math.exp(-((caption.length - reference.length) ** 2) / (2 * SIGMA**2))
        return penalty * _mean_cosine(products, caption, reference)

    def _similarity(self, caption: _Vector, reference: _Vector) -> float:
        products = [0.0] * ORDERS
        for ngram, count in caption.counts.items():
            if there := reference.counts.get(ngram):
                products[len(ngram) - 1] += count * there * self._rarities[ngram] ** 2
        return _mean_cosine(products, caption, reference)


def _mean_cosine(products: Sequence[float], caption: _Vector, reference: _Vector) -> float:
    """Over the four orders; an order without n-grams of any weight gives 0."""
    norms = [a * b for a, b in zip(caption.norms, reference.norms, strict=True)]
    return sum(p / n if n else 0.0 for p, n in zip(products, norms, strict=True)) / ORDERS


class _OwnFrequencies:
    """Of the references that captions are compared with, as in published figures.

    Of one image alone they give every n-gram the weight log(1) = 0, hence the score 0.
    """

    def __init__(self, counts: Sequence[Sequence[Counter[Ngram]]]) -> None:
        self.images = len(counts)
        self._counts: Counter[Ngram] = Counter()
        for image in counts:
            self._counts.update({ngram for reference in image for ngram in reference})

    def count(self, ngram: Ngram) -> int:
        return self._counts.get(ngram, 0)
