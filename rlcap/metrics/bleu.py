"""BLEU-1 to BLEU-4 (Papineni et al. 2002, https://aclanthology.org/P02-1040), exact to coco-caption."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlcap.metrics.ngrams import ORDERS, Result, Words, check_pairs, count_ngrams

# coco-caption's constants: no match gives nearly 0, and 0 of 0 is no match.
TINY = 1e-15
SMALL = 1e-9


def bleu(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> tuple[Result, ...]:
    """BLEU-1, …, BLEU-4. The corpus values come from the summed counts; they are no means over images."""
    counts = bleu_counts(captions, references)
    scores = bleu_of(np.vstack([counts, counts.sum(0)]))
    return tuple(Result(float(score[-1]), score[:-1]) for score in scores.T)


def bleu_counts(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> NDArray[np.int64]:
    """(images, 10): matches of order 1 to 4, n-grams of order 1 to 4, words, words of the closest reference."""
    check_pairs(captions, references)
    return np.array([_counts(*pair) for pair in zip(captions, references, strict=True)], dtype=np.int64)


def bleu_of(counts: NDArray[Any]) -> NDArray[np.float64]:
    """(…, 10) counts, of one image or summed over many -> (…, 4).

    Geometric means of the precisions up to each order, times the penalty for being short.
    """
    matches, ngrams = counts[..., :ORDERS], counts[..., ORDERS:-2]
    ratio = (counts[..., -2:-1] + TINY) / (counts[..., -1:] + SMALL)  # of the lengths
    brevity = np.exp(np.minimum(0, 1 - 1 / ratio))
    products = np.cumprod((matches + TINY) / (ngrams + SMALL), axis=-1)
    return np.asarray(products ** (1 / np.arange(1, ORDERS + 1)) * brevity)


def smooth_bleu(captions: Sequence[Words], references: Sequence[Sequence[Words]], order: int = ORDERS) -> list[float]:
    """Of each caption: one more match and one more n-gram in every order above the first.

    Lin & Och 2004, https://aclanthology.org/C04-1072. It is 0 only where not one word matches.
    """
    check_pairs(captions, references)
    scores = []
    for caption, image in zip(captions, references, strict=True):
        counts = _counts(caption, image)
        matches, ngrams, (words, closest) = counts[:order], counts[ORDERS : ORDERS + order], counts[-2:]
        product = matches[0] / max(1, ngrams[0])
        for match, ngram in zip(matches[1:], ngrams[1:], strict=True):
            product *= (match + 1) / (ngram + 1)
        brevity = math.exp(min(0.0, 1 - closest / words)) if words else 0.0
        scores.append(product ** (1 / order) * brevity)
    return scores


def _counts(caption: Words, references: Sequence[Words]) -> list[int]:
    """A match is an n-gram of the caption, counted as often as in the reference that has it most."""
    in_references = [count_ngrams(reference) for reference in references]
    matches = [0] * ORDERS
    for ngram, count in count_ngrams(caption).items():
        most = max(counts.get(ngram, 0) for counts in in_references)
        matches[len(ngram) - 1] += min(count, most)
    ngrams = [max(0, len(caption) - n) for n in range(ORDERS)]
    closest = min(map(len, references), key=lambda length: (abs(length - len(caption)), length))
    return [*matches, *ngrams, len(caption), closest]
