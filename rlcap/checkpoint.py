"""Everything a run needs to go on as if it had never stopped: weights, optimiser, position, random states.

A checkpoint is a folder that appears whole: weights.safetensors, state.pt (read with weights_only) and meta.json.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlcap.components import as_plain
from rlcap.config import COMPONENTS, Component, Experiment
from rlcap.errors import CheckpointError
from rlcap.files import atomic_folder
from rlcap.weights import VOCABULARY, WEIGHTS, as_the_system_says, save_weights

STATE, META = "state.pt", "meta.json"
# What a run that goes on may not change. The fingerprints of its data say whether they have only moved.
FIXED = (
    *(*COMPONENTS, "rewards"),
    *("data.train", "data.evaluate", "data.max_words", "data.blind"),
    *("training.images", "training.captions", "training.seed", "training.metric"),
)


def save_checkpoint(
    folder: Path, networks: Mapping[str, nn.Module], state: Mapping[str, Any], meta: Mapping[str, Any]
) -> None:
    """`state` holds tensors and plain values only; `meta` is for people and for checks."""
    with atomic_folder(folder) as part:
        save_weights(part / WEIGHTS, networks, meta[VOCABULARY])
        with as_the_system_says(), (part / STATE).open("wb") as file:
            torch.save(dict(state), file)
        (part / META).write_text(json.dumps(dict(meta), indent=2), encoding="utf-8")


def check_same_recipe(before: Experiment, now: Experiment, run: Path) -> None:
    """A run goes on as it began; only how long, how often and where it is watched may change."""
    was, wanted = _flat(as_plain(before)), _flat(as_plain(now))
    for key in [*was, *wanted]:
        if key.startswith(FIXED) and was.get(key) != wanted.get(key):
            raise CheckpointError(
                f"{run}: began with {key}={was.get(key)}, not {wanted.get(key)}; resume it with its own config.yaml"
            )


def check_same_model(before: Experiment, now: Experiment, run: Path) -> None:
    """Tells why the weights of `run` do not fit: what it holds, and what this recipe asks for instead."""
    for kind in ("scorer", "policy", "encoder"):
        one, other = getattr(before, kind), getattr(now, kind)
        if one != other:
            held, asked = _told(kind, one, other), _told(kind, other, one)
            raise CheckpointError(
                f"training.start={run}: holds {held}, and this recipe asks for {asked}; name a run of the same "
                f"{kind}, or give this recipe the settings of that one ({run / 'config.yaml'})"
            )


def _told(kind: str, made: Component | None, beside: Component | None) -> str:
    """A component with those settings in which it differs."""
    if made is None:
        return f"no {kind}"
    others = {} if beside is None else beside.settings
    differing = [f"{key}={value}" for key, value in made.settings.items() if key not in others or others[key] != value]
    return f"{kind} {made.name}" + (f" ({', '.join(differing)})" if differing else "")


def _flat(tree: Any, place: str = "") -> dict[str, Any]:
    """{"policy": {"name": …, "settings": {"hidden": 512}}} -> {"policy.hidden": 512, …}"""
    if not isinstance(tree, dict):
        return {place: tree}
    flat: dict[str, Any] = {}
    for key, inner in tree.items():
        flat |= _flat(inner, place if key == "settings" else f"{place}.{key}".lstrip("."))
    return flat


def load_state(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state and the meta of a checkpoint. No code in the file is run."""
    state = _read(folder / STATE, lambda path: torch.load(path, map_location="cpu", weights_only=True))
    meta = _read(folder / META, lambda path: json.loads(path.read_text(encoding="utf-8")))
    return state, meta


def _read(path: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
    remedy = f"put a copy of {path.parent.with_name('best')} in the place of {path.parent}, or train anew"
    try:
        found = read(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from error
    except Exception as error:  # a damaged zip, pickle or JSON each raises its own kind, in many lines
        raise CheckpointError(f"{path}: is damaged or cut short; {remedy}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds no part of a checkpoint; {remedy}")
    return found


def random_states() -> dict[str, Any]:
    """The global generators, as tensors and plain values."""
    states: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
