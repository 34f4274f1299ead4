"""Self-critical sequence training (Rennie et al. 2017, arXiv 1612.00563): drawn captions against a baseline.

With `baseline: greedy` it is the paper's; the others are in rlcap.agents.baselines.

The curves that it logs:
- `reward/total`: the weighted sum of all rewards, mean over the drawn captions. It should rise.
- `reward/LABEL/raw` and `/weighted`: each reward as it judges, and as it counts.
- `reward/greedy`: the same sum for the greedy captions, if they are the baseline. It should rise too, and stay above.
- `advantage/mean`: near 0 with a fair baseline; with the greedy one it is below 0 as long as draws are worse.
- `advantage/deviation`: near 0, nothing is left to learn from.
- `loss/policy_gradient`: its gradient is what matters; its value says nothing.
- `caption/length`: words of the drawn captions, the end token among them.
- `optimiser/gradient_norm`, `optimiser/rate`: as in cross-entropy.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rlcap import losses
from rlcap.agents.baselines import make_baseline
from rlcap.agents.optimisers import Descent, Optimiser
from rlcap.agents.rollout import roll_out
from rlcap.config import AboveZero, Positive
from rlcap.contracts import Batch, Course, Policy
from rlcap.decoding.choosing import Sampling
from rlcap.errors import ConfigError


class SCST:
    """REINFORCE over whole captions. It starts from a cross-entropy model (`training.start`)."""

    def __init__(
        self,
        policy: Policy,
        course: Course,
        *,
        samples: Positive = 5,  # an image
        length: Positive = 20,  # words at most, the end token among them
        temperature: AboveZero = 1.0,
        baseline: str = "greedy",
        optimiser: Optimiser = Optimiser(lr=5e-5),  # noqa: B008  frozen
    ) -> None:
        if course.judge is None:
            raise ConfigError("trainer scst: learns from rewards, and the recipe has none; give it 'rewards: cider_d'")
        self.policy, self.course, self.judge = policy, course, course.judge
        self.samples, self.length, self.sampling = samples, length, Sampling(temperature)
        self.baseline = make_baseline(baseline, samples)
        self.descent = Descent(policy.parameters(), optimiser, course.updates)

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        return {"policy": self.policy}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        self.policy.eval()  # no dropout: captions are scored by the very distribution that they were drawn from
        with self.course.autocast():
            rollout = roll_out(
                self.policy,
                batch,
                self.judge,
                samples=self.samples,
                length=self.length,
                seed=self.course.seed,
                update=self.descent.done,
                greedy=self.baseline.greedy,
                sampling=self.sampling,
            )
            words, mask = (tensor[:, : self.samples] for tensor in (rollout.captions.words, rollout.captions.mask))
            logits = self.policy(batch.features, words, want=["logits"]).logits
        log_prob = losses.word_log_prob(logits, words, self.policy.codec.banned, self.sampling.temperature)
        advantage = self.baseline(rollout)
        loss = losses.policy_gradient(log_prob, advantage, mask)
        return {
            "loss/policy_gradient": loss.detach(),
            "advantage/mean": advantage.mean(),
            "advantage/deviation": advantage.std(),
            **({"reward/greedy": rollout.greedy.mean()} if self.baseline.greedy else {}),
            "caption/length": mask.sum(-1).float().mean(),
            **rollout.judgement.curves(self.samples),
            **self.descent.step(loss),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"descent": self.descent.state_dict(), "baseline": self.baseline.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.descent.load_state_dict(state["descent"])
        self.baseline.load_state_dict(state["baseline"])
