"""A policy together with the encoder that is trained along with it: pixels in, captions out."""

from collections.abc import Collection, Iterator
from typing import Any

from torch import Tensor, nn

from rlcap.contracts import Encoder, Features, Memory, Policy, Scores, State, Step


class Seeing(Policy):
    """Any policy, fed by an encoder; every call but `remember` is the policy's own."""

    def __init__(self, policy: Policy, encoder: Encoder) -> None:
        super().__init__()
        self.policy = policy
        self.encoder = encoder
        self.codec, self.coins = policy.codec, policy.coins

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """The policy may leave some of its own out."""
        for name, part in (("policy", self.policy), ("encoder", self.encoder)):
            yield from part.named_parameters(f"{prefix}{'.' if prefix else ''}{name}", recurse, remove_duplicate)

    def remember(self, features: Features) -> Memory:
        if features.pixels is None:
            raise ValueError("an encoder that is trained along needs pixels, and these features hold none")
        return self.policy.remember(self.encoder(features.pixels))

    def start(self, memory: Memory, n: int, length: int) -> State:
        return self.policy.start(memory, n, length)

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
        return self.policy.step(words, state, memory, uniforms=uniforms, choices=choices, want=want)

    def score(self, memory: Memory, words: Tensor, **arguments: Any) -> Scores:
        return self.policy.score(memory, words, **arguments)

    def select(self, state: State, rows: Tensor) -> State:
        return self.policy.select(state, rows)
