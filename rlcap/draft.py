"""A recipe on its way to an experiment: plain values, where each of them came from, and what is wrong with them."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from rlcap.components import Problem, checked, find, resolved_arguments
from rlcap.config import COMPONENTS, Component, Experiment, Term
from rlcap.errors import ComponentError, ConfigError
from rlcap.yaml12 import SCALARS, TAG, Loader, fault

STAGES = "stages"  # the section that is no part of an experiment
TERM = [member.name for member in fields(Term) if member.name != "settings"]
DURATION = {"updates": "epochs", "epochs": "updates"}  # of training: each stands in the place of the other


@dataclass(frozen=True)
class Override:
    """`section.key=value`, or `stages.NAME.section.key=value` for one stage alone."""

    text: str

    @property
    def name(self) -> str:
        return self.text.partition("=")[0]

    @property
    def place(self) -> tuple[str, ...]:
        """Within an experiment."""
        keys = tuple(self.name.split("."))
        return keys[2:] if self.stage is not None else keys

    @property
    def stage(self) -> str | None:
        """Whose it is alone."""
        keys = self.name.split(".")
        return keys[1] if keys[0] == STAGES and len(keys) > 2 else None

    @property
    def makes_stages(self) -> bool:
        """Not a value of a stage, but a whole one, or all of them."""
        return self.stage is None and self.place[0] == STAGES

    def __str__(self) -> str:
        return f"override '{self.text}'"


Place = tuple[str | int, ...]  # the keys that lead to a value


class Draft:
    """Problems are told in the order in which their places stand in the file, those of overrides behind them."""

    def __init__(self, path: Path, unused: Collection[str]) -> None:
        self.path, self.unused = path, unused
        folder = path.resolve().parent
        of_a_run = path.name == "config.yaml" and (folder / "vocabulary.json").exists()
        # Whose recipe it is that a run holds nobody knows: it finds no code but what is installed or allowed.
        self.folders = [] if of_a_run else [folder, Path.cwd()]
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

    def override(self, override: Override) -> None:
        """The value is YAML."""
        _, equals, value = override.text.partition("=")
        origin, place = str(override), override.place
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
        plain = None if node is None else self._value(node, place, lambda at: origin)
        self._put(place, plain)
        if len(place) == 2 and place[0] == "training" and plain is not None:
            other = DURATION.get(place[1], "")
            training, given = self.values["training"], self.origins.get(("training", other), "")
            if isinstance(training, dict) and not given.startswith("override '"):
                training.pop(other, None)

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

    def enter(self, name: str) -> None:
        """Puts a stage's values in the place of the recipe's. A section with a `name` stands for the whole section."""
        for section, own in self.values.pop(STAGES)[name].items():
            old = self.values.get(section)
            if section == "training" and isinstance(old, dict) and isinstance(own, dict):
                old = {key: value for key, value in old.items() if DURATION.get(key) not in own}
            if section in COMPONENTS and isinstance(old, str):  # the short form
                old = {"name": old}
            self.values[section] = _merged(old, own)
            inside = (STAGES, name, section)
            self.origins |= {place[2:]: origin for place, origin in self.origins.items() if place[:3] == inside}

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
            factory = find(kind, name, self.folders)
            resolved, problems = resolved_arguments(factory, settings)
        except ComponentError as error:
            resolved, problems = {}, [Problem(("name",), str(error))]
        for problem in problems:
            self.complain((*place, *problem.path), problem.text)
        return resolved


def _merged(old: Any, own: Any) -> Any:
    if not isinstance(own, dict):
        return own
    if not isinstance(old, dict) or "name" in own:
        old = {}
    return {**old, **{key: _merged(old.get(key), value) for key, value in own.items()}}
