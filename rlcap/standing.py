"""Where a run stands: what is kept with every checkpoint, and how a training goes on from there."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from rlcap.checkpoint import (
    BEST,
    FOLDER,
    LAST,
    STATE,
    load_state,
    random_states,
    restore_random_states,
    save_checkpoint,
)
from rlcap.data.sight import Sight
from rlcap.errors import CheckpointError, ConfigError
from rlcap.files import write_text
from rlcap.materials import Materials
from rlcap.recipe import to_yaml
from rlcap.weights import WEIGHTS, load_weights

PACKAGES = ("rlcap", "torch", "torchvision", "numpy", "h5py", "tensorboard", "gymnasium")


@dataclass
class Progress:
    """Where the run stands; saved with every checkpoint."""

    update: int = 0
    best: float | None = None
    best_update: int = 0
    without_gain: int = 0  # evaluations since the best
    symptoms: dict[str, Any] = field(default_factory=dict)  # what the observer remembers


def state_of(made: Materials, progress: Progress) -> dict[str, Any]:
    """Besides the weights. Tensors are the live ones, numbers those of this moment."""
    return {
        "trainer": made.trainer.state_dict(),
        "rewards": None if made.judge is None else made.judge.state_dict(),
        "plan": made.plan.state_dict(),
        "random": random_states(),
        "progress": asdict(progress),
    }


def keep(made: Materials, run: Path, state: Mapping[str, Any], best: bool = False) -> None:
    """As the last checkpoint of the run, and as its best, too."""
    names = [BEST, LAST] if best else [LAST]
    for name in names:
        count = made.experiment.training.keep if name == LAST else 1
        save_checkpoint(run / FOLDER / name, made.trainer.networks, state, meta_of(made, state), count)


def meta_of(made: Materials, state: Mapping[str, Any]) -> dict[str, Any]:
    """For people, and what a run learns from: the words and the captions, wherever their files lie."""
    progress = state["progress"]
    return {
        "update": progress["update"],
        "best": progress["best"],
        "vocabulary": made.model.codec.fingerprint,
        "captions": made.data.meta["fingerprints"]["captions"],
    }


def restore(made: Materials, last: Path) -> Progress:
    """Puts policy, trainer and plan where the checkpoint left them."""
    folder = last.parent.parent
    state, meta = load_state(last)
    here = meta_of(made, {"progress": asdict(Progress())})
    for name in ("vocabulary", "captions"):
        if meta.get(name) != here[name]:
            raise CheckpointError(
                f"{last}: was trained with {name} {meta.get(name)}, {made.data.path} has {here[name]}; "
                "use the data set that the run began with"
            )
    Sight.load(folder).check(made.store, folder)
    load_weights(last / WEIGHTS, made.trainer.networks)
    try:
        made.trainer.load_state_dict(state["trainer"])
        if made.judge is not None:
            made.judge.load_state_dict(state["rewards"])
        made.plan.load_state_dict(state["plan"])
        restore_random_states(state["random"])
        progress = Progress(**state["progress"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise CheckpointError(
            f"{last / STATE}: does not fit this trainer ({type(error).__name__}: {said}); resume the run with the "
            "recipe and the version of rlcap that it began with"
        ) from error
    if progress.update > made.course.updates:
        raise ConfigError(
            f"{last}: has {progress.update} updates behind it, and the recipe asks for {made.course.updates}; raise "
            "training.updates (or epochs) to go on"
        )
    return progress


def describe(made: Materials, folder: Path) -> None:
    """What a reader of the run's folder needs: config, versions, vocabulary, what made the features."""
    write_text(folder / "config.yaml", to_yaml(made.experiment))
    versions: dict[str, Any] = {package: version(package) for package in PACKAGES}
    versions |= {
        "python": platform.python_version(),
        "machine": platform.platform(),
        "device": str(made.course.device),
    }
    if made.course.device.type == "cuda":
        versions["gpu"] = torch.cuda.get_device_name(made.course.device)
    write_text(folder / "environment.json", json.dumps(versions, indent=2))
    made.vocabulary.save(folder / "vocabulary.json")
    Sight.of(made.store).save(folder)
