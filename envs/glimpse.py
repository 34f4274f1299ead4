"""`rlcap/Glimpse-v0`: to see is to act. One region is seen at a time; an action looks and speaks."""

from typing import Any, Literal, get_args

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlcap.envs.caption import CaptionEnv, Observation
from rlcap.envs.episodes import RewardTime, shortened, whole_numbers
from rlcap.envs.world import World
from rlcap.errors import ConfigError, did_you_mean

Peripheral = Literal["all", "mean", "none"]


class GlimpseEnv(gymnasium.Env[Any, NDArray[np.int64]]):
    """An action is (where to look next, which word to say): the word is chosen by what was seen before.

    So nothing is said with the first action, which only looks (its legal word is the start); T words take T + 1
    actions. Observation: the region seen (`glimpse`, (D,)) and its number (`where`, (1,), R before the first look),
    `words` and `step` as in Caption-v0, and from the corner of the eye: "all" regions (`features`, `feature_mask`),
    their `mean` (D,), or "none". Rewards, ends, seeds and options are those of Caption-v0. Nothing seen before is in
    the observation: with "none", an agent without memory knows the image by the one region that it looks at.
    """

    metadata = CaptionEnv.metadata

    def __init__(
        self,
        world: World | None = None,
        *,
        peripheral: Peripheral = "mean",
        length: int | None = None,
        reward: RewardTime = "terminal",
        action_mask: bool = False,
        render_mode: str | None = None,
    ) -> None:
        if peripheral not in get_args(Peripheral):
            near = did_you_mean(peripheral, get_args(Peripheral))
            raise ConfigError(f"peripheral={peripheral!r}: there is no such way to see{near}")
        self._speech = CaptionEnv(
            world, length=length, reward=reward, features=peripheral == "all", render_mode=render_mode
        )
        self.world, self.render_mode = self._speech.world, render_mode
        self._peripheral, self._shows_mask = peripheral, action_mask
        self._regions, self._width = self.world.source.shape.regions, self.world.source.shape.width
        self.action_space = spaces.MultiDiscrete([self._regions, self.world.codec.size])
        self.observation_space = self._space()
        self._features = np.zeros((self._regions, self._width), np.float32)
        self._real = np.zeros(self._regions, bool)
        self._where = self._regions  # nowhere yet
        self._begun = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        told, _ = self._speech.reset(
            seed=None if self._begun and seed is None else self.np_random_seed, options=options
        )
        found = self.world.source.read(self._speech.episodes.images)
        self._features, self._real = found.values[0].cpu().numpy(), found.mask[0].cpu().numpy()
        self._where, self._begun = self._regions, True
        return self._observation(told), self._info()

    def step(self, action: NDArray[np.int64]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        known = f"a region (0 to {self._regions - 1}) and a word (0 to {self.world.codec.size - 1})"
        asked = whole_numbers(action, "action", known).cpu().numpy()
        if not self.action_space.contains(asked):
            raise ConfigError(f"action {shortened(action)}: give {known}")
        where, word = (int(part) for part in asked)
        first = self._begun and self._where == self._regions
        if first:
            told, reward, ended, cut = self._speech.observation(), 0.0, False, False
        else:
            told, reward, ended, cut, _ = self._speech.step(np.int64(word))
        self._where = where
        self._speech.annotate(np.arange(self._regions) == where)
        return self._observation(told), reward, ended, cut, self._info()

    def action_masks(self) -> NDArray[np.bool_]:
        """(R + V,): where there is something to see, and which words may be said. As sb3-contrib asks for it."""
        words = self._speech.action_masks()
        if self._where == self._regions:
            words = np.arange(len(words)) == self.world.codec.start
        return np.concatenate((self._real, words))

    @property
    def image(self) -> int:
        """The row of the world that the caption is about."""
        return self._speech.image

    @property
    def caption(self) -> str:
        """The words so far."""
        return self._speech.caption

    def render(self) -> str | NDArray[np.uint8] | None:
        """The frame shows where the agent looks."""
        return self._speech.render()

    def _space(self) -> spaces.Dict:
        low, high = self.world.source.bounds
        seen = spaces.Box(min(low, 0), max(high, 0), (self._width,), np.float32)
        parts: dict[str, gymnasium.Space[Any]] = dict(
            self._speech.episodes.space(features=self._peripheral == "all", action_mask=False).spaces
        )
        parts |= {"glimpse": seen, "where": spaces.Box(0, self._regions, (1,), np.int64)}
        if self._peripheral == "mean":
            parts["mean"] = seen
        if self._shows_mask:
            parts["action_mask"] = spaces.MultiBinary(self._regions + self.world.codec.size)
        return spaces.Dict(parts)

    def _observation(self, told: Observation) -> Observation:
        seen = self._features[self._where] if self._where < self._regions else np.zeros(self._width, np.float32)
        told = told | {"glimpse": seen.copy(), "where": np.array([self._where])}
        if self._peripheral == "mean":
            told["mean"] = self._features[self._real].mean(0)
        if self._shows_mask:
            told["action_mask"] = self.action_masks().astype(np.int8)
        return told

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self.action_masks().astype(np.int8), "image": self.image}
