"""The parts of the page in figures and words: results at a glance, warnings, the table of metrics, the settings."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rlcap.report.charts import colour
from rlcap.report.figures import LOWER, is_text, name_of, shown
from rlcap.report.html import Html, join, tag
from rlcap.report.intervals import mean_intervals
from rlcap.report.reading import Column, Scored, flat

MANY = 14  # settings that differ: more are folded away
BAR = (100, 8)  # of an interval in the table

Interval = tuple[float, float]


def badge(number: int) -> Html:
    """Stands for a run wherever it is shown."""
    return tag("span", number, class_=f"badge {colour(number)}", aria_hidden="true")


def named(number: int, column: Column, several: bool) -> Html:
    return join(badge(number), " ", tag("bdi", column.label)) if several else tag("bdi", column.label)


def results(columns: Sequence[Column], scored: Sequence[Scored | None]) -> Html:
    """A card a run: what chose its checkpoint, how sure that is, and the change from the first run, or stage."""
    cards, start = [], 0
    several = len(columns) > 1
    for number, (column, found) in enumerate(zip(columns, scored, strict=True), 1):
        key = column.metric
        lines: list[object] = [tag("h3", named(number, column, several))]
        value = found.corpus.get(key) if found else (column.best[1] if column.best else None)
        if value is None:
            lines.append(tag("p", "No evaluation yet", class_="faint"))
        else:
            figure = tag("span", f"{shown(key, value):.1f}", class_="big")
            lines.append(tag("p", figure, " ", name_of(key, found is not None and is_text(found))))
        if found and key in found.intervals:
            low, high = (shown(key, bound) for bound in found.intervals[key])
            lines.append(tag("p", f"95% interval {low:.1f} to {high:.1f}", class_="faint"))
        start = start if column.before else number - 1
        base = start if column.before else 0
        first = scored[base]
        if number > 1 and first and found and first.images == found.images and first.split == found.split:
            lines.append(_change(key, first, found, columns[base].label))
        lines += [tag("p", line, class_="faint") for line in _circumstances(column, found)]
        told = len(column.log.warnings)
        if told:
            lines.append(tag("p", tag("a", f"{told} warning{'s' * (told > 1)}", href="#warnings"), class_="warned"))
        cards.append(tag("article", *lines, class_=f"card result {colour(number)}"))
    return tag("div", *cards, class_="cards")


def _change(key: str, first: Scored, found: Scored, label: str) -> Html | None:
    """From the first run, on the same images, with an interval of its own; in colour where it is no chance."""
    if key not in first.corpus or key not in found.corpus:
        return None
    change, sure, kind = found.corpus[key] - first.corpus[key], "", None
    if key in first.intervals and key in found.intervals:
        low, high = mean_intervals((found.per_image[key] - first.per_image[key])[:, None])[0]
        sure = f" (95%: {signed(shown(key, low))} to {signed(shown(key, high))})"
        if low > 0 or high < 0:
            kind = "good" if (low > 0) != (key in LOWER) else "bad"
    return tag("p", tag("b", signed(shown(key, change)), class_=kind), f"{sure} against ", tag("bdi", label))


def _circumstances(column: Column, found: Scored | None) -> list[str]:
    lines = []
    if found:
        unit = "sentences" if is_text(found) else "images"
        name = "" if found.name == found.split else f" ({found.name})"
        lines.append(f"{len(found.images):,} {unit} of {found.split}{name}")
    log = column.log
    if column.best and column.best[0] != log.updates:
        lines.append(f"best at update {column.best[0]:,} of {log.updates:,}")
    elif log.updates:
        lines.append(f"{log.updates:,} updates")
    if log.begun is not None and log.ended is not None and log.ended > log.begun:
        lines[-1:] = [f"{lines[-1]} in {lasting(log.ended - log.begun)}" if lines else lasting(log.ended - log.begun)]
    return lines


def signed(change: float) -> str:
    return f"{change:+.1f}".replace("-", "\N{MINUS SIGN}")


def lasting(seconds: float) -> str:
    """A length of time, in the two units that tell most."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 60:
        return f"{minutes:.0f} min"
    return f"{int(hours)} h {int(minutes % 60):02} min" if hours < 48 else f"{int(days)} days {int(hours % 24)} h"


def warnings(columns: Sequence[Column]) -> Html | None:
    """What was seen, and what to do."""
    told = []
    for number, column in enumerate(columns, 1):
        for warning in column.log.warnings:
            seen, _, remedy = warning.text.partition("; ")
            name = join(named(number, column, True), " ") if len(columns) > 1 else None
            when = tag("span", f"update {warning.update:,}", class_="faint")
            advice = tag("p", "What to do: ", remedy, ".") if remedy else None
            told.append(
                tag("li", tag("p", name, when), tag("p", tag("strong", seen[:1].upper(), seen[1:], ".")), advice)
            )
    return tag("ul", *told, class_="warnings") if told else None


