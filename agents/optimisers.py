"""Optimisers and learning-rate schedules, described in a recipe and shared by all trainers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlcap import distributed
from rlcap.config import AboveZero, NotNegative, Rate, Weight
from rlcap.contracts import Encoder
from rlcap.errors import ConfigError


@dataclass(frozen=True)
class Optimiser:
    """The recipe's `optimiser` section.

    The rate climbs to `lr` over `warmup` updates, then falls: not at all, along half a cosine to `floor`·lr, or
    linearly to it. `clip` bounds the norm of the whole gradient (0: no bound). An encoder that is trained along may
    have a rate of its own: pretrained weights want a far lower one.
    """

    name: Literal["adam", "adamw", "rmsprop"] = "adam"
    lr: AboveZero = 4e-4
    encoder_lr: AboveZero | None = None  # None: the same; it follows the same schedule
    weight_decay: Weight = 0.0
    clip: Weight = 5.0
    warmup: NotNegative = 0
    decay: Literal["none", "cosine", "linear"] = "none"
    floor: Rate = 0.0


class Descent:
    """An optimiser at work: gradient in, one clipped and scheduled step out."""

    def __init__(self, network: nn.Module, settings: Optimiser, updates: int) -> None:
        """`updates` is the length of the whole schedule. The encoder is what the network has under that name."""
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.settings, self.updates, self.done = settings, updates, 0
        groups, self.factors = [self.parameters], [1.0]  # of the rate, one a group
        if settings.encoder_lr is not None:
            groups, self.factors = _encoder_apart(network, self.parameters), [1.0, settings.encoder_lr / settings.lr]
        classes = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}
        parts = [{"params": group} for group in groups]
        kind: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
        self.fused = settings.name != "rmsprop" and all(each.is_cuda for each in self.parameters)
        self.optimiser = classes[settings.name](parts, **kind, **({"fused": True} if self.fused else {}))

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
        """Descends on `loss`; the gradient's norm before clipping and the rate, detached.

        Where one of the first two is not finite nothing moves, and the schedule goes on.
        """
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        distributed.average_gradients(self.parameters)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip or math.inf)
        rate = self.rate()
        for group, factor in zip(self.optimiser.param_groups, self.factors, strict=True):
            group["lr"] = rate * factor
        self._move(torch.isfinite(norm) & torch.isfinite(distributed.mean(loss.detach())))
        self.done += 1
        return {"optimiser/gradient_norm": norm.detach(), "optimiser/rate": torch.tensor(rate)}

    def _move(self, finite: Tensor) -> None:
        if self.fused:  # decides on the device, by a flag that torch's own scaler of gradients sets, too
            vars(self.optimiser)["found_inf"] = (~finite).float()
            self.optimiser.step()
        elif finite:
            self.optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        return {"optimiser": self.optimiser.state_dict(), "done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        kept = state["optimiser"]  # perhaps of another device
        groups = [{**each, "fused": self.fused or None} if "fused" in each else each for each in kept["param_groups"]]
        self.optimiser.load_state_dict({**kept, "param_groups": groups})
        self.done = state["done"]


def _encoder_apart(network: nn.Module, learning: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """All but the encoder's, and those."""
    encoder = getattr(network, "encoder", None)
    its_own = set(encoder.parameters()) if isinstance(encoder, Encoder) else set()
    parts: list[list[nn.Parameter]] = [[], []]
    for parameter in learning:
        parts[parameter in its_own].append(parameter)
    if not parts[True]:
        raise ConfigError(
            "optimiser.encoder_lr: no encoder is trained along: name one that is not frozen, or leave this out"
        )
    return parts
