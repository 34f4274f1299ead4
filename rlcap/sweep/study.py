"""The study of a sweep, in a database of optuna: which values were tried, and what they came to.

A trial's steps are its evaluations, counted from 1, so that trials of other batch sizes are compared at like epochs;
`UPDATES` says when they were.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.exceptions import OptunaError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial
from sqlalchemy.exc import SQLAlchemyError

from rlcap.errors import ConfigError, DataError
from rlcap.metrics import LOWER_IS_BETTER

PRUNERS: dict[str, type[BasePruner]] = {"median": MedianPruner, "hyperband": HyperbandPruner, "none": NopPruner}
BEGAN = "began_with"  # of a study: what none of its trials may change
METRIC = "metric"
COMMAND = "command"  # of a study and of a trial: words that train the trial by itself
UPDATES, SECONDS, SAID = "updates", "seconds", "said"  # of a trial; the last is why it failed


@dataclass(frozen=True)
class Place:
    """Where a study is kept: a database, the name in it, and how its trials are pruned."""

    url: str
    name: str
    pruner: str

    @staticmethod
    def of(folder: Path, url: str | None, name: str, pruner: str = "none") -> "Place":
        """Unless a URL says otherwise, in a file in the sweep's folder."""
        return Place(url or f"sqlite:///{(folder / 'study.db').resolve()}", name, pruner)

    def __str__(self) -> str:
        hidden = re.sub(r"(//[^/:@]*):[^/@]*@", r"\1:***@", self.url)
        return f"study '{self.name}' in {hidden}"

    def create(self, metric: str, command: Sequence[str], began: Mapping[str, Mapping[str, str]]) -> Study:
        direction = StudyDirection.MINIMIZE if metric in LOWER_IS_BETTER else StudyDirection.MAXIMIZE
        with self.told():
            storage = self._storage()
            if self.name in optuna.get_all_study_names(storage):
                raise ConfigError(f"{self}: there is one; go on with --resume, or name another with --study")
            study = optuna.create_study(
                storage=storage, study_name=self.name, direction=direction, pruner=PRUNERS[self.pruner]()
            )
            study.set_user_attr(METRIC, metric)
            study.set_user_attr(COMMAND, command)
            study.set_user_attr(BEGAN, began)
            return study

    def load(self) -> Study:
        missing = f"{self}: there is none; begin it without --resume, or say where it is with --out or --storage"
        file = self.url.removeprefix("sqlite:///")
        if file != self.url and not Path(file).exists():  # it would be made
            raise ConfigError(missing)
        with self.told():
            storage = self._storage()
            if self.name not in optuna.get_all_study_names(storage):
                raise ConfigError(missing)
            study = optuna.load_study(storage=storage, study_name=self.name, pruner=PRUNERS[self.pruner]())
            if BEGAN not in study.user_attrs:
                raise ConfigError(f"{self}: was not made by rlcap sweep; name another with --study")
            return study

    def _storage(self) -> RDBStorage:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # Several processes write, and SQLite lets one at a time.
        patience = {"connect_args": {"timeout": 60}} if self.url.startswith("sqlite") else {}
        try:
            return RDBStorage(self.url, engine_kwargs=patience)
        except (ImportError, RuntimeError) as error:  # no driver; tables of another version
            raise OptunaError(str(error)) from error

    @contextmanager
    def told(self) -> Iterator[None]:
        """What the database says against us, as one line."""
        try:
            yield
        except (SQLAlchemyError, OptunaError) as error:
            reason: BaseException = error
            while reason.__cause__ is not None:  # what optuna and SQLAlchemy wrap
                reason = reason.__cause__
            said = " ".join(str(reason).split())
            raise DataError(f"{self}: cannot be used ({said}); check --storage, such as sqlite:///FILE.db") from error


def check_same(study: Study, place: Place, began: Mapping[str, Mapping[str, str]]) -> None:
    """A sweep goes on as it began: the trials of another recipe or space say nothing of this one's."""
    before: dict[str, dict[str, str]] = study.user_attrs[BEGAN]
    for part in {**before, **began}:
        was, now = before.get(part, {}), began.get(part, {})
        for key in {**was, **now}:
            if was.get(key) != now.get(key):
                raise ConfigError(
                    f"{place}: began with {part} {key}={was.get(key, 'nothing')}, not {now.get(key, 'nothing')}; "
                    "go on with what it began with, or begin another with --out"
                )


def asked(study: Study, seed: int) -> Trial:
    """A new trial. What it tries follows from the seed, its number and those before, whoever trains them."""
    trial = study.ask()
    number = int(np.random.SeedSequence([seed, trial.number]).generate_state(1)[0])
    study.sampler = TPESampler(seed=number, constant_liar=True)
    return trial


def begun_trial(study: Study, number: int) -> Trial:
    return Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)


def best_of(study: Study, trial: FrozenTrial) -> tuple[float, int] | None:
    """The best value among a trial's evaluations, and its update: the first, as the best checkpoint is."""
    sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
    values = [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]
    updates: list[int] = trial.user_attrs.get(UPDATES, [])
    found = [(sign * value, -update) for value, update in zip(values, updates, strict=False)]
    if not found:
        return None
    value, update = max(found)
    return sign * value, -update
