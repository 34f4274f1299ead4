"""Updates whose figures are not finite. The batch is kept for `rlcap replay`; training stops, or goes on without it.

No optimiser moves along a gradient that is not finite (rlcap.agents.optimisers), and buffers are set back: what was
learned stays. On a GPU the figures are read one update later: reading them at once would make the host wait at each.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlcap.checkpoint import save_checkpoint
from rlcap.contracts import Batch, Features
from rlcap.errors import DataError
from rlcap.materials import Materials
from rlcap.progress import warn
from rlcap.standing import meta_of

FOLDER, BATCH = "replay", "batch"
KEPT, MANY = 3, 10  # of skipped batches that are kept; skipped in a row until training stops nevertheless


class Update(NamedTuple):
    number: int
    batch: Batch
    before: Mapping[str, Any]  # where the run stood
    metrics: Mapping[str, Tensor]
    finite: Tensor  # bool
    buffers: list[tuple[Tensor, Tensor]]  # each with a copy from before


class NotFiniteError(DataError):
    """Names the update; `before` is where to go on from."""

    def __init__(self, message: str, before: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.before = before


class Guard:
    def __init__(self, made: Materials, run: Path) -> None:
        self.made, self.folder = made, run / FOLDER
        self.skips = made.experiment.training.not_finite == "skip"
        self.unread: Update | None = None
        self.skipped = self.in_a_row = 0
        self.buffers: list[tuple[Tensor, Tensor]] = []

    def remember(self) -> None:
        """Before an update: the running figures of batch norms, say, which move with each forward pass."""
        networks = self.made.trainer.networks.values()
        self.buffers = [(each, each.clone()) for network in networks for each in network.buffers()]

    def watch(self, number: int, batch: Batch, before: Mapping[str, Any], metrics: Mapping[str, Tensor]) -> None:
        """Has this update looked at, as soon as that costs nothing."""
        self.read()
        device = self.made.course.device
        values = [value.detach().float().reshape(()) for value in metrics.values() if value.device.type == device.type]
        self.unread = Update(number, batch, before, metrics, torch.stack(values).isfinite().all(), self.buffers)
        if device.type == "cpu":
            self.read()

    def read(self) -> None:
        """Looks at what has not been looked at yet: before anything is logged or kept."""
        update, self.unread = self.unread, None
        if update is None or bool(update.finite):
            self.in_a_row = 0 if update is not None else self.in_a_row
            return
        for buffer, copy in update.buffers:
            buffer.copy_(copy)
        where = self.folder / f"update_{update.number:07d}"
        told = f"update {update.number}: {_cause(update.metrics)}"
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.skipped <= KEPT or not self.skips:
            state = {**update.before, BATCH: as_tensors(update.batch)}
            save_checkpoint(where, self.made.trainer.networks, state, meta_of(self.made, state))
            told += f"; see it again with rlcap replay {where}"
        if not self.skips:
            raise NotFiniteError(f"{told}, go on without it with --resume training.not_finite=skip", update.before)
        if self.in_a_row == MANY:
            raise NotFiniteError(f"{told}; the {MANY - 1} updates before it were skipped as well", update.before)
        warn(f"warning: {told}; skipped")


def _cause(metrics: Mapping[str, Tensor]) -> str:
    for name, value in sorted(metrics.items(), key=lambda item: not item[0].startswith("reward/")):  # causes first
        if not torch.isfinite(value).all():
            if name.startswith("reward/"):
                return f"{name} is {float(value)}; a reward must give finite numbers"
            return (
                f"{name} is {float(value)}; check the features (rlcap features check) or lower the learning rate "
                "(trainer.optimiser.lr)"
            )
    return "a figure is not finite"


def as_tensors(batch: Batch) -> dict[str, Any]:
    """As a checkpoint may hold it: tensors and plain values."""
    return {
        "images": batch.images.cpu(),
        "words": batch.words.cpu(),
        "mask": batch.mask.cpu(),
        "features": _plain(batch.features),
    }


def from_tensors(stored: Mapping[str, Any]) -> Batch:
    return Batch(stored["images"], _features(stored["features"]), stored["words"], stored["mask"])


def _plain(features: Features) -> dict[str, Any]:
    tensors = {
        name: None if (value := getattr(features, name)) is None else value.cpu()
        for name in ("values", "mask", "boxes", "pixels")
    }
    return {**tensors, "grid": features.grid, "earlier": [_plain(layer) for layer in features.earlier]}


def _features(stored: Mapping[str, Any]) -> Features:
    grid = stored["grid"]
    earlier = tuple(_features(layer) for layer in stored["earlier"])
    return Features(**{**stored, "grid": None if grid is None else tuple(grid), "earlier": earlier})
