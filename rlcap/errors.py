"""The errors that a person can mend. Each message is one line: the value, the place, the remedy.

The command line prints them and leaves with status 2; a traceback means a fault of ours (or `--debug`).
"""

from collections.abc import Iterable
from difflib import get_close_matches


class RlcapError(Exception):
    """Something that the user can put right."""


class DataError(RlcapError):
    """A file does not hold what it should: annotations, images, features, a prepared data set."""


class ConfigError(RlcapError):
    """A recipe, an override or an argument is wrong."""


class CheckpointError(RlcapError):
    """A run or checkpoint cannot be read, or belongs to another model."""


class ComponentError(RlcapError):
    """A plug-in cannot be found, or breaks its contract."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' (did you mean X?)' for a near miss, otherwise ' (known: …)': to be put behind the wrong name."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f" (did you mean '{near[0]}'?)"
    return f" (known: {', '.join(names)})" if names else ""
