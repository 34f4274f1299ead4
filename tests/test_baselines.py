"""Baselines: pinned numbers, the advantages of single words, the critic, and how noisy each leaves the gradient."""

import copy
import json

import pytest
import torch
from torch import Tensor, nn
from toy_policies import ToyCodec, ToyPolicy, toy_features

from rlcap.agents.baselines import BASELINES, CriticSettings, make_baseline
from rlcap.agents.optimisers import Optimiser
from rlcap.agents.rollout import Drawing, Rollout
from rlcap.agents.variance import Moments, gradient_variance
from rlcap.cli import main
from rlcap.contracts import Batch, Candidates, Course, Judgement
from rlcap.decoding.loop import Captions
from rlcap.errors import ConfigError
from rlcap.models.critic import Critic

REWARDS = torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]])
GREEDY = torch.tensor([[5.0], [3.0]])


def rollout(rewards: Tensor = REWARDS, by_word: Tensor | None = None) -> Rollout:
    """Three drawn captions of each of two images, and a greedy one."""
    total = torch.cat((rewards, GREEDY), 1)
    words = torch.full((2, 4, 2), 4)
    captions = Captions(words, torch.ones_like(words).bool(), torch.zeros(2, 4, 2))
    memory = {"seen": torch.tensor([[0.0, 1.0], [1.0, 0.0]])}
    return Rollout(captions, Judgement(total, {}, by_word), toy_features(2), memory, Drawing(samples=3))


PINNED = {
    "none": REWARDS,
    "moving_average": REWARDS,  # nothing was seen before
    "greedy": torch.tensor([[-4.0, -3.0, 1.0], [1.0, 1.0, 1.0]]),
    "leave_one_out": torch.tensor([[-3.0, -1.5, 4.5], [0.0, 0.0, 0.0]]),
    "mean": torch.tensor([[-2.0, -1.0, 3.0], [0.0, 0.0, 0.0]]),
    "group": torch.tensor([[-2.0, -1.0, 3.0], [0.0, 0.0, 0.0]]) / (14 / 3) ** 0.5,
    "critic": REWARDS,  # it expects 0 before it learns
}


@pytest.mark.parametrize("name", BASELINES)
def test_advantages_by_hand(name):
    advantage = make_baseline(name, 3, Course(1))(rollout())
    # group adds 1e-4 to a deviation of 2.2
    assert torch.allclose(advantage, PINNED[name][..., None], atol=2e-4)


def test_the_moving_average_is_that_of_earlier_updates():
    baseline = make_baseline("moving_average", 3, Course(1))
    baseline.learn(rollout())  # the mean is 3.5
    assert float(baseline.learn(rollout(REWARDS + 10))["baseline/average"]) == pytest.approx(0.9 * 3.5 + 0.1 * 13.5)
    other = make_baseline("moving_average", 3, Course(1))
    other.load_state_dict(baseline.state_dict())
    assert torch.allclose(other(rollout()), (REWARDS - 4.5)[..., None])


def test_a_word_is_paid_for_what_comes_after_it():
    """Of a total of 6, the first word earned 1 and the second 2, so the second has 5 to come."""
    by_word = torch.zeros(2, 4, 2)
    by_word[0, 2] = torch.tensor([1.0, 2.0])
    by_word[0, 3] = torch.tensor([0.5, 0.0])
    drawn = rollout(by_word=by_word)
    assert make_baseline("none", 3, Course(1))(drawn)[0, 2].tolist() == [6, 5]
    assert make_baseline("greedy", 3, Course(1))(drawn)[0, 2].tolist() == [6 - 5, 5 - 4.5]
    assert make_baseline("leave_one_out", 3, Course(1))(drawn)[0, 2].tolist() == [4.5, 3.5]


def test_the_critic_learns_what_to_expect_of_each_image():
    torch.manual_seed(1)
    settings = CriticSettings(hidden=32, optimiser=Optimiser(lr=0.01))
    baseline = make_baseline("critic", 3, Course(400), settings)
    curves = [baseline.learn(rollout()) for _ in range(400)]
    assert float(curves[-1]["critic/loss"]) == pytest.approx(14 / 3 / 2, abs=0.01)  # what rewards differ by
    # Both images' means, 3 and 4
    assert torch.allclose(baseline(rollout())[:, 0, 0], torch.tensor([1.0 - 3, 4.0 - 4]), atol=0.05)
    other = make_baseline("critic", 3, Course(400), settings)
    other.networks["critic"].load_state_dict(baseline.networks["critic"].state_dict())
    other.load_state_dict(copy.deepcopy(baseline.state_dict()))
    baseline.learn(rollout())
    other.learn(rollout())
    assert other(rollout()).equal(baseline(rollout()))


