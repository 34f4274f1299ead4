"""Trainings that are killed at any moment, and what they leave: for the tests of exact resumption.

A training runs in a forked process of its own, which counts moments (updates, log lines, each step of a checkpoint)
and kills itself, as `kill -9` does, when its number has come. Nothing is cleaned up, and no handler runs.
"""

import json
import os
import random
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlcap import checkpoint, files, loggers, training
from rlcap.checkpoint import begun
from rlcap.recipe import load_stages
from rlcap.stages import train_stages

MOMENTS = [
    (training, "_update"),
    (training, "_log"),
    (training.Logger, "flush"),
    (loggers.Logger, "_line"),
    (checkpoint, "save_weights"),
    (torch, "save"),
    (checkpoint, "write_sums"),
    (checkpoint, "_freed"),
    (shutil, "rmtree"),
    (files, "flush_to_disk"),
    (files, "_put_in_place"),
    (files, "as_umask"),
    (Path, "rename"),
    (Path, "replace"),
]


def survived(recipe: Path, folder: Path, moments: random.Random, latest: int) -> int:
    """Trains into `folder`, killed within `latest` moments each time and resumed, until it is done; how often."""
    count = 0
    while True:
        resume = any(map(begun, [folder, *folder.glob("*")]))
        status = _in_a_process(lambda resume=resume: _train(recipe, folder, resume, moments.randrange(1, latest)))
        if status == 0:
            return count
        assert os.WIFSIGNALED(status), "the training failed; see the output"
        assert os.WTERMSIG(status) == signal.SIGKILL
        count += 1


def undisturbed(recipe: Path, folder: Path) -> None:
    assert _in_a_process(lambda: _train(recipe, folder, False, 10**9)) == 0


def left_by(run: Path) -> dict[str, Any]:
    """What a run (of stages: each) leaves that does not depend on the time: weights, log, curves, captions."""
    found: dict[str, Any] = {}
    for folder in [path.parent for path in sorted(run.rglob("config.yaml"))]:
        name = str(folder.relative_to(run))
        for which in ("last", "best"):
            found[f"{name}: weights, {which}"] = _bytes(
                load_file(folder / "checkpoints" / which / "weights.safetensors")
            )
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found[f"{name}: log"] = [{key: line[key] for key in line if not _of_time(key)} for line in lines]
        board = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0}).Reload()
        for tag in board.Tags()["scalars"]:
            if not _of_time(tag):
                found[f"{name}: curve {tag}"] = [(point.step, repr(point.value)) for point in board.Scalars(tag)]
        for tag in board.Tags()["images"]:
            found[f"{name}: pictures {tag}"] = [image.step for image in board.Images(tag)]
        for path in (folder / "captions").glob("*.json"):
            found[f"{name}: {path.name}"] = path.read_text()
        found[f"{name}: files"] = sorted(
            path.name for path in folder.rglob("*") if not path.name.startswith("events.out.tfevents")
        )
    return found


def _train(recipe: Path, folder: Path, resume: bool, last: int) -> None:
    left = last

    def counted(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*arguments, **named)

        return call

    for holder, name in MOMENTS:
        setattr(holder, name, counted(getattr(holder, name)))
    train_stages(load_stages(recipe), folder, resume)


def _in_a_process(work: Callable[[], None]) -> int:
    """The status with which it ended."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            work()
            status = 0
        except BaseException:  # this process must not go on as a second pytest
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def _of_time(tag: str) -> bool:
    return tag == "wall_time" or tag.startswith("time/")


def _bytes(weights: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: weight.numpy().tobytes() for name, weight in weights.items()}
