"""Scheduled sampling (Bengio et al. 2015, https://arxiv.org/abs/1506.03099): some words fed are the policy's own.

Before each word a coin decides, a caption at a time, whether the policy hears the caption's own last word or the one
that it would have said itself. What it is to say stays the caption's word. The coin's share of true words falls
over the updates. No gradient goes through which words are fed.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rlcap.config import AboveZero, Weight
from rlcap.contracts import Features, Policy, Scores, at_least_float32, entropy_of
from rlcap.decoding.choosing import drawn, likeliest
from rlcap.decoding.constraints import Constraints, constrain


@dataclass(frozen=True)
class Scheduled:
    """The recipe's `scheduled` section: section 2.4 of the paper, whose i is the number of updates.

    The probability of a true word: linear, max(least, k - slope·i); exponential, k^i; inverse_sigmoid,
    k / (k + exp(i / k)). All stop at `least`.
    """

    decay: Literal["linear", "exponential", "inverse_sigmoid"]
    k: AboveZero
    slope: Weight = 0.0  # linear: what is lost with each update
    least: Weight = 0.0
    feed: Literal["drawn", "greedy"] = "drawn"

    def __post_init__(self) -> None:
        if self.least > 1:
            raise ValueError(f"'least' is a probability: give 0 to 1, not {self.least}")
        if self.decay == "inverse_sigmoid" and self.k < 1:
            raise ValueError(f"'k' is at least 1 for inverse_sigmoid, not {self.k}")
        if self.decay != "inverse_sigmoid" and self.k > 1:
            raise ValueError(f"'k' is at most 1 for {self.decay}, not {self.k}")
        if (self.decay == "linear") != (self.slope > 0):
            raise ValueError(f"'slope' belongs to linear, which needs it above 0; it is {self.slope} for {self.decay}")

    def of_true_words(self, update: int) -> float:
        """Epsilon of the paper: the probability that a true word is fed."""
        if self.decay == "linear":
            falling = self.k - self.slope * update
        elif self.decay == "exponential":
            falling = self.k**update
        else:
            shrunk = self.k * math.exp(-update / self.k)  # both sides of the fraction, so that nothing overflows
            falling = shrunk / (shrunk + 1)
        return max(self.least, falling)


def score_own_words(
    policy: Policy,
    features: Features,
    words: Tensor,  # (B, N, T)
    probability: float,  # that a word fed is the policy's own
    uniforms: Tensor,  # (B, N, T, 2 + policy.coins): the coin, the word that it would have said, its choices
    *,
    feed: Literal["drawn", "greedy"] = "drawn",
    want: Collection[str] = (),  # "entropy", "logits", "attention"
) -> tuple[Scores, Tensor]:
    """The captions' words behind words of which some are the policy's own; and (B, N, T) which it was fed.

    An end token that the policy would have said is never fed: nothing comes behind it. The true word stays.
    """
    images, n, length = words.shape
    memory = policy.remember(features)
    state = policy.start(memory, n, length)
    rows, draws = words.flatten(0, 1), uniforms.flatten(0, 1)
    fed = torch.full_like(rows[:, 0], policy.codec.start)
    own = torch.zeros_like(fed, dtype=torch.bool)
    log_probs, logits, entropies, attentions, owns = [], [], [], [], []
    for t in range(length):
        step = policy.step(fed, state, memory, uniforms=draws[:, t, 2:] if policy.coins else None, want=want)
        state = step.state
        log_p = at_least_float32(step.logits).log_softmax(-1)
        log_probs.append(log_p.gather(-1, rows[:, t : t + 1])[:, 0])
        owns.append(own)
        if "entropy" in want:
            entropies.append(entropy_of(log_p))
        if "logits" in want:
            logits.append(step.logits)
        if step.attention is not None:
            attentions.append(step.attention)
        said = _said(policy, log_p.detach(), rows, t, None if feed == "greedy" else draws[:, t, 1])
        own = (draws[:, t, 0] < probability) & (said != policy.codec.end)
        fed = torch.where(own, said, rows[:, t])

    def stacked(steps: list[Tensor]) -> Tensor | None:
        return torch.stack(steps, 1).unflatten(0, (images, n)) if steps else None

    scores = Scores(
        torch.stack(log_probs, 1).unflatten(0, (images, n)),
        entropy=stacked(entropies),
        logits=stacked(logits),
        attention=stacked(attentions),
    )
    return scores, torch.stack(owns, 1).unflatten(0, (images, n))


def _said(policy: Policy, log_p: Tensor, words: Tensor, t: int, uniforms: Tensor | None) -> Tensor:
    """(rows,) what the policy would have said: what is never said is never fed."""
    legal = constrain(log_p, words, t, policy.codec, Constraints()).log_softmax(-1)
    return likeliest(legal) if uniforms is None else drawn(legal, uniforms)
