"""Hard attention (Xu et al. 2015, https://arxiv.org/abs/1502.03044, section 4.1): one drawn region is seen."""

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from rlcap.config import NotNegative, Positive, Rate
from rlcap.contracts import (
    Codec,
    Features,
    FeatureShape,
    Memory,
    Policy,
    Scores,
    State,
    Step,
    at_least_float32,
    entropy_of,
)
from rlcap.models.attending import Attending
from rlcap.models.cells import CellName

MEAN = -1  # a choice: no region in particular, but the mean of all
NOT_TOSSED, HARD, SOFT = -1, 0, 1


class HardAttention(Policy):
    """At each word the gaze falls on one region.

    A choice is the number of that region, or -1: with probability `soft_share` a whole caption sees what soft
    attention does (section 4.1, "for a given image"; the coin is the caption's, tossed at its first word). Without
    uniforms the gaze is the likeliest, and never the mean. `attention` is the gaze's distribution, not the one region.
    A mean leaves no gaze to choose: its log-probability and entropy are 0, the coin's own constant ones left out.
    """

    coins = 2  # for the gaze, for hard or soft

    def __init__(
        self,
        codec: Codec,
        shape: FeatureShape,
        *,
        cell: CellName = "lstm",
        hidden: Positive = 512,
        embedding: Positive = 512,
        attention: Positive = 512,
        project: NotNegative = 0,
        dropout: Rate = 0.5,
        soft_share: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.codec, self.soft_share = codec, soft_share
        self.network = Attending(
            codec,
            shape,
            cell=cell,
            hidden=hidden,
            embedding=embedding,
            attention=attention,
            project=project,
            dropout=dropout,
        )

    def remember(self, features: Features) -> Memory:
        return self.network.remember(features)

    def start(self, memory: Memory, n: int, length: int) -> State:
        cell = self.network.start(memory, n)
        return {"cell": cell, "tossed": _not_tossed(cell[0])}

    def step(
        self,
        words: Tensor,
        state: State,
        memory: Memory,
        *,
        uniforms: Tensor | None = None,
        choices: Tensor | None = None,
        want: Collection[str] = (),
    ) -> Step:
        gaze = _Gaze(
            self.soft_share,
            state["tossed"],
            None if uniforms is None else uniforms[:, None],
            None if choices is None else choices[:, None],
        )
        logits, cell = self.network.step(words, state["cell"], memory, gaze)
        attention = gaze.log_p[0].exp() if "attention" in want else None
        return Step(logits, {"cell": cell, "tossed": gaze.tossed}, gaze.choices[0], attention)

    def score(
        self,
        memory: Memory,
        words: Tensor,
        *,
        choices: Tensor | None = None,
        uniforms: Tensor | None = None,
        want: Collection[str] = (),
    ) -> Scores:
        gaze = _Gaze(
            self.soft_share,
            _not_tossed(words.flatten(0, 1)),
            None if uniforms is None else uniforms.flatten(0, 1),
            None if choices is None else choices.flatten(0, 1),
        )
        scores = self.network.score(memory, words, gaze, want)
        taken = torch.stack(gaze.choices, 1).view_as(words)
        log_p = torch.stack(gaze.log_p, 1).unflatten(0, words.shape[:2])  # (B, N, T, R)
        return replace(
            scores,
            choices=taken,
            choice_log_prob=log_p.gather(-1, taken.clamp_min(0)[..., None])[..., 0].masked_fill(taken == MEAN, 0),
            choice_entropy=entropy_of(log_p).masked_fill(taken == MEAN, 0),
            attention=log_p.exp() if "attention" in want else None,
        )


class _Gaze:
    """Chooses, or is told to choose, and keeps what it chose and from what."""

    def __init__(self, soft_share: float, tossed: Tensor, uniforms: Tensor | None, told: Tensor | None) -> None:
        """tossed (rows,); uniforms (rows, T, 2); told (rows, T)"""
        self.soft_share, self.tossed, self.uniforms, self.told = soft_share, tossed, uniforms, told
        self.choices: list[Tensor] = []  # (rows,) a word
        self.log_p: list[Tensor] = []  # (rows, R) a word

    def __call__(self, t: int, log_p: Tensor) -> Tensor:
        choice = self._choose(t, log_p.detach()) if self.told is None else self.told[:, t]
        soft = choice == MEAN
        self.tossed = torch.where(soft, SOFT, HARD)
        self.choices.append(choice)
        self.log_p.append(log_p)
        one = F.one_hot(choice.clamp_min(0), log_p.shape[-1])
        return torch.where(soft[:, None], log_p.exp(), one.to(log_p.dtype))

    def _choose(self, t: int, log_p: Tensor) -> Tensor:
        if self.uniforms is None:
            return log_p.argmax(-1)
        of_gaze, of_coin = self.uniforms[:, t].unbind(-1)
        tossed = torch.where(self.tossed == NOT_TOSSED, of_coin < self.soft_share, self.tossed == SOFT)
        return torch.where(tossed, MEAN, _drawn(log_p, of_gaze))  # NaN tosses hard


def _drawn(log_p: Tensor, uniforms: Tensor) -> Tensor:
    """(rows, R), (rows,) in (0, 1) -> (rows,) by inverse CDF; the likeliest where the uniform is NaN."""
    cumulative = at_least_float32(log_p).exp().cumsum(-1)
    point = uniforms.to(cumulative.dtype)[:, None] * cumulative[:, -1:]  # sums end beside 1
    return torch.where(uniforms.isnan(), log_p.argmax(-1), (cumulative <= point).sum(-1))


def _not_tossed(rows: Tensor) -> Tensor:
    return torch.full_like(rows[:, 0], NOT_TOSSED, dtype=torch.long)
