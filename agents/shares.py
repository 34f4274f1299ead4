"""Where the time of an update goes."""

import time
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


class Shares:
    """A stopwatch for the parts of one update.

    A GPU works behind the host's back, so there the marks are events among its work, and are read when it has passed
    the last of them: at the next update that finds it so. Nothing waits; the curves are those of an earlier update.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.on_gpu = device.type == "cuda"
        self.marks: list[tuple[str, Any]] = []  # a part, and when it ended: seconds, or an event
        self.shares: dict[str, float] = {}
        self.begin()

    def begin(self) -> None:
        self._read()
        self.marks = [("", self._now())]

    def mark(self, part: str) -> None:
        """What has passed since the last mark went into `part`."""
        self.marks.append((part, self._now()))

    def curves(self) -> dict[str, Tensor]:
        if not self.on_gpu:
            self._read()
        return {f"time/share_{part}": torch.tensor(share) for part, share in self.shares.items()}

    def _now(self) -> Any:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _read(self) -> None:
        """The shares of the marks so far, if there are any and they have been passed."""
        if len(self.marks) < 2 or (self.on_gpu and not self.marks[-1][1].query()):
            return
        spent = {
            part: before.elapsed_time(now) if self.on_gpu else now - before
            for (_, before), (part, now) in pairwise(self.marks)
        }
        total = sum(spent.values())
        self.shares = {part: taken / total for part, taken in spent.items()}
