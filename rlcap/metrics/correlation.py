"""How well metrics agree with people: Kendall's tau between their scores and human judgements of the same captions.

Of all pairs of captions, tau sets those that both put in the same order (C) against those that they put in opposite
orders (D). The variants differ in what ties do (Kendall 1945; Stuart 1953).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlcap.data.frequencies import DocumentFrequencies
from rlcap.data.judgements import Judged, Judgements
from rlcap.data.tokens import tokenise
from rlcap.errors import DataError
from rlcap.metrics import JAVA_NAMES, NAMES, evaluate_captions
from rlcap.metrics.cider import CiderReferences
from rlcap.progress import track

METRICS = ("bleu", "rouge_l", "cider_d", "cider")
TITLES = NAMES | JAVA_NAMES
ROWS_AT_ONCE = 1000  # captions whose references are held as n-gram counts
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Kendall:
    """NaN where one side says the same of everything."""

    tau_b: float  # (C - D) / sqrt(pairs without a tie on the one side x those on the other)
    tau_c: float  # (C - D) / (n² (m - 1) / 2m), with m distinct values on the side that has fewer
    points: int  # n


@dataclass(frozen=True)
class Agreement:
    left_out: int  # captions that are references of their image
    taus: dict[str, Kendall]  # by metric


def correlate(judgements: Judgements, metrics: Sequence[str] = (), *, keep_own: bool = False) -> Agreement:
    """Of METRICS, and `metrics` besides. Each judgement is a data point.

    CIDEr and CIDEr-D weigh n-grams by the references of all images of the captions file. Captions that are
    references of their image are left out, as is the custom (158 pairs of Flickr8k-Expert), unless `keep_own`.
    """
    pairs = [pair for pair in judgements.pairs if keep_own or not pair.own]
    if not pairs:
        raise DataError("each judged caption is a reference of its own image; --keep-own keeps them")
    scores = _scores(pairs, judgements, metrics)
    votes = [len(pair.scores) for pair in pairs]
    people = [score for pair in pairs for score in pair.scores]
    taus = {key: kendall(np.repeat(values, votes), people) for key, values in scores.items()}
    return Agreement(len(judgements.pairs) - len(pairs), taus)


def kendall(left: ArrayLike, right: ArrayLike) -> Kendall:
    """Both variants, in O(n log² n): two lists of n numbers."""
    x, y = (np.unique(np.asarray(side), return_inverse=True)[1].astype(np.int64) for side in (left, right))
    if len(x) != len(y):
        raise ValueError(f"{len(x)} scores for {len(y)} judgements")
    n, distinct = len(x), min(len(np.unique(x)), len(np.unique(y)))
    if distinct < 2:
        return Kendall(math.nan, math.nan, n)
    all_pairs = n * (n - 1) // 2
    tied_x, tied_y, tied_both = _tied(x), _tied(y), _tied(x * (y.max() + 1) + y)
    opposite = _inversions(y[np.lexsort((y, x))])  # ties are in order, so that they count as none
    difference = all_pairs - tied_x - tied_y + tied_both - 2 * opposite  # C - D
    return Kendall(
        difference / math.sqrt((all_pairs - tied_x) * (all_pairs - tied_y)),
        difference / (n**2 * (distinct - 1) / (2 * distinct)),
        n,
    )


def _tied(ranks: Ints) -> int:
    counts = np.unique(ranks, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _inversions(ranks: Ints) -> int:
    """Pairs of places of which the first holds more, found at the highest bit in which they differ."""
    found = 0
    for bit in range(int(ranks.max()).bit_length()):
        above = ranks >> (bit + 1)
        order = above.argsort(kind="stable")  # places whose higher bits are equal, side by side
        group, one = above[order], (ranks[order] >> bit) & 1
        ones = np.concatenate([[0], one.cumsum()])  # before each place
        before = ones[:-1] - ones[np.searchsorted(group, group)]  # within the group
        found += int(before[one == 0].sum())
    return found


def _scores(pairs: Sequence[Judged], judgements: Judgements, more: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Metric -> a score for each pair. What was asked for by name comes first: a wrong name is told at once."""
    tokens = {image: [tokenise(caption) for caption in captions] for image, captions in judgements.references.items()}
    frequencies = DocumentFrequencies.build(list(tokens.values()), fingerprint="all images of the captions file")
    others = [name for name in dict.fromkeys([*more, *METRICS]) if name not in ("cider", "cider_d")]
    parts: list[dict[str, NDArray[np.float64]]] = []
    starts = range(0, len(pairs), ROWS_AT_ONCE)
    for first in track(starts, "scoring", len(starts)):
        some = pairs[first : first + ROWS_AT_ONCE]
        captions, references = [tokenise(pair.caption) for pair in some], [tokens[pair.image] for pair in some]
        results = evaluate_captions(captions, references, others)
        weighed = CiderReferences(references, frequencies)
        results |= {"cider_d": weighed.cider_d(captions), "cider": weighed.cider(captions)}
        parts.append({key: result.per_image for key, result in results.items()})
    return {key: np.concatenate([part[key] for part in parts]) for key in TITLES if key in parts[0]}
