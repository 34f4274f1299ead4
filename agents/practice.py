"""What the policy-gradient trainers are made of: at each update captions are drawn, judged and scored, and the policy
takes a step. What the step descends on is the trainer's own.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rlcap.agents.baselines import Baseline
from rlcap.agents.curves import CaptionCurves
from rlcap.agents.optimisers import Descent, Optimiser
from rlcap.agents.regularise import Regularise, Regulariser
from rlcap.agents.rollout import Drawing, Rollout, Scored, roll_out, score
from rlcap.agents.shares import Shares
from rlcap.contracts import Batch, Course, Policy
from rlcap.errors import ConfigError

GREEDY_EVERY = 10  # updates, as training.log_every is by default: `reward/greedy` where the baseline needs none


class Practice:
    """In this order: `draw`, then `score` and `step` (perhaps several times), then `end`."""

    def __init__(
        self,
        policy: Policy,
        course: Course,
        drawing: Drawing,
        baseline: Baseline,
        regularise: Regularise,
        optimiser: Optimiser,
        steps: int = 1,  # of each update
    ) -> None:
        if course.judge is None:
            raise ConfigError(
                "trainer: learns from rewards, and the recipe has none; give it 'rewards: cider_d', or train by "
                "trainer.name=cross_entropy"
            )
        self.policy, self.course, self.judge = policy, course, course.judge
        self.drawing, self.baseline, self.steps = drawing, baseline, steps
        self.regulariser = Regulariser(policy, regularise, drawing)
        self.captions = CaptionCurves(policy.codec)
        self.descent = Descent(policy, optimiser, course.updates * steps)
        self.shares = Shares(course.device)

    @property
    def update(self) -> int:
        """How many updates there have been."""
        return self.descent.done // self.steps

    def draw(self, batch: Batch, forced: Tensor | None = None) -> Rollout:
        """Captions of the batch's images, judged; without dropout: drawn from the distribution that learns."""
        self.policy.eval()
        self.shares.begin()
        greedy = self.baseline.greedy or (self.update + 1) % GREEDY_EVERY == 0
        with self.course.autocast():
            return roll_out(
                self.policy,
                batch,
                self.judge,
                self.drawing,
                seed=self.course.seed,
                update=self.update,
                greedy=greedy,
                forced=forced,
                shares=self.shares,
            )

    def score(self, rollout: Rollout) -> Scored:
        with self.course.autocast():
            return score(self.policy, rollout)

    def step(self, loss: Tensor, rollout: Rollout, scored: Scored) -> dict[str, Tensor]:
        """Descends on `loss` and on what holds the policy back."""
        with self.course.autocast():
            held, curves = self.regulariser(rollout, scored)
        return curves | self.descent.step(loss + held)

    def end(self, rollout: Rollout) -> dict[str, Tensor]:
        """The baseline learns; curves of the captions and of the time."""
        curves = self.captions(rollout) | self.baseline.learn(rollout)
        self.regulariser.end()
        self.shares.mark("update")
        return curves | self.shares.curves()

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        return {"policy": self.policy, **self.baseline.networks, **self.regulariser.networks}

    def state_dict(self) -> dict[str, Any]:
        return {"descent": self.descent.state_dict(), "baseline": self.baseline.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.descent.load_state_dict(state["descent"])
        self.baseline.load_state_dict(state["baseline"])
