"""Goals that name: which of some words comes next, told from a goal. Supervision for LeakGAN's Manager, or a probe.

Its curves:
- `alignment/loss`: nats of the named word, given the goal; `log(number of words)` knows nothing.
- `alignment/accuracy`: how often the likeliest is right.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlcap import losses
from rlcap.agents.optimisers import Descent, Optimiser
from rlcap.contracts import Codec, Course, at_least_float32
from rlcap.errors import ConfigError

NOTHING = -1


class Naming:
    """A linear map from goals to `names`, learned along. What it takes from people's captions flows back into goals
    as much as the caller weighs `loss`; weighed by 0 it only reads them.
    """

    def __init__(self, names: Sequence[str], codec: Codec, width: int, horizon: int, course: Course) -> None:
        ids = codec.encode(names)
        for name, word in zip(names, ids, strict=True):
            if word in codec.banned:
                raise ConfigError(f"trainer.alignment_words: '{name}' is not in the vocabulary; leave it out")
        if len(set(ids)) < max(2, len(names)):
            raise ConfigError(f"trainer.alignment_words={list(names)}: give two or more different words")
        self.horizon = horizon
        self.guess = nn.Linear(width, len(names)).to(course.device)
        self.places = torch.full((codec.size,), NOTHING, device=course.device)
        self.places[ids] = torch.arange(len(names), device=course.device)
        self.descent = Descent(self.guess, Optimiser(lr=1e-2), course.updates)

    def targets(self, words: Tensor) -> Tensor:
        """words (B, N, T) -> (B, N, T): the place among the names of the first that comes while a goal is in force
        (its own word and the `horizon` - 1 behind it), or NOTHING.
        """
        named = self.places[words]
        coming = F.pad(named, (0, self.horizon - 1), value=NOTHING).unfold(-1, self.horizon, 1)  # (B, N, T, c)
        first = (coming != NOTHING).int().argmax(-1, keepdim=True)
        return coming.gather(-1, first)[..., 0]

    def loss(self, goals: Tensor, words: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """goals (B, N, T, F) -> nats, and the curves. The map itself learns here, too."""
        targets = self.targets(words)
        told = targets != NOTHING
        self.descent.step(self._nats(goals.detach(), targets))
        with torch.no_grad():
            right = (self.guess(at_least_float32(goals)).argmax(-1) == targets).float()
        nats = self._nats(goals, targets)
        return nats, {"alignment/loss": nats.detach(), "alignment/accuracy": losses.masked_mean(right, told)}

    def _nats(self, goals: Tensor, targets: Tensor) -> Tensor:
        logits = self.guess(at_least_float32(goals)).flatten(0, 2)
        each = F.cross_entropy(logits, targets.flatten(), ignore_index=NOTHING, reduction="none")
        return losses.masked_mean(each, targets.flatten() != NOTHING)
