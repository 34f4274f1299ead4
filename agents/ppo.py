"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347): several steps on the captions of one draw.

Each word is an action, its ratio that of its probability now to the one that it was drawn with; the advantage is that
of any baseline. Steps after the first cost no drawing and no reward, so it pays where those are slow.

The curves that it logs, besides those of rlcap.agents.curves and rlcap.agents.scst (all of the last step):
- `policy/clipped`: the share of words that have moved as far as they may, and get no gradient. 0 at the first step;
  a few hundredths are healthy; much more, and `epochs` or the rate is too high.
- `policy/moved`: nats a word from the policy that drew, as far as its draws tell (Schulman's k3). It should stay small.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlcap import losses
from rlcap.agents.baselines import CriticSettings, make_baseline
from rlcap.agents.curves import CaptionCurves
from rlcap.agents.optimisers import Descent, Optimiser
from rlcap.agents.regularise import Regularise, Regulariser
from rlcap.agents.rollout import Drawing, needed_judge, rescore, roll_out
from rlcap.agents.shares import Shares
from rlcap.config import AboveZero, Positive
from rlcap.contracts import Batch, Course, Policy
from rlcap.errors import ConfigError


class PPO:
    """The clipped surrogate over drawn captions. It starts from a cross-entropy model (`training.start`)."""

    def __init__(
        self,
        policy: Policy,
        course: Course,
        *,
        rollout: Drawing = Drawing(),  # noqa: B008  frozen
        baseline: str = "leave_one_out",
        critic: CriticSettings = CriticSettings(),  # noqa: B008  frozen
        regularise: Regularise = Regularise(),  # noqa: B008  frozen
        epochs: Positive = 3,  # steps on each batch of drawn captions
        clip: AboveZero = 0.2,  # how far from 1 a word's ratio may go
        optimiser: Optimiser = Optimiser(lr=5e-5),  # noqa: B008  frozen
    ) -> None:
        if rollout.truncates:  # after a step a drawn word may be cut off, and would have no ratio
            raise ConfigError("trainer.rollout: ppo compares each word before and after; leave out top_k and top_p")
        self.policy, self.course, self.judge = policy, course, needed_judge(course, "ppo")
        self.drawing, self.epochs, self.clip = rollout, epochs, clip
        self.baseline = make_baseline(baseline, rollout.samples, course, critic)
        self.regulariser = Regulariser(policy, regularise, rollout)
        self.captions = CaptionCurves(policy.codec)
        self.descent = Descent(policy.parameters(), optimiser, course.updates * epochs)

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        return {"policy": self.policy, **self.baseline.networks, **self.regulariser.networks}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        self.policy.eval()  # no dropout
        shares = Shares(self.course.device)
        with self.course.autocast():
            rollout = roll_out(
                self.policy,
                batch,
                self.judge,
                self.drawing,
                seed=self.course.seed,
                update=self.descent.done // self.epochs,
                greedy=self.baseline.greedy,
                shares=shares,
            )
        advantage = self.baseline(rollout)
        before = torch.empty(0)
        for epoch in range(self.epochs):
            with self.course.autocast():
                scored = rescore(self.policy, batch, rollout, self.drawing)
                held, curves = self.regulariser(batch, rollout, scored)
            log_prob = scored.log_prob
            if epoch == 0:  # nothing has moved yet
                before = log_prob.detach()
            loss, clipped = losses.clipped_policy_gradient(
                log_prob, before, advantage, rollout.chosen, self.drawing.length, self.clip
            )
            step = self.descent.step(loss + held)
        apart = (log_prob - before).detach()
        metrics = {
            "loss/policy_gradient": loss.detach(),
            "advantage/mean": advantage[..., 0].mean(),
            "advantage/deviation": advantage[..., 0].std(correction=0),
            "policy/clipped": clipped,
            "policy/moved": losses.masked_mean(apart.exp() - 1 - apart, rollout.chosen),
            **self.captions(rollout),
            **curves,
            **step,
            **self.baseline.learn(rollout),
        }
        shares.mark("update")
        return metrics | shares.curves()

    def state_dict(self) -> dict[str, Any]:
        return {"descent": self.descent.state_dict(), "baseline": self.baseline.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.descent.load_state_dict(state["descent"])
        self.baseline.load_state_dict(state["baseline"])
