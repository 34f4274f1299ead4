"""Self-critical sequence training (Rennie et al. 2017, arXiv 1612.00563): drawn captions against a baseline.

With `baseline: greedy` it is the paper's; the others are in rlcap.agents.baselines.

The curves that it logs, besides those of rlcap.agents.curves:
- `advantage/mean`: near 0 with a fair baseline; with the greedy one it is below 0 as long as draws are worse.
- `advantage/deviation`: near 0, nothing is left to learn from.
- `loss/policy_gradient`: its gradient is what matters; its value says nothing.
- `policy/entropy`: of the words' distribution, nats a word. It falls as the policy becomes sure; 0 is the end.
- `policy/kl_to_start`: nats a word from the model that it began as, if there is an anchor.
- `critic/loss`, `critic/explained` (the share of the rewards' variance), `baseline/average`: of such baselines.
- `optimiser/gradient_norm`, `optimiser/rate`: as in cross-entropy.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rlcap import losses
from rlcap.agents.baselines import CriticSettings, make_baseline
from rlcap.agents.curves import CaptionCurves
from rlcap.agents.optimisers import Descent, Optimiser
from rlcap.agents.regularise import Regularise, Regulariser
from rlcap.agents.rollout import Drawing, needed_judge, roll_out, score
from rlcap.agents.shares import Shares
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
        self.policy, self.course, self.judge = policy, course, needed_judge(course, "scst")
        self.drawing = rollout
        self.baseline = make_baseline(baseline, rollout.samples, course, critic)
        self.regulariser = Regulariser(policy, regularise, rollout)
        self.captions = CaptionCurves(policy.codec)
        self.descent = Descent(policy.parameters(), optimiser, course.updates)

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
                update=self.descent.done,
                greedy=self.baseline.greedy,
                graph=True,
                shares=shares,
            )
            scored = score(self.policy, batch, rollout, self.drawing)
            held, curves = self.regulariser(batch, rollout, scored)
        advantage = self.baseline(rollout)
        loss = losses.policy_gradient(scored.log_prob, advantage, rollout.chosen, self.drawing.length)
        metrics = {
            "loss/policy_gradient": loss.detach(),
            "advantage/mean": advantage[..., 0].mean(),
            "advantage/deviation": advantage[..., 0].std(correction=0),
            **self.captions(rollout),
            **curves,
            **self.descent.step(loss + held),
            **self.baseline.learn(rollout),
        }
        shares.mark("update")
        return metrics | shares.curves()

    def state_dict(self) -> dict[str, Any]:
        return {"descent": self.descent.state_dict(), "baseline": self.baseline.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.descent.load_state_dict(state["descent"])
        self.baseline.load_state_dict(state["baseline"])
