"""Other people's agents learn in our environments, unmodified: make test-clients, with the extra `rl`.

A random agent earns 0.36 CIDEr-D on eight scenes (10 at best), each agent here more than 1.9 after half a minute on
one thread. The margin is half of what they gain.
"""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import rlcap.envs  # noqa: F401  registers
from rlcap.envs.world import World, tiny_world

pytestmark = pytest.mark.clients

MARGIN = 1.0  # CIDEr-D above a random agent
STEPS = 12_288


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world() -> World:
    return tiny_world(8)


class RandomAgent:
    """Says what may be said."""

    def __init__(self) -> None:
        self.dice = np.random.default_rng(0)

    def predict(self, seen: dict[str, np.ndarray], action_masks: np.ndarray) -> tuple[Any, None]:
        return self.dice.choice(np.flatnonzero(action_masks)), None


def mean_reward(agent: Any, env: gymnasium.Env, masked: bool, episodes: int = 80) -> float:
    """Of whole captions, each image equally often."""
    total = 0.0
    for episode in range(episodes):
        seen, info = env.reset(options={"image": episode % 8})
        over = False
        while not over:
            masks = {"action_masks": info["action_mask"]} if masked else {}
            action, _ = agent.predict(seen, **masks)
            seen, reward, ended, cut, info = env.step(action)
            total, over = total + reward, ended or cut
    return total / episodes


def summary(words: Tensor, step: Tensor, size: int) -> Tensor:
    """(rows, T) ids and (rows, 1) -> the words so far as a bag, the last one, and how many."""
    each = F.one_hot(words.long(), size).float()
    last = each[torch.arange(len(words)), (step[:, 0].long() - 1).clamp_min(0)]
    return torch.cat((each.sum(1), last, F.one_hot(step[:, 0].long(), words.shape[1] + 1).float()), 1)


def settings_of_ppo() -> dict[str, Any]:
    """Default networks over an input in which word ids are no magnitudes."""
    layers = pytest.importorskip("stable_baselines3.common.torch_layers")

    class Reader(layers.BaseFeaturesExtractor):
        def __init__(self, space: gymnasium.spaces.Dict) -> None:
            self.vocabulary = int(space["words"].high.max()) + 1
            self.looks = sorted(set(space.spaces) - {"words", "step", "where", "feature_mask"})
            width = sum(int(np.prod(space[name].shape)) for name in self.looks)
            super().__init__(space, 2 * self.vocabulary + space["words"].shape[0] + 1 + width)

        def forward(self, seen: dict[str, Tensor]) -> Tensor:
            looks = [seen[name].flatten(1) for name in self.looks]
            return torch.cat((summary(seen["words"], seen["step"], self.vocabulary), *looks), 1)

    policy = {"features_extractor_class": Reader}
    return {
        "n_steps": 64,
        "batch_size": 64,
        "n_epochs": 6,
        "learning_rate": 1e-3,
        "gamma": 1.0,
        "ent_coef": 0.01,
        "seed": 0,
        "device": "cpu",
        "policy_kwargs": policy,
    }


@pytest.mark.parametrize(
    ("name", "masked", "settings", "steps"),
    [
        ("rlcap/Caption-v0", False, {}, STEPS),
        ("rlcap/Caption-v0", True, {}, STEPS),
        ("rlcap/Glimpse-v0", True, {"peripheral": "all"}, 2 * STEPS),  # it has gazes to learn as well
    ],
)
def test_ppo_learns_to_caption(world, name, masked, settings, steps):
    stable = pytest.importorskip("sb3_contrib" if masked else "stable_baselines3")
    making = pytest.importorskip("stable_baselines3.common.env_util")
    envs = making.make_vec_env(name, 16, seed=0, env_kwargs={"world": world, "reward": "spread", **settings})
    agent = (stable.MaskablePPO if masked else stable.PPO)("MultiInputPolicy", envs, **settings_of_ppo())
    agent.learn(steps)
    learned = mean_reward(agent, gymnasium.make(name, world=world, **settings), masked)
    chance = mean_reward(RandomAgent(), gymnasium.make("rlcap/Caption-v0", world=world), True)
    print(f"\n{name}, {type(agent).__name__}: {learned:.2f}, a random agent {chance:.2f}")
    assert learned > chance + MARGIN


def test_the_vector_form_as_numpy(world):
    pytest.importorskip("array_api_compat")
    from gymnasium.wrappers.vector import ArrayConversion

    envs = ArrayConversion(gymnasium.make_vec("rlcap/Caption-v0", 3, world=world), env_xp=torch, target_xp=np)
    seen, info = envs.reset(options={"images": np.array([4, 0, 1])})
    assert {type(part) for part in (*seen.values(), *info.values())} == {np.ndarray}
    assert info["image"].tolist() == [4, 0, 1]
    _, reward, ended, cut, _ = envs.step(np.full(3, world.codec.end))
    assert (type(reward), ended.tolist(), cut.tolist()) == (np.ndarray, [True] * 3, [False] * 3)


@pytest.mark.parametrize("name", ["rlcap/Caption-v0", "rlcap/Glimpse-v0"])
@pytest.mark.parametrize("settings", [{}, {"action_mask": True, "reward": "spread"}])
def test_torchrl_finds_its_specs_kept(name, settings):
    torchrl = pytest.importorskip("torchrl.envs")
    torchrl.check_env_specs(torchrl.GymEnv(name, **settings))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_reinforce_of_thirty_lines_learns(world, seed):
    """Nothing but gymnasium's public interface: leave-one-out baseline over the captions of an image."""
    torch.manual_seed(seed)
    images, samples = 8, 8
    envs = gymnasium.make_vec("rlcap/Caption-v0", images * samples, world=world, autoreset_mode="Disabled")
    words = envs.single_observation_space["words"]
    vocabulary, length = int(words.high.max()) + 1, words.shape[0]
    features = int(np.prod(envs.single_observation_space["features"].shape))
    network = nn.Sequential(
        nn.Linear(2 * vocabulary + length + 1 + features, 128), nn.Tanh(), nn.Linear(128, vocabulary)
    )
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    earned = []
    for _ in range(150):
        seen, info = envs.reset(options={"images": np.arange(images), "samples": samples})
        total, log_p = torch.zeros(2, images * samples)
        over = torch.zeros(images * samples, dtype=torch.bool)
        while not over.all():
            told = torch.cat((summary(seen["words"], seen["step"], vocabulary), seen["features"].flatten(1)), 1)
            said = torch.distributions.Categorical(logits=network(told).masked_fill(info["action_mask"] == 0, -1e9))
            action = said.sample()
            log_p = log_p + said.log_prob(action)  # behind a caption only padding is legal: 0
            seen, reward, ended, cut, info = envs.step(action)
            total, over = total + reward, ended | cut
        grouped = total.view(images, samples)
        advantage = (grouped - (grouped.sum(1, keepdim=True) - grouped) / (samples - 1)).flatten()
        loss = -(advantage * log_p).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        earned.append(float(total.mean()))
    print(f"\nREINFORCE: {np.mean(earned[-10:]):.2f}, before {np.mean(earned[:3]):.2f}")
    assert np.mean(earned[-10:]) > np.mean(earned[:3]) + MARGIN