def test_the_critic_takes_whatever_a_policy_keeps():
    torch.manual_seed(1)
    critic = Critic(hidden=4)
    nn.init.ones_(critic.outer.weight)
    memory = (
        {"a": torch.randn(3, 5, 7), "mask": torch.ones(3, 5, dtype=torch.bool)},
        [torch.randn(3), torch.ones(3, 2)],
    )
    values = critic(memory)
    assert values.shape == (3,)
    assert len(set(values.tolist())) == 3


def test_what_compares_samples_needs_two():
    with pytest.raises(ConfigError, match=r"set trainer.rollout.samples to 2 or more"):
        make_baseline("leave_one_out", 1, Course(1))
    with pytest.raises(ConfigError, match="did you mean 'greedy'"):
        make_baseline("gredy", 2, Course(1))


def test_moments_are_those_of_all_vectors():
    vectors = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 3
    moments = Moments()
    for vector in vectors:
        moments.add(vector)
    noise = moments.noise()
    assert noise.variance == pytest.approx(float(vectors.var(0).sum()))
    assert noise.signal == pytest.approx(float(vectors.mean(0).square().sum() - vectors.var(0).sum() / 40))


def test_comparing_samples_takes_out_noise():
    def judge(candidates: Candidates) -> Judgement:
        """Images differ more than captions do."""
        liked = (candidates.words == 4).sum(-1) + 10.0 * candidates.images[:, None]
        return Judgement(liked, {})

    nothing = torch.zeros(6, 1, 1, dtype=torch.long)
    batch = Batch(torch.arange(6), toy_features(6), nothing, nothing.bool())
    policy = ToyPolicy(ToyCodec(), seed=3)
    names = ["none", "greedy", "leave_one_out", "mean"]
    noise = gradient_variance(policy, batch, judge, names, 30, drawing=Drawing(samples=4, length=5), warm_up=1)
    assert noise["none"].variance > 20 * noise["leave_one_out"].variance
    assert noise["none"].variance > 20 * noise["greedy"].variance
    # On the very same draws, one is 3/4 of the other; float32
    assert noise["mean"].variance == pytest.approx(noise["leave_one_out"].variance * 9 / 16, rel=1e-4)
    assert noise["mean"].relative == pytest.approx(noise["leave_one_out"].relative, rel=1e-3)


def test_draws_that_show_no_signal_are_told(capsys):
    """Every reward is the same, so that without a baseline there is noise alone: of so few draws, more than signal."""
    nothing = torch.zeros(6, 1, 1, dtype=torch.long)
    batch = Batch(torch.arange(6), toy_features(6), nothing, nothing.bool())

    def judge(candidates: Candidates) -> Judgement:
        return Judgement(torch.ones(candidates.lengths.shape), {})

    noise = gradient_variance(
        ToyPolicy(ToyCodec(), seed=3), batch, judge, ["none"], 3, drawing=Drawing(samples=2, length=5), seed=1
    )
    assert noise["none"].relative == float("inf")
    assert capsys.readouterr().err == "inf (none): 3 draws are too few to tell signal from noise; take more\n"


def test_the_command_measures_the_last_stage(tmp_path, capsys):
    """With one sample an image, those baselines that compare samples are left out."""
    recipe, data = tmp_path / "two.yaml", tmp_path / "scenes"
    recipe.write_text(f"""# two stages
name: two
data: {{path: {data}}}
encoder: small_cnn
policy: {{name: soft_attention, hidden: 8, embedding: 8, attention: 8}}
training: {{images: 4, captions: 1, updates: 3}}
stages:
  words: {{trainer: cross_entropy}}
  scst: {{trainer: {{name: scst, rollout: {{samples: 1, length: 8}}}}, rewards: {{cider_d: 1.0}}}}
""")
    assert main(["prepare", "scenes", "--out", str(data), "--count", "30"]) == 0
    capsys.readouterr()
    assert main(["bench", "variance", str(recipe), "--draws", "2", "--device", "cpu", "--threads", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["baseline"] for row in rows] == ["none", "moving_average", "greedy", "critic"]