def metric_table(columns: Sequence[Column], scored: Sequence[Scored | None]) -> Html | None:
    """A row a figure, a column a run."""
    there = [(number, column, found) for number, (column, found) in enumerate(zip(columns, scored, strict=True), 1)]
    given = [(number, column, found) for number, column, found in there if found]
    if not given:
        return None
    text, several = is_text(given[0][2]), len(columns) > 1
    head = [tag("th", named(number, column, several), scope="col") for number, column, _ in given]
    groups = []
    for title, part in (("Metrics, x100", "corpus"), ("Health, shares x100", "health")):
        tables: list[Mapping[str, float]] = [getattr(found, part) for _, _, found in given]
        rows = []
        for key in dict.fromkeys(key for table in tables for key in table):
            values = [table.get(key) for table in tables]
            bounds = [found.intervals.get(key) if part == "corpus" else None for _, _, found in given]
            rows.append(_metric_row(key, text, values, bounds, part == "corpus" and several))
        if rows:
            heading = tag("tr", tag("th", title, scope="rowgroup", colspan=len(given) + 1), class_="group")
            groups.append(tag("tbody", heading, *rows))
    table = tag("table", tag("thead", tag("tr", tag("td"), *head)), *groups, class_="metrics")
    return tag("div", table, class_="scrolls card", tabindex=0, role="region", aria_label="Table of metrics")


def _metric_row(
    key: str, text: bool, values: Sequence[float | None], bounds: Sequence[Interval | None], compared: bool
) -> Html:
    known = [value for value in values if value is not None]
    best = (min if key in LOWER else max)(known)
    ends = [end for bound in bounds if bound for end in bound]
    cells = [tag("th", name_of(key, text), scope="row")]
    for value, bound in zip(values, bounds, strict=True):
        if value is None:
            cells.append(tag("td", "–"))
            continue
        figure = tag("b" if compared and value == best and len(set(known)) > 1 else "span", f"{shown(key, value):.2f}")
        cells.append(tag("td", figure, *_interval(key, value, bound, ends)))
    return tag("tr", *cells)


def _interval(key: str, value: float, bound: Interval | None, ends: Sequence[float]) -> list[Html]:
    """In figures, and as a bar on the scale of its row."""
    if bound is None:
        return []
    low, high = (shown(key, end) for end in bound)
    spread = max(max(ends) - min(ends), 1e-12)
    left, middle, right = (2 + (BAR[0] - 4) * (place - min(ends)) / spread for place in (bound[0], value, bound[1]))
    bar = tag("rect", x=f"{left:.1f}", y=3, width=f"{right - left:.1f}", height=2)
    dot = tag("rect", x=f"{middle - 1.5:.1f}", y=0.5, width=3, height=7)
    whole = tag("svg", bar, dot, viewBox=f"0 0 {BAR[0]} {BAR[1]}", aria_hidden="true", class_="interval")
    return [tag("small", f"{low:.1f} – {high:.1f}"), whole]


def settings(columns: Sequence[Column]) -> Html:
    """What was run, what differs, and all of it on request."""
    several = len(columns) > 1
    head = tag("tr", tag("td"), *(tag("th", named(n, c, several), scope="col") for n, c in enumerate(columns, 1)))
    facts = [_facts(column) for column in columns]
    rows = [
        _row(key, [fact.get(key) for fact in facts]) for key in dict.fromkeys(key for fact in facts for key in fact)
    ]
    parts = [_scrolling(tag("table", tag("thead", head), tag("tbody", *rows)), "What was run")]
    if several:
        tables = [dict(flat(column.config)) for column in columns]
        keys = dict.fromkeys(key for table in tables for key in table)
        differing = [key for key in keys if len({repr(table.get(key)) for table in tables}) > 1]
        table = tag("tbody", *(_row(key, [table.get(key, "") for table in tables]) for key in differing))
        parts.append(
            tag(
                "details",
                tag("summary", f"{len(differing)} settings differ"),
                _scrolling(tag("table", tag("thead", head), table), "Settings that differ"),
                open=len(differing) <= MANY,
            )
        )
    for number, column in enumerate(columns, 1):
        lines = tag("pre", "\n".join(f"{key}: {_plain(value)}" for key, value in flat(column.config)), tabindex=0)
        parts.append(tag("details", tag("summary", "All settings of ", named(number, column, several)), lines))
    return join(*parts)


def _facts(column: Column) -> dict[str, str]:
    rewards = column.setting("rewards") or {}
    weighed = [f"{label} × {value.get('weight', 1):g}" for label, value in rewards.items() if isinstance(value, dict)]
    environment, log = column.environment, column.log
    facts: dict[str, Any] = {
        "folder": column.folder,
        "recipe": column.setting("name"),
        "policy": column.setting("policy.name") or column.setting("scorer.name"),
        "trainer": column.setting("trainer.name"),
        "rewards": ", ".join(weighed) or "none",
        "starts from": column.setting("training.start") or "nothing",
        "data set": column.setting("data.path"),
        "splits": f"trained on {column.setting('data.train')}, evaluated on {column.setting('data.evaluate')}",
        "seed": column.setting("training.seed"),
        "device": environment.get("gpu") or environment.get("device"),
        "versions": ", ".join(
            f"{name} {environment[name]}" for name in ("rlcap", "torch", "python") if name in environment
        ),
        "machine": environment.get("machine"),
    }
    if log.begun is not None and log.ended is not None:
        facts["begun"] = f"{datetime.fromtimestamp(log.begun, UTC):%Y-%m-%d %H:%M} UTC"
        facts["took"] = lasting(log.ended - log.begun)
    return {key: str(value) for key, value in facts.items() if value not in (None, "")}


def _row(key: str, values: Sequence[Any]) -> Html:
    return tag("tr", tag("th", key, scope="row"), *(tag("td", tag("bdi", _plain(value))) for value in values))


def _scrolling(table: Html, label: str) -> Html:
    return tag("div", table, class_="scrolls card", tabindex=0, role="region", aria_label=label)


def _plain(value: Any) -> str:
    """As a recipe writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
