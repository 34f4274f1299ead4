"""Weights of networks in one safetensors file: `network.parameter` by name."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from rlcap.errors import CheckpointError
from rlcap.files import as_umask

WEIGHTS, STAGES, SEEDS = "weights.safetensors", "stages.json", "seeds.json"
VOCABULARY = "vocabulary"  # whose fingerprint the weights carry: the same shapes can mean other words


class OtherModelError(CheckpointError):
    """Weights whose names or shapes are not those of the network."""


def run_folder(path: str | Path) -> Path:
    """The folder of a run; of a run of stages, that of the last one that has a checkpoint."""
    folder = Path(path)
    if (folder / SEEDS).exists():
        one = next(iter(sorted(folder.glob("seed*/"))), folder / "seed1")
        raise CheckpointError(f"{folder}: holds runs of several seeds; name one of them, such as {one}")
    if not (folder / STAGES).exists():
        return folder
    names: list[str] = json.loads((folder / STAGES).read_text(encoding="utf-8"))
    trained = [folder / name for name in names if (folder / name / "checkpoints").exists()]
    if not trained:
        raise CheckpointError(f"{folder}: none of its stages ({', '.join(names)}) has a checkpoint yet; train it first")
    return trained[-1]


def find_weights(folder: Path, checkpoint: str = "best") -> Path:
    """The weights of a run's folder, or of an exported one."""
    if not (folder / "config.yaml").exists():
        raise CheckpointError(f"{folder}: is no run (config.yaml is missing); name the folder that rlcap train made")
    exported, trained = folder / WEIGHTS, folder / "checkpoints" / checkpoint / WEIGHTS
    if exported.exists():
        return exported
    if not trained.exists():
        raise CheckpointError(f"{folder}: has no checkpoint '{checkpoint}' yet ({trained} is missing); train it first")
    return trained


def save_weights(path: Path, networks: Mapping[str, nn.Module], vocabulary: str | None = None) -> None:
    with as_the_system_says():
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
                raise OtherModelError(
                    f"{path}: belongs to another model: {name}.{key} is {here}, this model has {there}; "
                    "use the config that the weights were trained with"
                )
        network.load_state_dict(mine)


@contextmanager
def as_the_system_says() -> Iterator[None]:
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
