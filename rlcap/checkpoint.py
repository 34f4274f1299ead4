"""Everything a run needs to go on as if it had never stopped: weights, optimiser, position, random states.

A checkpoint is a folder that appears whole: weights.safetensors, state.pt (read with weights_only), meta.json, and the
sums that tell whether these are as they were written. A run keeps the best, the last, and some before the last.
"""

import json
import random
import re
import shutil
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rlcap.components import as_plain
from rlcap.config import COMPONENTS, Component, Experiment
from rlcap.errors import CheckpointError
from rlcap.files import atomic_folder, damage, write_sums
from rlcap.progress import warn
from rlcap.weights import VOCABULARY, WEIGHTS, as_the_system_says, save_weights

FOLDER, LAST, BEST, EARLIER = "checkpoints", "last", "best", "earlier"
STATE, META = "state.pt", "meta.json"
# What a run that goes on may not change. The fingerprints of its data say whether they have only moved.
FIXED = (
    *(*COMPONENTS, "rewards"),
    *("data.train", "data.evaluate", "data.max_words", "data.blind"),
    *("training.images", "training.captions", "training.seed", "training.metric"),
)


def save_checkpoint(
    folder: Path, networks: Mapping[str, nn.Module], state: Mapping[str, Any], meta: Mapping[str, Any], keep: int = 1
) -> None:
    """`state` holds tensors and plain values only; `meta` is for people and for checks.

    What `folder` held before becomes earlier-1 beside it, that one earlier-2, and so on: `keep` of them in all.
    """
    with atomic_folder(folder, _freed(folder, keep)) as part:
        save_weights(part / WEIGHTS, networks, meta[VOCABULARY])
        with as_the_system_says(), (part / STATE).open("wb") as file:
            torch.save(dict(state), file)
        (part / META).write_text(json.dumps(dict(meta), indent=2), encoding="utf-8")
        write_sums(part)


def _freed(folder: Path, keep: int) -> Path | None:
    """The name for what `folder` holds now, freed by moving those before on; None if it is not to be kept."""
    if keep == 1:
        return None
    names = [folder.with_name(f"{EARLIER}-{number}") for number in range(1, keep)]
    if folder.exists():
        free = next((place for place, name in enumerate(names) if not name.exists()), keep - 2)
        shutil.rmtree(names[free], ignore_errors=True)
        for newer, older in reversed(list(pairwise(names[: free + 1]))):
            newer.rename(older)
    return names[0]


def checkpoints(run: Path) -> list[Path]:
    """Those of a run that may be gone on from: the last, those before it, and the best."""
    folder = run / FOLDER
    numbers = [int(match[1]) for path in folder.glob("*") if (match := re.fullmatch(rf"{EARLIER}-(\d+)", path.name))]
    names = [LAST, *(f"{EARLIER}-{number}" for number in sorted(numbers)), BEST]
    return [folder / name for name in names if (folder / name).exists()]


def begun(run: Path) -> bool:
    """Whether it was begun to train there, if only to be stopped before the first checkpoint."""
    return (run / "config.yaml").exists()


def newest_whole(run: Path) -> Path:
    """The last checkpoint, or if that is damaged the one before, with a warning."""
    told: list[str] = []
    for folder in checkpoints(run):
        wrong = damage(folder)
        if wrong is None:
            if told:
                warn(f"warning: {told[0]}; going on from {folder.name}, the one before")
            return folder
        told.append(wrong)
    raise CheckpointError(f"{told[0]}, and there is no other that is whole; train anew")


def sweep_up(run: Path) -> None:
    """What a process that was killed in the middle of a checkpoint has left there."""
    for path in (run / FOLDER).glob(".*.*"):
        shutil.rmtree(path, ignore_errors=True)


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
    """The state and the meta of a checkpoint that is whole. No code in the file is run."""
    state = _read(folder / STATE, lambda path: torch.load(path, map_location="cpu", weights_only=True))
    meta = _read(folder / META, lambda path: json.loads(path.read_text(encoding="utf-8")))
    return state, meta


def _read(path: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
    try:
        found = read(path)
    except Exception as error:  # a zip, a pickle or JSON that is none raises its own kind each, in many lines
        raise CheckpointError(f"{path}: is no part of a checkpoint; train anew") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds no part of a checkpoint; train anew")
    return found


def random_states() -> dict[str, Any]:
    """The global generators, as tensors and plain values."""
    version, words, gauss = random.getstate()
    numbers: Any = np.random.get_state(legacy=False)
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {**numbers, "state": {**numbers["state"], "key": torch.tensor(numbers["state"]["key"].tolist())}},
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    python, numbers = states["python"], states["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    key = numbers["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**numbers, "state": {**numbers["state"], "key": key}})
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
