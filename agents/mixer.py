"""Cross-entropy and rewards in one loss: mixed in a fixed proportion, or annealed from one to the other (MIXER).

Without `anneal`, whole captions are drawn and rewarded, and the references are learned beside them, as in Paulus et
al. 2018 (arXiv 1705.04304). With it (Ranzato et al. 2016, arXiv 1511.06732, section 3.2.2), the first words of each
caption are the reference's and are learned from it; the rest is drawn, and rewarded with the caption that it makes.
Period by period, `words` more of each reference are left to the policy. The paper counts them from the longest
caption's end; here it is from each one's own, so that short captions are not learned by rote for longer.
References are learned without dropout, as captions are drawn: both parts of the loss are of one and the same policy.

The curves that it logs, besides those of rlcap.agents.curves and rlcap.agents.scst:
- `loss/cross_entropy`: nats a word, on the references' words that are still learned. It rises a little as rewards
  take over; a steep rise is the policy leaving the language behind. It ends when annealing leaves none to learn.
- `mixer/forced`: the share of the drawn captions' words that the reference gave. It falls to 0 as annealing ends.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlcap import losses
from rlcap.agents.baselines import CriticSettings, make_baseline, spread
from rlcap.agents.optimisers import Optimiser
from rlcap.agents.practice import Practice
from rlcap.agents.regularise import Regularise
from rlcap.agents.rollout import Drawing
from rlcap.config import Positive, Weight
from rlcap.contracts import Batch, Course, Policy
from rlcap.decoding.uniforms import keyed_uniforms


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
        against = make_baseline(baseline, rollout.samples, course, critic)
        self.practice = practice = Practice(policy, course, rollout, against, regularise, optimiser)
        self.networks = practice.networks
        self.state_dict, self.load_state_dict = practice.state_dict, practice.load_state_dict
        self.cross_entropy, self.anneal = cross_entropy, anneal

    def update(self, batch: Batch) -> dict[str, Tensor]:
        practice = self.practice
        learned = self.learned(batch)
        rollout = practice.draw(batch, self.forced(batch, learned))
        scored = practice.score(rollout)
        advantage = practice.baseline(rollout)
        loss = losses.policy_gradient(scored.log_prob, advantage, rollout.mask, rollout.drawing.length)
        curves = {"loss/policy_gradient": loss.detach()}
        if self.free < batch.mask.shape[-1]:  # known without asking an accelerator
            references = self.log_prob(batch)
            learning = -losses.caption_mean(references, learned, rollout.drawing.length)
            loss = loss + self.cross_entropy * learning
            curves["loss/cross_entropy"] = -losses.masked_mean(references.detach(), learned)
        return {
            **curves,
            "mixer/forced": 1 - rollout.chosen.sum() / rollout.mask.sum(),
            **spread(advantage),
            **practice.step(loss, rollout, scored),
            **practice.end(rollout),
        }

    @property
    def free(self) -> int:
        """How many words at the end of each reference are left to the policy."""
        return 0 if self.anneal is None else self.anneal.words * (1 + self.practice.update // self.anneal.period)

    def log_prob(self, batch: Batch) -> Tensor:
        """(B, R, T), of the references' words; choices besides them are drawn."""
        policy, course, (_, n, length) = self.practice.policy, self.practice.course, batch.words.shape
        uniforms = keyed_uniforms(course.seed, self.practice.update, batch.images, n, length, policy.coins)
        with course.autocast():
            log_prob: Tensor = policy(batch.features, batch.words, uniforms=uniforms).log_prob
        return log_prob

    def learned(self, batch: Batch) -> Tensor:
        """(B, R, T) bool: the words of the batch's R references that are learned from."""
        place = torch.arange(batch.mask.shape[-1], device=batch.mask.device)
        return batch.mask & (place < batch.mask.sum(-1, keepdim=True) - self.free)

    def forced(self, batch: Batch, learned: Tensor) -> Tensor | None:
        """(B, N, T): drawn caption n begins as reference n mod R does."""
        if self.anneal is None:
            return None
        given = batch.words.masked_fill(~learned, -1)
        drawing = self.practice.drawing
        begins = torch.arange(drawing.samples, device=given.device) % given.shape[1]
        return given[:, begins, : drawing.length]
