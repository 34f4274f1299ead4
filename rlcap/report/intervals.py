"""How sure a mean over images is: 95% of those of images drawn anew."""

import numpy as np

from rlcap.metrics.bootstrap import Floats, resampled_sums

SAMPLES = 2000


def mean_intervals(values: Floats) -> Floats:
    """Of each column of (images, K): (K, 2), between which 95% of the means of images drawn anew lie.

    Tables of as many images are drawn alike, so that the same images of two runs are drawn together.
    """
    bounds: Floats = np.quantile(resampled_sums(values, SAMPLES) / len(values), (0.025, 0.975), axis=0).T
    return bounds


def is_mean(corpus: float, values: Floats) -> bool:
    """Whether a metric of the whole split is the mean of its images', as CIDEr-D is and BLEU is not."""
    return bool(np.isclose(corpus, values.mean(), rtol=1e-6, atol=1e-15))
