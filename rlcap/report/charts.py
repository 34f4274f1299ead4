"""Curves as inline SVG, drawn here: a line a run, its number at its end, the same colour on the whole page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlcap.report.html import Html, join, tag

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 42, 22, 10, 24
POINTS = 240  # of a line: more than a screen tells apart
SMOOTHED = 40  # points from which on a line is noise around a mean, which is drawn too
WINDOW = 1 / 16  # of the points
MARKS = 24  # a line of so few points shows them
BADGE = 7  # pixels, the radius of a run's number
COLOURS = 8

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """Of one run: `number` from 1 is that of its colour and badge."""

    number: int
    label: str
    x: Floats
    y: Floats


def colour(number: int) -> str:
    """The class that gives a run's colour."""
    return f"c{(number - 1) % COLOURS}"


def chart(title: str, lines: Sequence[Line], note: str = "", numbered: bool = True) -> Html:
    """One figure. `numbered`: a badge at the end of each line tells the runs apart, whatever the colours."""
    lines = [_thinned(line) for line in lines if len(line.x)]
    xs, ys = (np.concatenate([getattr(line, axis) for line in lines]) for axis in "xy")
    x_ticks, y_ticks = ticks(float(xs.min()), float(xs.max()), 4), ticks(*_heights(ys, lines), 4)
    frame = _Frame(min(xs.min(), x_ticks[0]), max(xs.max(), 1e-9), y_ticks[0], y_ticks[-1])
    drawn = [frame.grid(x_ticks, y_ticks), *(frame.line(line) for line in lines)]
    if numbered:
        drawn.append(frame.badges(lines))
    told = "; ".join(f"{line.label}: {line.y[0]:.4g} to {line.y[-1]:.4g}" for line in lines)
    picture = tag(
        "svg",
        tag("title", f"{title} by update. {told}"),
        *drawn,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        class_="chart",
    )
    heading = tag("figcaption", tag("b", title), tag("span", f" {note}", class_="faint") if note else None)
    return tag("figure", heading, picture, class_="card curve")


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers that enclose both ends, some `about` of them."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - max(abs(low), 1e-3) / 2, high + max(abs(high), 1e-3) / 2
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(times for times in (1, 2, 5, 10) if times * unit >= rough * 0.999)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return [round(at * step, 12) for at in range(first, last + 1)]


def brief(value: float) -> str:
    """A number for an axis."""
    if value and abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}" if not value or abs(value) >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")


@dataclass(frozen=True)
class _Frame:
    """From values to places."""

    left: float
    right: float
    bottom: float
    top: float

    def x(self, value: Floats | float) -> Floats | float:
        return LEFT + (value - self.left) / max(self.right - self.left, 1e-12) * (WIDTH - LEFT - RIGHT)

    def y(self, value: Floats | float) -> Floats | float:
        share = (value - self.bottom) / max(self.top - self.bottom, 1e-12)
        return np.clip(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 0, HEIGHT - BOTTOM + 4)

    def grid(self, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> Html:
        parts = []
        for value in y_ticks:
            parts.append(tag("path", d=f"M{LEFT} {self.y(value):.1f}H{WIDTH - RIGHT + 8}", class_="grid"))
            parts.append(tag("text", brief(value), x=LEFT - 6, y=f"{self.y(value) + 3.5:.1f}", text_anchor="end"))
        for value in x_ticks:
            if self.left <= value <= self.right:
                parts.append(tag("text", brief(value), x=f"{self.x(value):.1f}", y=HEIGHT - 7, text_anchor="middle"))
        return join(*parts)

    def line(self, line: Line) -> Html:
        noisy = len(line.x) >= SMOOTHED
        parts = [tag("path", d=self._path(line.x, line.y), class_="faint-line" if noisy else "line")]
        if noisy:
            parts.append(tag("path", d=self._path(line.x, smooth(line.y)), class_="line"))
        if len(line.x) <= MARKS:
            for x, y in zip(line.x, line.y, strict=True):
                told = tag("title", f"{line.label}: {y:.4g} at update {x:g}")
                parts.append(tag("circle", told, cx=f"{self.x(x):.1f}", cy=f"{self.y(y):.1f}", r=2.6))
        return tag("g", *parts, class_=colour(line.number))

    def badges(self, lines: Sequence[Line]) -> Html:
        """At the lines' ends, pushed apart where they would hide one another."""
        ends = sorted((float(self.y(smooth(line.y)[-1])), float(self.x(line.x[-1])), line.number) for line in lines)
        parts: list[Html] = []
        placed: list[tuple[float, float]] = []
        for y, x, number in ends:
            near = [high for across, high in placed if abs(across - x) < 2 * BADGE]
            y = max([y, *(high + 2 * BADGE for high in near)])
            placed.append((x, y))
            circle = tag("circle", cx=f"{x + BADGE + 4:.1f}", cy=f"{y:.1f}", r=BADGE)
            word = tag("text", number, x=f"{x + BADGE + 4:.1f}", y=f"{y + 3.4:.1f}", text_anchor="middle")
            parts.append(tag("g", circle, word, class_=f"badge {colour(number)}"))
        return join(*parts)

    def _path(self, x: Floats, y: Floats) -> str:
        places = zip(np.atleast_1d(self.x(x)), np.atleast_1d(self.y(y)), strict=True)
        return "M" + "L".join(f"{across:.1f} {down:.1f}" for across, down in places)


def smooth(y: Floats) -> Floats:
    """The mean of what lies around each point; a short line as it is."""
    if len(y) < SMOOTHED:
        return y
    reach = max(1, round(len(y) * WINDOW / 2))
    sums = np.concatenate(([0.0], np.cumsum(y)))
    low = np.maximum(np.arange(len(y)) - reach, 0)
    high = np.minimum(np.arange(len(y)) + reach + 1, len(y))
    mean: Floats = (sums[high] - sums[low]) / (high - low)
    return mean


def _thinned(line: Line) -> Line:
    """Neighbours of a long line give way to their mean."""
    if len(line.x) <= POINTS:
        return line
    parts = [np.array_split(axis, POINTS) for axis in (line.x, line.y)]
    x, y = (np.array([part.mean() for part in axis]) for axis in parts)
    return Line(line.number, line.label, x, y)


def _heights(ys: Floats, lines: Sequence[Line]) -> tuple[float, float]:
    """What the chart spans: a few wild points of many are cut off, so that the rest can be read."""
    if len(ys) < SMOOTHED:
        return float(ys.min()), float(ys.max())
    means = np.concatenate([smooth(line.y) for line in lines])
    low, high = np.quantile(ys, (0.01, 0.99))
    return float(min(low, means.min())), float(max(high, means.max()))
