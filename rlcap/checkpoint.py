"""Everything a run needs to go on as if it had never stopped: weights, optimiser, position, random states.

A checkpoint is a folder that appears whole: weights.safetensors, state.pt (read with weights_only) and meta.json.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from rlcap.components import as_plain
from rlcap.config import COMPONENTS, Experiment
from rlcap.errors import CheckpointError
from rlcap.files import as_umask, atomic_folder

WEIGHTS, STATE, META = "weights.safetensors", "state.pt", "meta.json"
# What a run that goes on may not change. The fingerprints of its data say whether they have only moved.
FIXED = (
    *COMPONENTS,
    *("data.train", "data.evaluate", "data.max_words", "data.blind"),
    *("training.images", "training.captions", "training.seed", "training.metric"),
)
VOCABULARY = "vocabulary"  # whose fingerprint the weights carry: the same shapes can mean other words


def save_checkpoint(
    folder: Path, networks: Mapping[str, nn.Module], state: Mapping[str, Any], meta: Mapping[str, Any]
) -> None:
    """`state` holds tensors and plain values only; `meta` is for people and for checks."""
    with atomic_folder(folder) as part:
        save_weights(part / WEIGHTS, networks, meta[VOCABULARY])
        with _as_the_system_says(), (part / STATE).open("wb") as file:
            torch.save(dict(state), file)
        (part / META).write_text(json.dumps(dict(meta), indent=2), encoding="utf-8")


def save_weights(path: Path, networks: Mapping[str, nn.Module], vocabulary: str | None = None) -> None:
    with _as_the_system_says():
        save_file(_weights(networks), path, {VOCABULARY: vocabulary} if vocabulary else None)
    as_umask(path)


def load_weights(path: Path, networks: Mapping[str, nn.Module], vocabulary: str | None = None) -> None:
    """Fills the networks; a file of another model is told apart by its words, or its first wrong name or shape."""
    try:
        with safe_open(path, framework="pt") as file:
            of_words = (file.metadata() or {}).get(VOCABULARY)
            stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no mapping
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as weights ({error}); copy or export it again, or use another checkpoint"
        ) from error
    if vocabulary and of_words and vocabulary != of_words:
        raise CheckpointError(
            f"{path}: was trained with vocabulary {of_words}, the one given is {vocabulary}; "
            "take both from the same run"
        )
    for name, network in networks.items():
        mine = {key.removeprefix(f"{name}."): value for key, value in stored.items() if key.startswith(f"{name}.")}
        wanted = network.state_dict()
        for key in sorted(wanted.keys() | mine.keys()):
            here = tuple(mine[key].shape) if key in mine else "missing"
            there = tuple(wanted[key].shape) if key in wanted else "nothing of that name"
            if here != there:
                raise CheckpointError(
                    f"{path}: belongs to another model: {name}.{key} is {here}, this model has {there}; "
                    "use the config that the weights were trained with"
                )
        network.load_state_dict(mine)


def check_same_recipe(before: Experiment, now: Experiment, run: Path) -> None:
    """A run goes on as it began; only how long, how often and where it is watched may change."""
    was, wanted = _flat(as_plain(before)), _flat(as_plain(now))
    for key in [*was, *wanted]:
        if key.startswith(FIXED) and was.get(key) != wanted.get(key):
            raise CheckpointError(
                f"{run}: began with {key}={was.get(key)}, not {wanted.get(key)}; resume it with its own config.yaml"
            )


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


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)


@contextmanager
def _as_the_system_says() -> Iterator[None]:
    """The OSError of a full disk, which safetensors and torch hide behind errors of their own."""
    try:
        yield
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise OSError(error.__context__.errno, error.__context__.strerror) from error
        raise


def _weights(networks: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    """Names are `network.parameter`; tensors that share memory are written apart."""
    return {
        f"{name}.{key}": value.detach().cpu().clone().contiguous()
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
