"""Cross-entropy and rewards in one loss: mixed in a fixed proportion, or annealed from one to the other (MIXER).

Without `anneal`, whole captions are drawn and rewarded, and the references are learned beside them, as in Paulus et
al. 2018 (arXiv 1705.04304). With it (Ranzato et al. 2016, arXiv 1511.06732, section 3.2.2), the first words of each
caption are the reference's and are learned from it; the rest is drawn, and rewarded with the caption that it makes.
Period by period, `words` more of each reference are left to the policy. The paper counts them from the longest
caption's end; here it is from each one's own, so that short captions are not learned by rote for longer.

The curves that it logs, besides those of rlcap.agents.curves and rlcap.agents.scst:
- `loss/cross_entropy`: nats a word, on the references' words that are still learned. It rises a little as rewards
  take over; a steep rise is the policy leaving the language behind.
- `mixer/forced`: the share of the drawn captions' words that the reference gave. It falls to 0 as annealing ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlcap import losses
from rlcap.agents.baselines import CriticSettings, make_baseline
from rlcap.agents.curves import CaptionCurves
from rlcap.agents.optimisers import Descent, Optimiser
from rlcap.agents.regularise import Regularise, Regulariser
from rlcap.agents.rollout import Drawing, needed_judge, roll_out, score
from rlcap.agents.shares import Shares
from rlcap.config import Positive, Weight
from rlcap.contracts import Batch, Course, Policy


@dataclass(frozen=True)
class Anneal:
    """The recipe's `anneal` section: in period k (from 1), k · `words` at the end of each reference are left free."""

    words: Positive = 2
    period: Positive = 100  # updates


class Mixer:
    """Cross-entropy and REINFORCE together. It starts from a cross-entropy model (`training.start`)."""

    def __init__(
        self,
        policy: Policy,
        course: Course,
        *,
        rollout: Drawing = Drawing(),  # noqa: B008  frozen
        baseline: str = "leave_one_out",
        critic: CriticSettings = CriticSettings(),  # noqa: B008  frozen
        regularise: Regularise = Regularise(),  # noqa: B008  frozen
        cross_entropy: Weight = 0.1,  # against 1 of the policy gradient
        anneal: Anneal | None = None,  # None: the mixture stays as it is
        optimiser: Optimiser = Optimiser(lr=5e-5),  # noqa: B008  frozen
    ) -> None:
        self.policy, self.course, self.judge = policy, course, needed_judge(course, "mixer")
        self.drawing, self.cross_entropy, self.anneal = rollout, cross_entropy, anneal
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
        learned = self.learned(batch)
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
                forced=self.forced(batch, learned),
                shares=shares,
            )
            scored = score(self.policy, batch, rollout, self.drawing)
            held, curves = self.regulariser(batch, rollout, scored)
            references = self.policy(batch.features, batch.words).log_prob
        advantage = self.baseline(rollout)
        loss = losses.policy_gradient(scored.log_prob, advantage, rollout.chosen, self.drawing.length)
        learning = -losses.caption_mean(references, learned, self.drawing.length)
        metrics = {
            "loss/policy_gradient": loss.detach(),
            "loss/cross_entropy": -losses.masked_mean(references.detach(), learned),
            "mixer/forced": 1 - rollout.chosen.sum() / rollout.mask.sum(),
            "advantage/mean": advantage[..., 0].mean(),
            "advantage/deviation": advantage[..., 0].std(correction=0),
            **self.captions(rollout),
            **curves,
            **self.descent.step(loss + self.cross_entropy * learning + held),
            **self.baseline.learn(rollout),
        }
        shares.mark("update")
        return metrics | shares.curves()

    def learned(self, batch: Batch) -> Tensor:
        """(B, R, T) bool: the words of the batch's R references that are learned from."""
        if self.anneal is None:
            return batch.mask
        free = self.anneal.words * (1 + self.descent.done // self.anneal.period)
        place = torch.arange(batch.mask.shape[-1], device=batch.mask.device)
        return batch.mask & (place < batch.mask.sum(-1, keepdim=True) - free)

    def forced(self, batch: Batch, learned: Tensor) -> Tensor | None:
        """(B, N or N + 1, T): drawn caption n begins as reference n mod R does; a greedy one as the first."""
        if self.anneal is None:
            return None
        given = batch.words.masked_fill(~learned, -1)
        begins = [n % given.shape[1] for n in range(self.drawing.samples)] + [0] * self.baseline.greedy
        return given[:, begins, : self.drawing.length]

    def state_dict(self) -> dict[str, Any]:
        return {"descent": self.descent.state_dict(), "baseline": self.baseline.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.descent.load_state_dict(state["descent"])
        self.baseline.load_state_dict(state["baseline"])
