"""Several processes that train as one. `torchrun` starts them; each has a share of every batch, on a device of its own.

A mean over a batch is that of all processes: each divides its own sum by the mean of their counts, and gradients are
averaged before each step. So many processes make the update that one would make of the whole batch. Sums are gathered
where they are needed, not by wrapping the network: captions that are drawn and scored in one go pass through no
`forward` that a wrapper could see.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as group
from torch import Tensor

from rlcap import progress
from rlcap.errors import ConfigError

PATIENCE = timedelta(hours=2)  # the first process evaluates while the others wait


def size() -> int:
    return group.get_world_size() if group.is_available() and group.is_initialized() else 1


def rank() -> int:
    return group.get_rank() if size() > 1 else 0


def is_first() -> bool:
    """Whether this process writes and speaks."""
    return rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """Meets the other processes, if torchrun has started any; until it ends, they count as one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or size() > 1:
        yield
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    group.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
    quiet, progress.QUIET = progress.QUIET, progress.QUIET or not is_first()
    try:
        yield
    finally:
        progress.QUIET = quiet
        group.destroy_process_group()


def own_device(name: str) -> str:
    """The GPU of this process where the recipe names none by number."""
    if size() == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{torch.cuda.current_device()}"


def share(count: int) -> slice:
    """This process's part of so many images of a batch."""
    if size() == 1:
        return slice(None)
    if count < size():
        raise ConfigError(
            f"training.images: a batch (perhaps an epoch's last) has {count} images for {size()} processes; choose "
            "another number, or start fewer"
        )
    return slice(rank(), None, size())


def mean(values: Tensor) -> Tensor:
    """Of all processes' values, each of the same shape; no gradient flows to the others."""
    if size() == 1:
        return values
    total = values.detach().clone() if values.is_floating_point() else values.detach().float()
    group.all_reduce(total)
    return total / size()


def mean_count(count: int, like: Tensor) -> Tensor | int:
    """Of a number that each process has, as a tensor where there are several."""
    return count if size() == 1 else mean(torch.full((), float(count), device=like.device))


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """In place. All processes have gradients for the same parameters."""
    if size() == 1:
        return
    gradients = [each.grad for each in parameters if each.grad is not None]
    flat = torch.cat([each.flatten() for each in gradients])
    group.all_reduce(flat)
    flat /= size()
    for gradient, part in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def any_of(flag: bool) -> bool:
    """Whether it is true of one process at least."""
    if size() == 1:
        return flag
    found = torch.tensor(float(flag))
    group.all_reduce(found, group.ReduceOp.MAX)
    return bool(found)


def from_first(value: Any) -> Any:
    """What the first process has there. The others wait for it."""
    if size() == 1:
        return value
    values = [value]
    group.broadcast_object_list(values, 0)
    return values[0]


def wait() -> None:
    """Until all are here."""
    if size() > 1:
        group.barrier()
