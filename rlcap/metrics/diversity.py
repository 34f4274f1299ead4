"""How captions differ from one another, and what shows that they have gone wrong; words without the end token.

A *set* is the captions written for one image. Measures of one caption that need others say 0 to similarity where
there are none.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlcap.metrics.bleu import bleu
from rlcap.metrics.cider import SCALE, CiderReferences, Frequencies
from rlcap.metrics.ngrams import ORDERS, Ngram, Words

# Words that hardly any caption ends on: fewer than one in 100 of Flickr8k's, all of them together.
BAD_ENDINGS = (
    *("a", "an", "the", "of", "with", "on", "in", "and", "to", "at", "is", "are", "for", "from", "by", "near"),
    *("into", "onto", "beside", "between", "through", "while", "as", "or", "his", "their", "its", "some", "two"),
    *("very", "that", "which", "who", "wearing"),
)
NO_PART = 1e-12  # eigenvalues below this share of all are roundings of 0


def ngrams(words: Words, n: int) -> list[Ngram]:
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def distinct(captions: Sequence[Words], n: int) -> float:
    """Distinct n-grams as a share of all in these captions (Li et al. 2016, https://arxiv.org/abs/1510.03055)."""
    said = [ngram for words in captions for ngram in ngrams(words, n)]
    return len(set(said)) / max(1, len(said))


def own_ngrams(caption: Words, others: Sequence[Words], n: int) -> float:
    """The share of the caption's n-grams that no other has; 0 for a caption without n-grams."""
    elsewhere = {ngram for words in others for ngram in ngrams(words, n)}
    said = ngrams(caption, n)
    return sum(ngram not in elsewhere for ngram in said) / max(1, len(said))


def self_bleu(caption: Words, others: Sequence[Words], n: int = ORDERS) -> float:
    """BLEU-n with the others as references, smoothed by coco-caption's tiny constants (bleu.py).

    Zhu et al. 2018, https://arxiv.org/abs/1802.01886.
    """
    return bleu([caption], [others])[n - 1].corpus if others else 0.0


def mbleu(sets: Sequence[Sequence[Words]], n: int = ORDERS) -> float:
    """The mean of self_bleu over all captions of all sets: 1 where the captions of each set are the same."""
    scores = [self_bleu(words, [*some[:i], *some[i + 1 :]], n) for some in sets for i, words in enumerate(some)]
    return sum(scores) / max(1, len(scores))


def self_cider(captions: Sequence[Words], frequencies: Frequencies) -> float:
    """The diversity of one set, from 0 (all the same) to 1 (nothing in common). By plain CIDEr, without clipping.

    With λ the eigenvalues of the matrix of similarities of N captions it is -log_N(√λ_max / Σ√λ)
    (Wang & Chan 2019, https://arxiv.org/abs/1903.12020). A set of one has 0.
    """
    others = CiderReferences([[words] for words in captions], frequencies)
    similarities = [others.cider([words] * len(captions)).per_image / SCALE for words in captions]
    return _spread(np.array(similarities))


def _spread(similarities: NDArray[np.float64]) -> float:
    values = np.linalg.eigvalsh(similarities)
    roots = np.sqrt(np.where(values > NO_PART * values.sum(), values, 0.0))
    if len(roots) < 2 or roots.sum() == 0:
        return 0.0
    return float(-math.log(roots[-1] / roots.sum()) / math.log(len(roots)))


def repetition(caption: Words, n: int = 2) -> float:
    """The share of its n-grams that the caption has said before."""
    said = ngrams(caption, n)
    return 1 - len(set(said)) / len(said) if said else 0.0


def bad_ending(caption: Words, ended: bool, words: Sequence[str] = BAD_ENDINGS) -> bool:
    """Whether the caption was cut, without an end token, or ends on one of `words`."""
    return not ended or (len(caption) > 0 and caption[-1] in words)


def health(
    captions: Sequence[Words],
    ended: Sequence[bool] | None,  # whether each said its end token; None: all did
    vocabulary_size: int,  # words that could have been said
) -> dict[str, float]:
    """What shows early that captions go wrong: means over captions, and shares of what all of them say."""
    over = [True] * len(captions) if ended is None else ended
    number = max(1, len(captions))
    endings = [bad_ending(words, end) for words, end in zip(captions, over, strict=True)]
    return {
        "length": sum(map(len, captions)) / number,
        "repetition": sum(map(repetition, captions)) / number,
        "bad_ending": sum(endings) / number,
        "vocabulary_use": len({word for words in captions for word in words}) / vocabulary_size,
        "distinct_1": distinct(captions, 1),
        "distinct_2": distinct(captions, 2),
    }
