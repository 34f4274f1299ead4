"""YAML by the core rules of its version 1.2: 4e-4 is a number, `no` is a word, 010 is ten."""

import re
from collections.abc import Callable
from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """Knows the words of YAML 1.2 only."""


class Dumper(yaml.SafeDumper):
    """Quotes every text that this loader or one for YAML 1.1 would take for something else."""


def _written(dumper: Dumper, text: str) -> yaml.ScalarNode:
    """Line breaks and their like survive in double quotes alone."""
    return dumper.represent_scalar(TAG + "str", text, style=None if text.isprintable() else '"')


TAG = "tag:yaml.org,2002:"
Dumper.add_representer(str, _written)
Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    for _class in (Loader, Dumper):
        _class.add_implicit_resolver(TAG + _tag, re.compile(rf"(?:{_pattern})\Z"), _first)

SCALARS: dict[str, Callable[[str], Any]] = {
    TAG + "null": lambda text: None,
    TAG + "bool": lambda text: {"true": True, "false": False}[text.lower()],
    TAG + "int": int,
    TAG + "float": lambda text: float(re.sub(r"\.(?=[a-z])", "", text.lower())),
    TAG + "str": str,
}


def fault(source: str, error: yaml.YAMLError) -> str:
    """PyYAML's report of several lines as one."""
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark is not None and not source.startswith("override") else ""
    said = f"is not YAML: {error.problem}" if isinstance(error, yaml.MarkedYAMLError) else str(error)
    return f"{source}{line}: {' '.join(said.split())}"
