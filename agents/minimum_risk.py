"""Minimum risk training (Shen et al. 2016, https://aclanthology.org/P16-1159): the better of the drawn captions
take probability from the worse.

An image's candidates are its drawn captions, each once. They need no baseline: what is compared is their share of
each other's probability.

The curves that it logs, besides those of rlcap.agents.curves and the policy's of rlcap.agents.scst:
- `loss/risk`: the expected -reward among the candidates. It should fall, with `alpha` near 0 as `reward/total` rises.
- `risk/candidates`: different captions an image. At 1 there is nothing to compare, and no gradient.
- `risk/sharpness`: the greatest share that a candidate has. Near 1 it alone gets the gradient: lower `alpha`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlcap import losses
from rlcap.agents.curves import CaptionCurves
from rlcap.agents.optimisers import Descent, Optimiser
from rlcap.agents.regularise import Regularise, Regulariser
from rlcap.agents.rollout import Drawing, Rollout, needed_judge, roll_out, score
from rlcap.agents.shares import Shares
from rlcap.config import AboveZero
from rlcap.contracts import Batch, Course, Policy
from rlcap.errors import ConfigError


class MinimumRisk:
    """Expected reward among the samples of an image. It starts from a cross-entropy model (`training.start`)."""

    def __init__(
        self,
        policy: Policy,
        course: Course,
        *,
        rollout: Drawing = Drawing(),  # noqa: B008  frozen
        alpha: AboveZero = 0.05,  # the candidates' probabilities are taken to this power: nearer 0, more alike
        regularise: Regularise = Regularise(),  # noqa: B008  frozen
        optimiser: Optimiser = Optimiser(lr=5e-5),  # noqa: B008  frozen
    ) -> None:
        if rollout.samples < 2:
            raise ConfigError("trainer.rollout.samples=1: minimum risk compares samples of an image; set 2 or more")
        self.policy, self.course, self.judge = policy, course, needed_judge(course, "minimum_risk")
        self.drawing, self.alpha = rollout, alpha
        self.regulariser = Regulariser(policy, regularise, rollout)
        self.captions = CaptionCurves(policy.codec)
        self.descent = Descent(policy.parameters(), optimiser, course.updates)

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        return {"policy": self.policy, **self.regulariser.networks}

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
                update=self.descent.done,
                graph=True,
                shares=shares,
            )
            scored = score(self.policy, batch, rollout, self.drawing)
            held, curves = self.regulariser(batch, rollout, scored)
        candidates = ~repeated(rollout)
        log_prob = scored.log_prob.sum(-1).masked_fill(~candidates, -torch.inf)
        loss = losses.minimum_risk(log_prob, rollout.rewards, self.alpha)
        metrics = {
            "loss/risk": loss.detach(),
            "risk/candidates": candidates.sum(-1).float().mean(),
            "risk/sharpness": (self.alpha * log_prob.detach()).softmax(-1).amax(-1).mean(),
            **self.captions(rollout),
            **curves,
            **self.descent.step(loss + held),
        }
        shares.mark("update")
        return metrics | shares.curves()

    def state_dict(self) -> dict[str, Any]:
        return {"descent": self.descent.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.descent.load_state_dict(state["descent"])


def repeated(rollout: Rollout) -> Tensor:
    """(B, N) bool: captions that are the same as an earlier one of their image."""
    words = rollout.words.masked_fill(~rollout.mask, -1)
    same = (words[:, :, None] == words[:, None]).all(-1)
    return same.tril(-1).any(-1)
