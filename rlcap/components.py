"""Plug-ins: "short_name" or "module:Name" -> object, and a recipe's settings checked against its constructor.

A name with a colon is the user's own word. Its module is looked for among the installed ones; failing that,
the folder of the recipe, or else the current one, is put at the end of sys.path, where it hides nothing.
Of a constructor's parameters, the keyword-only ones are the recipe's, the positional ones the program's.
"""

import importlib
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import ErrorDetails, PydanticSerializationError, to_jsonable_python

from rlcap.errors import ComponentError, ConfigError, RlcapError, did_you_mean

TABLES = {
    "policy": "rlcap.models:POLICIES",
    "scorer": "rlcap.models:SCORERS",
    "encoder": "rlcap.models:ENCODERS",
    "reward": "rlcap.rewards:REWARDS",
    "trainer": "rlcap.agents:TRAINERS",
}

# Of kinds that may be written in several forms: what turns any of them into `factory(…, **settings)`.
FACTORIES = {"reward": "rlcap.rewards.functions:reward_factory"}
GIVEN = "given:"
_GIVEN: dict[str, Callable[..., Any]] = {}  # objects that stand in no module, by the names made up for them

# As `__pydantic_config__` of a dataclass it also holds for the plain dataclasses inside.
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def names(kind: str) -> dict[str, str]:
    """The short names of a kind ("policy", …), each with its "module:Name"."""
    if kind not in TABLES:
        raise ComponentError(f"'{kind}' is no kind of component{did_you_mean(kind, TABLES)}")
    module, _, table = TABLES[kind].partition(":")
    return dict(getattr(importlib.import_module(module), table))


def find(kind: str, name: str, folders: Sequence[Path] = ()) -> Any:
    """What `name` stands for. A user's own module must be installed or imported already, or lie in one of `folders`:
    those that a person has named, not a file.
    """
    found = _GIVEN[name] if name in _GIVEN else _found(kind, name, folders)
    if kind not in FACTORIES:
        return found
    module, _, factory = FACTORIES[kind].partition(":")
    return getattr(importlib.import_module(module), factory)(found, name)


def name_of(component: Callable[..., Any], label: str) -> str:
    """A name by which `find` finds an object given in Python: of its module if it stands there, else made up.

    A made-up name holds in this process alone: who resumes the run gives the object again.
    """
    module, name = getattr(component, "__module__", None), getattr(component, "__name__", "")
    if module not in (None, "__main__") and getattr(sys.modules.get(module), name, None) is component:
        return f"{module}:{name}"
    made_up = f"{GIVEN}{label}"
    _GIVEN[made_up] = component
    return made_up


def _found(kind: str, name: str, folders: Sequence[Path]) -> Any:
    target = name
    if name.startswith(GIVEN):
        raise ComponentError(f"{kind} '{name}': was an object given in Python; give it again, or put it into a module")
    if ":" not in name:
        table = names(kind)
        if name not in table:
            near = did_you_mean(name, table)
            raise ComponentError(f"no {kind} is called '{name}'{near}; one of your own is module:Name")
        target = table[name]
    module_name, _, attribute = target.partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise ComponentError(f"{kind} '{name}': write it as module:Name, such as my_models:MyPolicy")
    _make_reachable(module_name.partition(".")[0], folders)
    module = _imported(module_name, f"{kind} '{name}'", folders)
    if not hasattr(module, attribute):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module_name]
        where = module.__file__ or module_name
        raise ComponentError(f"{kind} '{name}': {where} has no '{attribute}'{did_you_mean(attribute, own)}")
    found = getattr(module, attribute)
    if not callable(found):
        raise ComponentError(f"{kind} '{name}' is a {type(found).__name__}: it must be a class or a function")
    return found


def allow(module: str) -> None:
    """Imports a module, which may lie in the current folder, so that a run may name it. The path stays as it was."""
    sys.path.append(str(Path.cwd()))
    try:
        _imported(module, f"--allow {module}", [Path.cwd()])
    finally:
        sys.path.remove(str(Path.cwd()))


def _make_reachable(package: str, folders: Sequence[Path]) -> None:
    if package in sys.modules or find_spec(package) is not None:
        return
    for folder in folders:
        if (folder / f"{package}.py").is_file() or (folder / package).is_dir():
            sys.path.append(str(folder.resolve()))
            return


