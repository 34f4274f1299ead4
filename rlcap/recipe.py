"""Recipes: YAML -> typed experiment, with everything that is wrong said at once, each with its line.

A key stands once, and nothing is an alias. Lists become tuples and sections dataclasses; nothing else is converted.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml

from rlcap.components import as_plain, checked
from rlcap.config import COMPONENTS, Decoding, Experiment
from rlcap.draft import STAGES, Draft, Override
from rlcap.errors import ConfigError, did_you_mean
from rlcap.yaml12 import Dumper

Section = TypeVar("Section", Decoding, Experiment)


def load_recipe(
    spec: str | Path,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    unused: Collection[str] = (),
    stage: str | None = None,
) -> Experiment:
    """A recipe's file, or a shipped recipe's name, with `section.key=value` overrides, checked as a whole.

    The plug-ins of sections named in `unused` need not be there: who captions needs no trainer and no rewards.
    Of a recipe with stages it is one alone: `stage`, or else the last.
    """
    path, given = _recipe_path(spec), _as_overrides(overrides)
    if names := _stage_names(path, given, stage):
        return _stage(path, given, stage or names[-1], unused=unused).experiment()
    return _draft(path, given, unused).experiment()


def load_stages(
    spec: str | Path, overrides: Sequence[str] | Mapping[str, Any] = (), stage: str | None = None
) -> dict[str, Experiment]:
    """The stages of a recipe, in order, each an experiment of its own; a recipe without any is one, under "".

    A stage says what differs from the rest of the recipe. An override holds for every stage and wins over what the
    stage says, unless it names one: `stages.scst.training.updates=10`. One of a section that only some stages have
    (`rewards`) holds for those. `training.start` is where the first begins; each other one begins at the one before.
    Where one `stage` is to be trained alone, overrides hold for it alone, and it is the first.
    """
    path, given = _recipe_path(spec), _as_overrides(overrides)
    names = _stage_names(path, given, stage)
    if not names:
        return {"": _draft(path, given).experiment()}
    made: dict[str, Experiment] = {}
    problems: dict[str, list[str]] = {}  # with the stages that have them
    for name in names:
        held = given if stage in (None, name) else [override for override in given if override.makes_stages]
        try:
            made[name] = _stage(path, held, name, first=name in (names[0], stage)).experiment()
        except ConfigError as error:
            for line in str(error).splitlines():
                problems.setdefault(line, []).append(name)
    if problems:
        raise ConfigError("\n".join(_told(line, problems, names, given) for line in problems))
    return made


def _stage_names(path: Path, overrides: Sequence[Override], asked: str | None) -> list[str]:
    """None of a recipe without stages. Those that are asked for or overridden must be among them."""
    draft = _draft(path, [override for override in overrides if override.makes_stages])
    stages: Any = draft.values.get(STAGES)
    names = list(stages) if isinstance(stages, dict) else []
    if STAGES in draft.values and not (names and all(isinstance(stages[name], dict) for name in names)):
        raise ConfigError(f"{draft.origins[STAGES,]}: stages: should be sections by the names of the stages")
    for name in names:
        if not re.fullmatch(r"\w[\w-]*", name):
            place = draft.origins[STAGES, name]
            raise ConfigError(f"{place}: stages: '{name}' is to be a folder's name; use letters, digits, _ and -")
    wanted = [(str(override), override.stage) for override in overrides] + [(f"stage '{asked}'", asked)]
    for origin, name in wanted:
        if name is not None and name not in names:
            near = f"no stage '{name}'{did_you_mean(name, names)}" if names else "no stages; leave the stage out"
            raise ConfigError(f"{origin}: {path} has {near}")
    return names


def _told(line: str, problems: Mapping[str, Sequence[str]], names: Sequence[str], overrides: Sequence[Override]) -> str:
    """What is wrong; with an override that holds for every stage, in which of them, and what to do."""
    own = [override for override in overrides if line.startswith(f"{override}: ") and override.stage is None]
    if not own or len(problems[line]) == len(names):
        return line
    wrong = {name for other, some in problems.items() if other.startswith(f"{own[0]}: ") for name in some}
    remedy = f"; stages.NAME.{own[0].name} holds for one stage alone" if len(wrong) < len(names) else ""
    return f"{line} (in stage {', '.join(problems[line])}{remedy})"


def _as_overrides(overrides: Sequence[str] | Mapping[str, Any]) -> list[Override]:
    if not isinstance(overrides, Mapping):
        return [Override(text) for text in overrides]
    plain = {name: as_plain(value) for name, value in overrides.items()}
    return [Override(f"{name}={json.dumps(value, ensure_ascii=False)}") for name, value in plain.items()]


def _draft(path: Path, overrides: Sequence[Override], unused: Collection[str] = ()) -> Draft:
    draft = Draft(path, unused)
    for override in overrides:
        draft.override(override)
    return draft


def _stage(
    path: Path, overrides: Sequence[Override], name: str, first: bool = True, unused: Collection[str] = ()
) -> Draft:
    """The recipe as one of its stages sees it."""
    draft = _draft(path, [override for override in overrides if override.makes_stages], unused)
    stages, recipe = draft.values[STAGES], set(draft.values)
    elsewhere = {section for stage in stages.values() for section in stage} - recipe - set(stages[name])
    own = stages[name].get("training")
    start = own.get("start") if isinstance(own, dict) else None
    draft.enter(name)
    for override in overrides:
        of_all = override.stage is None and not override.makes_stages
        if of_all and override.place[0] not in elsewhere:
            draft.override(override)
    if not first and isinstance(training := draft.values.get("training"), dict):
        training["start"] = start
    for override in overrides:
        if override.stage == name:
            draft.override(override)
    return draft


def revised(section: Section, **changes: Any) -> Section:
    """A section with other values (`revised(experiment.decoding, beam=3)`), checked as a recipe is."""
    made, problems = checked(type(section), {**as_plain(section), **changes})
    if made is None:
        raise ConfigError("\n".join(str(problem) for problem in problems))
    return made


def recipes() -> dict[str, str]:
    """The shipped recipes, each with the first line of its preamble."""
    lines = {name: path.read_text(encoding="utf-8").partition("\n")[0] for name, path in _shipped().items()}
    return {name: line.lstrip("# ").rstrip() for name, line in lines.items()}


def to_yaml(experiment: Experiment) -> str:
    """The recipe with all defaults filled in; `load_recipe` makes an equal experiment of it."""
    sections = as_plain(experiment)
    for kind in COMPONENTS:
        if sections[kind] is not None:
            sections[kind] = _side_by_side(sections[kind])
    sections["rewards"] = {label: _side_by_side(term) for label, term in sections["rewards"].items()}
    return yaml.dump(sections, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _side_by_side(component: dict[str, Any]) -> dict[str, Any]:
    settings = component.pop("settings")
    return {**component, **settings}


def _shipped() -> dict[str, Path]:
    entries = sorted(files("rlcap.experiments").iterdir(), key=lambda entry: entry.name)
    return {e.name.removesuffix(".yaml"): Path(str(e)) for e in entries if e.name.endswith(".yaml")}


def _recipe_path(spec: str | Path) -> Path:
    shipped = _shipped()
    if isinstance(spec, str) and spec in shipped:
        return shipped[spec]
    path = Path(spec)
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; give a .yaml file, or the name of a shipped recipe")
    if not path.exists():
        near = did_you_mean(str(spec), [*shipped, *map(str, path.parent.glob("*.yaml"))])
        raise ConfigError(f"{spec}: there is no such recipe{near}")
    return path
