"""Written in the making, a row each: what all environments, single or vector, are built on."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlcap.contracts import Candidates
from rlcap.envs.transition import Written, drawn_images, legal_words, restarted, transition
from rlcap.envs.world import World, tiny_world
from rlcap.errors import ConfigError, did_you_mean

LONGEST = 20  # words of a caption, unless the references are shorter or a length is given
SEEDS = 2**62  # gymnasium's own seeds have 128 bits

RewardTime = Literal["terminal", "spread"]


class Episodes:
    """Rows of captions about a world's images.

    `reward`: "terminal", with the last word; "spread", what each word adds to the reward of the words so far (of
    none it is 0), which sums to the terminal one (the potential-based shaping of Ng, Harada & Russell 1999).
    """

    def __init__(self, world: World | None, rows: int, length: int | None, reward: RewardTime) -> None:
        self.world = world = tiny_world() if world is None else world
        if not isinstance(world, World):
            raise ConfigError(f"world={world!r}: is no World; make one with rlcap.envs.world.world_of(PATH)")
        if reward not in get_args(RewardTime):
            raise ConfigError(f"reward={reward!r}: there is no such way{did_you_mean(reward, get_args(RewardTime))}")
        if not _counts(rows, 1) or (length is not None and not _counts(length, 2)):
            raise ConfigError(f"{rows!r} rows of {length!r} words: give whole numbers, at least one row and two words")
        self.rows, self.spread = rows, reward == "spread"
        self.length = length or min(LONGEST, 1 + max(len(text) for image in world.references.tokens for text in image))
        codec, device = world.codec, world.device
        self.captions = Written.empty(rows, self.length, codec.pad, device)
        self.images = torch.zeros(rows, dtype=torch.long, device=device)
        self._earned = torch.zeros(rows, device=device, dtype=world.references.dtype)
        self._seeds, self._episodes = torch.zeros_like(self.images), torch.full_like(self.images, -1)
        self.legal = torch.ones(codec.size, dtype=torch.bool, device=device)
        self.legal[list(codec.banned)] = False
        self._written = torch.arange(codec.size, device=device).masked_fill(~self.legal, world.unknown)

    def seed(self, seeds: Iterable[int], rows: Tensor) -> None:
        """Each of these rows (rows,) bool draws its images by its own seed from now on, as if it were alone."""
        sown = torch.tensor([seed % SEEDS for seed in seeds], device=rows.device)
        self._seeds = torch.where(rows, sown, self._seeds)
        self._episodes = self._episodes.masked_fill(rows, -1)

    def begin(self, rows: Tensor, images: Tensor | None = None) -> None:
        """New captions in these rows (rows,) bool, of `images` (rows,) or of drawn ones."""
        self._episodes = self._episodes + rows.long()
        if images is None:
            images = drawn_images(self._seeds, self._episodes, len(self.world))
        self.images = torch.where(rows, images, self.images)
        self.captions = restarted(self.captions, rows, self.world.codec.pad)
        self._earned = self._earned.masked_fill(rows, 0)

    def say(self, words: Tensor) -> Tensor:
        """One word a row, (rows,); what is no word is written as unknown, and matches nothing. -> (rows,) rewards."""
        before = self.captions.over
        self.captions = transition(self.captions, self._written[words], self.world.codec)
        if self.spread:
            total = self._judged()
            reward, self._earned = (
                (total - self._earned).masked_fill(before, 0),
                torch.where(before, self._earned, total),
            )
            return reward
        last = self.captions.over & ~before
        if last.device.type == "cpu" and not last.any():  # an accelerator judges rather than tell the host
            return torch.zeros_like(self._earned)
        return self._judged().masked_fill(~last, 0)

    def _judged(self) -> Tensor:
        """(rows,) of the captions as they stand. Rewards learn nothing from them: none counts as drawn."""
        captions = self.captions
        candidates = Candidates(captions.words[:, None], captions.step[:, None], self.images, drawn=0)
        return self.world.judge(candidates).total[:, 0]

    def legal_words(self) -> Tensor:
        """(rows, V) bool, new."""
        return legal_words(self.captions, self.legal, self.world.codec.pad)

    def observation(self, *, features: bool, action_mask: bool) -> dict[str, Tensor]:
        """New tensors, rows first."""
        seen = {"words": self.captions.words.clone(), "step": self.captions.step[:, None].clone()}
        if features:
            found = self.world.source.read(self.images)
            seen |= {"features": found.values, "feature_mask": found.mask.to(torch.int8)}
        if action_mask:
            seen["action_mask"] = self.legal_words().to(torch.int8)
        return seen

    def space(self, *, features: bool, action_mask: bool) -> spaces.Dict:
        """Of one row's observation."""
        codec = self.world.codec
        parts: dict[str, gymnasium.Space[Any]] = {
            "words": spaces.Box(0, codec.size - 1, (self.length,), np.int64),
            "step": spaces.Box(0, self.length, (1,), np.int64),
        }
        if features:
            shape, (low, high) = self.world.source.shape, self.world.source.bounds
            parts["features"] = spaces.Box(low, high, (shape.regions, shape.width), np.float32)
            parts["feature_mask"] = spaces.MultiBinary(shape.regions)
        if action_mask:
            parts["action_mask"] = spaces.MultiBinary(codec.size)
        return spaces.Dict(parts)

    def text(self, row: int) -> str:
        """The words so far."""
        said: Sequence[int] = self.captions.words[row, : int(self.captions.step[row])].tolist()
        return " ".join(self.world.codec.words(said))

    def chosen(self, images: object, samples: object = 1) -> Tensor:
        """(rows,) of the images that someone asked for, each for `samples` neighbouring rows."""
        asked = whole_numbers(images, "images", f"0 to {len(self.world) - 1}").flatten()
        each = whole_numbers(samples, "samples", "captions of each image")
        if each.numel() != 1 or len(asked) * int(each) != self.rows:
            said = f"{len(asked)} images x {shortened(samples)} samples"
            raise ConfigError(f"{said} do not fill {self.rows} rows; give as many")
        if asked.device.type == "cpu" and len(absent := asked[(asked < 0) | (asked >= len(self.world))]):
            raise ConfigError(f"image {int(absent[0])}: the world has images 0 to {len(self.world) - 1}")
        return asked.to(self.images.device).repeat_interleave(int(each))


def whole_numbers(values: object, what: str, known: str) -> Tensor:
    """`values` as ids. What torch would silently cut to a whole number is refused."""
    try:
        found = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        found = torch.empty(0)
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise ConfigError(f"{what} {shortened(values)}: give whole numbers, {known}")
    return found.long()


def shortened(values: object) -> str:
    """On one line of a message."""
    text = " ".join(str(values.tolist() if isinstance(values, Tensor | np.ndarray) else values).split())
    return text if len(text) <= 60 else f"{text[:60]}…"


def _counts(number: object, least: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= least
