"""Kendall's tau by enumeration and by hand, and `rlcap correlate` on made-up judgements in Flickr8k's two forms."""

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcap.cli import main
from rlcap.metrics import evaluate_captions
from rlcap.metrics.correlation import kendall

CAPTIONS = {
    "a.jpg": ["A dog runs on grass .", "The brown dog is running"],
    "b.jpg": ["Two cats sleep on a sofa .", "Cats lie there"],
    "c.jpg": ["Three men play chess .", "Men play chess in a park"],
}
EXPERT = "a.jpg\ta.jpg#1\t4\t4\t4\na.jpg\tb.jpg#0\t1\t1\t2\nb.jpg\ta.jpg#0\t1\t2\t2\nc.jpg\tb.jpg#1\t1\t1\t1\n"
CROWD = "a.jpg\ta.jpg#1\t1\t3\t0\na.jpg\tb.jpg#0\t0.333333333333\t1\t2\nb.jpg\ta.jpg#0\t0\t0\t3\nb.jpg\tc.jpg#1\t0.25\t1\t3\n"


def by_enumeration(x: list[int], y: list[int]) -> tuple[float, float]:
    """tau-b and tau-c of their definitions, pair by pair."""
    pairs = [((x[i] > x[j]) - (x[i] < x[j]), (y[i] > y[j]) - (y[i] < y[j])) for i, j in combinations(range(len(x)), 2)]
    difference = sum(a * b for a, b in pairs)
    m = min(len(set(x)), len(set(y)))
    if m < 2:
        return math.nan, math.nan
    untied = sum(a != 0 for a, _ in pairs) * sum(b != 0 for _, b in pairs)
    return difference / math.sqrt(untied), 2 * m * difference / (len(x) ** 2 * (m - 1))


@given(st.lists(st.tuples(st.integers(-4, 9), st.integers(0, 5)), max_size=40))
def test_kendall_equals_enumeration(points):
    x, y = [a for a, _ in points], [b for _, b in points]
    found = kendall(x, y)
    # Both sides divide the same whole numbers, in another order: a few units in the last place.
    assert (found.tau_b, found.tau_c) == pytest.approx(by_enumeration(x, y), rel=1e-14, nan_ok=True)
    assert found.points == len(points)


def test_kendall_by_hand():
    """Of 6 pairs: (1,1)-(2,1) and (1,1)-(1,2) tie on one side; (2,1)-(1,2) is opposite, the three with (3,3) agree.

    C - D = 2; 5 pairs without a tie on each side; 3 distinct values on both.
    """
    found = kendall([1, 2, 1, 3], [1, 1, 2, 3])
    assert found.tau_b == pytest.approx(2 / 5)
    assert found.tau_c == pytest.approx(2 / (4**2 * 2 / 6))
    assert kendall([0.1, 0.2, 0.3], [1, 2, 4]).tau_b == kendall([0.1, 0.2, 0.3], [1, 2, 4]).tau_c == 1
    assert kendall([3, 2, 1], [1, 2, 4]).tau_b == -1
    assert math.isnan(kendall([1, 2, 3], [5, 5, 5]).tau_b)
    with pytest.raises(ValueError, match="2 scores for 3 judgements"):
        kendall([1, 2], [1, 2, 3])


def test_kendall_equals_scipy():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    x, y = random.random(20_000).round(3), random.integers(1, 5, 20_000)
    found = kendall(x, y)
    assert found.tau_b == pytest.approx(stats.kendalltau(x, y, variant="b").statistic, rel=1e-9)
    assert found.tau_c == pytest.approx(stats.kendalltau(x, y, variant="c").statistic, rel=1e-9)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [f"{image}#{k}\t{text}\n" for image, texts in CAPTIONS.items() for k, text in enumerate(texts)]
    Path("tokens.txt").write_text("".join(reversed(lines)))  # captions are found by their numbers
    Path("expert.txt").write_text(EXPERT)
    Path("crowd.txt").write_text(CROWD)
    return tmp_path


def correlated(capsys: pytest.CaptureFixture[str], *argv: str) -> dict:
    capsys.readouterr()
    assert main(["correlate", *argv, "--captions", "tokens.txt", "--json"]) == 0
    return json.loads(capsys.readouterr().out)
