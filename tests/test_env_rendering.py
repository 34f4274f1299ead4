"""What environments show of themselves: the line, the frame, the attention that they were told."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rlcap.contracts import Features
from rlcap.envs.caption import CaptionEnv
from rlcap.envs.caption_vector import CaptionVectorEnv
from rlcap.envs.glimpse import GlimpseEnv
from rlcap.envs.world import Resident, World, tiny_world
from rlcap.errors import ConfigError


@pytest.fixture(scope="module")
def world() -> World:
    return tiny_world(6)


def test_drawn_and_told(world):
    env = CaptionEnv(world, render_mode="ansi")
    env.reset(options={"image": 1})
    env.step(world.codec.encode(["green"])[0])
    assert env.render() == f"{world.references.images[1]} [1/{env.episodes.length}] green"
    env = CaptionEnv(world, render_mode="rgb_array")
    env.reset(options={"image": 1})
    plain = env.render()
    assert (plain.shape, plain.dtype) == ((320, 256, 3), np.uint8)
    attention = np.zeros(16)
    attention[0] = 0.5
    env.annotate(attention)
    lit = env.render()
    assert (lit[:64, :64] == plain[:64, :64]).all()
    assert lit[70:256, 70:].mean() < plain[70:256, 70:].mean() / 3
    assert (lit[256:] == plain[256:]).all()
    env.step(world.codec.encode(["green"])[0])
    told = env.render()
    assert (told[:256] == plain[:256]).all()
    assert (told[256:] != plain[256:]).any()
    env.annotate(attention)
    env.reset(options={"image": 1})
    assert (env.render()[:256] == plain[:256]).all()


def test_every_row_is_drawn(world):
    env = CaptionVectorEnv(2, world, render_mode="rgb_array")
    env.reset(options={"images": [0, 1]})
    env.annotate(torch.full((2, 16), 1 / 16, dtype=torch.bfloat16, requires_grad=True))
    frames = env.render()
    single = CaptionEnv(world, render_mode="rgb_array")
    single.reset(options={"image": 1})
    assert (frames[1] == single.render()).all()
    assert (frames[0] != frames[1]).any()


@pytest.mark.parametrize("boxes", [True, False])
def test_regions_light_up_in_their_boxes(world, boxes):
    """Regions of no known place leave the picture as it is."""
    values = torch.zeros(6, 2, 3)
    places = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.25, 0.5, 1.0, 1.0]]).expand(6, 2, 4)
    source = Resident(Features(values, torch.ones(6, 2, dtype=torch.bool), boxes=places if boxes else None))
    env = GlimpseEnv(replace(world, source=source), render_mode="rgb_array")
    env.reset(options={"image": 1})
    plain = env.render()
    env.step([0, world.codec.start])
    lit = env.render()
    assert (lit[:256, :128] == plain[:256, :128]).all()  # where the other one overlaps, too
    dim = lit[:256, 128:].mean() / plain[:256, 128:].mean()
    assert dim == pytest.approx(0.25, abs=0.02) if boxes else dim == 1  # levels are rounded down


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -0.1])
def test_what_is_no_weight_is_refused(world, wrong):
    env = CaptionEnv(world, render_mode="rgb_array")
    env.reset()
    env.annotate([0.1] * 15 + [wrong])
    with pytest.raises(ConfigError, match="give finite weights, none below 0"):
        env.render()
