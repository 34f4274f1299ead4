"""Recipes: YAML -> typed experiment, with everything that is wrong said at once, each with its line.

YAML is read by the core rules of its version 1.2: 4e-4 is a number, `no` is a word, 010 is ten; a key stands
once, and nothing is an alias. Lists become tuples and sections dataclasses; nothing else is converted.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BeforeValidator, ConfigDict

from rlcap.components import STRICT, Problem, as_plain, checked, find, resolved_arguments
from rlcap.errors import ComponentError, ConfigError, did_you_mean

INTERVAL = re.compile(r"(\d+|\d*\.\d+) (update|epoch)s?")


def _interval(value: Any) -> Any:
    match = INTERVAL.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) == 0 or (match[2] == "update" and "." in match[1]):
        raise ValueError(f"should be like '1 epoch', '0.5 epochs' or '500 updates', not {value!r}")
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError(f"should be auto, cpu, cuda, cuda:0 (or another number) or mps, not {value!r}")
    return value


Positive = Annotated[int, Ge(1)]
NotNegative = Annotated[int, Ge(0)]
Weight = Annotated[float, Ge(0)]
AboveZero = Annotated[float, Gt(0)]
Share = Annotated[float, Gt(0), Le(1)]
Rate = Annotated[float, Ge(0), Lt(1)]  # of dropout, of smoothing
Interval = Annotated[str, BeforeValidator(_interval)]
Device = Annotated[str, AfterValidator(_device)]


@dataclass(frozen=True)
class Component:
    """A plug-in and the arguments of its constructor, checked: `find(kind, name)(…, **settings)` makes it.

    In YAML they stand side by side (`policy: {name: soft_attention, hidden: 512}`); the name alone will do.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    path: str = "data/scenes"  # a prepared folder
    features: str | None = None  # an HDF5 file; None: the one in the prepared folder
    train: str = "train"  # names of splits
    evaluate: str = "val"
    max_words: Positive = 20  # longer captions are cut for training, without an end token
    blind: bool = False  # a control that cannot see: each image gets the features of another one


@dataclass(frozen=True)
class Training:
    updates: Positive | None = None  # exactly one of these two says how long
    epochs: AboveZero | None = None
    images: Positive = 32  # a batch
    captions: Positive = 5  # an image
    evaluate_every: Interval = "1 epoch"
    patience: Positive | None = None  # evaluations without a better metric before training stops; None: never
    metric: str = "cider_d"  # which of the evaluation's figures chooses the best checkpoint
    seed: NotNegative = 1
    device: Device = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: NotNegative = 0  # processes that load batches
    log_every: Positive = 10  # updates
    threads: Positive | None = None  # of torch on the CPU; None: torch decides

    def __post_init__(self) -> None:
        if (self.updates is None) == (self.epochs is None):
            raise ValueError("give exactly one of 'updates' and 'epochs'")

    def evaluation_interval(self, updates_an_epoch: int) -> int:
        """Updates between two evaluations."""
        count, unit = self.evaluate_every.split(" ")
        return int(count) if unit.startswith("update") else max(1, round(float(count) * updates_an_epoch))


@dataclass(frozen=True)
class Decoding:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    beam: Positive = 1  # 1: greedy
    length: Positive = 20  # words at most, the end token among them
    length_normalisation: Annotated[float, Ge(0), Le(10)] = 0.0  # exponent of the length that divides a beam's score
    min_words: NotNegative = 0
    no_repeat_ngram: NotNegative = 0  # 0: n-grams may repeat
    groups: Positive = 1  # of diverse beams
    diversity: Weight = 0.0  # penalty on a word that another group has just said
    temperature: AboveZero = 1.0
    top_k: NotNegative = 0  # 0: all words
    top_p: Share = 1.0  # 1: all words
    sample: bool = False  # draw words instead of taking the likeliest

    def __post_init__(self) -> None:
        if self.beam % self.groups:
            raise ValueError(f"'groups' ({self.groups}) must divide 'beam' ({self.beam})")
        if self.sample and self.beam > 1:
            raise ValueError(f"'sample' goes with 'beam' 1, not {self.beam}")
        if not self.sample and (self.temperature, self.top_k, self.top_p) != (1.0, 0, 1.0):
            raise ValueError("'temperature', 'top_k' and 'top_p' bend samples: set 'sample' too")
        if self.min_words > self.length:
            raise ValueError(f"'min_words' ({self.min_words}) is more than 'length' ({self.length})")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: str
    data: Data = field(default_factory=Data)
    encoder: Component | None = None  # trained along, fed with pixels; None: the features are frozen
    policy: Component
    trainer: Component
    training: Training
    decoding: Decoding = field(default_factory=Decoding)


