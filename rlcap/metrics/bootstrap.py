"""How sure a figure or a difference is: the paired bootstrap over images, and what other seeds would do.

The images of a split are a sample: drawn again with replacement, as many as there are, they show how far a figure
moves with them (Efron & Tibshirani 1993; of BLEU: Koehn 2004, https://aclanthology.org/W04-3250). All runs are
judged on the same resamples, so that what makes an image hard for every run cancels in a difference.

Seeds are a sample too, but of two to five, and so few resampled say too little: 95% intervals of resampled seeds
hold the truth 66% of the time with two seeds, 81% with three and 90% with five. So what other seeds would do is
drawn from Student's t, as if seeds were normal: 95% and more (tests/test_bootstrap.py measures both).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ENTRIES = 2_000_000  # of resampled images held at once


def resampled_sums(columns: Floats, resamples: int, seed: int = 1) -> Floats:
    """(images, K) -> (resamples, K): sums over as many images, drawn with replacement, the same for all columns."""
    images, rng = len(columns), np.random.default_rng(seed)
    at_once = max(1, ENTRIES // images)
    sums = []
    for first in range(0, resamples, at_once):
        rows = min(at_once, resamples - first)
        drawn = rng.integers(images, size=(rows, images)) + images * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images)
        sums.append(times.astype(np.float64) @ columns)
    return np.concatenate(sums)


@dataclass(frozen=True)
class Draws:
    """What a figure is, and what it could have been; `a - b` is the difference of two that saw the same resamples."""

    value: float
    images: Floats  # (resamples,): with other images
    seeds: Floats  # (resamples,): what other seeds would add; 0 of a single run, of which it cannot be told
    seed_variance: float  # of what they would add

    @staticmethod
    def of(observed: Floats, resampled: Floats, rng: np.random.Generator) -> "Draws":
        """Of one run's figure, or of several seeds' mean: observed (seeds,), on resampled images (resamples, seeds).

        Seeds differ on these images also because each had its own luck with them, which resampling the images
        shows already: it is taken out of what the seeds add.
        """
        mean, seeds = resampled.mean(1), len(observed)
        if seeds == 1:
            return Draws(float(observed[0]), mean, np.zeros(len(mean)), 0.0)
        luck = (resampled - mean[:, None]).var(0).sum() / (seeds - 1)
        variance = max(0.0, float(observed.var(ddof=1) - luck)) / seeds
        added = np.sqrt(variance) * rng.standard_t(seeds - 1, len(mean))
        return Draws(float(observed.mean()), mean, added, variance)

    def __sub__(self, other: "Draws") -> "Draws":
        return Draws(
            self.value - other.value,
            self.images - other.images,
            self.seeds - other.seeds,
            self.seed_variance + other.seed_variance,
        )

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """What holds this share of the draws, with as many below as above."""
        low, high = np.quantile(self.images + self.seeds, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    @property
    def share_above_zero(self) -> float:
        """Of the draws; one that is 0 counts half."""
        return float((1 + np.sign(self.images + self.seeds)).mean() / 2)

    @property
    def share_of_seeds(self) -> float:
        """Of the variance, which is the seeds' and the images'."""
        whole = self.seed_variance + float(self.images.var())
        return self.seed_variance / whole if whole else 0.0
