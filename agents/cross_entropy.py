"""Cross-entropy under teacher forcing: the first stage of nearly every captioner.

The curves that it logs:
- `loss/cross_entropy`: nats a word on the training captions, with label smoothing if the recipe asks for it. It
  falls from log(V); it should go on falling after the evaluated metrics have stopped rising, which is over-fitting.
- `loss/attention`: the doubly stochastic penalty before its weight: lower when gazes spread over the regions.
- `scheduled/fed_back`: with scheduled sampling, the share of the words that the policy heard which were its own. It
  rises as the schedule says; where the policy would have ended the caption, the true word was fed instead.
- `optimiser/gradient_norm`: before clipping. Spikes at the start are usual; a norm that stays at the bound is not.
- `optimiser/rate`: the learning rate.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlcap import losses
from rlcap.agents.optimisers import Descent, Optimiser
from rlcap.agents.scheduled_sampling import Scheduled, score_own_words
from rlcap.config import Rate, Weight
from rlcap.contracts import Batch, Course, Policy, Scores
from rlcap.decoding.uniforms import keyed_uniforms
from rlcap.errors import ComponentError, ConfigError


class CrossEntropy:
    """Maximises the likelihood of the reference captions (Xu et al. 2015, eq. 14, with its attention penalty).

    Choices that a policy makes besides words are drawn, and get no credit here.
    """

    def __init__(
        self,
        policy: Policy,
        course: Course,
        *,
        label_smoothing: Rate = 0.0,
        attention_penalty: Weight = 0.0,
        scheduled: Scheduled | None = None,  # None: the policy always hears the captions' own words
        optimiser: Optimiser = Optimiser(),  # noqa: B008  frozen
    ) -> None:
        if course.judge is not None:
            raise ConfigError(
                "trainer cross_entropy: learns from the captions alone, and the recipe has rewards; leave them out, "
                "or learn from them in a stage of their own (trainer scst)"
            )
        self.policy, self.course, self.scheduled = policy, course, scheduled
        self.label_smoothing, self.attention_penalty = label_smoothing, attention_penalty
        self.descent = Descent(policy, optimiser, course.updates)

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        return {"policy": self.policy}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        self.policy.train()
        want = ["logits"] if self.label_smoothing else []
        if self.attention_penalty:
            want.append("attention")
        metrics: dict[str, Tensor] = {}
        with self.course.autocast():
            scores = self._score(batch, want, metrics)
        if scores.logits is not None:
            loss = losses.cross_entropy(scores.logits, batch.words, batch.mask, self.label_smoothing)
        else:
            loss = -losses.masked_mean(scores.log_prob, batch.mask)
        metrics["loss/cross_entropy"] = loss.detach()
        if self.attention_penalty:
            penalty = attention_penalty(self.policy, scores, batch.mask)
            loss = loss + self.attention_penalty * penalty
            metrics["loss/attention"] = penalty.detach()
        return metrics | self.descent.step(loss)

    def _score(self, batch: Batch, want: list[str], metrics: dict[str, Tensor]) -> Scores:
        """The captions behind their own words, or behind the policy's where the schedule says so."""
        update, coins = self.descent.done, self.policy.coins
        _, n, length = batch.words.shape
        uniforms = keyed_uniforms(self.course.seed, update, batch.images, n, length, 2 + coins)
        own = 0.0 if self.scheduled is None else 1 - self.scheduled.of_true_words(update)
        fed = torch.zeros_like(batch.mask)
        if self.scheduled is not None and own:
            feed = self.scheduled.feed
            scores, fed = score_own_words(self.policy, batch.features, batch.words, own, uniforms, feed=feed, want=want)
        else:
            scores = self.policy(batch.features, batch.words, uniforms=uniforms[..., 2:] if coins else None, want=want)
        if self.scheduled is not None:
            metrics["scheduled/fed_back"] = losses.masked_mean(fed[..., 1:].float(), batch.mask[..., 1:])
        return scores

    def state_dict(self) -> dict[str, Any]:
        return {"descent": self.descent.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.descent.load_state_dict(state["descent"])


def attention_penalty(policy: Policy, scores: Scores, mask: Tensor) -> Tensor:
    if scores.attention is None:
        raise ComponentError(f"trainer.attention_penalty: {type(policy).__name__} gives no attention; set it to 0")
    return losses.doubly_stochastic(scores.attention, mask)
