"""Adversarial training: the order of rewards, playouts and gradients by enumeration, and a run of it."""

import copy
import math
from itertools import product

import pytest
import torch
from adversaries import ALL, END, LENGTH, NOW, STILL, Silent, batch, log_probs, nothing, policy, worth_of
from torch import Tensor
from toy_policies import ToyPolicy, toy_features

from rlcap import losses
from rlcap.agents.adversarial import PLAYOUT_SEED, Adversarial, Turns
from rlcap.agents.optimisers import Optimiser
from rlcap.agents.playouts import Playouts, prefix_rewards
from rlcap.agents.rollout import Drawing, roll_out
from rlcap.contracts import Batch, Candidates, Course, FeatureShape, Judgement, caption_mask
from rlcap.errors import ConfigError
from rlcap.models.discriminators import Discriminating
from rlcap.models.leakgan import LeakGAN


def test_rewards_keep_the_order_of_the_scores():
    """The published code pays by the place in an unsorted table: the mean is right, and the order is lost."""
    scores = torch.tensor([[0.2, 0.9], [0.7, 0.1], [0.1, 0.5], [0.6, 0.4]])
    paid = losses.ranked(scores)
    assert paid.argsort(0).equal(scores.argsort(0))
    wanted = [1 / (1 + math.exp(-12 * (0.5 - rank / 4))) for rank in (3, 1, 4, 2)]
    assert paid[:, 0].tolist() == pytest.approx(wanted)
    tied = losses.ranked(torch.tensor([1.0, 1.0, 0.0]))
    assert tied[0] == tied[1] == pytest.approx(1 / (1 + math.exp(-12 * (0.5 - 1.5 / 3))))


@pytest.mark.parametrize(
    ("reward", "least", "most"), [("ranked", 1, 1), ("random", -0.3, 0.3), ("unsorted", -0.3, 0.3)]
)
def test_only_the_controls_lose_the_order(reward, least, most):
    of = policy()
    trainer = Adversarial(
        of,
        Course(5),
        rollout=Drawing(samples=2, length=LENGTH),
        turns=NOW,
        reward=reward,
        adversarial_optimiser=STILL,
    )
    found = float(trainer.update(batch(100))["reward/rank_correlation"])
    assert least - 1e-6 <= found <= most + 1e-6  # 200 captions: the deviation of chance is 0.07


def test_playouts_are_right_in_the_mean():
    of = policy(manager=0)
    discriminator = policy().discriminator.eval()
    drawing = Drawing(samples=2, length=LENGTH)
    with torch.no_grad():
        rollout = roll_out(of, batch(2), nothing, drawing, seed=1, update=0)
        p = log_probs(of).sum(-1).exp()
        worth = worth_of(discriminator)
        count = 4000
        found = prefix_rewards(
            of, discriminator, rollout, torch.arange(2), Playouts(every=1, count=count), seed=2, update=0
        )
    assert found.shape == (2, 2, LENGTH)
    spread = float(worth.std())
    assert spread > 0.05
    for image, n, prefix in product(range(2), range(2), range(1, LENGTH + 1)):
        stands = rollout.words[image, n, :prefix]
        begins = (ALL[:, :prefix] == stands).all(-1)
        wanted = float((p[begins] * worth[begins]).sum() / p[begins].sum())
        error = 0.0 if prefix == LENGTH else spread / count**0.5
        assert float(found[image, n, prefix - 1]) == pytest.approx(wanted, abs=5 * error + 1e-9)


def test_the_gradient_is_that_of_the_mean_judgement():
    """SeqGAN with a playout of each word: minus the mean probability that the discriminator gives, over the length."""
    of = policy(manager=0)
    trainer = Adversarial(
        of,
        Course(5),
        rollout=Drawing(samples=1, length=LENGTH),
        playouts=Playouts(every=1, count=1),
        turns=NOW,
        reward="plain",
        discriminator_optimiser=STILL,
        adversarial_optimiser=STILL,
    )
    with torch.no_grad():
        for weight in trainer.discriminator.parameters():
            weight.mul_(3.0)
        worth = worth_of(trainer.discriminator.eval())
    weights = list(of.parameters())
    mean = -(log_probs(of).sum(-1).exp() * worth).sum() / LENGTH
    exact = torch.cat([each.flatten() for each in torch.autograd.grad(mean, weights)])
    found = []
    for _ in range(12):
        trainer.update(batch(1500))
        found.append(torch.cat([each.grad.flatten() for each in weights]))
    drawn = torch.stack(found)
    error = drawn.std(0) / len(found) ** 0.5
    assert float(error.norm() / exact.norm()) < 0.1  # the estimate is sharp enough to tell
    moved = error > 1e-12
    assert float(((drawn.mean(0) - exact) / error)[moved].abs().max()) < 6  # some 300 parameters, 12 updates


