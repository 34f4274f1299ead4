"""BLEU of sentences that belong to no image, as papers on text GANs compute it (Texygen: Zhu et al. 2018).

Each sentence is scored by itself, with ALL held-out lines as its references; self-BLEU takes all other generated
sentences instead. BLEU-n is the geometric mean of the clipped precisions of orders 1 to n, where an order without a
match counts as 0.1 matches (NLTK's smoothing method 1), times the penalty for being shorter than the reference whose
length is closest (the shorter one of two). No match of a single word is 0. The figure is the mean over sentences.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlcap.metrics.ngrams import Ngram, Words, count_ngrams

ORDERS = (2, 3, 4, 5)
NO_MATCH = 0.1
Scores = NDArray[np.float64]


def text_bleu(sentences: Sequence[Words], references: Sequence[Words]) -> Scores:
    """(sentences, 4): BLEU-2 to BLEU-5 of each against all references."""
    most: dict[Ngram, int] = {}
    for reference in references:
        for ngram, count in count_ngrams(reference, ORDERS[-1]).items():
            most[ngram] = max(count, most.get(ngram, 0))
    lengths = Counter(map(len, references))
    scores = []
    for words in sentences:
        counts = count_ngrams(words, ORDERS[-1])
        limits = {ngram: most.get(ngram, 0) for ngram in counts}
        scores.append(_bleu(words, counts, limits, lengths))
    return np.array(scores).reshape(-1, len(ORDERS))


def text_self_bleu(sentences: Sequence[Words]) -> Scores:
    """(sentences, 4): BLEU-2 to BLEU-5 of each against all others; 0 for one alone."""
    all_counts = [count_ngrams(words, ORDERS[-1]) for words in sentences]
    most: dict[Ngram, tuple[int, int]] = {}  # the two highest counts: without the sentence that has the one, the other
    for counts in all_counts:
        for ngram, count in counts.items():
            first, second = most.get(ngram, (0, 0))
            most[ngram] = (count, first) if count > first else (first, max(second, count))
    lengths = Counter(map(len, sentences))
    scores = []
    for words, counts in zip(sentences, all_counts, strict=True):
        limits = {ngram: most[ngram][count == most[ngram][0]] for ngram, count in counts.items()}
        others = lengths - Counter([len(words)])
        scores.append(_bleu(words, counts, limits, others) if others else [0.0] * len(ORDERS))
    return np.array(scores).reshape(-1, len(ORDERS))


def _bleu(words: Words, counts: Counter[Ngram], limits: dict[Ngram, int], lengths: Counter[int]) -> list[float]:
    """`limits`: how often a reference has each n-gram of the sentence, at most; `lengths`: those of the references."""
    matches = [0] * ORDERS[-1]
    for ngram, count in counts.items():
        matches[len(ngram) - 1] += min(count, limits[ngram])
    if matches[0] == 0:
        return [0.0] * len(ORDERS)
    logs = [math.log((match or NO_MATCH) / max(1, len(words) - n)) for n, match in enumerate(matches)]
    closest = min(lengths, key=lambda length: (abs(length - len(words)), length))
    penalty = min(0.0, 1 - closest / len(words))
    return [math.exp(sum(logs[:order]) / order + penalty) for order in ORDERS]
