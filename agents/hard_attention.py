"""Hard attention on the reference captions (Xu et al. 2015, https://arxiv.org/abs/1502.03044, section 4.1).

The likelihood of a caption sums over all ways to look, so a lower bound of it is maximised: the mean log p(y | s) over
gazes s that the policy draws. Its gradient is estimated by REINFORCE (eq. 11-12), as a sum over a caption's words:
    d log p(y_t | s)  +  lambda_r A_t d log p(s_t)  +  lambda_e d H[s_t].
The paper gives every gaze the credit of the whole caption. A gaze cannot change the words before it, so here A_t is
the sum over the words from t on of log p - b, b the average word of earlier updates, each a tenth forgotten: the same
gradient in the mean, with less noise. The first update, which has no b yet, takes its own. Where A is wider than a nat
it is divided by its deviation (Mnih & Gregor 2014, https://arxiv.org/abs/1402.0030, section 2.3), so that long captions
of many words need no other lambda_r. With lambda_r 1 and lambda_e 0 this is, but for that scale, the bound's own
gradient; its noise can drown what captions with the mean in sight teach the gaze, hence a smaller lambda_r. It serves
every policy that makes choices besides words.

The curves that it logs:
- `loss/cross_entropy`: nats a word of the training captions behind drawn gazes: the bound, but for its sign.
- `baseline/average`: b, nats a word. It rises with the bound.
- `advantage/deviation`: of A, nats, before it is scaled. Most of it is what captions differ by, whatever the gaze: its
  share of the gradient averages out over more captions or more location samples.
- `gaze/entropy`: nats; log R is a gaze that may fall anywhere, 0 one that always falls on the same region.
- `gaze/moved`: how much of the gaze's probability goes elsewhere from word to word (total variation), from 0 to 1. With
  no doubt about where to look it is the share of words at which the gaze moves. Near 0 the gaze has come to a
  standstill: raise `lambda_e` if its entropy is small; lower `lambda_r` or raise `samples` if it is near log R.
- `optimiser/gradient_norm`, `optimiser/rate`: as in cross-entropy.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rlcap import distributed, losses
from rlcap.agents.curves import gaze_curves
from rlcap.agents.optimisers import Descent, Optimiser
from rlcap.config import Positive, Weight
from rlcap.contracts import Batch, Course, Policy
from rlcap.decoding.uniforms import keyed_uniforms
from rlcap.errors import ConfigError


class VariationalBound:
    """Words by likelihood, gazes by REINFORCE on the likelihood that they lead to."""

    momentum = 0.9  # of the baseline

    def __init__(
        self,
        policy: Policy,
        course: Course,
        *,
        samples: Positive = 1,  # of the gazes, a caption
        lambda_r: Weight = 0.1,  # of REINFORCE
        lambda_e: Weight = 0.002,  # of the entropy bonus
        optimiser: Optimiser = Optimiser(),  # noqa: B008  frozen
    ) -> None:
        if not policy.coins:
            raise ConfigError(
                f"trainer hard_attention: {type(policy).__name__} makes no choices besides words; "
                "take policy.name=hard_attention, or trainer.name=cross_entropy"
            )
        self.policy, self.course, self.samples = policy, course, samples
        self.lambda_r, self.lambda_e = lambda_r, lambda_e
        self.average: Tensor | None = None
        self.descent = Descent(policy, optimiser, course.updates)

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        return {"policy": self.policy}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        self.policy.train()
        words, mask = (part.repeat_interleave(self.samples, 1) for part in (batch.words, batch.mask))
        n, length = words.shape[1:]
        uniforms = keyed_uniforms(self.course.seed, self.descent.done, batch.images, n, length, self.policy.coins)
        with self.course.autocast():
            scores = self.policy(batch.features, words, uniforms=uniforms, want=["attention"])
        likelihood = scores.log_prob.detach()
        mean = distributed.mean(losses.masked_mean(likelihood, mask))
        before = mean if self.average is None else self.average.to(mean)
        to_come = (likelihood - before).masked_fill(~mask, 0).flip(-1).cumsum(-1).flip(-1)
        deviation = distributed.mean(losses.masked_mean(to_come.square(), mask)).sqrt()
        bound = scores.log_prob + self.lambda_r * to_come / deviation.clamp_min(1) * scores.choice_log_prob
        loss = -losses.masked_mean(bound + self.lambda_e * scores.choice_entropy, mask)
        self.average = self.momentum * before + (1 - self.momentum) * mean
        return {
            "loss/cross_entropy": -mean,
            "baseline/average": self.average,
            "advantage/deviation": deviation,
            **gaze_curves(scores.attention, mask),
            **self.descent.step(loss),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"descent": self.descent.state_dict(), "average": self.average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.descent.load_state_dict(state["descent"])
        self.average = state["average"]
