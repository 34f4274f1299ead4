"""`rlcap/Caption-v0` as a native vector environment: many captions at once, as tensors on the world's device."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rlcap.envs.caption import CaptionEnv, check_options, shown
from rlcap.envs.episodes import Episodes, RewardTime, shortened, whole_numbers
from rlcap.envs.rendering import check_mode, check_weights
from rlcap.envs.world import World
from rlcap.errors import ConfigError, did_you_mean

Observation = dict[str, Tensor]
Actions = Tensor | NDArray[np.integer[Any]]


class CaptionVectorEnv(VectorEnv[Observation, Actions, Tensor]):
    """Row i with seed s is `CaptionEnv` with seed s + i, step for step.

    `step` never waits for an accelerator, as far as features are resident and rewards do not; so words out of range
    are refused on the CPU, and end in an accelerator's own assertion. All that `step` returns is new tensors.
    Gymnasium's wrappers that compute in numpy (RecordEpisodeStatistics, NormalizeReward, DictInfoToList) go around
    `gymnasium.wrappers.vector.ArrayConversion(envs, env_xp=torch, target_xp=numpy)`. `options` of `reset`:
    `images` (B,) with `samples` N, for B·N = num_envs rows, b·N + n; and, under DISABLED, `reset_mask` (num_envs,).
    Under SAME_STEP, `info["final_obs"]` and `["final_info"]` hold all rows, those that count being
    `info["_final_obs"]`. Under DISABLED a row that is over stays so: its flag stays up, and it earns nothing more.
    """

    def __init__(
        self,
        num_envs: int = 1,
        world: World | None = None,
        *,
        length: int | None = None,
        reward: RewardTime = "terminal",
        features: bool = True,
        action_mask: bool = False,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        self.episodes = Episodes(world, num_envs, length, reward)
        self.world, self.num_envs, self.render_mode = self.episodes.world, num_envs, check_mode(render_mode)
        self._mode = _mode(autoreset_mode)
        self.metadata = CaptionEnv.metadata | {"autoreset_mode": self._mode}
        self._shown = {"features": features, "action_mask": action_mask}
        self.single_observation_space = self.episodes.space(**self._shown)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.single_action_space = spaces.Discrete(self.world.codec.size)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._all = torch.ones_like(self.episodes.captions.ended)
        self._attention: Sequence[ArrayLike] | Tensor | None = None
        self._begun = False

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """`seed`: s, for s + i in row i; or one a row (None: as if it had been given none)."""
        options = options or {}
        check_options(options, ("images", "samples", "reset_mask"))
        rows = self._rows_of(options["reset_mask"]) if "reset_mask" in options else self._all
        if "samples" in options and "images" not in options:
            raise ConfigError("reset: 'samples' says how many captions each of 'images' gets; give those too")
        images = self.episodes.chosen(options["images"], options.get("samples", 1)) if "images" in options else None
        self._seed(seed, rows)
        self.episodes.begin(rows, images)
        self._begun, self._attention = True, None
        return self._observation(), self._info()

    def step(self, actions: Actions) -> tuple[Observation, Tensor, Tensor, Tensor, dict[str, Any]]:
        if not self._begun:
            raise ResetNeeded("no caption has begun: call reset() before step()")
        episodes = self.episodes
        due = episodes.captions.over
        reward = episodes.say(self._words(actions))
        if self._mode is AutoresetMode.NEXT_STEP:
            episodes.begin(due)
        ended, over = episodes.captions.ended.clone(), episodes.captions.over
        final: dict[str, Any] = {}
        if self._mode is AutoresetMode.SAME_STEP:
            final = {"final_obs": self._observation(), "final_info": self._info()}
            final |= {"_final_obs": over.clone(), "_final_info": over.clone()}
            episodes.begin(over)
        self._attention = None
        return self._observation(), reward, ended, over & ~ended, self._info() | final

    def action_masks(self) -> Tensor:
        """(num_envs, V) bool: which words may be said next; behind a caption, padding alone."""
        return self.episodes.legal_words()

    def annotate(self, attention: Sequence[ArrayLike] | Tensor | None) -> None:
        """Weights (num_envs, R) of the regions that the next frames show; the next word clears them."""
        check_weights(attention, (self.num_envs, self.world.source.shape.regions))
        self._attention = attention

    def render(self) -> tuple[Any, ...] | None:
        if self.render_mode is None:
            return None
        if not self._begun:
            raise ResetNeeded("nothing to show yet: call reset() before render()")
        weights = [None] * self.num_envs if self._attention is None else self._attention
        return tuple(shown(self.episodes, row, self.render_mode, weights[row]) for row in range(self.num_envs))

    def _seed(self, seed: int | Sequence[int | None] | None, rows: Tensor) -> None:
        if not isinstance(seed, Sequence):
            super().reset(seed=seed)
        if not self._begun or isinstance(seed, int):
            first = self.np_random_seed or 0
            self.episodes.seed(range(first, first + self.num_envs), rows)
        if isinstance(seed, Sequence):
            known = all(each is None or (isinstance(each, int) and each >= 0) for each in seed)
            if len(seed) != self.num_envs or not known:
                raise ConfigError(f"seed={shortened(seed)}: give a number from 0 up, or a list of {self.num_envs}")
            told = torch.tensor([each is not None for each in seed], device=rows.device)
            self.episodes.seed([each or 0 for each in seed], rows & told)

    def _words(self, actions: Actions) -> Tensor:
        words = whole_numbers(actions, "actions", f"words 0 to {self.world.codec.size - 1}")
        if words.shape != (self.num_envs,):
            raise ConfigError(f"actions of shape {tuple(words.shape)}: give a word for each of {self.num_envs} rows")
        if words.device.type == "cpu" and not ((words >= 0) & (words < self.world.codec.size)).all():
            raise ConfigError(f"actions {words.min()} to {words.max()}: words are 0 to {self.world.codec.size - 1}")
        return words.to(self.world.device, non_blocking=True)

    def _rows_of(self, mask: Any) -> Tensor:
        rows = torch.as_tensor(mask)
        if rows.shape != (self.num_envs,) or rows.dtype != torch.bool:
            raise ConfigError(f"reset_mask: give {self.num_envs} booleans, not {rows.dtype} of {tuple(rows.shape)}")
        if self._mode is not AutoresetMode.DISABLED:
            raise ConfigError(f"reset_mask: goes with autoreset_mode Disabled, not {self._mode.value}")
        if not self._begun:
            raise ResetNeeded("reset_mask: no row has begun; call reset() without it first")
        return rows.to(self.world.device)

    def _observation(self) -> Observation:
        return self.episodes.observation(**self._shown)

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self.action_masks().to(torch.int8), "image": self.episodes.images.clone()}


def _mode(name: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(name)
    except ValueError as error:
        near = did_you_mean(str(name), [mode.value for mode in AutoresetMode])
        raise ConfigError(f"autoreset_mode={name!r}: there is no such mode{near}") from error
