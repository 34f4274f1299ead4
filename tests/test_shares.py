"""Where the time of an update goes; on a GPU with events made up here, as there may be none."""

import time

import pytest
import torch

from rlcap.agents.shares import Shares


def update(shares: Shares) -> dict[str, float]:
    shares.begin()
    for part, seconds in (("decoding", 0.03), ("reward", 0.01), ("update", 0.06)):
        time.sleep(seconds)
        shares.mark(part)
    return {name.removeprefix("time/share_"): value.item() for name, value in shares.curves().items()}


def test_on_a_cpu_each_update_tells_its_own():
    told = update(Shares(torch.device("cpu")))
    assert told == pytest.approx({"decoding": 0.3, "reward": 0.1, "update": 0.6}, abs=0.1)  # sleep takes longer


class Event:
    """Passed `late` queries after it was recorded; its times are 1, 3, 7, 15, … ms."""

    recorded, late = 0, 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: str) -> None:
        assert stream == "of cuda:1"
        Event.recorded += 1
        self.at = 2**Event.recorded - 1

    def query(self) -> bool:
        Event.late -= 1
        return Event.late < 0

    def elapsed_time(self, later: "Event") -> int:
        return later.at - self.at


def test_on_a_gpu_an_update_tells_of_the_last_one_that_has_passed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"of {device}")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: pytest.fail("waits for the GPU"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    shares = Shares(torch.device("cuda:1"))
    assert update(shares) == {}, "nothing has passed yet"
    assert update(shares) == pytest.approx({"decoding": 1 / 7, "reward": 2 / 7, "update": 4 / 7})
    first, Event.late = update(shares), 1
    assert update(shares) == first, "the one before is still under way"
