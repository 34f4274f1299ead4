"""The bootstrap against the enumeration of all resamples, and how often its intervals hold the truth."""

import itertools

import numpy as np
import pytest

from rlcap.metrics import bootstrap
from rlcap.metrics.bleu import bleu, bleu_counts, bleu_of
from rlcap.metrics.bootstrap import Draws, resampled_sums

MANY = 40_000
REFERENCES = [["a red ball on a box", "one ball"], ["a blue box and a ball"], ["two big red boxes"], ["a ring"]]
GOOD = ["a red ball on a box", "a blue box and a box", "two red boxes", "a ball"]
POOR = ["a red ball", "a blue box and a box", "a red box on a ball", "a ring"]


def counts_of(captions):
    return bleu_counts([text.split() for text in captions], [[text.split() for text in image] for image in REFERENCES])


def every_resample(columns):
    """All n^n resamples, each as likely as any other."""
    return np.array(
        [columns[list(rows)].sum(0) for rows in itertools.product(range(len(columns)), repeat=len(columns))]
    )


def sigma(share, draws=MANY):
    return (share * (1 - share) / draws) ** 0.5


def of_one(values, resampled):
    return Draws.of(values[None], resampled[:, None], np.random.default_rng(0))


def covered(trials):
    """Of trials, each a (low, high) for a truth of 0."""
    return np.mean([low <= 0 <= high for low, high in trials])


def test_each_resample_is_as_likely_as_enumeration_says():
    columns = np.array([[1.0], [10.0], [100.0], [1000.0]])  # the sum tells which images were drawn, and how often
    exact, times = np.unique(every_resample(columns), return_counts=True)
    drawn, found = np.unique(resampled_sums(columns, MANY), return_counts=True)
    assert drawn.tolist() == exact.tolist()
    expected = times / times.sum()
    assert (abs(found / MANY - expected) < 5 * sigma(expected)).all()  # 35 sums: 5 sigma is one failure in 50,000


def test_a_difference_of_bleu_is_distributed_as_enumeration_says():
    columns = np.hstack([counts_of(GOOD), counts_of(POOR)])

    def bleu_1(sums):
        return bleu_of(sums[..., :10])[..., 0] - bleu_of(sums[..., 10:])[..., 0]

    exact, drawn = bleu_1(every_resample(columns)), bleu_1(resampled_sums(columns, MANY))
    draws = of_one(bleu_1(columns.sum(0)), drawn)
    above = (exact > 1e-12).mean() + (abs(exact) <= 1e-12).mean() / 2
    assert 0.1 < above < 0.9
    assert draws.share_above_zero == pytest.approx(above, abs=5 * sigma(0.5))
    low, high = draws.interval(0.8)
    slack = 5 * sigma(0.1)
    assert (exact < low - 1e-12).mean() - slack <= 0.1 <= (exact <= low + 1e-12).mean() + slack
    assert (exact > high + 1e-12).mean() - slack <= 0.1 <= (exact >= high - 1e-12).mean() + slack
    assert drawn.var() == pytest.approx(exact.var(), rel=0.05)  # its relative error is about sqrt(2 / MANY), 0.7%


def test_bleu_of_summed_counts_is_that_of_the_images_repeated():
    rows = [0, 0, 3, 1, 0]
    words, references = (
        [GOOD[row].split() for row in rows],
        [[text.split() for text in REFERENCES[row]] for row in rows],
    )
    summed = bleu_of(counts_of(GOOD)[rows].sum(0))
    assert summed.tolist() == [result.corpus for result in bleu(words, references)]


def test_all_columns_and_every_chunk_are_resampled_alike(monkeypatch):
    monkeypatch.setattr(bootstrap, "ENTRIES", 15)  # three resamples at once
    values = np.random.default_rng(3).normal(size=5)
    sums = resampled_sums(np.column_stack([np.ones(5), values, 2 * values]), 100)
    assert sums.shape == (100, 3)
    assert (sums[:, 0] == 5).all()
    np.testing.assert_allclose(sums[:, 2], 2 * sums[:, 1], atol=1e-12)
    assert len(np.unique(sums[:, 1])) > 50
    assert (resampled_sums(values[:, None], 100) == resampled_sums(values[:, None], 100)).all()


def test_intervals_of_a_paired_difference_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    found, apart = [], []
    for trial in range(400):
        hard = rng.normal(size=80)  # what makes an image hard for both
        scores = np.column_stack([hard + rng.normal(scale=0.3, size=80), hard + rng.normal(scale=0.3, size=80)])
        means = resampled_sums(scores, 400, seed=trial) / 80
        one, other = (of_one(scores[:, i].mean(), means[:, i]) for i in (0, 1))
        found.append((one - other).interval())
        apart.append(one.interval())
    assert 0.91 <= covered(found) <= 0.98  # 95%; 400 trials tell it to 1.1%, and 80 images and 400 draws cost a little
    widths = [np.mean([high - low for low, high in some]) for some in (found, apart)]
    assert widths[0] < widths[1] / 2  # 0.42 / 1.04 by the variances: what both share cancels


@pytest.mark.parametrize(("seeds", "resampled_seeds"), [(2, 0.66), (3, 0.81), (5, 0.90)])
def test_intervals_of_a_few_seeds_hold_the_truth_where_resampled_seeds_do_not(seeds, resampled_seeds):
    rng = np.random.default_rng(seeds)
    drawn, naive = [], []
    for _ in range(400):
        reached = rng.normal(size=(2, seeds))
        on_images = [values + rng.normal(scale=0.01, size=(200, seeds)) for values in reached]
        one, other = (Draws.of(values, some, rng) for values, some in zip(reached, on_images, strict=True))
        drawn.append((one - other).interval())
        again = [np.take_along_axis(some, rng.integers(seeds, size=some.shape), 1).mean(1) for some in on_images]
        naive.append(tuple(np.quantile(again[0] - again[1], [0.025, 0.975])))
    assert covered(drawn) >= 0.94  # Student's t of two samples is careful: 97% to 99.8%
    assert covered(naive) == pytest.approx(resampled_seeds, abs=0.07)  # 400 trials: three sigma


def test_the_luck_that_seeds_had_with_the_images_is_not_held_against_the_seeds():
    rng = np.random.default_rng(1)
    shares = {0.0: [], 3.0: []}
    for apart, some in shares.items():
        for trial in range(60):
            scores = rng.normal(size=(200, 4)) + apart * rng.normal(size=4) / 200**0.5
            some.append(Draws.of(scores.mean(0), resampled_sums(scores, 300, trial) / 200, rng).share_of_seeds)
    assert np.median(shares[0.0]) < 0.25  # all that the seeds differ by is the 200 images
    assert 0.8 < np.median(shares[3.0]) < 0.95  # nine times the variance of the images: 9 of 10 parts


def test_of_one_run_nothing_is_said_of_seeds():
    draws = of_one(np.array(0.5), np.array([0.4, 0.5, 0.6]))
    assert draws.seeds.tolist() == [0, 0, 0]
    assert draws.share_of_seeds == 0
    nothing = draws - draws
    assert (nothing.value, nothing.interval(), nothing.share_above_zero, nothing.share_of_seeds) == (0, (0, 0), 0.5, 0)
