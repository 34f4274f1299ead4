"""An honest clock: those who are compared take turns, so that a machine that slows down slows them all.

Who works on a GPU waits for it before and after.
"""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TypeVar

import torch

from rlcap.progress import track

WARM = 0.5  # seconds of a first turn that does not count: caches, allocators, kernels chosen at first use
TURN = 0.1  # seconds of a turn at least: a call of a millisecond alone is at the mercy of the scheduler
FEWEST, MOST = 7, 200  # rounds

Key = TypeVar("Key")


@dataclass(frozen=True)
class Competitor:
    work: Callable[[int], object]  # what is timed; it is told the number of the call, to vary what it works on
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    threads: int = 1  # of torch, on the CPU


@dataclass(frozen=True)
class Timing:
    """Seconds of a call, round by round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles: half of the rounds lie between."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = quantiles(self.seconds, n=4, method="inclusive")
        return low, high


def race(competitors: Mapping[Key, Competitor], *, seconds: float, what: str) -> dict[Key, Timing]:
    """Rounds for about `seconds`, FEWEST at least, in which each has its turn. Who begins changes every round."""
    names = list(competitors)
    spent: dict[Key, list[float]] = {name: [] for name in names}
    with _without_collection():
        once = sum(max(TURN, _turn(competitors[name], WARM)) for name in names)
        rounds = min(MOST, max(FEWEST, int(seconds / once)))
        for number in track(range(rounds), what, rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                spent[name].append(_turn(competitors[name], TURN))
    return {name: Timing(tuple(times)) for name, times in spent.items()}


def _turn(competitor: Competitor, least: float) -> float:
    """Seconds of a call, over as many as last for `least` together."""
    spent, calls = 0.0, 0
    with using_threads(competitor.threads), torch.inference_mode():
        while spent < least:
            _wait_for(competitor.device)
            begun = time.perf_counter()
            competitor.work(calls)
            _wait_for(competitor.device)
            spent += time.perf_counter() - begun
            calls += 1
    return spent / calls


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _without_collection() -> Iterator[None]:
    """As `timeit` does it: what others keep in memory must not slow those who make many objects."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
