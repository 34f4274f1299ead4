"""All that was logged, as small charts in groups: what matters first, the rest on request."""

import re
from collections.abc import Sequence

import numpy as np

from rlcap.report.charts import Line, chart
from rlcap.report.figures import name_of, shown
from rlcap.report.html import Html, join, tag
from rlcap.report.reading import Column

GROUPS = {
    "Evaluated metrics": r"eval/",
    "Rewards": r"reward/(total|greedy)$|reward/.+/raw$|advantage/deviation$",
    "Losses": r"loss/",
    "Health of the evaluated captions": r"health/",
    "Policy and drawn captions": r"policy/|caption/",
}
REST = "Everything else that was logged"
NAMES = {
    "reward/total": "all rewards",
    "reward/greedy": "reward of the greedy captions",
    "advantage/mean": "advantage, mean",
    "advantage/deviation": "advantage, deviation",
    "policy/entropy": "entropy of a word, nats",
    "policy/kl_to_start": "KL to the start, nats a word",
    "caption/length": "words of a drawn caption",
    "caption/bad_ending": "drawn captions that end in the middle",
    "optimiser/gradient_norm": "norm of the gradient",
    "optimiser/rate": "learning rate",
}


def headline(columns: Sequence[Column]) -> list[Html]:
    """What chose the best checkpoint, a chart for each split that it was evaluated on."""
    return _charts(columns, _headlines(columns))


def curves(columns: Sequence[Column]) -> Html | None:
    """All but the headline. Stages of a run follow one another on the axis of updates."""
    tags = _different(columns)
    tags = [name for name in tags if name not in _headlines(columns)]
    parts: list[Html] = []
    for title, pattern in GROUPS.items():
        some = [name for name in tags if re.match(pattern, name)]
        tags = [name for name in tags if name not in some]
        some.sort(key=lambda name: not name.startswith("reward/total"))
        if charts := _charts(columns, some):
            parts.append(join(tag("h3", title), tag("div", *charts, class_="charts")))
    if charts := _charts(columns, tags):
        rest = tag("div", *charts, class_="charts")
        parts.append(tag("details", tag("summary", f"{REST} ({len(charts)} curves)"), rest))
    return join(*parts) if parts else None


def _headlines(columns: Sequence[Column]) -> list[str]:
    names = [f"eval/{column.setting('data.evaluate')}/{column.metric}" for column in columns]
    return list(dict.fromkeys(names))


def _different(columns: Sequence[Column]) -> list[str]:
    """All tags but those that say the same as one before, as one reward's and all rewards' do."""
    found: dict[str, list[object]] = {}
    for name in dict.fromkeys(name for column in columns for name in column.log.curves):
        points: list[object] = [column.log.curves.get(name) for column in columns]
        if not name.startswith("reward/") or points not in found.values():
            found[name] = points
    return list(found)


def _charts(columns: Sequence[Column], tags: Sequence[str]) -> list[Html]:
    charts = []
    for name in tags:
        scale = _scale(name)
        lines = []
        for number, column in enumerate(columns, 1):
            if points := column.log.curves.get(name):
                x, y = np.array(points, dtype=np.float64).T
                lines.append(Line(number, column.label, x + column.before, y * scale))
        title, note = _title(name)
        if any(np.ptp(line.x) > 0 for line in lines):
            charts.append(chart(title, lines, note, numbered=len(columns) > 1))
    return charts


def _scale(name: str) -> float:
    return shown(name.split("/")[-1], 1.0) if name.startswith(("eval/", "health/")) else 1.0


def _title(name: str) -> tuple[str, str]:
    """For people; with the split that was evaluated."""
    kind, *rest = name.split("/")
    if kind in ("eval", "health") and len(rest) == 2:
        split, key = rest
        return name_of(key), f"on {split}{', x100' if _scale(name) != 1 else ''}"
    if kind == "reward" and rest[-1] == "raw":
        return f"reward {'/'.join(rest[:-1])}", "as it judges"
    if kind == "loss":
        return "/".join(rest).replace("_", " "), "loss"
    return NAMES.get(name, name.replace("_", " ").replace("/", ": ", 1)), ""
