"""`rlcap/Caption-v0`: one episode is one caption, one action is one word."""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rlcap.envs.episodes import Episodes, RewardTime, shortened, whole_numbers
from rlcap.envs.rendering import check_mode, check_weights, frame_of, line_of
from rlcap.envs.world import World
from rlcap.errors import ConfigError, did_you_mean

Observation = dict[str, NDArray[Any]]


class CaptionEnv(gymnasium.Env[Any, np.int64]):
    """In numpy, for everybody's agents.

    Observation: `words` so far (T,) and their number `step` (1,); with `features` also the image's `features`
    (R, D) and `feature_mask` (R,); with `action_mask` also which words may be said (V,).
    A caption terminates with the end token and is truncated at `length` words. What may not be said (padding, start,
    unknown) is written as unknown and matches no reference; a mask in `info` and `action_masks()` say what it is.
    `reset(options={"image": 3})` chooses the image; otherwise seed and number of the episode do.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012  as in gymnasium

    def __init__(
        self,
        world: World | None = None,  # None: the tiny built-in one
        *,
        length: int | None = None,  # words at most; None: as long as the longest reference, and 20 at most
        reward: RewardTime = "terminal",  # or "spread" over the words
        features: bool = True,
        action_mask: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.episodes = Episodes(world, 1, length, reward)
        self.world = self.episodes.world
        self._shown = {"features": features, "action_mask": action_mask}
        self.observation_space = self.episodes.space(**self._shown)
        self.action_space = spaces.Discrete(self.world.codec.size)
        self.render_mode = check_mode(render_mode)
        self._attention: ArrayLike | None = None
        self._begun = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        options = options or {}
        check_options(options, ("image",))
        images = self.episodes.chosen(options["image"]) if "image" in options else None
        super().reset(seed=seed)
        row = torch.ones_like(self.episodes.captions.ended)
        if seed is not None or not self._begun:
            self.episodes.seed([self.np_random_seed], row)
        self.episodes.begin(row, images)
        self._begun, self._attention = True, None
        return self.observation(), self._info()

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        if not self._begun or self.episodes.captions.over:
            raise ResetNeeded("the caption is over or has not begun: call reset() before step()")
        last = self.world.codec.size - 1
        said = whole_numbers(action, "action", f"a word is 0 to {last}")
        if said.shape != () or not 0 <= int(said) <= last:
            raise ConfigError(f"action {shortened(action)}: a word is a whole number from 0 to {last}")
        reward = float(self.episodes.say(said[None].to(self.world.device)))
        self._attention = None
        ended, over = bool(self.episodes.captions.ended), bool(self.episodes.captions.over)
        return self.observation(), reward, ended, over and not ended, self._info()

    def action_masks(self) -> NDArray[np.bool_]:
        """(V,): which words may be said next; behind a caption, padding alone. As sb3-contrib asks for it."""
        return self.episodes.legal_words()[0].cpu().numpy()

    @property
    def image(self) -> int:
        """The row of the world that the caption is about."""
        return int(self.episodes.images)

    @property
    def caption(self) -> str:
        """The words so far."""
        return self.episodes.text(0)

    def annotate(self, attention: ArrayLike | None) -> None:
        """Weights (R,) of the regions that the next frame shows; the next word clears them."""
        check_weights(attention, (self.world.source.shape.regions,))
        self._attention = attention

    def render(self) -> str | NDArray[np.uint8] | None:
        if self.render_mode is None:
            return None
        if not self._begun:
            raise ResetNeeded("nothing to show yet: call reset() before render()")
        return shown(self.episodes, 0, self.render_mode, self._attention)

    def observation(self) -> Observation:
        """What an agent sees now; new arrays."""
        seen = self.episodes.observation(**self._shown)
        return {name: part[0].cpu().numpy() for name, part in seen.items()}

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self.action_masks().astype(np.int8), "image": self.image}


def shown(episodes: Episodes, row: int, mode: str, attention: ArrayLike | None) -> str | NDArray[np.uint8]:
    """One row as text or as a frame."""
    world, image, text = episodes.world, int(episodes.images[row]), episodes.text(row)
    if mode == "ansi":
        step = int(episodes.captions.step[row])
        return line_of(world.references.images[image], step, episodes.length, text)
    picture = None if world.pictures is None else world.pictures(image)
    if attention is None:
        return frame_of(picture, text)
    weights = attention.detach().float().cpu() if isinstance(attention, Tensor) else attention
    seen = world.source.read(episodes.images[row : row + 1])
    boxes = None if seen.boxes is None else seen.boxes[0].cpu().numpy()
    return frame_of(picture, text, np.asarray(weights, np.float32), seen.grid, boxes)


def check_options(options: dict[str, Any], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            raise ConfigError(f"reset: there is no option '{name}'{did_you_mean(name, known)}")
