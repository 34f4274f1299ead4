"""The glimpse environment: one region at a time, and what is seen beside it."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import rlcap.envs  # noqa: F401  registers
from rlcap.envs.caption import CaptionEnv
from rlcap.envs.glimpse import GlimpseEnv
from rlcap.envs.world import World, tiny_world

REGIONS = 16


@pytest.fixture(scope="module")
def world() -> World:
    return tiny_world(6)


def features_of(world: World, image: int) -> np.ndarray:
    return world.source.read(torch.tensor([image])).values[0].numpy()


@pytest.mark.parametrize("peripheral", ["all", "mean", "none"])
def test_gymnasium_finds_nothing_to_complain_of(peripheral):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make("rlcap/Glimpse-v0", peripheral=peripheral, action_mask=peripheral == "all")
        check_env(env.unwrapped)


def test_what_is_looked_at_is_seen_with_the_next_observation(world):
    env = GlimpseEnv(world)
    features = features_of(world, 2)
    seen, _ = env.reset(options={"image": 2})
    assert (seen["where"], seen["glimpse"].any()) == (REGIONS, False)
    for where in (5, 11, 0):
        seen, *_ = env.step(np.array([where, world.codec.start]))
        assert seen["where"] == where
        np.testing.assert_array_equal(seen["glimpse"], features[where])


def test_a_new_caption_has_seen_nothing_yet(world):
    env = GlimpseEnv(world)
    for _ in range(2):
        seen, info = env.reset()
        assert (seen["where"], seen["glimpse"].any()) == (REGIONS, False)
        assert np.flatnonzero(info["action_mask"][REGIONS:]).tolist() == [world.codec.start]
        env.step([3, world.codec.start])


def test_what_is_returned_is_the_callers_alone(world):
    env = GlimpseEnv(world)
    env.reset(options={"image": 2})
    for _ in range(2):
        seen, *_ = env.step([5, 4])
        np.testing.assert_array_equal(seen["glimpse"], features_of(world, 2)[5])
        for part in seen.values():
            part[...] = 0


def test_the_corner_of_the_eye(world):
    features = features_of(world, 3)
    seen = {kind: GlimpseEnv(world, peripheral=kind).reset(options={"image": 3})[0] for kind in ("all", "mean", "none")}
    np.testing.assert_array_equal(seen["all"]["features"], features)
    np.testing.assert_allclose(seen["mean"]["mean"], features.mean(0), rtol=1e-6)
    assert seen["none"].keys() == {"glimpse", "where", "words", "step"}
    assert seen["mean"].keys() == seen["none"].keys() | {"mean"}


@pytest.mark.parametrize("reward", ["terminal", "spread"])
def test_behind_the_first_look_it_pays_as_captions_do(world, reward):
    words = [*world.codec.encode(world.references.tokens[1][0]), world.codec.end]
    plain, glimpse = CaptionEnv(world, reward=reward), GlimpseEnv(world, reward=reward)
    plain.reset(options={"image": 1})
    seen, info = glimpse.reset(options={"image": 1})
    assert np.flatnonzero(info["action_mask"][REGIONS:]).tolist() == [world.codec.start]
    seen, pay, *ends, info = glimpse.step([3, words[-1]])
    assert (seen["step"], pay, *ends) == (0, 0.0, False, False)
    assert not seen["words"].any()
    for word in words:
        mask = info["action_mask"]
        assert mask[:REGIONS].all()
        assert (mask[REGIONS:] == plain.action_masks()).all()
        wanted = plain.step(word)
        seen, *got, info = glimpse.step([4, word])
        assert got == list(wanted[1:4])
        assert (seen["words"] == wanted[0]["words"]).all()
    assert glimpse.caption == " ".join(world.references.tokens[1][0])
    with pytest.raises(ResetNeeded):
        glimpse.step([0, 4])


def test_a_seed_makes_the_images_of_the_caption_environment(world):
    glimpse, plain = GlimpseEnv(world), CaptionEnv(world)
    seeds = [5, None, None, None, 6, None]
    images = [glimpse.reset(seed=seed)[1]["image"] for seed in seeds]
    assert images == [plain.reset(seed=seed)[1]["image"] for seed in seeds]
    assert len(set(images)) > 1


def test_the_frame_shows_where_it_looks(world):
    env = GlimpseEnv(world, render_mode="rgb_array")
    env.reset(options={"image": 0})
    plain = env.render()
    env.step([0, world.codec.start])
    lit = env.render()
    assert (lit[:64, :64] == plain[:64, :64]).all()
    assert lit[:256, 70:].mean() < plain[:256, 70:].mean() / 3