def _imported(module: str, what: str, folders: Sequence[Path]) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            package, _, last = module.rpartition(".")
            paths = getattr(sys.modules.get(package), "__path__", map(str, folders))
            near = did_you_mean(last, [info.name for info in iter_modules(paths)])
            looked = "".join(f", in {folder.resolve()}" for folder in dict.fromkeys(folders))
            looked = looked or f"; if you trust it and it lies in the current folder, add --allow {module}"
            message = f"{what}: no module is called '{module}'{near}; looked among the installed ones{looked}"
        else:
            said = " ".join(str(error).split())
            message = f"{what}: {_place(error)}: fails while it is imported: {type(error).__name__}: {said}"
        raise ComponentError(message) from error


def _place(error: Exception) -> str:
    """File and line of the module's own statement that failed."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in frames if frame.name == "<module>"), frames[-1])
    return f"{frame.filename}:{frame.lineno}"


@dataclass(frozen=True)
class Problem:
    """What is wrong with one value. `path` leads to it through sections and lists."""

    path: tuple[str | int, ...]
    text: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {self.text}" if self.path else self.text


def check_arguments(factory: Callable[..., Any], arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`arguments` as `factory` takes them (nested dataclasses made), or one ConfigError, a line a problem."""
    values, problems = _checked_arguments(factory, arguments)
    if problems:
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in problems))
    return {name: values[name] for name in arguments}


def resolved_arguments(
    factory: Callable[..., Any], arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Problem]]:
    """The same with the defaults of all others, and with the problems beside it.

    Defaults that a recipe cannot hold (a function, say), or that break their own annotation, are left out.
    """
    values, problems = _checked_arguments(factory, arguments)
    plain: dict[str, Any] = {}
    for name, value in values.items():
        with suppress(ConfigError):
            plain[name] = as_plain(value)
    _, misfits = _checked_arguments(factory, plain)
    misfitting = {misfit.path[0] for misfit in misfits if misfit.path}
    return {name: values[name] for name in plain if name in arguments or name not in misfitting}, problems


def as_plain(value: Any) -> Any:
    """As a recipe holds it: text, finite numbers, lists and sections."""
    try:
        return json.loads(json.dumps(to_jsonable_python(value), allow_nan=False))
    except ValueError as error:
        shown = " ".join(repr(value).split())[:60]
        raise ConfigError(f"{shown}: a {type(value).__name__} like this cannot stand in a recipe") from error


def _checked_arguments(
    factory: Callable[..., Any], arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Problem]]:
    """The values of all keyword-only parameters, defaults among them; no values if there are problems."""
    name = getattr(factory, "__name__", type(factory).__name__)
    try:
        parameters = inspect.signature(factory, eval_str=True).parameters.values()
    except (NameError, TypeError, ValueError) as error:
        raise ComponentError(f"{name}: its parameters cannot be read ({error})") from error
    settings = [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    positional = {each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD}
    unchecked = set(positional)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        unchecked |= set(arguments) - {parameter.name for parameter in settings}
    form = make_dataclass(
        name,
        [(parameter.name, _annotation(parameter), _default(parameter)) for parameter in settings],
        kw_only=True,
        namespace={"__pydantic_config__": STRICT},
    )
    made, problems = checked(form, {key: value for key, value in arguments.items() if key not in unchecked})
    for key in [key for key in arguments if key in positional]:
        remedy = f"a recipe sets keyword-only ones: put it behind a * in {name}"
        problems.append(Problem((key,), f"is a positional parameter; {remedy}"))
    if problems:
        return {}, problems
    free = {key: value for key, value in arguments.items() if key in unchecked}
    return {parameter.name: getattr(made, parameter.name) for parameter in settings} | free, []


def _annotation(parameter: inspect.Parameter) -> Any:
    return Any if parameter.annotation is parameter.empty else parameter.annotation


def _default(parameter: inspect.Parameter) -> Any:
    required = parameter.default is parameter.empty
    return field() if required else field(default_factory=lambda: parameter.default)


Form = TypeVar("Form")


def checked(form: type[Form], values: Mapping[str, Any]) -> tuple[Form | None, list[Problem]]:
    """Plain values as the dataclass `form`, or all that is wrong with them."""
    try:
        adapter = TypeAdapter(form)
    except (PydanticUserError, NameError, TypeError) as error:
        said = str(error).splitlines()[0]
        raise ComponentError(f"{form.__name__}: its annotations cannot be read ({said})") from error
    try:
        # By way of JSON, strictness still lets lists be tuples and sections be dataclasses.
        return adapter.validate_json(json.dumps(to_jsonable_python(values))), []
    except ValidationError as error:
        return None, _problems(form, values, error.errors(include_url=False))
    except (PydanticSerializationError, RlcapError) as error:
        return None, [Problem((), str(error))]


EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text (perhaps put it in quotes)",
    "none_required": "null",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a section of keys and values",
    "dataclass_type": "a section of keys and values",
}
BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _problems(form: type, values: Mapping[str, Any], errors: list[ErrorDetails]) -> list[Problem]:
    problems: list[Problem] = []
    wanted: dict[tuple[str | int, ...], list[str]] = {}  # a union says one thing for each of its types
    found: dict[tuple[str | int, ...], Any] = {}
    for error in errors:
        path = _path_in(values, error)
        if error["type"] == "missing":
            problems.append(Problem(path, "is missing"))
        elif error["type"] == "unexpected_keyword_argument":
            problems.append(Problem(path, f"unknown key{_near_key(form, path)}"))
        elif error["type"] == "value_error":
            problems.append(Problem(path, " ".join(str(error["ctx"]["error"]).split())))
        else:
            wanted.setdefault(path, []).append(_expected(form, path, error))
            found[path] = error["input"]
    for path, kinds in wanted.items():
        expected = " or ".join(dict.fromkeys(kinds))
        problems.append(Problem(path, f"should be {expected}, not {_shown(found[path])}"))
    return problems


