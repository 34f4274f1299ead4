"""What the caption metrics share: the form of their result, and n-gram counts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from rlcap.errors import DataError

Words = Sequence[str]
Ngram = tuple[str, ...]
ORDERS = 4  # all metrics look at n-grams of 1 to 4 words


@dataclass(frozen=True)
class Result:
    corpus: float
    per_image: NDArray[np.float64]  # (images,)


def count_ngrams(words: Words, orders: int = ORDERS) -> Counter[Ngram]:
    """How often each n-gram of 1 to 4 (or `orders`) words occurs."""
    shifted = [words[i:] for i in range(orders)]
    return Counter(chain.from_iterable(zip(*shifted[:n], strict=False) for n in range(1, orders + 1)))


def check_pairs(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    """One caption an image, at least one image, at least one reference each."""
    if len(captions) != len(references):
        raise DataError(f"{len(captions)} captions for the references of {len(references)} images; give one each")
    check_references(references)


def check_references(references: Sequence[Sequence[Words]]) -> None:
    if not references:
        raise DataError("there is nothing to score: no images; check the split's name")
    for row, image in enumerate(references):
        if not image:
            raise DataError(f"image {row} has no reference captions; leave it out or write one")
