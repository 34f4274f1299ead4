"""Self-critical sequence training (Rennie et al. 2017, arXiv 1612.00563): drawn captions against a baseline.

With `baseline: greedy` it is the paper's; the others are in rlcap.agents.baselines.

The curves that it logs, besides those of rlcap.agents.curves:
- `advantage/mean`: near 0 with a fair baseline; with the greedy one it is below 0 as long as draws are worse.
- `advantage/deviation`: near 0, nothing is left to learn from.
- `loss/policy_gradient`: its gradient is what matters; its value says nothing.
- `policy/entropy`: of the distribution that words are drawn from (so of the tempered one, if there is a temperature),
  nats a word. It falls as the policy becomes sure; 0 is the end.
- `policy/kl_to_start`: nats a word from the model that it began as, if there is an anchor; tempered likewise.
- `gaze/entropy`, `gaze/moved`: of hard attention, as in rlcap.agents.hard_attention. If they fall towards 0, raise
  `regularise.gaze_entropy`.
- `critic/loss`, `critic/explained` (the share of the rewards' variance), `baseline/average`: of such baselines.
- `optimiser/gradient_norm`, `optimiser/rate`: as in cross-entropy.
"""

from torch import Tensor

from rlcap import losses
from rlcap.agents.baselines import CriticSettings, make_baseline, spread
from rlcap.agents.optimisers import Optimiser
from rlcap.agents.practice import Practice
from rlcap.agents.regularise import Regularise
from rlcap.agents.rollout import Drawing
from rlcap.contracts import Batch, Course, Policy


class SCST:
    """REINFORCE over whole captions. It starts from a cross-entropy model (`training.start`)."""

    def __init__(
        self,
        policy: Policy,
        course: Course,
        *,
        rollout: Drawing = Drawing(),  # noqa: B008  frozen
        baseline: str = "greedy",
        critic: CriticSettings = CriticSettings(),  # noqa: B008  frozen
        regularise: Regularise = Regularise(),  # noqa: B008  frozen
        optimiser: Optimiser = Optimiser(lr=5e-5),  # noqa: B008  frozen
    ) -> None:
        against = make_baseline(baseline, rollout.samples, course, critic)
        self.practice = practice = Practice(policy, course, rollout, against, regularise, optimiser)
        self.networks = practice.networks
        self.state_dict, self.load_state_dict = practice.state_dict, practice.load_state_dict

    def update(self, batch: Batch) -> dict[str, Tensor]:
        practice = self.practice
        rollout = practice.draw(batch)
        scored = practice.score(rollout)
        advantage = practice.baseline(rollout)
        loss = losses.policy_gradient(scored.log_prob, advantage, rollout.chosen, rollout.drawing.length)
        return {
            "loss/policy_gradient": loss.detach(),
            **spread(advantage),
            **practice.step(loss, rollout, scored),
            **practice.end(rollout),
        }
