"""`rlcap/Adversarial-v0`: a discriminator judges the caption, and lets the agent see what it sees of every prefix."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from rlcap.contracts import Candidates, Judgement
from rlcap.envs.caption import CaptionEnv, Observation
from rlcap.envs.episodes import RewardTime
from rlcap.envs.world import UNBOUNDED, World, tiny_world
from rlcap.models.discriminators import Discriminating, Discriminator, make_discriminator


class AdversarialEnv(CaptionEnv):
    """Caption-v0 with `leaked` (F,) in the observation too: the feature that LeakGAN's Manager sees (arXiv 1709.08624).

    The reward is the probability that the discriminator gives to the caption's being a person's. Without one there is
    a small random one, which has learned nothing. Whoever trains it goes on to see what it leaks from then on.
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        discriminator: Discriminator | None = None,
        length: int | None = None,
        reward: RewardTime = "terminal",
        features: bool = True,
        action_mask: bool = False,
        render_mode: str | None = None,
    ) -> None:
        world = tiny_world() if world is None else world
        self.discriminator = _untrained(world) if discriminator is None else discriminator
        super().__init__(
            replace(world, judge=self._judge),
            length=length,
            reward=reward,
            features=features,
            action_mask=action_mask,
            render_mode=render_mode,
        )
        leaked = spaces.Box(-UNBOUNDED, UNBOUNDED, (self.discriminator.width,), np.float32)
        others = self.episodes.space(features=features, action_mask=action_mask).spaces
        self.observation_space = spaces.Dict({**others, "leaked": leaked})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        self._read(self.world.codec.start, self.discriminator.start(1))
        return super().reset(seed=seed, options=options)

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        observation, reward, ended, cut, info = super().step(action)
        written = self.episodes.captions
        self._read(int(written.words[0, int(written.step) - 1]), self._state)
        return {**observation, "leaked": self._leaked.copy()}, reward, ended, cut, info

    def observation(self) -> Observation:
        return {**super().observation(), "leaked": self._leaked.copy()}

    @torch.no_grad()
    def _read(self, word: int, state: Any) -> None:
        self.discriminator.eval()
        leaked, self._state = self.discriminator.extend(torch.tensor([word], device=self.world.device), state)
        self._leaked = leaked[0].float().cpu().numpy()

    @torch.no_grad()
    def _judge(self, candidates: Candidates) -> Judgement:
        self.discriminator.eval()
        seen = self.discriminator.remember(self.world.source.read(candidates.images))
        return Judgement(self.discriminator.judge_captions(candidates.words, candidates.lengths, seen).sigmoid(), {})


def _untrained(world: World) -> Discriminator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = make_discriminator(world.codec, world.source.shape, Discriminating(embedding=16, hidden=32))
    return made.to(world.device)
