"""Optimisers and learning-rate schedules, described in a recipe and shared by all trainers."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlcap.config import AboveZero, NotNegative, Rate, Weight


@dataclass(frozen=True)
class Optimiser:
    """The recipe's `optimiser` section.

    The rate climbs to `lr` over `warmup` updates, then falls: not at all, along half a cosine to `floor`·lr, or
    linearly to it. `clip` bounds the norm of the whole gradient (0: no bound).
    """

    name: Literal["adam", "adamw", "rmsprop"] = "adam"
    lr: AboveZero = 4e-4
    weight_decay: Weight = 0.0
    clip: Weight = 5.0
    warmup: NotNegative = 0
    decay: Literal["none", "cosine", "linear"] = "none"
    floor: Rate = 0.0


class Descent:
    """An optimiser at work: gradient in, one clipped and scheduled step out."""

    def __init__(self, parameters: Iterable[nn.Parameter], settings: Optimiser, updates: int) -> None:
        """`updates` is the length of the whole schedule."""
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.settings, self.updates, self.done = settings, updates, 0
        classes = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}
        self.optimiser = classes[settings.name](self.parameters, lr=settings.lr, weight_decay=settings.weight_decay)

    def rate(self) -> float:
        """The learning rate of the next step."""
        settings = self.settings
        if self.done < settings.warmup:
            return settings.lr * (self.done + 1) / settings.warmup
        run = (self.done - settings.warmup) / max(1, self.updates - settings.warmup)
        falling = {
            "none": 1.0,
            "cosine": (1 + math.cos(math.pi * min(1.0, run))) / 2,
            "linear": 1 - min(1.0, run),
        }
        return settings.lr * (settings.floor + (1 - settings.floor) * falling[settings.decay])

    def step(self, loss: Tensor) -> dict[str, Tensor]:
        """Descends on `loss`; the gradient's norm before clipping and the rate, detached."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip or math.inf)
        rate = self.rate()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.done += 1
        return {"optimiser/gradient_norm": norm.detach(), "optimiser/rate": torch.tensor(rate)}

    def state_dict(self) -> dict[str, Any]:
        return {"optimiser": self.optimiser.state_dict(), "done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimiser.load_state_dict(state["optimiser"])
        self.done = state["done"]
