"""What a sweep found: a table for people, trials.csv, and the page "HParams" of TensorBoard."""

import csv
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import TrialState

from rlcap.sweep.study import COMMAND, SAID, SECONDS, best_of

TABLE = "trials.csv"
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "unfinished",
}


def folder_of(number: int) -> str:
    """The name of a trial's folder in the sweep's."""
    return f"trial{number:04d}"


@dataclass(frozen=True)
class Row:
    """A trial; `value` and `update` are those of its best evaluation."""

    trial: int
    state: str
    value: float | None
    update: int | None
    seconds: float | None  # of training
    values: Mapping[str, Any]
    command: str  # that trains it by itself
    said: str  # why it failed

    @property
    def folder(self) -> str:
        return folder_of(self.trial)


def rows_of(study: Study) -> list[Row]:
    """The best first; behind them those without any evaluation."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        value, update = best_of(study, trial) or (None, None)
        words = [*study.user_attrs[COMMAND], *trial.user_attrs.get(COMMAND, [])]
        seconds, said = trial.user_attrs.get(SECONDS), trial.user_attrs.get(SAID, "")
        state = STATES.get(trial.state, trial.state.name.lower())
        rows.append(Row(trial.number, state, value, update, seconds, trial.params, shlex.join(words), said))
    sign = 1 if study.direction.name == "MAXIMIZE" else -1
    return sorted(rows, key=lambda row: (row.value is None, -sign * (row.value or 0.0), row.trial))


def best_row(rows: Sequence[Row]) -> Row | None:
    """Of those that were trained to their end."""
    return next((row for row in rows if row.state == "complete"), None)


def table(rows: Sequence[Row], metric: str) -> str:
    """A line a trial, and below them why some failed."""
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    cells = [["trial", "state", metric, "update", "time", *names]]
    for row in rows:
        value = "" if row.value is None else f"{row.value:.4f}"
        told = [_shown(row.values.get(name, "")) for name in names]
        cells.append([str(row.trial), row.state, value, str(row.update or ""), _duration(row.seconds), *told])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join([*lines, *(f"trial {row.trial} failed: {row.said}" for row in rows if row.said)])


def as_csv(rows: Sequence[Row], metric: str) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", metric, "update", "seconds", *names, "failed_because"])
    for row in rows:
        values = [row.values.get(name, "") for name in names]
        writer.writerow([row.trial, row.state, row.value, row.update, row.seconds, *values, row.said])
    return text.getvalue()


def log_values(run: Path, values: Mapping[str, Any], metric: str, best: tuple[float, int]) -> None:
    """Adds a trial to TensorBoard's HParams, in the run's own folder (add_hparams would make one more)."""
    from torch.utils.tensorboard import SummaryWriter  # who only shows a table need not wait for torch
    from torch.utils.tensorboard.summary import hparams

    value, update = best
    tag = f"best/{metric}"
    plain = {name: each if isinstance(each, int | float | str) else json.dumps(each) for name, each in values.items()}
    with SummaryWriter(str(run)) as writer:
        file = writer._get_file_writer()
        for summary in hparams(plain, {tag: value}):
            file.add_summary(summary)
        writer.add_scalar(tag, value, update)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
