"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347): several steps on the captions of one draw.

Each word is an action, its ratio that of its probability now to the one that it was drawn with; the advantage is that
of any baseline. Steps after the first cost no drawing and no reward, so it pays where those are slow.

The curves that it logs, besides those of rlcap.agents.curves and rlcap.agents.scst (all of the last step):
- `policy/clipped`: the share of words that have moved as far as they may, and get no gradient. 0 at the first step;
  a few hundredths are healthy; much more, and `steps` or the rate is too high.
- `policy/moved`: nats a word from the policy that drew, as far as its draws tell (Schulman's k3). It should stay small.
"""

from dataclasses import replace

from torch import Tensor

from rlcap import losses
from rlcap.agents.baselines import CriticSettings, make_baseline, spread
from rlcap.agents.optimisers import Optimiser
from rlcap.agents.practice import Practice
from rlcap.agents.regularise import Regularise
from rlcap.agents.rollout import Drawing
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
        steps: Positive = 3,  # on each batch of drawn captions
        ratio: AboveZero = 0.2,  # how far from 1 a word's ratio may go
        optimiser: Optimiser = Optimiser(lr=5e-5),  # noqa: B008  frozen
    ) -> None:
        if rollout.truncates:  # after a step a drawn word may be cut off, and would have no ratio
            raise ConfigError("trainer.rollout: ppo compares each word before and after; leave out top_k and top_p")
        again = replace(rollout, graph="scored")  # each step scores the captions
        against = make_baseline(baseline, rollout.samples, course, critic)
        self.practice = practice = Practice(policy, course, again, against, regularise, optimiser, steps)
        self.networks = practice.networks
        self.state_dict, self.load_state_dict = practice.state_dict, practice.load_state_dict
        self.ratio = ratio

    def update(self, batch: Batch) -> dict[str, Tensor]:
        practice = self.practice
        rollout = practice.draw(batch)
        advantage = practice.baseline(rollout)
        for step in range(practice.steps):
            scored = practice.score(rollout)
            log_prob = scored.log_prob
            if step == 0:  # nothing has moved yet
                before = log_prob.detach()
            loss, clipped = losses.clipped_policy_gradient(
                log_prob, before, advantage, rollout.chosen, rollout.drawing.length, self.ratio
            )
            stepped = practice.step(loss, rollout, scored)
        apart = (log_prob - before).detach()
        return {
            "loss/policy_gradient": loss.detach(),
            "policy/clipped": clipped,
            "policy/moved": losses.masked_mean(apart.exp() - 1 - apart, rollout.chosen),
            **spread(advantage),
            **stepped,
            **practice.end(rollout),
        }
