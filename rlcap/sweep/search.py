"""The parent of a sweep: asks the study what to try, and trains each trial in a process of its own, some at once."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from optuna.study import Study
from optuna.trial import Trial, TrialState

from rlcap.errors import ConfigError
from rlcap.files import only_writer, write_text
from rlcap.progress import say, track, warn
from rlcap.sweep.plan import Plan
from rlcap.sweep.results import STATES, TABLE, as_csv, best_row, folder_of, rows_of
from rlcap.sweep.space import as_overrides
from rlcap.sweep.study import COMMAND, METRIC, SAID, Place, asked, begun_trial, best_of, check_same
from rlcap.sweep.trial import Job

OUTPUT = "output.txt"  # in a trial's folder: what its process printed
POLL = 0.1  # seconds between two looks at the processes
HOPELESS = 3  # trials that failed, and none that did not


def search(plan: Plan, place: Place, trials: int, workers: int, resume: bool = False) -> Study:
    """Goes on until the study has so many trials, pruned and failed ones among them.

    Those that an earlier sweep left unfinished go on first, from their last checkpoints.
    """
    with only_writer(plan.folder), place.told():
        if resume:
            study = place.load()
            check_same(study, place, plan.began_with())
        elif there := sorted(plan.folder.glob("trial[0-9]*")):
            raise ConfigError(
                f"{plan.folder}: holds {there[0].name} of an earlier sweep; go on with --resume, or name another "
                "folder with --out"
            )
        else:
            study = place.create(plan.last.training.metric, plan.command, plan.began_with())
        unfinished = [trial.number for trial in study.get_trials(deepcopy=False) if not trial.state.is_finished()]
        for number in unfinished:
            _check_left_alone(plan.folder / folder_of(number))
        done = len(study.get_trials(deepcopy=False)) - len(unfinished)
        try:
            with _Processes(plan, place, study, workers) as processes:
                for number in track(processes.ended(unfinished, trials), "trials", trials, done):
                    _tell(study, number)
                    write_text(plan.folder / TABLE, as_csv(rows_of(study), plan.last.training.metric))
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(f"{f'{stop}; ' if str(stop) else ''}go on with --resume") from stop
        finally:
            write_text(plan.folder / TABLE, as_csv(rows_of(study), plan.last.training.metric))
    return study


class _Processes:
    """At most so many at once, each with a trial. All are asked to stop, and save, when the block is left early."""

    def __init__(self, plan: Plan, place: Place, study: Study, most: int) -> None:
        self.plan, self.place, self.study, self.most = plan, place, study, most
        self.running: dict[int, tuple[int, subprocess.Popen[str]]] = {}  # by slot: number and process
        self.fruitless = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        processes = [process for _, process in self.running.values()]
        if processes:
            say(f"stopping {len(processes)} trial{'s' * (len(processes) > 1)}, which save what they have learned")
        try:
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
            for process in processes:
                process.wait()
        except KeyboardInterrupt:  # a second signal insists
            for process in processes:
                process.kill()
            raise

    def ended(self, unfinished: list[int], trials: int) -> Iterator[int]:
        """The number of each trial as its process comes to its end."""
        coming = self._coming(unfinished, trials)
        while True:
            while len(self.running) < self.most and (trial := next(coming, None)) is not None:
                slot = min(set(range(self.most)) - self.running.keys())
                self.running[slot] = trial[0], self._start(slot, *trial)
            if not self.running:
                return
            time.sleep(POLL)
            for slot, (number, process) in list(self.running.items()):
                if process.poll() is not None:
                    del self.running[slot]
                    self._check_hope(number, process.returncode)
                    yield number

    def _coming(self, unfinished: list[int], trials: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in unfinished:
            yield number, self._values(begun_trial(self.study, number))
        while len(self.study.get_trials(deepcopy=False)) < trials:
            self.plan.check_unchanged()
            trial = asked(self.study, self.plan.last.training.seed)
            yield trial.number, self._values(trial)

    def _values(self, trial: Trial) -> dict[str, Any]:
        values = self.plan.space.suggested(trial)
        trial.set_user_attr(COMMAND, list(as_overrides(values).values()))
        return values

    def _start(self, slot: int, number: int, values: dict[str, Any]) -> "subprocess.Popen[str]":
        plan, folder = self.plan, self.plan.folder / folder_of(number)
        own = list(as_overrides(values).values())
        say(f"trial {number}: {' '.join(own)}")
        shares = plan.shares(self.most, slot, torch.get_num_threads(), torch.cuda.device_count())
        overrides = [*plan.overrides, *shares, *own]
        job = Job(self.place, number, str(folder), plan.recipe, overrides, plan.stage, values, [*plan.allowed])
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / OUTPUT).open("a", encoding="utf-8") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "rlcap.sweep.trial"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                process_group=0,  # Ctrl-C on a terminal is for the parent alone: twice, it would not save
            )
        assert process.stdin is not None
        process.stdin.write(job.line())
        process.stdin.flush()
        return process

    def _check_hope(self, number: int, status: int) -> None:
        """Tells of a process that was ended from outside, and stops where no trial will ever come to anything."""
        trials = self.study.get_trials(deepcopy=False)
        if not trials[number].state.is_finished():
            how = signal.Signals(-status).name if status < 0 else f"status {status}"
            output = self.plan.folder / folder_of(number) / OUTPUT
            warn(f"trial {number}: ended by {how} before it was done (see {output}); --resume goes on with it")
        fruitful = (TrialState.COMPLETE, TrialState.PRUNED)
        self.fruitless += trials[number].state not in fruitful
        if self.fruitless >= HOPELESS and not any(trial.state in fruitful for trial in trials):
            said = trials[number].user_attrs.get(SAID, "it was ended from outside")
            raise ConfigError(
                f"{self.fruitless} trials failed and none came to its end (trial {number}: {said}); mend that, and go "
                "on with --resume"
            )


def _tell(study: Study, number: int) -> None:
    trials = study.get_trials(deepcopy=False)
    found, state = best_of(study, trials[number]), trials[number].state
    if state == TrialState.FAIL:
        warn(f"trial {number} failed: {trials[number].user_attrs.get(SAID, '')}")
    elif state.is_finished() and found is not None:
        best = best_row(rows_of(study))
        mark = " (best so far)" if best is not None and best.trial == number else ""
        told = f"{study.user_attrs[METRIC]} {found[0]:.4f} at update {found[1]}"
        say(f"trial {number}: {STATES[state]}, {told}{mark}")


def _check_left_alone(folder: Path) -> None:
    """Whoever trained an unfinished trial may still be at it."""
    for run in (folder, *(path.parent for path in folder.glob("*/config.yaml"))):
        if run.exists():
            with only_writer(run):
                pass
