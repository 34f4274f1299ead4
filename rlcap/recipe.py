"""Recipes: YAML -> typed experiment, with everything that is wrong said at once, each with its line.

A key stands once, and nothing is an alias. Lists become tuples and sections dataclasses; nothing else is converted.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml

from rlcap.components import Problem, as_plain, checked, find, resolved_arguments
from rlcap.config import COMPONENTS, Component, Decoding, Experiment, Term
from rlcap.errors import ComponentError, ConfigError, did_you_mean
from rlcap.yaml12 import SCALARS, TAG, Dumper, Loader, fault

Section = TypeVar("Section", Decoding, Experiment)
TERM = [member.name for member in fields(Term) if member.name != "settings"]


def load_recipe(
    spec: str | Path, overrides: Sequence[str] | Mapping[str, Any] = (), unused: Collection[str] = ()
) -> Experiment:
    """A recipe's file, or a shipped recipe's name, with `section.key=value` overrides, checked as a whole.

    The plug-ins of sections named in `unused` need not be there: who captions needs no trainer and no rewards.
    """
    return _draft(spec, overrides, unused).experiment()


def load_stages(spec: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> dict[str, Experiment]:
    """The stages of a recipe, in order, each an experiment of its own; a recipe without any is one, under "".

    A stage says what differs from the rest of the recipe. A section with a `name` stands for the whole section.
    """
    draft = _draft(spec, overrides)
    stages = draft.values.get("stages")
    if stages is None:
        return {"": draft.experiment()}
    if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
        raise ConfigError(f"{draft.origins['stages',]}: stages: should be sections by the names of the stages")
    made: dict[str, Experiment] = {}
    problems: dict[str, None] = {}
    for name in stages:
        try:
            made[name] = draft.stage(name).experiment()
        except ConfigError as error:
            problems |= dict.fromkeys(str(error).splitlines())
    if problems:
        raise ConfigError("\n".join(problems))
    return made


def _draft(spec: str | Path, overrides: Sequence[str] | Mapping[str, Any], unused: Collection[str] = ()) -> "_Draft":
    draft = _Draft(_recipe_path(spec), unused)
    if isinstance(overrides, Mapping):
        plain = {name: as_plain(value) for name, value in overrides.items()}
        overrides = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in plain.items()]
    for text in overrides:
        draft.override(text)
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


Place = tuple[str | int, ...]  # the keys that lead to a value


class _Draft:
    """A recipe on its way: plain values, where each of them came from, and all that is wrong with them."""

    def __init__(self, path: Path, unused: Collection[str]) -> None:
        self.path, self.unused = path, unused
        self.origins: dict[Place, str] = {(): str(path)}  # in the order in which problems are told
        self.problems: list[tuple[int, str]] = []
        self.nodes: set[yaml.Node] = set()
        self.components: dict[str, Any] = {}
        self.rewards: dict[str, dict[str, Any]] = {}  # their settings, by label
        try:
            node = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=Loader)
            values = {} if node is None else self._value(node, (), self._line)
        except (OSError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"{path}: cannot be read as a recipe ({error})") from error
        except yaml.YAMLError as error:
            raise ConfigError(fault(str(path), error)) from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: is no recipe: it needs sections, such as 'training: {{epochs: 5}}'")
        self.values: dict[str, Any] = values

    def complain(self, place: Place, text: str) -> None:
        known = next(place[:n] for n in range(len(place), -1, -1) if place[:n] in self.origins)
        label = f"{'.'.join(map(str, place))}: " if place else ""
        self.problems.append((list(self.origins).index(known), f"{self.origins[known]}: {label}{text}"))

    def _line(self, node: yaml.Node) -> str:
        return f"{self.path}:{node.start_mark.line + 1}"

    def _value(self, node: yaml.Node, place: Place, origin: Callable[[yaml.Node], str]) -> Any:
        """The plain value of a YAML node; on the way, the origin of every key and item is noted."""
        if node in self.nodes:  # a few aliases can stand for billions of values, or for themselves
            self.complain(place, "is an alias (*name): a recipe has none")
            return None
        self.nodes.add(node)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.origins[(*place, index)] = origin(item)
            return [self._value(item, (*place, index), origin) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            values: dict[str, Any] = {}
            for key, value in node.value:
                here = (*place, str(key.value))
                if not isinstance(key, yaml.ScalarNode):
                    self.complain(place, f"a key is a word, not a list or a section (see {origin(key)})")
                elif key.value in values:
                    self.complain(here, f"stands twice, again at {origin(key)}")
                else:
                    self.origins[here] = origin(key)
                    values[key.value] = self._value(value, here, origin)
            return values
        try:
            return SCALARS[node.tag](node.value)
        except (KeyError, ValueError):
            kind = node.tag.replace(TAG, "!!")
            self.complain(place, f"{kind} {node.value[:40]!r} cannot stand in a recipe")
            return None

    def override(self, text: str) -> None:
        """`section.key=value`, the value in YAML."""
        name, equals, value = text.partition("=")
        origin, place = f"override '{text}'", tuple(name.split("."))
        try:
            if not equals or not all(place):
                raise yaml.YAMLError("write it as section.key=value, such as training.seed=3")
            node = yaml.compose(value, Loader=Loader)
        except yaml.YAMLError as error:
            self.problems.append((len(self.origins), fault(origin, error)))
            return
        self.origins = {key: was for key, was in self.origins.items() if key[: len(place)] != place}
        for depth in range(1, len(place) + 1):  # told after what the file says
            self.origins.setdefault(place[:depth], origin)
        self._put(place, None if node is None else self._value(node, place, lambda at: origin))

    def _put(self, place: tuple[str, ...], value: Any) -> None:
        section = self.values
        for depth, key in enumerate(place[:-1]):
            inner = section.get(key)
            if depth == 0 and key in COMPONENTS and isinstance(inner, str):  # the short form
                inner = {"name": inner}
            section[key] = inner = {} if inner is None else inner
            if not isinstance(inner, dict):
                self.complain(place, f"cannot be set: '{'.'.join(place[: depth + 1])}' is no section")
                return
            section = inner
        section[place[-1]] = value

    def stage(self, name: str) -> "_Draft":
        """The recipe as one of its stages sees it: the stage's values in the place of the recipe's."""
        stage = copy(self)
        stage.problems, stage.components, stage.rewards = list(self.problems), {}, {}
        stage.values = {key: value for key, value in self.values.items() if key != "stages"}
        stage.origins = dict(self.origins)
        for section, own in self.values["stages"][name].items():
            old = stage.values.get(section)
            merging = isinstance(own, dict) and isinstance(old, dict) and "name" not in own
            stage.values[section] = {**old, **own} if isinstance(old, dict) and merging else own
            if not merging:
                stage.origins = {place: was for place, was in stage.origins.items() if place[:1] != (section,)}
            inside = ("stages", name, section)
            for place, origin in self.origins.items():
                if place[:3] == inside:
                    stage.origins[place[2:]] = origin
        return stage

    def experiment(self) -> Experiment:
        values = dict(self.values)
        for kind in COMPONENTS:
            if values.get(kind) is not None:
                values[kind] = self._component(kind, values[kind])
        if values.get("policy") is None and values.get("scorer") is None:
            self.complain(("policy",), "is missing")
        if "rewards" in values:
            values["rewards"] = self._rewards(values["rewards"])
        experiment, problems = checked(Experiment, values)
        for problem in problems:
            self.complain(problem.path, problem.text)
        if experiment is None or self.problems:
            told = dict.fromkeys(text for _, text in sorted(self.problems, key=lambda problem: problem[0]))
            raise ConfigError("\n".join(told))
        rewards = {label: replace(term, settings=self.rewards[label]) for label, term in experiment.rewards.items()}
        return replace(experiment, **self.components, rewards=rewards)

    def _component(self, kind: str, value: Any) -> dict[str, str]:
        """Checks a component's settings, and leaves its name for the experiment's own check."""
        settings = dict(value) if isinstance(value, dict) else {"name": value}
        name = settings.pop("name", None)
        if not isinstance(name, str):
            self.complain((kind,), "needs a name: 'name: NAME', from `rlcap list` or your own module:Name")
            return {"name": ""}
        self.components[kind] = Component(name, self._settings(kind, name, settings, (kind,)))
        return {"name": name}

    def _rewards(self, value: Any) -> Any:
        """Checks the settings of each reward, and leaves the rest of each term for the experiment's own check."""
        labels = {value: {}} if isinstance(value, str) else value
        if not isinstance(labels, dict):
            return value
        terms = {}
        for label, given in labels.items():
            section = dict(given) if isinstance(given, dict) else {} if given is None else {"weight": given}
            term = {"name": label} | {key: section.pop(key) for key in TERM if key in section}
            place = ("rewards", label)
            self.rewards[label] = {}
            if isinstance(term["name"], str):
                self.rewards[label] = self._settings("reward", term["name"], section, place)
            terms[label] = term
        return terms

    def _settings(self, kind: str, name: str, settings: dict[str, Any], place: Place) -> dict[str, Any]:
        """The settings of a component with its defaults; all that is wrong with them is noted."""
        section = {"reward": "rewards"}.get(kind, kind)
        if section in self.unused:
            return settings
        try:
            factory = find(kind, name, beside=self.path.resolve().parent)
            resolved, problems = resolved_arguments(factory, settings)
        except ComponentError as error:
            resolved, problems = {}, [Problem(("name",), str(error))]
        for problem in problems:
            self.complain((*place, *problem.path), problem.text)
        return resolved
