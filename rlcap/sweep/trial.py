"""One trial in a process of its own: `python -m rlcap.sweep.trial`, an ordinary run that tells the study how it fares.

The first line of standard input says what to do; the end of that stream, which also the death of the parent brings,
asks to stop as SIGTERM does. A trial that was stopped or killed is unfinished in the study, and can go on.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optuna.trial import Trial, TrialState

from rlcap.checkpoint import begun
from rlcap.components import allow
from rlcap.errors import RlcapError
from rlcap.progress import warn
from rlcap.recipe import load_stages
from rlcap.stages import train_stages
from rlcap.sweep.results import log_values
from rlcap.sweep.study import METRIC, SAID, SECONDS, UPDATES, Place, begun_trial, best_of


@dataclass(frozen=True)
class Job:
    """What a trial's process must know."""

    place: Place
    number: int
    folder: str
    recipe: str
    overrides: list[str]
    stage: str | None
    values: Mapping[str, Any]
    allowed: list[str]

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @staticmethod
    def of(line: str) -> "Job":
        values = json.loads(line)
        return Job(**{**values, "place": Place(**values["place"])})


class Watcher:
    """Tells the study each evaluation, and training when to stop."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.pruned = trial, False

    def __call__(self, update: int, left: int, value: float) -> bool:
        updates: list[int] = self.trial.user_attrs.get(UPDATES, [])
        if update not in updates:  # a run that was killed before its checkpoint makes an evaluation again
            self.trial.report(value, len(updates) + 1)
            self.trial.set_user_attr(UPDATES, [*updates, update])
        self.pruned = left > 0 and self.trial.should_prune()
        return self.pruned


def perform(job: Job) -> None:
    """Trains it, from its last checkpoint if it has one, and tells the study what came of it."""
    study = job.place.load()
    trial, folder = begun_trial(study, job.number), Path(job.folder)
    watcher, begin = Watcher(trial), time.monotonic()
    before: float = trial.user_attrs.get(SECONDS, 0.0)
    failure = ""
    try:
        for module in job.allowed:
            allow(module)
        stages = load_stages(job.recipe, job.overrides, job.stage)
        resume = any(begun(folder / name) for name in stages)
        train_stages(stages, folder, resume, job.stage, watcher)
    except RlcapError as error:
        failure = str(error)
    except Exception as error:  # of a plug-in, say: other values may not meet it
        traceback.print_exc()
        failure = f"{type(error).__name__}: {error}"
    finally:
        trial.set_user_attr(SECONDS, before + time.monotonic() - begin)
    best = best_of(study, study.get_trials()[job.number])
    if failure or best is None:
        warn(failure)
        trial.set_user_attr(SAID, " ".join(failure.split()))
        study.tell(job.number, state=TrialState.FAIL)
        return
    log_values(folder / (job.stage or list(stages)[-1]), job.values, study.user_attrs[METRIC], best)
    if watcher.pruned:
        study.tell(job.number, state=TrialState.PRUNED)
    else:
        study.tell(job.number, best[0])


def _stop_with_the_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing more is ever written
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    job = Job.of(sys.stdin.readline())
    threading.Thread(target=_stop_with_the_parent, daemon=True).start()
    try:
        with job.place.told():
            perform(job)
    except KeyboardInterrupt as stop:
        warn(f"interrupted: {stop}")
        return 130
    except RlcapError as error:
        warn(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
