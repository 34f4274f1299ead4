"""What holds a policy back while it chases rewards: entropy bonuses, and an anchor to the model it began as.

All are summed over the words of drawn captions, as the policy gradient is. Their own gradient goes through the
distributions that words are drawn from, tempered as these are, not through which captions are drawn.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rlcap import losses
from rlcap.agents.curves import gaze_curves
from rlcap.agents.rollout import Drawing, Rollout, Scored, rescore
from rlcap.config import Weight
from rlcap.contracts import Policy, entropy_of
from rlcap.errors import ConfigError


@dataclass(frozen=True)
class Regularise:
    """The recipe's `regularise` section.

    `anchor`: "kl", KL(policy ‖ start), lets the policy drop words that the start would say; "cross_entropy", that of
    the policy's words under the start's distribution, punishes just this. Weight 0 with an anchor measures alone.
    An anchor costs a run of the drawn captions through the frozen start.
    """

    entropy: Weight = 0.0  # of words
    gaze_entropy: Weight = 0.0  # of the choices besides words, where a policy makes any
    anchor: Literal["none", "kl", "cross_entropy"] = "none"
    weight: Weight = 0.0  # of the anchor


class Regulariser:
    def __init__(self, policy: Policy, settings: Regularise, drawing: Drawing) -> None:
        if settings.anchor != "none" and drawing.truncates:
            raise ConfigError(
                f"trainer.regularise.anchor={settings.anchor}: compares whole distributions, and trainer.rollout "
                "truncates them; leave out top_k and top_p, or the anchor"
            )
        if settings.anchor == "none" and settings.weight:
            raise ConfigError(
                f"trainer.regularise.weight={settings.weight}: weighs an anchor, and there is none; "
                "set trainer.regularise.anchor to kl or cross_entropy"
            )
        if settings.gaze_entropy and not policy.coins:
            raise ConfigError(
                f"trainer.regularise.gaze_entropy={settings.gaze_entropy}: the policy makes no choices besides words; "
                "leave it out, or take policy.name=hard_attention"
            )
        self.settings = settings
        self.said: tuple[Rollout, Tensor] | None = None  # of the last rollout, by the start
        self.start = None if settings.anchor == "none" else copy.deepcopy(policy).eval().requires_grad_(False)

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The start is saved with the run, which may be resumed when the start is gone."""
        return {} if self.start is None else {"start": self.start}

    def __call__(self, rollout: Rollout, scored: Scored) -> tuple[Tensor, dict[str, Tensor]]:
        """What to add to the loss, and curves."""
        settings, mask, length = self.settings, rollout.chosen, rollout.drawing.length
        with torch.set_grad_enabled(settings.entropy > 0 and torch.is_grad_enabled()):
            entropy = entropy_of(scored.distribution)
        loss = -settings.entropy * losses.caption_mean(entropy, mask, length)
        curves = {"policy/entropy": losses.masked_mean(entropy.detach(), mask)}
        curves |= gaze_curves(scored.attention, rollout.mask)
        if settings.gaze_entropy and scored.choice_entropy is not None:  # behind forced words too: it is chosen there
            gaze = losses.caption_mean(scored.choice_entropy, rollout.mask, length)
            loss = loss - settings.gaze_entropy * gaze
        if self.start is None:
            return loss, curves
        with torch.no_grad():
            if self.said is None or self.said[0] is not rollout:  # once, however many steps a rollout is good for
                self.said = rollout, rescore(self.start, rollout).distribution
            start = self.said[1]
            apart = losses.kl_divergence(scored.distribution, start)
        curves["policy/kl_to_start"] = losses.masked_mean(apart, mask)
        if settings.weight:
            if settings.anchor == "kl":
                apart = losses.kl_divergence(scored.distribution, start)
            else:
                apart = losses.kl_divergence(start, scored.distribution)  # the cross-entropy less a constant
            loss = loss + settings.weight * losses.caption_mean(apart, mask, length)
        return loss, curves

    def end(self) -> None:
        """The rollout has served: nothing of it is kept while the next one is drawn."""
        self.said = None
