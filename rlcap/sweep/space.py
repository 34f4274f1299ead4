"""What a sweep searches: a YAML file of `section.key: {low: 1e-5, high: 1e-3, log: true}` or `{choices: [a, b]}`.

Every end of every range and every choice is tried on the recipe before anything is trained.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from optuna.trial import Trial
from pydantic import BeforeValidator, ConfigDict

from rlcap.components import STRICT, checked
from rlcap.config import Experiment
from rlcap.draft import Draft
from rlcap.errors import ConfigError

Build = Callable[[Sequence[str]], Mapping[str, Experiment]]  # overrides -> the stages of the recipe


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"should be a number, not {json.dumps(value)}")
    return value


Number = Annotated[Any, BeforeValidator(_number)]  # a whole one stays whole


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where all that is given is whole."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    low: Number
    high: Number
    step: Number | None = None
    log: bool = False  # evenly spread orders of magnitude

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"'low' ({self.low}) should be less than 'high' ({self.high})")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("'log' needs a 'low' above 0, and goes without 'step'")
        if self.step is not None:
            steps = (self.high - self.low) / self.step if self.step > 0 else 0
            if steps < 1 or abs(steps - round(steps)) > 1e-9:  # decimal steps are not exact
                raise ValueError(f"no number of steps of {self.step} leads from {self.low} to {self.high}")

    @property
    def tried(self) -> Sequence[Any]:
        return (self.low, self.high)

    def suggested(self, trial: Trial, name: str) -> int | float:
        if all(isinstance(value, int) for value in (self.low, self.high, self.step or 1)):
            return trial.suggest_int(name, self.low, self.high, step=self.step or 1, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


@dataclass(frozen=True)
class Choices:
    """Any values that a recipe may hold."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    choices: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(set(self._texts)) < max(2, len(self.choices)):
            raise ValueError("'choices' should be two or more different values")

    @property
    def _texts(self) -> list[str]:
        """As JSON: the study compares values, and 1, 1.0 and true would be one."""
        return [value if isinstance(value, str) else json.dumps(value) for value in self.choices]

    @property
    def tried(self) -> Sequence[Any]:
        return self.choices

    def suggested(self, trial: Trial, name: str) -> Any:
        return self.choices[self._texts.index(trial.suggest_categorical(name, self._texts))]


@dataclass(frozen=True)
class Space:
    """By the names of overrides: `section.key`, or `stages.NAME.section.key`."""

    dimensions: Mapping[str, Range | Choices]
    origins: Mapping[str, str] = field(compare=False)  # file:line of each

    @staticmethod
    def load(path: str | Path) -> "Space":
        draft = Draft(Path(path), unused=())
        dimensions: dict[str, Range | Choices] = {}
        if not draft.values and not draft.problems:
            raise ConfigError(f"{path}: names nothing to search; write section.key: {{low: 1, high: 4}}, say")
        for name, given in draft.values.items():
            if not isinstance(given, dict):
                draft.complain(
                    (name,), "should be {low: 1, high: 4} or {choices: [a, b]}; a fixed value is an override"
                )
                continue
            form: type[Range | Choices] = Choices if "choices" in given else Range
            made, problems = checked(form, given)
            for problem in problems:
                draft.complain((name, *problem.path), problem.text)
            if made is not None:
                dimensions[name] = made
        if draft.problems:
            raise ConfigError("\n".join(dict.fromkeys(text for _, text in sorted(draft.problems))))
        return Space(dimensions, {name: draft.origins[name,] for name in dimensions})

    def suggested(self, trial: Trial) -> dict[str, Any]:
        """The values of a trial; those that it has already stay."""
        return {name: dimension.suggested(trial, name) for name, dimension in self.dimensions.items()}

    def plain(self) -> dict[str, str]:
        """As it is kept, to be compared."""
        return {name: json.dumps(asdict(dimension)) for name, dimension in self.dimensions.items()}

    def check(self, overrides: Sequence[str], build: Build) -> Mapping[str, Experiment]:
        """All that is wrong with any of the values, in one ConfigError; the recipe with the lowest and first ones."""
        fixed = {override.partition("=")[0]: override for override in overrides}
        problems = [
            f"{origin}: {name}: is searched, and fixed by the override '{fixed[name]}'; drop one"
            for name, origin in self.origins.items()
            if name in fixed
        ]
        made: list[Mapping[str, Experiment]] = []
        for values in self._tried():
            written = as_overrides(values)
            try:
                made.append(build([*overrides, *written.values()]))
            except ConfigError as error:
                theirs = {f"override '{text}': ": f"{self.origins[name]}: " for name, text in written.items()}
                problems += [_at_home(line, theirs) for line in str(error).splitlines()]
        if problems:
            raise ConfigError("\n".join(dict.fromkeys(problems)))
        judged = {_judged(stages) for stages in made}
        if len(judged) > 1:
            raise ConfigError(
                f"{next(iter(self.origins.values()))}: the trials would be judged by {' and '.join(sorted(judged))}; "
                "give all of them one training.metric and data.evaluate"
            )
        return made[0]

    def _tried(self) -> Iterator[dict[str, Any]]:
        lowest = {name: dimension.tried[0] for name, dimension in self.dimensions.items()}
        yield lowest
        for name, dimension in self.dimensions.items():
            for value in dimension.tried[1:]:
                yield lowest | {name: value}


def as_overrides(values: Mapping[str, Any]) -> dict[str, str]:
    """Each value as the command line takes it."""
    return {name: f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in values.items()}


def _at_home(line: str, origins: Mapping[str, str]) -> str:
    """What is wrong with an override of ours is told of the line that it came from."""
    return next((place + line.removeprefix(ours) for ours, place in origins.items() if line.startswith(ours)), line)


def _judged(stages: Mapping[str, Experiment]) -> str:
    last = list(stages.values())[-1]
    return f"{last.training.metric} of {last.data.evaluate}"
