"""What environments refuse, in one line that names the value and the remedy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gymnasium.error import Error as GymnasiumError
from gymnasium.error import ResetNeeded

from rlcap.envs.caption import CaptionEnv
from rlcap.envs.caption_vector import CaptionVectorEnv
from rlcap.envs.glimpse import GlimpseEnv
from rlcap.envs.world import World, tiny_world
from rlcap.errors import ConfigError

WORDS = "0 to 16"  # of six tiny scenes


@pytest.fixture(scope="module")
def world() -> World:
    return tiny_world(6)


def single(world, **settings):
    env = CaptionEnv(world, **settings)
    env.reset()
    return env


def vector(world, **settings):
    env = CaptionVectorEnv(2, world, **settings)
    env.reset()
    return env


def glimpse(world):
    env = GlimpseEnv(world)
    env.reset()
    return env


@pytest.mark.parametrize(
    ("asks", "error"),
    [
        # actions
        (lambda w: single(w).step(3.7), f"action 3.7: give whole numbers, a word is {WORDS}"),
        (lambda w: single(w).step(np.float32(3)), f"action 3.0: give whole numbers, a word is {WORDS}"),
        (lambda w: single(w).step(True), "action True: give whole numbers"),
        (lambda w: single(w).step("red"), "action red: give whole numbers"),
        (lambda w: single(w).step(None), "action None: give whole numbers"),
        (lambda w: single(w).step(17), f"action 17: a word is a whole number from {WORDS}"),
        (lambda w: single(w).step(np.array([3])), r"action \[3\]: a word is a whole number"),
        (lambda w: vector(w).step(np.array([1.5, 3])), rf"actions \[1.5, 3.0\]: give whole numbers, words {WORDS}"),
        (lambda w: vector(w).step(torch.tensor([4.0, 3.0])), r"actions \[4.0, 3.0\]: give whole numbers"),
        (lambda w: vector(w).step(torch.zeros(2, 17)), r"actions \[\[0.0, .*…: give whole numbers"),
        (lambda w: vector(w).step([3, 3, 3]), r"actions of shape \(3,\): give a word for each of 2 rows"),
        (lambda w: vector(w).step([99, 3]), f"actions 3 to 99: words are {WORDS}"),
        (lambda w: vector(w).step(np.array([-1, 3])), f"actions -1 to 3: words are {WORDS}"),
        (lambda w: glimpse(w).step([0.7, 4.2]), r"action \[0.7, 4.2\]: give whole numbers, a region \(0 to 15\)"),
        (lambda w: glimpse(w).step([16, 4]), rf"action \[16, 4\]: give a region \(0 to 15\) and a word \({WORDS}\)"),
        (lambda w: glimpse(w).step([0, 17]), r"action \[0, 17\]: give a region"),
        (lambda w: glimpse(w).step([0]), r"action \[0\]: give a region"),
        (lambda w: glimpse(w).step("red"), "action red: give whole numbers, a region"),
        # options of reset, and seeds
        (lambda w: single(w).reset(options={"image": 1.5}), "images 1.5: give whole numbers, 0 to 5"),
        (lambda w: single(w).reset(options={"image": -1}), "image -1: the world has images 0 to 5"),
        (lambda w: single(w).reset(options={"images": 1}), r"no option 'images' \(did you mean 'image'\?\)"),
        (lambda w: vector(w).reset(options={"images": [0, 6]}), "image 6: the world has images 0 to 5"),
        (lambda w: vector(w).reset(options={"images": [0.5, 1]}), r"images \[0.5, 1\]: give whole numbers, 0 to 5"),
        (lambda w: vector(w).reset(options={"images": 3}), "1 images x 1 samples do not fill 2 rows"),
        (lambda w: vector(w).reset(options={"images": [3], "samples": 1.5}), "samples 1.5: give whole numbers"),
        (lambda w: vector(w).reset(options={"images": [3], "samples": [2, 1]}), r"1 images x \[2, 1\] samples do not"),
        (lambda w: vector(w).reset(options={"samples": 2}), "'samples' says how many captions each of 'images' gets"),
        (lambda w: vector(w).reset(options={"image": 3}), r"no option 'image' \(did you mean 'images'\?\)"),
        (lambda w: vector(w).reset(options={"reset_mask": [True, False]}), "goes with autoreset_mode Disabled, not"),
        (
            lambda w: vector(w, autoreset_mode="Disabled").reset(options={"reset_mask": [1, 0]}),
            r"reset_mask: give 2 booleans, not torch.int64 of \(2,\)",
        ),
        (lambda w: vector(w).reset(seed=[1]), r"seed=\[1\]: give a number from 0 up, or a list of 2"),
        (lambda w: vector(w).reset(seed=[1, -2]), r"seed=\[1, -2\]: give a number from 0 up"),
        (lambda w: vector(w).reset(seed=[1, 2.5]), r"seed=\[1, 2.5\]: give a number from 0 up"),
        # settings
        (lambda w: CaptionEnv("data/flickr8k"), r"world='data/flickr8k': .* rlcap.envs.world.world_of\(PATH\)"),
        (lambda w: CaptionEnv(w, length=2.5), "1 rows of 2.5 words: give whole numbers"),
        (lambda w: CaptionEnv(w, length=1), "1 rows of 1 words: give whole numbers, at least one row and two words"),
        (lambda w: CaptionVectorEnv(0, w), "0 rows of None words: give whole numbers, at least one row"),
        (lambda w: CaptionVectorEnv(2.0, w), "2.0 rows of None words: give whole numbers"),
        (lambda w: CaptionEnv(w, reward="spred"), r"reward='spred': .* \(did you mean 'spread'\?\)"),
        (lambda w: GlimpseEnv(w, peripheral="al"), r"peripheral='al': .*did you mean 'all'"),
        (lambda w: CaptionVectorEnv(2, w, autoreset_mode="disabled"), r"mode='disabled': .*did you mean 'Disabled'"),
        *(
            (lambda w, env=env: env(world=w, render_mode="human"), "render_mode='human': .*one of ansi, rgb_array")
            for env in (CaptionEnv, CaptionVectorEnv, GlimpseEnv)
        ),
        # attention
        (lambda w: single(w).annotate(np.zeros(5)), r"attention of shape \(5,\): give \(16,\), a weight a region"),
        (lambda w: vector(w).annotate(torch.zeros(16)), r"attention of shape \(16,\): give \(2, 16\)"),
    ],
)
def test_refused_in_one_line(world, asks: Callable[[World], object], error):
    with pytest.raises(ConfigError, match=error) as caught:
        asks(world)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "asks",
    [
        lambda w: CaptionEnv(w).step(5),
        lambda w: CaptionVectorEnv(2, w).step(np.array([5, 5])),
        lambda w: GlimpseEnv(w).step([0, 5]),
        lambda w: CaptionEnv(w, render_mode="ansi").render(),
        lambda w: CaptionVectorEnv(2, w, render_mode="rgb_array").render(),
        lambda w: GlimpseEnv(w, render_mode="rgb_array").render(),
        lambda w: CaptionVectorEnv(2, w, autoreset_mode="Disabled").reset(options={"reset_mask": [True, False]}),
    ],
)
def test_nothing_goes_before_the_first_reset(world, asks):
    with pytest.raises(ResetNeeded, match=r"reset\(\)"):
        asks(world)


@pytest.mark.parametrize("bad", [{"options": {"image": 9}, "seed": 7}, {"options": {"imag": 1}}, {"seed": -1}])
def test_a_refused_reset_changes_nothing(world, bad):
    careless, careful = single(world), single(world)
    for env in (careless, careful):
        env.reset(seed=4)
    with pytest.raises((ConfigError, GymnasiumError)):
        careless.reset(**bad)
    assert careless.reset()[1]["image"] == careful.reset()[1]["image"]
