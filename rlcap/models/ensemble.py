"""Several policies that write one caption together."""

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from rlcap.contracts import Features, Memory, Policy, State, Step
from rlcap.errors import ComponentError


class Ensemble(Policy):
    """Says the mean of its members' word probabilities. Made of trained ones: `Ensemble([first, second])`.

    It serves decoding and evaluation: a member that makes choices takes the likeliest.
    """

    def __init__(self, members: Sequence[Policy]) -> None:
        super().__init__()
        if not members:
            raise ComponentError("an ensemble of no policies: give at least one")
        self.codec = members[0].codec
        for place, member in enumerate(members):
            if member.codec.fingerprint != self.codec.fingerprint:
                raise ComponentError(
                    f"ensemble: policy {place} has the vocabulary {member.codec.fingerprint}, policy 0 has "
                    f"{self.codec.fingerprint}: take policies that were trained on the same prepared data set"
                )
        self.members = nn.ModuleList(members)

    def remember(self, features: Features) -> Memory:
        return tuple(member.remember(features) for member in self._policies)

    def start(self, memory: Memory, n: int, length: int) -> State:
        pairs = zip(self._policies, memory, strict=True)
        return tuple(member.start(of_member, n, length) for member, of_member in pairs)

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
        steps = [
            member.step(words, own_state, own_memory, want=want)
            for member, own_state, own_memory in zip(self._policies, state, memory, strict=True)
        ]
        log_p = torch.stack([step.logits.float().log_softmax(-1) for step in steps])
        return Step(
            logits=log_p.logsumexp(0) - math.log(len(steps)),
            state=tuple(step.state for step in steps),
            attention=_mean([step.attention for step in steps if step.attention is not None]),
        )

    def select(self, state: State, rows: Tensor) -> State:
        pairs = zip(self._policies, state, strict=True)
        return tuple(member.select(of_member, rows) for member, of_member in pairs)

    @property
    def _policies(self) -> list[Policy]:
        return list(self.members)  # type: ignore[arg-type]  # a ModuleList forgets what it holds


def _mean(maps: list[Tensor]) -> Tensor | None:
    """The mean of the members' attention (rows, R); None where they look at different regions, or at none."""
    if not maps or any(each.shape != maps[0].shape for each in maps):
        return None
    return torch.stack(maps).mean(0)
