"""Small random policies whose words depend on all words before, and what plain Python says of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlcap.contracts import Features, Memory, Policy, State, Step, tree_map
from rlcap.decoding.constraints import Constraints


@dataclass(frozen=True)
class ToyCodec:
    """Ids: padding, end (or, without one, a word), start, words."""

    size: int = 6
    end: int | None = 1
    pad: int = 0
    start: int = 2
    banned: tuple[int, ...] = (0, 2)
    fingerprint: str = "toy"

    def encode(self, words: Sequence[str]) -> list[int]:
        return [int(word) for word in words]

    def words(self, tokens: Sequence[int]) -> list[str]:
        return [str(token) for token in tokens]


class ToyPolicy(Policy):
    """A random recurrent network that sees the mean of the features."""

    def __init__(self, codec: ToyCodec, *, seed: int, width: int = 3, hidden: int = 8, end_bias: float = 0.0):
        super().__init__()
        self.codec = codec
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator))

        self.see, self.recur, self.embed = (
            random(width, hidden),
            random(hidden, hidden),
            random(codec.size, hidden),
        )
        self.say, self.gaze = random(hidden, codec.size), random(hidden, width)
        self.end_bias = end_bias
        self.steps = 0  # how many have been taken

    def remember(self, features: Features) -> Memory:
        return {"seen": features.values.mean(1) @ self.see, "values": features.values}

    def start(self, memory: Memory, n: int, length: int) -> State:
        return (torch.zeros_like(memory["seen"]).repeat_interleave(n, 0),)

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
        self.steps += 1
        n = words.shape[0] // memory["seen"].shape[0]
        hidden = torch.tanh(state[0] @ self.recur + self.embed[words] + memory["seen"].repeat_interleave(n, 0))
        logits = hidden @ self.say
        if self.codec.end is not None:
            bias = torch.zeros(self.codec.size)
            bias[self.codec.end] = self.end_bias
            logits = logits + bias
        looks = torch.einsum("rw,rdw->rd", hidden @ self.gaze, memory["values"].repeat_interleave(n, 0))
        return Step(logits, (hidden,), attention=looks.softmax(-1) if "attention" in want else None)


def toy_features(images: int, regions: int = 4, width: int = 3, seed: int = 0) -> Features:
    values = torch.randn(images, regions, width, generator=torch.Generator().manual_seed(seed))
    return Features(values, torch.ones(images, regions, dtype=torch.bool))


def memory_of(memory: Memory, image: int) -> Memory:
    return tree_map(lambda tensor: tensor[image : image + 1], memory)


class PlainView:
    """One image and one policy, asked in plain Python about one prefix at a time."""

    def __init__(self, policy: Policy, memory: Memory, image: int, constraints: Constraints):
        self.policy, self.memory, self.constraints = policy, memory_of(memory, image), constraints
        self.steps: dict[tuple[int, ...], Step] = {}

    def step(self, prefix: tuple[int, ...]) -> Step:
        """The policy's step behind `prefix`."""
        if prefix not in self.steps:
            state = self.step(prefix[:-1]).state if prefix else self.policy.start(self.memory, 1, 99)
            word = prefix[-1] if prefix else self.policy.codec.start
            with torch.no_grad():
                self.steps[prefix] = self.policy.step(torch.tensor([word]), state, self.memory)
        return self.steps[prefix]

    def log_probs(self, prefix: tuple[int, ...]) -> list[float]:
        """Of every word after `prefix`."""
        return self.step(prefix).logits.double().log_softmax(-1)[0].tolist()

    def next_words(self, prefix: tuple[int, ...]) -> list[int]:
        return legal_words(self.policy.codec, prefix, self.constraints)


def legal_words(codec: ToyCodec, prefix: tuple[int, ...], constraints: Constraints) -> list[int]:
    """The rules of `constrain`, spelled out."""
    n = constraints.no_repeat_ngram
    words = [w for w in range(codec.size) if w not in (*codec.banned, *constraints.banned)]
    ngrams = {prefix[i : i + n] for i in range(len(prefix) - n + 1)} if n else set()
    last = prefix[len(prefix) - n + 1 :] if n else ()
    legal = [
        w for w in words if not (w == codec.end and len(prefix) < constraints.min_words) and (*last, w) not in ngrams
    ]
    return legal or ([codec.end] if codec.end is not None else words)
