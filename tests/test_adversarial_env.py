"""Adversarial-v0: what it shows is what a policy with the discriminator inside sees; its reward is the judgement."""

import gymnasium
import pytest
import torch

import rlcap.envs  # noqa: F401  registers
from rlcap.envs.world import tiny_world
from rlcap.models.discriminators import Discriminating
from rlcap.models.leakgan import LeakGAN

END = 2


@pytest.fixture
def policy() -> LeakGAN:
    torch.manual_seed(2)
    world = tiny_world()
    settings = Discriminating(embedding=8, hidden=12, sees_image=True)
    return LeakGAN(world.codec, world.source.shape, hidden=8, embedding=8, manager=6, discriminator=settings).eval()


@pytest.mark.parametrize("way", ["terminal", "spread"])
def test_an_agent_sees_what_leaks_to_the_policy(policy, way):
    world, leaks = tiny_world(), policy.discriminator
    env = gymnasium.make("rlcap/Adversarial-v0", world=world, discriminator=leaks, reward=way).unwrapped
    for image, caption in ((3, [5, 9, 7, END]), (1, [6, END])):
        observation, _ = env.reset(options={"image": image})
        memory = policy.remember(world.source.read(torch.tensor([image])))
        state = policy.start(memory, 1, 8)
        shown, rewards = [observation["leaked"]], []
        for word in caption:
            observation, reward, *_ = env.step(word)
            shown.append(observation["leaked"])
            rewards.append(reward)
        words = torch.tensor([caption])
        with torch.no_grad():
            at_once = leaks.leak(words)[0]
            seen = leaks.remember(world.source.read(torch.tensor([image])))
            probability = leaks.judge(at_once[None, -1:], seen).sigmoid()
            for word, feature in zip([policy.codec.start, *caption], shown, strict=True):
                inside, state["leak"] = leaks.extend(torch.tensor([word]), state["leak"])
                assert torch.allclose(inside[0], torch.from_numpy(feature), atol=1e-6)
        assert torch.allclose(torch.stack([torch.from_numpy(each) for each in shown]), at_once, atol=1e-6)
        assert sum(rewards) == pytest.approx(float(probability), abs=1e-5)
        assert way == "spread" or rewards[:-1] == [0.0] * (len(caption) - 1)


def test_it_stands_without_arguments_and_shows_arrays_of_its_own():
    env = gymnasium.make("rlcap/Adversarial-v0")
    first, _ = env.reset(seed=1)
    kept = first["leaked"].copy()
    env.step(5)
    assert (first["leaked"] == kept).all()
    again, _ = env.reset(seed=1)
    assert (again["leaked"] == kept).all()
