"""An update that went wrong, once more: which figures, gradients and features were not finite, and where it began."""

from collections.abc import Iterator
from pathlib import Path

import torch

from rlcap.checkpoint import load_state
from rlcap.contracts import Batch
from rlcap.errors import CheckpointError
from rlcap.guard import BATCH, from_tensors
from rlcap.materials import Materials, gather
from rlcap.recipe import load_recipe
from rlcap.standing import restore

GRADIENTS = 5  # whose names are told


def replay(folder: Path) -> Iterator[str]:
    """What `training.not_finite` kept, line by line: with the weights, the draws and the batch of that update."""
    state, _ = load_state(folder)
    if BATCH not in state:
        raise CheckpointError(f"{folder}: holds no batch; name a folder update_… of RUN/replay")
    made = gather(load_recipe(folder.parent.parent / "config.yaml"))
    batch = from_tensors(state[BATCH]).to(made.course.device)
    progress = restore(made, folder)
    images, captions, length = batch.words.shape
    yield f"update {progress.update + 1}: {images} images x {captions} captions of {length} words at most"
    metrics = made.trainer.update(batch)
    for name, value in metrics.items():
        yield f"{name:<32} {float(value):>12.6g}{'' if bool(torch.isfinite(value).all()) else '   not finite'}"
    wrong = [
        f"{network}.{name}"
        for network, module in made.trainer.networks.items()
        for name, weight in module.named_parameters()
        if weight.grad is not None and not bool(weight.grad.isfinite().all())
    ]
    if wrong:
        others = f" and {len(wrong) - GRADIENTS} others" if len(wrong) > GRADIENTS else ""
        yield f"gradients that are not finite: {', '.join(wrong[:GRADIENTS])}{others}"
        yield _origin(made, folder, batch)


def _origin(made: Materials, folder: Path, batch: Batch) -> str:
    """The first step backwards that gives no finite number."""
    restore(made, folder)
    try:
        with torch.autograd.set_detect_anomaly(True):
            made.trainer.update(batch)
    except RuntimeError as error:
        return f"backwards it begins here: {str(error).splitlines()[0]}"
    return "backwards each step is finite: the loss itself is not, or the sum of gradients"
