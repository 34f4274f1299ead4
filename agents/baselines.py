"""What a drawn caption's reward is compared with: the menu of baselines, for every policy-gradient trainer.

A baseline turns a rollout into advantages (B, N). One that does not look at the caption itself leaves the gradient
unbiased, and a good one takes out most of its noise (Williams 1992). `mean` and `group` do look at it.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from rlcap.agents.rollout import Rollout
from rlcap.errors import ConfigError, did_you_mean


class Baseline(Protocol):
    greedy: bool  # whether it needs the greedy caption in the rollout

    def __call__(self, rollout: Rollout) -> Tensor:
        """Advantages (B, N) of the drawn captions."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class _Plain:
    """A baseline that remembers nothing."""

    greedy = False

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class Nothing(_Plain):
    """The reward itself: unbiased, and so noisy that it is here to be compared with."""

    def __call__(self, rollout: Rollout) -> Tensor:
        return rollout.rewards


class Greedy(_Plain):
    """Less the reward of the image's greedy caption: self-critical (Rennie et al. 2017, arXiv 1612.00563)."""

    greedy = True

    def __call__(self, rollout: Rollout) -> Tensor:
        return rollout.rewards - rollout.greedy[:, None]


class LeaveOneOut(_Plain):
    """Less the mean of the image's other samples: "a better variant" of the above (Luo 2020, arXiv 2003.09971)."""

    def __call__(self, rollout: Rollout) -> Tensor:
        rewards, n = rollout.rewards, rollout.drawn
        return (rewards - rewards.mean(1, keepdim=True)) * (n / (n - 1))


class Mean(_Plain):
    """Less the mean of all the image's samples, its own among them: (N-1)/N times leave-one-out."""

    def __call__(self, rollout: Rollout) -> Tensor:
        return rollout.rewards - rollout.rewards.mean(1, keepdim=True)


class Group(_Plain):
    """The same over the deviation of the image's samples (GRPO, Shao et al. 2024, arXiv 2402.03300): biased.

    Images whose samples hardly differ count as much as those that tell good from bad.
    """

    def __call__(self, rollout: Rollout) -> Tensor:
        rewards = rollout.rewards
        deviation = rewards.std(1, correction=0, keepdim=True)
        return (rewards - rewards.mean(1, keepdim=True)) / (deviation + 1e-4)  # all equal: nothing, not noise


class MovingAverage:
    """Less the mean reward of earlier updates, each a tenth forgotten; at first, nothing (Xu et al. 2015, eq. 12)."""

    greedy = False
    momentum = 0.9

    def __init__(self) -> None:
        self.average: Tensor | None = None

    def __call__(self, rollout: Rollout) -> Tensor:
        average = torch.zeros_like(rollout.rewards[0, 0]) if self.average is None else self.average
        advantage = rollout.rewards - average
        mean = rollout.rewards.mean()
        self.average = mean if self.average is None else self.momentum * average + (1 - self.momentum) * mean
        return advantage

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.average = state["average"]


BASELINES: dict[str, type[Any]] = {
    "none": Nothing,
    "moving_average": MovingAverage,
    "greedy": Greedy,
    "leave_one_out": LeaveOneOut,
    "mean": Mean,
    "group": Group,
}


def make_baseline(name: str, samples: int) -> Baseline:
    if name not in BASELINES:
        raise ConfigError(f"trainer.baseline={name}: no such baseline{did_you_mean(name, BASELINES)}")
    if name in ("leave_one_out", "mean", "group") and samples < 2:
        raise ConfigError(
            f"trainer.baseline={name}: compares the samples of an image; set trainer.samples to 2 or more"
        )
    made: Baseline = BASELINES[name]()
    return made
