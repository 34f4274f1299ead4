"""Where the time of an update goes."""

import time

import torch
from torch import Tensor


class Shares:
    """A stopwatch for the parts of one update. On an accelerator it says nothing: there the host runs ahead."""

    def __init__(self, device: torch.device) -> None:
        self.measured = device.type == "cpu"
        self.begin()

    def begin(self) -> None:
        self.spent: dict[str, float] = {}
        self.last = time.perf_counter()

    def mark(self, part: str) -> None:
        """What has passed since the last mark went into `part`."""
        now = time.perf_counter()
        self.spent[part], self.last = now - self.last, now

    def curves(self) -> dict[str, Tensor]:
        if not self.measured:
            return {}
        total = sum(self.spent.values())
        return {f"time/share_{part}": torch.tensor(spent / total) for part, spent in self.spent.items()}
