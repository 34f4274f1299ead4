"""The parts of a report, each by itself: intervals, charts, the choice of images, colours, words for a gaze."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlcap.report.charts import Line, brief, chart, smooth, ticks
from rlcap.report.choice import groups
from rlcap.report.gazes import light_of, where_in_words
from rlcap.report.html import tag
from rlcap.report.intervals import is_mean, mean_intervals
from rlcap.report.looking import Look
from rlcap.report.reading import Column, Log, Scored
from rlcap.report.style import STYLE
from rlcap.report.summary import lasting, results


def scored(name: str, values: list[float]) -> Scored:
    images = [str(at) for at in range(len(values))]
    return Scored(name, "val", {}, {}, images, ["said"] * len(images), {"cider_d": np.array(values)})


def test_who_gained_and_who_is_best():
    some = [Column(label, Path(), {}, {}, Log()) for label in ("one", "two")]
    given = [scored("one", [0.0, 5.0, 2.0, 3.0]), scored("two", [1.0, 1.0, 4.0, 3.0])]
    found = groups(some, given, given[0].images, "cider_d", "CIDEr-D", 2)
    assert [group.images for group in found] == [["2", "0"], ["1"], ["2", "3"], ["1", "0"], ["0", "1"]]
    assert found[0].title == "Gained most in CIDEr-D, from one to two"
    alone = groups(some[1:], given[1:], ["1", "3"], "cider_d", "CIDEr-D", 2)
    assert [group.images for group in alone] == [["3"], ["1"], ["1"]]


def test_intervals():
    values = np.random.default_rng(1).gamma(2.0, size=(1000, 2))
    (low, high), _ = mean_intervals(values)
    error = values[:, 0].std() / np.sqrt(len(values))
    # 2000 draws give the bounds within about a tenth of a standard error.
    assert [low, high] == pytest.approx(values[:, 0].mean() + error * np.array([-1.96, 1.96]), abs=0.2 * error)
    np.testing.assert_array_equal(mean_intervals(values), mean_intervals(values))
    together = mean_intervals(np.stack([values[:, 0], values[:, 0] + 1], 1))
    np.testing.assert_allclose(together[1] - together[0], 1)  # the same images are drawn for both
    assert is_mean(float(values[:, 0].mean()), values[:, 0])
    assert not is_mean(float(values[:, 0].mean()) + 0.01, values[:, 0])


def test_a_change_is_in_colour_where_it_is_no_chance():
    values = np.random.default_rng(0).random(200)
    given = [
        replace(scored("a", list(values + rise)), corpus={"cider_d": float((values + rise).mean())}) for rise in (0, 1)
    ]
    some = [Column(label, Path(), {}, {}, Log()) for label in ("one", "two")]
    assert '<b class="good">+100.0</b> (95%: +100.0 to +100.0) against ' in results(some, given)
    assert '<b class="bad">\N{MINUS SIGN}100.0</b>' in results(some, given[::-1])
    stages = [*some, replace(some[0], label="three"), replace(some[1], label="four", before=9)]
    told = re.findall("against <bdi>(.*?)</bdi>", results(stages, given * 2))
    assert told == ["one", "one", "three"]  # a stage is compared with the first of its run
    noise = replace(given[0], per_image={"cider_d": values[::-1]})
    assert "<b>+0.0</b> (95%: \N{MINUS SIGN}" in results(some, [given[0], noise])


def test_charts():
    assert ticks(0.13, 0.58, 4) == [0, 0.2, 0.4, 0.6]
    assert ticks(3, 3, 4)[0] < 3 < ticks(3, 3, 4)[-1]
    assert ticks(0, 0, 4)[0] < 0 < ticks(0, 0, 4)[-1]
    assert [brief(value) for value in (0, 0.25, 20_000, 0.00005)] == ["0", "0.25", "20k", "5e-5"]
    np.testing.assert_allclose(smooth(np.full(100, 3.0)), 3)
    assert smooth(np.arange(100.0))[50] == pytest.approx(50)
    x = np.arange(1000.0)
    lines = [
        Line(1, "a", x, np.sin(x)),
        *(Line(number, "b", x[:9], x[:9]) for number in (9, 10)),
        Line(3, "c", x, x * 0),
    ]
    drawn = chart("<t>", lines)
    assert drawn.count('class="faint-line"') == 2
    ends = re.findall('class="badge (c.)"><circle cx="(.*?)" cy="(.*?)"', drawn)
    assert sorted(kind for kind, _, _ in ends) == ["c0", "c0", "c1", "c2"]
    for at, (_, left, top) in enumerate(ends):  # none hides another, and none goes far for what is not near
        gaps = [np.hypot(float(left) - float(x), float(top) - float(y)) for _, x, y in ends[:at]]
        assert min(gaps, default=99) > 13
    places = [float(number) for path in re.findall('<path d="(.*?)"', drawn) for number in re.findall(r"[\d.]+", path)]
    assert len(places) < 2 * 5 * 260  # thinned
    assert max(places) < 340
    assert lasting(59) + lasting(3599) + lasting(3600) + lasting(50 * 3600) == "59 s60 min1 h 00 min2 days 2 h"


def test_where_it_looks():
    boxes = np.array([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
    light = light_of(np.array([0.2, 0.8]), Look(("a",), None, None, None, boxes, False))
    assert (light[0, 0], light[-1, -1], light[0, -1]) == (0.25, 1, 0)
    assert where_in_words(light) == "at the bottom on the right"
    cells = light_of(np.array([0.1, 0.4, 0.3, 0.2]), Look(("a",), None, None, (2, 2), None, False))
    np.testing.assert_allclose(cells, [[0.25, 1], [0.75, 0.5]])
    assert where_in_words(np.ones((3, 3))) == "everywhere alike"
    assert where_in_words(np.eye(3)[1][None].repeat(3, 0) * np.eye(3)[1][:, None]) == "at the centre"


def luminance(colour: str) -> float:
    """WCAG 2.2."""
    long = colour if len(colour) == 7 else "#" + "".join(2 * digit for digit in colour[1:])
    parts = np.array([int(long[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return float(np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def test_every_text_is_dark_or_light_enough_to_read():
    light, dark = (dict(re.findall(r"--([\w-]+):(#\w+)", part)) for part in re.findall(r":root\{(.*?)\}", STYLE, re.S))
    for scheme in (light, dark):
        pairs = [(ink, paper) for ink in ("ink", "faint", "link", "good", "bad") for paper in ("paper", "card")]
        pairs += [
            ("ink", "warn"),
            ("faint", "warn"),
            *(("on", f"c{n}") for n in range(8)),
            *((f"c{n}", "card") for n in range(4)),
        ]
        for ink, paper in pairs:
            low, high = sorted((luminance(scheme[ink]), luminance(scheme[paper])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, paper)


def test_tags():
    assert tag("a", "<", tag("b", 1), None, class_='x"y', open=True, hidden=False, aria_label=None) == (
        '<a class="x&quot;y" open>&lt;<b>1</b></a>'
    )
