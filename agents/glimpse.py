"""A captioner whose choices are regions, as an agent in `rlcap/Glimpse-v0` with `peripheral="all"`."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlcap.contracts import Features, Memory, Policy, State
from rlcap.decoding.choosing import Sampling, drawn, likeliest
from rlcap.decoding.constraints import Constraints, constrain
from rlcap.envs.caption import Observation
from rlcap.errors import ConfigError


class GlimpseAgent:
    """Observation -> action, caption after caption; it writes what the policy writes by itself.

    A policy's step looks and then speaks; an action of the environment speaks and then looks. So an action takes the
    word of one step and the gaze of the next. The distribution of gazes needs all regions, as the environment shows
    them from the corner of the eye. Where the policy sees the mean of all, the agent looks at the likeliest.
    `uniforms` (T, 1 + policy.coins), on the policy's device, draw words and gazes, as for `rlcap.decoding.loop.write`;
    without, both are the likeliest.
    """

    def __init__(self, policy: Policy, uniforms: Tensor | None = None) -> None:
        if not policy.coins:
            raise ConfigError(f"{type(policy).__name__}: makes no choices; take a policy that looks, as hard_attention")
        self.policy, self.uniforms = policy.eval(), uniforms
        self.device = next(policy.parameters()).device
        self.memory: Memory = None
        self.state: State = None
        self.logits = torch.empty(0)  # (1, V), of the next word
        self.where = 0  # the region that it was chosen by

    @torch.no_grad()
    def __call__(self, seen: Observation) -> NDArray[np.int64]:
        """The region to look at, and the word for what was seen before."""
        if "features" not in seen:
            raise ConfigError("the glimpse agent weighs all regions: make the environment with peripheral='all'")
        codec, t = self.policy.codec, int(seen["step"][0])
        words = torch.from_numpy(seen["words"])[None].to(self.device)
        if int(seen["where"][0]) == len(seen["features"]):  # nothing has been looked at yet
            values, mask = (torch.from_numpy(seen[name])[None] for name in ("features", "feature_mask"))
            self.memory = self.policy.remember(Features(values, mask > 0).to(self.device))
            self.state = self.policy.start(self.memory, 1, words.shape[1])
            self._look(torch.tensor([codec.start], device=self.device), 0)
            return np.array([self.where, codec.start])
        scores = constrain(self.logits, words, t, codec, Constraints())
        if self.uniforms is None:
            said = likeliest(scores)
        else:
            said = drawn(Sampling().log_probabilities(scores), self.uniforms[t : t + 1, 0])
        if said != codec.end and t + 1 < words.shape[1]:
            self._look(said, t + 1)
        return np.array([self.where, int(said)])

    def _look(self, said: Tensor, t: int) -> None:
        coins = None if self.uniforms is None else self.uniforms[t : t + 1, 1:]
        step = self.policy.step(said, self.state, self.memory, uniforms=coins, want=["attention"])
        assert step.choices is not None
        assert step.attention is not None
        gaze = torch.where(step.choices < 0, step.attention.argmax(-1), step.choices)
        self.state, self.logits, self.where = step.state, step.logits, int(gaze)
