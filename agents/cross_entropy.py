"""Cross-entropy under teacher forcing: the first stage of nearly every captioner.

The curves that it logs:
- `loss/cross_entropy`: nats a word on the training captions, with label smoothing if the recipe asks for it. It
  falls from log(V); it should go on falling after the evaluated metrics have stopped rising, which is over-fitting.
- `loss/attention`: the doubly stochastic penalty before its weight: lower when gazes spread over the regions.
- `optimiser/gradient_norm`: before clipping. Spikes at the start are usual; a norm that stays at the bound is not.
- `optimiser/rate`: the learning rate.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rlcap import losses
from rlcap.agents.optimisers import Descent, Optimiser
from rlcap.config import Rate, Weight
from rlcap.contracts import Batch, Course, Policy
from rlcap.errors import ComponentError


class CrossEntropy:
    """Maximises the likelihood of the reference captions (Xu et al. 2015, eq. 14, with its attention penalty)."""

    def __init__(
        self,
        policy: Policy,
        course: Course,
        *,
        label_smoothing: Rate = 0.0,
        attention_penalty: Weight = 0.0,
        optimiser: Optimiser = Optimiser(),  # noqa: B008  frozen
    ) -> None:
        self.policy, self.course = policy, course
        self.label_smoothing, self.attention_penalty = label_smoothing, attention_penalty
        self.descent = Descent(policy.parameters(), optimiser, course.updates)

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
            scores = self.policy(batch.features, batch.words, want=want)
        if scores.logits is not None:
            loss = losses.cross_entropy(scores.logits, batch.words, batch.mask, self.label_smoothing)
        else:
            loss = -losses.masked_mean(scores.log_prob, batch.mask)
        metrics["loss/cross_entropy"] = loss.detach()
        if self.attention_penalty:
            if scores.attention is None:
                name = type(self.policy).__name__
                raise ComponentError(f"trainer.attention_penalty: {name} gives no attention; set it to 0")
            penalty = losses.doubly_stochastic(scores.attention, batch.mask)
            loss = loss + self.attention_penalty * penalty
            metrics["loss/attention"] = penalty.detach()
        return metrics | self.descent.step(loss)

    def state_dict(self) -> dict[str, Any]:
        return {"descent": self.descent.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.descent.load_state_dict(state["descent"])
