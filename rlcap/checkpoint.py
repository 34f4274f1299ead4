"""Everything a run needs to go on as if it had never stopped: weights, optimiser, position, random states.

A checkpoint is a folder that appears whole: weights.safetensors, state.pt (read with weights_only) and meta.json.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from rlcap.errors import CheckpointError
from rlcap.files import atomic_folder

WEIGHTS, STATE, META = "weights.safetensors", "state.pt", "meta.json"


def save_checkpoint(
    folder: Path, networks: Mapping[str, nn.Module], state: Mapping[str, Any], meta: Mapping[str, Any]
) -> None:
    """`state` holds tensors and plain values only; `meta` is for people and for checks."""
    with atomic_folder(folder) as part:
        save_file(_weights(networks), part / WEIGHTS)
        torch.save(dict(state), part / STATE)
        (part / META).write_text(json.dumps(dict(meta), indent=2), encoding="utf-8")


def save_weights(path: Path, networks: Mapping[str, nn.Module]) -> None:
    save_file(_weights(networks), path)


def load_weights(path: Path, networks: Mapping[str, nn.Module]) -> None:
    """Fills the networks; a file of another model is told apart by its first wrong name or shape."""
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as weights ({error}); use another checkpoint") from error
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


def load_state(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state and the meta of a checkpoint. No code in the file is run."""
    try:
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: is no whole checkpoint ({error.filename} is missing)") from error
    except Exception as error:  # a damaged zip, pickle or JSON each raises its own kind
        raise CheckpointError(f"{folder}: cannot be read ({error}); resume from another checkpoint") from error
    return state, meta


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


def _weights(networks: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    """Names are `network.parameter`; tensors that share memory are written apart."""
    return {
        f"{name}.{key}": value.detach().cpu().clone().contiguous()
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