def _path_in(values: Any, error: ErrorDetails) -> tuple[str | int, ...]:
    """The way to the value. Pydantic's own also names the members of unions, which are not in the data."""
    path: list[str | int] = []
    for step in error["loc"]:
        if step in (values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ()):
            path.append(step)
            values = values[step]
    return (*path, error["loc"][-1]) if error["type"] == "missing" else tuple(path)


def _expected(form: type, path: tuple[str | int, ...], error: ErrorDetails) -> str:
    if error["type"] in ("literal_error", "enum"):
        return f"one of {error['ctx']['expected']}"
    if error["type"].startswith(("greater_than", "less_than")):
        bounds = _bounds(_annotation_at(form, path))
        return " and ".join(f"{BOUNDS[bound]} {limit}" for bound, limit in bounds.items())
    return EXPECTED.get(error["type"]) or error["msg"].removeprefix("Input should be ")


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _near_key(form: Any, path: tuple[str | int, ...]) -> str:
    """did_you_mean for an unknown key; one that belongs a section deeper is found there."""
    key, known = str(path[-1]), set()
    for option in _options(_annotation_at(form, path[:-1])):
        if is_dataclass(option):
            known |= {member.name for member in fields(option)}
            for section, inner in get_type_hints(option).items():
                if any(is_dataclass(o) and key in o.__dataclass_fields__ for o in _options(inner)):
                    return f" (did you mean '{section}.{key}'?)"
    return did_you_mean(key, known)


def _annotation_at(annotation: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        annotation = next(_members(annotation, step), None)
    return annotation


def _members(annotation: Any, step: str | int) -> Iterator[Any]:
    for option in _options(annotation):
        if is_dataclass(option):
            hints = get_type_hints(option, include_extras=True)
            if step in hints:
                yield hints[str(step)]
        elif arguments := [argument for argument in get_args(option) if argument is not Ellipsis]:
            of_its_own = isinstance(step, int) and get_origin(option) is tuple and step < len(arguments)
            yield arguments[int(step) if of_its_own else -1]


def _options(annotation: Any) -> Iterator[Any]:
    """The members of a union, or the one type; without annotations."""
    if get_origin(annotation) is Annotated:
        yield from _options(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _options(member)
    else:
        yield annotation


def _bounds(annotation: Any) -> dict[str, Any]:
    """The limits ("ge", …) that an annotation sets, also inside a union."""
    found: dict[str, Any] = {}
    if get_origin(annotation) is Annotated:
        for note in annotation.__metadata__:
            for limit in (note, *getattr(note, "metadata", ())):  # pydantic's Field keeps them in a list
                limits = {bound: getattr(limit, bound, None) for bound in BOUNDS}
                found |= {bound: value for bound, value in limits.items() if value is not None}
    for member in get_args(annotation):
        found |= _bounds(member)
    return found
