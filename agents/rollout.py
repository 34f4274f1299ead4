"""Captions drawn from a policy and judged: what every policy-gradient trainer learns from.

There is no dropout here: `Practice` puts the policy into eval() first, so that captions are drawn from the very
distribution that gets the gradient. The words that pay are those that the policy chose: its end token among them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rlcap.agents.beam_draws import beam_captions
from rlcap.agents.shares import Shares
from rlcap.config import AboveZero, NotNegative, Positive, Share
from rlcap.contracts import Batch, Candidates, Features, Judge, Judgement, Memory, Policy, at_least_float32, tree_map
from rlcap.decoding.choosing import Sampling
from rlcap.decoding.constraints import Constraints, constrain
from rlcap.decoding.loop import Captions, write
from rlcap.decoding.uniforms import keyed_uniforms
from rlcap.errors import ConfigError


@dataclass(frozen=True)
class Drawing:
    """The recipe's `rollout` section: how captions are drawn.

    The gradient is that of the distribution that words are drawn from. So top_k and top_p change what is optimised:
    the mean reward of captions without the tail of the vocabulary, which itself gets no gradient. `graph`: "kept"
    keeps what drawing computes for the gradient; "scored" draws without, and runs the captions through the policy
    again. Both give the same gradient; the first takes less time on a CPU, the second less memory while
    drawing. Policies that make choices besides words, and objectives that reuse draws, always score.
    `samples_from`: "beam" takes the captions of a beam search as the samples; see rlcap.agents.beam_draws.
    """

    samples: Positive = 5  # an image
    length: Positive = 20  # words at most, the end token among them
    temperature: AboveZero = 1.0
    top_k: NotNegative = 0  # 0: all words
    top_p: Share = 1.0  # 1: all words
    graph: Literal["kept", "scored"] = "kept"
    samples_from: Literal["model", "beam"] = "model"

    def __post_init__(self) -> None:
        if self.samples_from == "beam" and self.sampling != Sampling():
            raise ValueError(
                "'samples_from: beam' takes the likeliest captions of the policy as it is; leave out temperature, "
                "top_k and top_p"
            )

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_k, self.top_p)

    @property
    def truncates(self) -> bool:
        return self.top_k > 0 or self.top_p < 1


@dataclass(frozen=True)
class Scored:
    """Drawn captions as the policy sees them, with gradient."""

    log_prob: Tensor  # (B, N, T): of each word that the policy chose, and of the choice behind any word; else 0
    distribution: Tensor  # (B, N, T, V): log-probabilities of all words
    choice_entropy: Tensor | None = None  # (B, N, T), where the policy makes choices besides words
    attention: Tensor | None = None  # (B, N, T, R), there too: what the gaze was drawn from
    extras: Mapping[str, Tensor] = field(default_factory=dict)  # of the policy, on request


@dataclass(frozen=True)
class Rollout:
    """N drawn captions of each image and, if asked for, a greedy one behind them, all judged."""

    captions: Captions  # (B, N or N + 1, T)
    judgement: Judgement  # (B, N or N + 1)
    features: Features
    memory: Memory  # what the policy kept of them, without gradient
    drawing: Drawing
    forced: Tensor | None = None  # (B, N or N + 1, up to T): -1 where the policy chose

    @property
    def drawn(self) -> int:
        """N"""
        return self.drawing.samples

    @property
    def words(self) -> Tensor:
        """(B, N, T)"""
        return self.captions.words[:, : self.drawn]

    @property
    def mask(self) -> Tensor:
        """(B, N, T): the words of drawn captions, the end token among them."""
        return self.captions.mask[:, : self.drawn]

    @cached_property
    def chosen(self) -> Tensor:
        """(B, N, T): those of them that the policy chose itself."""
        chosen = self.mask.clone()
        if self.forced is not None:
            forced = self.forced[:, : self.drawn, : chosen.shape[-1]]
            chosen[..., : forced.shape[-1]] &= forced < 0
        return chosen

    @property
    def choices(self) -> Tensor | None:
        return None if self.captions.choices is None else self.captions.choices[:, : self.drawn]

    @property
    def rewards(self) -> Tensor:
        """(B, N), of the drawn captions."""
        return self.judgement.total[:, : self.drawn]

    @property
    def greedy(self) -> Tensor:
        """(B,), of the greedy ones."""
        return self.judgement.total[:, self.drawn]

    @cached_property
    def returns(self) -> Tensor:
        """(B, N or N + 1, 1), or (B, N or N + 1, T) where words have credit of their own: what is still to come.

        A word cannot change what earlier words have earned: their credit is taken out (reward-to-go).
        """
        total, by_word = self.judgement.total[..., None], self.judgement.by_word
        return total if by_word is None else total - (by_word.cumsum(-1) - by_word)


def roll_out(
    policy: Policy,
    batch: Batch,
    judge: Judge,
    drawing: Drawing,
    *,
    seed: int,
    update: int,
    greedy: bool = False,
    forced: Tensor | None = None,
    shares: Shares | None = None,
) -> Rollout:
    """Draws and judges. A greedy caption rides in the same decode: its uniforms are NaN.

    `forced` (B, N, up to T): words that stand already, -1 where the policy chooses; a greedy caption begins as the
    first one does.
    """
    of_beam = drawing.samples_from == "beam"
    if of_beam and forced is not None:
        raise ConfigError(
            "trainer.rollout.samples_from=beam: a beam gives whole captions, and this trainer begins them with words "
            "of the references; set it to model, or leave out trainer.anneal"
        )
    keep = torch.is_grad_enabled() and drawing.graph == "kept" and not policy.coins
    uniforms = keyed_uniforms(seed, update, batch.images, drawing.samples, drawing.length, 1 + policy.coins)
    if greedy:
        uniforms = torch.cat((uniforms, torch.full_like(uniforms[:, :1], torch.nan)), 1)
        forced = None if forced is None else torch.cat((forced, forced[:, :1]), 1)
    with torch.set_grad_enabled(keep):
        memory = policy.remember(batch.features)
        standing = forced
        if of_beam:
            n, length = drawing.samples, drawing.length
            standing = beam_captions(policy, memory, images=len(batch.images), n=n, length=length)
            standing = F.pad(standing, (0, 0, 0, int(greedy)), value=-1)
        captions = write(
            policy,
            memory,
            images=len(batch.images),
            n=drawing.samples + greedy,
            length=drawing.length,
            sampling=drawing.sampling,
            uniforms=uniforms,
            forced=standing,
            want=["distribution"] if keep else [],
        )
    if shares is not None:
        shares.mark("decoding")
    with torch.no_grad():
        lengths = captions.mask.sum(-1)
        judgement = judge(Candidates(captions.words, lengths, batch.images, drawing.samples, batch.features))
    if shares is not None:
        shares.mark("reward")
    return Rollout(captions, judgement, batch.features, tree_map(Tensor.detach, memory), drawing, forced)


def score(policy: Policy, rollout: Rollout) -> Scored:
    """The drawn captions under the distribution that they were drawn from, of the policy as it is now."""
    distribution, log_prob = rollout.captions.distribution, rollout.captions.log_prob
    if distribution is None:
        return rescore(policy, rollout)
    return Scored(_only(rollout.chosen, log_prob[:, : rollout.drawn]), distribution[:, : rollout.drawn])


def rescore(policy: Policy, rollout: Rollout, want: Collection[str] = ()) -> Scored:
    """The same by running the captions through the policy once more; choices are replayed, and count."""
    words = rollout.words
    wanted = ["logits", *(["attention"] if policy.coins else []), *want]
    scores = policy(rollout.features, words, choices=rollout.choices, want=wanted)
    logits = at_least_float32(scores.logits).flatten(0, 2)
    legal = constrain(logits, words.flatten()[:, None], 0, policy.codec, Constraints())
    distribution = rollout.drawing.sampling.log_probabilities(legal)
    log_prob = distribution.gather(-1, words.flatten()[:, None])[:, 0].view_as(words)
    log_prob = _only(rollout.chosen & (log_prob > -torch.inf), log_prob)  # rounding may truncate a word that was drawn
    if scores.choice_log_prob is not None:  # behind forced words too: they shape those that follow
        log_prob = log_prob + _only(rollout.mask, scores.choice_log_prob)
    distribution = distribution.view(*words.shape, -1)
    return Scored(log_prob, distribution, scores.choice_entropy, scores.attention, scores.extras)


def _only(mask: Tensor, values: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0)
