"""What all trials of a sweep have in common, and what makes one of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlcap.components import as_plain
from rlcap.config import Experiment, Training
from rlcap.errors import ConfigError
from rlcap.recipe import load_stages
from rlcap.sweep.space import Space, as_overrides


@dataclass(frozen=True)
class Plan:
    """Made by `Plan.checked`."""

    recipe: str
    overrides: Sequence[str]
    stage: str | None
    space: Space
    folder: Path
    allowed: Sequence[str]  # modules that a run may name, as --allow names them
    lowest: Mapping[str, Experiment]  # the stages that are trained, with the lowest and first values

    @staticmethod
    def checked(
        recipe: str,
        overrides: Sequence[str],
        stage: str | None,
        space: str,
        folder: str | None = None,
        allowed: Sequence[str] = (),
    ) -> "Plan":
        """Every wrong value is told now, before anything is trained."""
        searched = Space.load(space)
        stages = searched.check(overrides, lambda given: _stages(recipe, given, stage))
        target = Path(folder or f"runs/{next(iter(stages.values())).name}_sweep")
        return Plan(recipe, overrides, stage, searched, target, allowed, stages)

    @property
    def last(self) -> Experiment:
        """What is judged."""
        return list(self.lowest.values())[-1]

    def began_with(self) -> dict[str, dict[str, str]]:
        """All that the values of its trials may depend on, for a sweep that goes on."""
        return {"space": self.space.plain(), "recipe": _comparable(self.lowest)}

    def check_unchanged(self) -> None:
        """The recipe's file is read for each trial."""
        values = {name: dimension.tried[0] for name, dimension in self.space.dimensions.items()}
        now = _stages(self.recipe, [*self.overrides, *as_overrides(values).values()], self.stage)
        if _comparable(now) != _comparable(self.lowest):
            raise ConfigError(
                f"{self.recipe}: was changed while its trials were trained; change it back and go on with --resume, or "
                "begin another sweep"
            )

    @property
    def command(self) -> list[str]:
        """The words that train a trial by itself, but for its own values."""
        return ["rlcap", "train", self.recipe, *(["--stage", self.stage] if self.stage else []), *self.overrides]

    def shares(self, workers: int, slot: int, threads: int, accelerators: int) -> list[str]:
        """The overrides that divide a machine among trials that are trained at once, unless the recipe does."""
        shared = []
        if workers > 1 and all(made.training.threads is None for made in self.lowest.values()):
            shared.append(f"training.threads={max(1, threads // workers)}")
        if accelerators > 1 and all(made.training.device == "auto" for made in self.lowest.values()):
            shared.append(f"training.device=cuda:{slot % accelerators}")
        return shared


def _stages(recipe: str, overrides: Sequence[str], only: str | None) -> dict[str, Experiment]:
    stages = load_stages(recipe, overrides, only)
    return stages if only is None else {only: stages[only]}


def _comparable(stages: Mapping[str, Experiment]) -> dict[str, str]:
    made = {name: replace(each, training=_anywhere(each.training)) for name, each in stages.items()}
    return {key: json.dumps(value) for name, each in made.items() for key, value in _flat(as_plain(each), name)}


def _anywhere(training: Training) -> Training:
    """Without what another machine may change."""
    return replace(training, threads=None, device="auto", workers=0)


def _flat(tree: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, inner in tree.items():
            yield from _flat(inner, place if key == "settings" else f"{place}.{key}".lstrip("."))
    else:
        yield place, tree
