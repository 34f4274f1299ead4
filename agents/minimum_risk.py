"""Minimum risk training (Shen et al. 2016, https://aclanthology.org/P16-1159): the better of the drawn captions
take probability from the worse.

An image's candidates are its drawn captions, each once (where a policy makes choices besides words, with those that
came with it first). They need no baseline: what is compared is their share of each other's probability. The risk is
divided by `alpha` and the length, so that what `regularise` adds weighs as it does beside a policy gradient: with
`alpha` near 0 this is the gradient of scst with `baseline: mean`.

The curves that it logs, besides those of rlcap.agents.curves and the policy's of rlcap.agents.scst:
- `loss/risk`: the expected -reward among the candidates. It should fall, with `alpha` near 0 as `reward/total` rises.
- `risk/candidates`: different captions an image. At 1 there is nothing to compare, and no gradient.
- `risk/sharpness`: the greatest share that a candidate has. Near 1 it alone gets the gradient: lower `alpha`.
"""

import torch
from torch import Tensor

from rlcap import losses
from rlcap.agents.baselines import Nothing
from rlcap.agents.optimisers import Optimiser
from rlcap.agents.practice import Practice
from rlcap.agents.regularise import Regularise
from rlcap.agents.rollout import Drawing, Rollout
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
        self.practice = practice = Practice(policy, course, rollout, Nothing(), regularise, optimiser)
        self.networks = practice.networks
        self.state_dict, self.load_state_dict = practice.state_dict, practice.load_state_dict
        self.alpha = alpha

    def update(self, batch: Batch) -> dict[str, Tensor]:
        practice = self.practice
        rollout = practice.draw(batch)
        scored = practice.score(rollout)
        candidates = ~repeated(rollout)
        log_prob = scored.log_prob.sum(-1).masked_fill(~candidates, -torch.inf)
        risk = losses.minimum_risk(log_prob, rollout.rewards, self.alpha)
        loss = risk / (self.alpha * rollout.drawing.length)
        return {
            "loss/risk": risk.detach(),
            "risk/candidates": candidates.sum(-1).float().mean(),
            "risk/sharpness": (self.alpha * log_prob.detach()).softmax(-1).amax(-1).mean(),
            **practice.step(loss, rollout, scored),
            **practice.end(rollout),
        }


def repeated(rollout: Rollout) -> Tensor:
    """(B, N) bool: captions that are the same as an earlier one of their image."""
    words = rollout.words.masked_fill(~rollout.mask, -1)
    same = (words[:, :, None] == words[:, None]).all(-1)
    return same.tril(-1).any(-1)
