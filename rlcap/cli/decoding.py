"""The decoding switches that `evaluate` and `caption` share."""

import argparse
from typing import Any

SWITCHES: tuple[tuple[str, type, str], ...] = (
    ("beam", int, "beams an image (1: greedy)"),
    ("length", int, "most words of a caption"),
    ("length-normalisation", float, "rank captions by log-probability / words^this"),
    ("min-words", int, "fewest words of a caption"),
    ("no-repeat-ngram", int, "no n-gram of this length twice in a caption"),
    ("groups", int, "groups of diverse beams"),
    ("diversity", float, "what repeating another group's word costs"),
    ("temperature", float, "of sampling"),
    ("top-k", int, "sample from the k likeliest words (0: all)"),
    ("top-p", float, "sample from the nucleus that holds this share"),
)


def add_switches(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("decoding", "as in the run's recipe unless given")
    for name, kind, meaning in SWITCHES:
        group.add_argument(f"--{name}", type=kind, metavar=kind.__name__.upper(), help=meaning)
    group.add_argument("--sample", action="store_true", default=None, help="draw captions instead of the likeliest")


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The switches that were given, as settings of Decoding."""
    names = [name.replace("-", "_") for name, _, _ in SWITCHES] + ["sample"]
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