Section = TypeVar("Section", Decoding, Experiment)
COMPONENTS = ("encoder", "policy", "trainer")  # sections of the recipe, each named as its kind


def load_recipe(spec: str | Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Experiment:
    """A recipe's file, or a shipped recipe's name, with `section.key=value` overrides, checked as a whole."""
    path = _recipe_path(spec)
    draft = _Draft(path)
    if isinstance(overrides, Mapping):
        plain = {name: as_plain(value) for name, value in overrides.items()}
        overrides = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in plain.items()]
    for text in overrides:
        draft.override(text)
    return draft.experiment()


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
            sections[kind] = {"name": sections[kind]["name"], **sections[kind]["settings"]}
    return yaml.dump(sections, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


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


class _Loader(yaml.SafeLoader):
    """Knows the words of YAML 1.2 only."""


class _Dumper(yaml.SafeDumper):
    """Quotes every text that this loader or one for YAML 1.1 would take for something else."""


def _written(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Line breaks and their like survive in double quotes alone."""
    return dumper.represent_scalar(TAG + "str", text, style=None if text.isprintable() else '"')


TAG = "tag:yaml.org,2002:"
_Dumper.add_representer(str, _written)
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(TAG + _tag, re.compile(rf"(?:{_pattern})\Z"), _first)

SCALARS: dict[str, Callable[[str], Any]] = {
    TAG + "null": lambda text: None,
    TAG + "bool": lambda text: {"true": True, "false": False}[text.lower()],
    TAG + "int": int,
    TAG + "float": lambda text: float(re.sub(r"\.(?=[a-z])", "", text.lower())),
    TAG + "str": str,
}
Place = tuple[str | int, ...]  # the keys that lead to a value


class _Draft:
    """A recipe on its way: plain values, where each of them came from, and all that is wrong with them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.origins: dict[Place, str] = {(): str(path)}  # in the order in which problems are told
        self.problems: list[tuple[int, str]] = []
        self.nodes: set[yaml.Node] = set()
        self.components: dict[str, Any] = {}
        try:
            node = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=_Loader)
            values = {} if node is None else self._value(node, (), self._line)
        except (OSError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"{path}: cannot be read as a recipe ({error})") from error
        except yaml.YAMLError as error:
            raise ConfigError(_fault(str(path), error)) from error
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
            node = yaml.compose(value, Loader=_Loader)
        except yaml.YAMLError as error:
            self.problems.append((len(self.origins), _fault(origin, error)))
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

    def experiment(self) -> Experiment:
        values = dict(self.values)
        for kind in COMPONENTS:
            if values.get(kind) is not None:
                values[kind] = self._component(kind, values[kind])
        experiment, problems = checked(Experiment, values)
        for problem in problems:
            self.complain(problem.path, problem.text)
        if experiment is None or self.problems:
            told = dict.fromkeys(text for _, text in sorted(self.problems, key=lambda problem: problem[0]))
            raise ConfigError("\n".join(told))
        return replace(experiment, **self.components)

    def _component(self, kind: str, value: Any) -> dict[str, str]:
        """Checks a component's settings, and leaves its name for the experiment's own check."""
        settings = dict(value) if isinstance(value, dict) else {"name": value}
        name = settings.pop("name", None)
        if not isinstance(name, str):
            self.complain((kind,), "needs a name: 'name: NAME', from `rlcap list` or your own module:Name")
            return {"name": ""}
        try:
            factory = find(kind, name, beside=self.path.resolve().parent)
            resolved, problems = resolved_arguments(factory, settings)
        except ComponentError as error:
            resolved, problems = {}, [Problem(("name",), str(error))]
        for problem in problems:
            self.complain((kind, *problem.path), problem.text)
        self.components[kind] = Component(name, resolved)
        return {"name": name}


def _fault(source: str, error: yaml.YAMLError) -> str:
    """PyYAML's report of several lines as one."""
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark is not None and not source.startswith("override") else ""
    said = f"is not YAML: {error.problem}" if isinstance(error, yaml.MarkedYAMLError) else str(error)
    return f"{source}{line}: {' '.join(said.split())}"
