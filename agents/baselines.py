"""What a drawn caption's reward is compared with: the menu of baselines, for every policy-gradient trainer.

A baseline turns a rollout into advantages: (B, N, 1), or (B, N, T) where words have credit of their own (then what
is still to come at a word is compared with what is still to come at the same place of other captions). One that does
not look at the caption itself leaves the gradient unbiased, and a good one takes out most of its noise (Williams
1992). `mean` and `group` do look at it. After the update, `learn` is shown the same rollout.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rlcap import distributed, losses
from rlcap.agents.optimisers import Descent, Optimiser
from rlcap.agents.rollout import Rollout
from rlcap.config import Positive
from rlcap.contracts import Course
from rlcap.errors import ConfigError, did_you_mean
from rlcap.models.critic import Critic


class Baseline(Protocol):
    greedy: bool  # whether it needs the greedy caption in the rollout

    @property
    def networks(self) -> Mapping[str, nn.Module]: ...

    def __call__(self, rollout: Rollout) -> Tensor:
        """Advantages of the drawn captions."""

    def learn(self, rollout: Rollout) -> dict[str, Tensor]:
        """Curves of what it learned."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Nothing:
    """What is still to come: unbiased, and so noisy that it is here to be compared with."""

    greedy = False

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        return {}

    def __call__(self, rollout: Rollout) -> Tensor:
        return rollout.returns[:, : rollout.drawn]

    def learn(self, rollout: Rollout) -> dict[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class Greedy(Nothing):
    """Less that of the image's greedy caption: self-critical (Rennie et al. 2017, arXiv 1612.00563)."""

    greedy = True

    def __call__(self, rollout: Rollout) -> Tensor:
        n = rollout.drawn
        return rollout.returns[:, :n] - rollout.returns[:, n : n + 1]


class Mean(Nothing):
    """Less the mean of all the image's samples, its own among them: (N-1)/N times leave-one-out."""

    def __call__(self, rollout: Rollout) -> Tensor:
        returns = rollout.returns[:, : rollout.drawn]
        return returns - returns.mean(1, keepdim=True)


class LeaveOneOut(Mean):
    """Less the mean of the image's other samples: "a better variant" of the above (Luo 2020, arXiv 2003.09971)."""

    def __call__(self, rollout: Rollout) -> Tensor:
        return super().__call__(rollout) * (rollout.drawn / (rollout.drawn - 1))


class Group(Mean):
    """The mean's, over the deviation of the image's rewards (GRPO, Shao et al. 2024, arXiv 2402.03300): biased.

    Images whose samples hardly differ count as much as those that tell good from bad.
    """

    def __call__(self, rollout: Rollout) -> Tensor:
        deviation = rollout.rewards.std(1, correction=0)[:, None, None]
        return super().__call__(rollout) / (deviation + 1e-4)  # all equal: nothing, not noise


class MovingAverage(Nothing):
    """Less the mean reward of earlier updates, each a tenth forgotten; at first, nothing (Xu et al. 2015, eq. 12)."""

    momentum = 0.9

    def __init__(self) -> None:
        self.average: Tensor | None = None

    def __call__(self, rollout: Rollout) -> Tensor:
        returns = super().__call__(rollout)
        return returns if self.average is None else returns - self.average.to(returns)

    def learn(self, rollout: Rollout) -> dict[str, Tensor]:
        mean = distributed.mean(losses.mean_of(rollout.rewards))
        before = mean if self.average is None else self.average.to(mean)
        self.average = self.momentum * before + (1 - self.momentum) * mean
        return {"baseline/average": self.average}

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.average = state["average"]


@dataclass(frozen=True)
class CriticSettings:
    """The recipe's `critic` section; it counts with `baseline: critic`."""

    hidden: Positive = 256
    optimiser: Optimiser = Optimiser(lr=1e-3)  # noqa: RUF009  frozen


class Criticised(Nothing):
    """Less what a critic expects for the image, before it sees these captions (Ranzato et al. 2016, section 3.2.1)."""

    def __init__(self, settings: CriticSettings, course: Course) -> None:
        self.critic = Critic(settings.hidden).to(course.device)
        self.descent = Descent(self.critic, settings.optimiser, course.updates)

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        return {"critic": self.critic}

    def __call__(self, rollout: Rollout) -> Tensor:
        with torch.no_grad():
            expected: Tensor = self.critic(rollout.memory)
        return rollout.returns[:, : rollout.drawn] - expected[:, None, None]

    def learn(self, rollout: Rollout) -> dict[str, Tensor]:
        rewards = rollout.rewards
        loss = losses.mean_of((self.critic(rollout.memory)[:, None] - rewards).square())
        self.descent.step(loss)
        unexplained = loss.detach() / rewards.var(correction=0).clamp_min(1e-6)  # all equal: a number, not infinity
        return {"critic/loss": loss.detach(), "critic/explained": 1 - unexplained}

    def state_dict(self) -> dict[str, Any]:
        return {"descent": self.descent.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.descent.load_state_dict(state["descent"])


PLAIN: dict[str, type[Nothing]] = {
    "none": Nothing,
    "moving_average": MovingAverage,
    "greedy": Greedy,
    "leave_one_out": LeaveOneOut,
    "mean": Mean,
    "group": Group,
}
BASELINES = (*PLAIN, "critic")
COMPARING = ("leave_one_out", "mean", "group")  # the samples of an image with each other


def spread(advantage: Tensor) -> dict[str, Tensor]:
    """Curves of captions' advantages; of single words', those of the first ones."""
    return {"advantage/mean": advantage[..., 0].mean(), "advantage/deviation": advantage[..., 0].std(correction=0)}


def make_baseline(name: str, samples: int, course: Course, critic: CriticSettings = CriticSettings()) -> Baseline:
    if name not in BASELINES:
        raise ConfigError(f"trainer.baseline={name}: no such baseline{did_you_mean(name, BASELINES)}")
    if name in COMPARING and samples < 2:
        raise ConfigError(
            f"trainer.baseline={name}: compares the samples of an image; set trainer.rollout.samples to 2 or more"
        )
    return Criticised(critic, course) if name == "critic" else PLAIN[name]()