def test_turns():
    turns = Turns(pretraining=2, adversarial=2, likelihood=1)
    assert [turns.is_adversarial(update) for update in range(8)] == [False, False, True, True, False, True, True, False]
    assert turns.count(8) == 4


@pytest.mark.parametrize(("intrinsic", "metric"), [(1.0, 0.0), (0.3, 0.0), (0.3, 1.0)])
def test_manager_and_worker_get_the_gradient_of_their_losses(intrinsic, metric):
    """Written out with plain indices: goal t is paid as the first judged prefix that holds word t + horizon."""
    of, every, horizon = policy(loud=1.5), 2, 2

    def length_pays(candidates: Candidates) -> Judgement:
        total = candidates.lengths.double()
        return Judgement(total, {"length": (total, total)})

    judge = length_pays if metric else None
    drawing, playouts = Drawing(samples=2, length=LENGTH), Playouts(every=every, count=2)
    trainer = Adversarial(
        of,
        Course(5, judge=judge),
        rollout=drawing,
        playouts=playouts,
        turns=NOW,
        intrinsic=intrinsic,
        metric_share=metric,
        adversarial_optimiser=STILL,
        discriminator_steps=0,
    )
    text = batch(5)
    trainer.update(text)
    found = torch.cat([each.grad.flatten() for each in of.parameters()])

    with torch.no_grad():
        rollout = roll_out(of, text, judge or nothing, drawing, seed=1, update=0)
        probable = prefix_rewards(of, of.discriminator, rollout, text.images, playouts, seed=1 + PLAYOUT_SEED, update=0)
    words, mask = rollout.words, rollout.mask
    length = words.shape[-1]
    paid = losses.ranked(rollout.rewards.flatten()[:, None] if metric else probable.flatten(0, 1)).expand(10, -1)
    paid = paid.expand(-1, probable.shape[-1]).view_as(probable)
    scores = of(text.features, words, want=["logits", "extras"])
    legal = scores.logits.index_fill(-1, torch.tensor([0, 2]), -torch.inf).log_softmax(-1)
    log_p = legal.gather(-1, words[..., None])[..., 0]
    goals, leaked, lengths = scores.extras["goals"], scores.extras["leaked"], mask.sum(-1)
    own = losses.intrinsic_reward(goals.detach(), leaked, horizon)

    def reward(b: int, n: int, word: int) -> Tensor:  # of a word, counted from 0
        return paid[b, n, min(word // every, probable.shape[-1] - 1)]

    manager, worker = torch.zeros(()).double(), torch.zeros(()).double()
    for b, n in product(range(5), range(2)):
        for t in range(int(lengths[b, n])):
            behind = min(t + horizon, int(lengths[b, n]))
            moved = leaked[b, n, behind] - leaked[b, n, t]
            cosine = torch.cosine_similarity(moved, goals[b, n, t], dim=-1)
            manager = manager - reward(b, n, min(t + horizon, length) - 1) * cosine / mask.sum()
            alive = [place for place in product(range(5), range(2)) if mask[place][t]]
            credits = {(i, k): float(intrinsic * own[i, k, t] + (1 - intrinsic) * reward(i, k, t)) for i, k in alive}
            others = [credits[place] for place in alive if place != (b, n)]
            advantage = credits[b, n] - (sum(others) / len(others) if others else 0.0)
            worker = worker - advantage * log_p[b, n, t] / (10 * LENGTH)
    weights = list(of.parameters())
    parts = torch.autograd.grad(manager + worker, weights, allow_unused=True, materialize_grads=True)
    wanted = torch.cat([part.flatten() for part in parts])
    assert float(wanted.norm()) > 1e-3
    assert torch.allclose(found, wanted, atol=1e-9)  # float64, but for the ranks and sigmoids of float32


def test_the_discriminator_sees_captions_of_other_images_and_forgets_those_with_unknown_words():
    torch.manual_seed(2)
    judge = Discriminating(embedding=4, hidden=6, layers=1, dropout=0.0, sees_image=True)
    of = LeakGAN(Silent(), FeatureShape(4, 3), embedding=4, hidden=5, manager=0, attention=4, discriminator=judge)
    with torch.no_grad():
        for weight in of.discriminator.parameters():
            weight.mul_(3.0)
    features = toy_features(5)
    words = torch.randint(3, 6, (5, 1, 4), generator=torch.Generator().manual_seed(1))
    words[2, 0, 1] = 2  # banned: what stands for an unknown word
    text = Batch(torch.arange(5), features, words, torch.ones_like(words, dtype=torch.bool))
    trainer = Adversarial(of, Course(5), rollout=Drawing(samples=1, length=4), turns=Turns(pretraining=5))
    rollout = trainer._draw(text, 0)
    known = [0, 1, 3, 4]
    with torch.no_grad():
        of.discriminator.eval()
        own = of.discriminator.remember(features)
        real, drawn, other = (
            of.discriminator.judge_captions(said, caption_mask(said, END).sum(-1), seen)[:, 0]
            for seen, said in ((own, words), (own, rollout.words), (own[[4, 0, 1, 2, 3]], words))
        )
    metrics = trainer._discriminate(text, rollout)
    right = [float((part > 0).float().mean()) for part in (real[known], -drawn, -other[known])]
    found = [float(metrics[f"discriminator/{kind}"]) for kind in ("real", "generated", "mismatched")]
    assert found == pytest.approx(right)
    assert float(metrics["discriminator/accuracy"]) == pytest.approx(sum(right) / 3)
    parts = [torch.nn.functional.softplus(part).mean() for part in (-real[known], drawn, other[known])]
    assert float(metrics["discriminator/loss"]) == pytest.approx(float(parts[0] / 2 + (parts[1] + parts[2]) / 4))


@pytest.mark.parametrize("name", ["sru", "cnn"])
def test_half_precision_trains_and_keeps_the_order(name):
    torch.manual_seed(1)
    judge = Discriminating(name, embedding=4, hidden=24, layers=2)
    of = LeakGAN(Silent(), FeatureShape(0, 0), embedding=4, hidden=5, manager=5, goal=3, discriminator=judge)
    drawing = Drawing(samples=2, length=LENGTH)
    trainer = Adversarial(of, Course(3, torch.bfloat16), rollout=drawing, turns=Turns(1, 1, 1))
    for _ in range(3):
        metrics = trainer.update(batch(8))
    assert all(bool(torch.isfinite(value).all()) for value in metrics.values())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert worth_of(of.discriminator.eval()).dtype == torch.float32


@pytest.mark.parametrize("manager", [5, 0])
def test_it_trains_and_goes_on_where_it_stood(manager):
    """People say 3 4 5 from any place; likelihood, then both in turns, bring the captions there."""

    def trained() -> Adversarial:
        return Adversarial(
            policy(manager, loud=1.0).float(),
            Course(60),
            rollout=Drawing(samples=2, length=4),
            playouts=Playouts(every=2, count=2),
            turns=Turns(pretraining=30, adversarial=2, likelihood=1),
            optimiser=Optimiser(lr=2e-2),
            intrinsic=0.5,
        )

    start = torch.arange(8)[:, None, None]
    words = torch.cat(((start + torch.arange(3)) % 3 + 3, torch.full((8, 1, 1), END)), -1)
    text = batch(8)
    text = Batch(text.images, text.features, words, torch.ones_like(words, dtype=torch.bool))
    trainer = trained()
    first = trainer.update(text)
    for _ in range(39):
        trainer.update(text)
    saved = [{name: each.clone() for name, each in net.state_dict().items()} for net in trainer.networks.values()]
    kept = copy.deepcopy(trainer.state_dict())
    last = [trainer.update(text) for _ in range(3)]
    likelihoods = [float(each["loss/cross_entropy"]) for each in last if "loss/cross_entropy" in each]
    assert len(likelihoods) == 1
    assert likelihoods[0] < 0.7 * float(first["loss/cross_entropy"])

    other = trained()
    for network, state in zip(other.networks.values(), saved, strict=True):
        network.load_state_dict(state)
    other.load_state_dict(kept)
    for before, again in zip(last, [other.update(text) for _ in range(3)], strict=True):
        assert before.keys() == again.keys()
        assert all(torch.equal(before[key], again[key]) for key in before)


def test_settings_that_do_not_go_together():
    with pytest.raises(ConfigError, match=r"ToyPolicy has no discriminator inside; take policy.name=leakgan"):
        Adversarial(ToyPolicy(Silent(), seed=1), Course(5))
    with pytest.raises(ConfigError, match=r"metric_share=0.5: the recipe has no rewards"):
        Adversarial(policy(), Course(5), metric_share=0.5)
    with pytest.raises(ConfigError, match=r"metric_share=0.5: with trainer.intrinsic=1 words earn by the goals alone"):
        Adversarial(policy(), Course(5, judge=nothing), metric_share=0.5)
