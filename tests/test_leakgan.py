"""LeakGAN's policy: where gradients go and where not, goals and what the Worker earns by hand."""

import pytest
import torch
from adversaries import END, batch, policy
from torch import Tensor
from toy_policies import toy_features

from rlcap import losses
from rlcap.agents.adversarial import goal_cosine
from rlcap.contracts import Features


def test_no_gradient_goes_where_it_must_not():
    of = policy(sees=True)
    names = [name for name, _ in of.named_parameters()]
    assert not any(name.startswith("discriminator") for name in names)
    assert any(name.startswith("discriminator") for name in of.state_dict())
    features = toy_features(2)
    features = Features(features.values.double(), features.mask)
    words = torch.randint(3, 6, (2, 2, 4), generator=torch.Generator().manual_seed(1))
    scores = of(features, words, want=["extras", "attention"])
    of.zero_grad()
    scores.log_prob.sum().backward(retain_graph=True)
    from_words = {name for name, each in of.named_parameters() if each.grad is not None and each.grad.abs().sum() > 0}
    assert not any(name.startswith(("manager", "direct")) for name in from_words)
    assert {"embed.weight", "embed_goal.weight", "attend.energy.weight", "output.weight"} <= from_words
    of.zero_grad()
    scores.extras["goals"].square().sum().backward(retain_graph=True)
    from_goals = {name for name, each in of.named_parameters() if each.grad is not None}
    assert from_goals
    assert all(name.startswith(("manager", "direct")) for name in from_goals)
    of.zero_grad()
    scores.attention[:, :, 1:].square().sum().backward()
    from_looks = {name for name, each in of.named_parameters() if each.grad is not None and each.grad.abs().sum() > 0}
    assert not any(name.startswith(("worker", "embed")) for name in from_looks)
    assert all(each.grad is None for each in of.discriminator.parameters())


def test_goals_are_freed_of_their_mean_as_they_are_scored():
    of = policy(loud=1.0)
    of.goals = "centred"
    text = batch(6, torch.tensor([3, 4, 5, END]))
    before = of.mean_goal.clone()
    with torch.no_grad():
        of(text.features, text.words)
    assert of.mean_goal.equal(before)  # who only looks teaches nothing
    first = of(text.features, text.words, want=["extras"]).extras["goals"]
    for _ in range(60):
        of(text.features, text.words)
    words = torch.cat((text.words, torch.zeros(6, 1, 5, dtype=torch.long)), -1)
    mean = of.mean_goal.clone()
    of(text.features, words)
    assert torch.allclose(of.mean_goal, mean, atol=1e-3)  # padding does not count
    last = of(text.features, text.words, want=["extras"]).extras["goals"]
    assert float(last[0, 0].detach().mean(0).norm()) < 0.5 * float(first[0, 0].detach().mean(0).norm())


def test_goals_and_the_workers_reward_by_hand():
    torch.manual_seed(0)
    goals, leaked = torch.randn(1, 2, 5, 3), torch.randn(1, 2, 6, 3)
    lengths, horizon = torch.tensor([[5, 3]]), 2

    def cosine(a: Tensor, b: Tensor) -> float:
        return float(a @ b / (a.norm() * b.norm()))

    found = losses.goal_alignment(goals, leaked, lengths, horizon)
    paid = losses.intrinsic_reward(goals, leaked, horizon)
    for n, length in enumerate((5, 3)):
        for t in range(length):
            behind = min(t + horizon, length)
            assert float(found[0, n, t]) == pytest.approx(
                cosine(leaked[0, n, behind] - leaked[0, n, t], goals[0, n, t]), abs=1e-5
            )
        for t in range(1, 6):
            parts = [cosine(leaked[0, n, t] - leaked[0, n, t - i], goals[0, n, t - i]) for i in (1, 2) if t >= i]
            assert float(paid[0, n, t - 1]) == pytest.approx(sum(parts) / len(parts), abs=1e-5)
    mask = torch.tensor([[[True] * 5, [True] * 3 + [False] * 2]])
    reward = torch.rand(1, 2, 5)
    by_hand = -(found * reward)[mask].mean()
    assert float(losses.manager(found, reward, mask)) == pytest.approx(float(by_hand))
    same = [cosine(goals[0, 0, t], goals[0, 1, t]) for t in range(3)]
    assert float(goal_cosine(goals, mask)) == pytest.approx(sum(same) / 3, abs=1e-5)
