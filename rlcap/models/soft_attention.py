"""Soft attention (Xu et al. 2015, https://arxiv.org/abs/1502.03044, section 4.2): the mean of the regions is seen."""

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor

from rlcap.config import NotNegative, Positive, Rate
from rlcap.contracts import Codec, Features, FeatureShape, Memory, Policy, Scores, State, Step
from rlcap.models.attending import Attending
from rlcap.models.cells import CellName


class SoftAttention(Policy):
    """What is seen at each word is the mean of the regions under the gaze's distribution."""

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
    ) -> None:
        super().__init__()
        self.codec = codec
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
        return self.network.start(memory, n)

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
        gaze = _Weights()
        logits, state = self.network.step(words, state, memory, gaze)
        return Step(logits, state, attention=gaze.seen[0] if "attention" in want else None)

    def score(
        self,
        memory: Memory,
        words: Tensor,
        *,
        choices: Tensor | None = None,
        uniforms: Tensor | None = None,
        want: Collection[str] = (),
    ) -> Scores:
        gaze = _Weights()
        scores = self.network.score(memory, words, gaze, want)
        if "attention" not in want:
            return scores
        return replace(scores, attention=torch.stack(gaze.seen, 1).unflatten(0, words.shape[:2]))


class _Weights:
    """A gaze that looks at everything by its probability, and keeps these."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []  # (rows, R) a word

    def __call__(self, t: int, log_p: Tensor) -> Tensor:
        self.seen.append(log_p.exp())
        return self.seen[-1]
