"""Samples from the beam: which captions these are, and that the gradient is that of the formula over them."""

import pytest
import torch
from torch import Tensor
from toy_policies import ToyCodec, ToyPolicy, toy_features

from rlcap.agents.minimum_risk import MinimumRisk
from rlcap.agents.mixer import Anneal, Mixer
from rlcap.agents.optimisers import Optimiser
from rlcap.agents.rollout import Drawing, roll_out
from rlcap.agents.scst import SCST
from rlcap.components import check_arguments
from rlcap.contracts import Batch, Candidates, Course, Judgement, Policy, caption_mask
from rlcap.decoding.beam import beam_search
from rlcap.decoding.constraints import Constraints
from rlcap.decoding.loop import write
from rlcap.errors import ConfigError

IMAGES, N, LENGTH = 4, 3, 5
STILL = Optimiser(lr=1e-30, clip=0)  # float64 weights do not move
BEAM = Drawing(samples=N, length=LENGTH, samples_from="beam")


class Silent(ToyCodec):
    def encode(self, words):  # none of the English words that captions should not end on
        return []


def judge(candidates: Candidates) -> Judgement:
    total = (candidates.words * caption_mask(candidates.words, 1)).double().square().sum(-1)
    return Judgement(total, {})


@pytest.fixture
def policy() -> Policy:
    return ToyPolicy(Silent(), seed=3, end_bias=2.0).double()


@pytest.fixture
def batch() -> Batch:
    features = toy_features(IMAGES)
    words = torch.tensor([3, 4, 5, 1]).expand(IMAGES, 1, 4)
    doubled = type(features)(features.values.double(), features.mask)
    return Batch(torch.arange(IMAGES), doubled, words, torch.ones_like(words).bool())


def best(policy: Policy, batch: Batch) -> Tensor:
    memory = policy.remember(batch.features)
    search = {"beams": N, "length": LENGTH, "constraints": Constraints()}
    return beam_search(policy, memory, images=IMAGES, **search).words


def log_probs(policy: Policy, batch: Batch, words: Tensor) -> Tensor:
    """(B, N) of whole captions, by plain scoring among the legal words."""
    logits = policy(batch.features, words, want=["logits"]).logits
    legal = logits.index_fill(-1, torch.tensor(policy.codec.banned), -torch.inf).log_softmax(-1)
    chosen = legal.gather(-1, words[..., None])[..., 0]
    return chosen.masked_fill(~caption_mask(words, policy.codec.end), 0).sum(-1)


def weights(policy: Policy) -> list[Tensor]:
    """Those that its words depend on."""
    return [policy.see, policy.recur, policy.embed, policy.say]


def gradients(trainer, batch: Batch) -> list[Tensor]:
    trainer.update(batch)
    return [weight.grad for weight in weights(trainer.networks["policy"])]


def test_the_samples_are_the_beam_and_the_greedy_caption_rides_behind(policy, batch):
    rollout = roll_out(policy, batch, judge, BEAM, seed=1, update=0, greedy=True)
    wanted = best(policy, batch)[..., : rollout.words.shape[-1]]
    assert torch.equal(rollout.words, wanted)
    assert torch.equal(rollout.chosen, caption_mask(wanted, 1))
    greedy = write(policy, policy.remember(batch.features), images=IMAGES, length=LENGTH).words[:, 0]
    assert torch.equal(rollout.captions.words[:, N, : greedy.shape[-1]], greedy)
    torch.testing.assert_close(rollout.captions.log_prob[:, :N].sum(-1), log_probs(policy, batch, wanted))
    assert not torch.equal(wanted[:, 0], wanted[:, 1])


@pytest.mark.parametrize("graph", ["kept", "scored"])
def test_scst_pushes_the_captions_of_the_beam_apart(policy, batch, graph):
    words = best(policy, batch)
    rewards = judge(Candidates(words, caption_mask(words, 1).sum(-1), batch.images, N)).total
    advantage = rewards - (rewards.sum(1, keepdim=True) - rewards) / (N - 1)
    loss = -(advantage * log_probs(policy, batch, words)).sum() / (IMAGES * N * LENGTH)
    wanted = torch.autograd.grad(loss, weights(policy))
    drawing = Drawing(samples=N, length=LENGTH, samples_from="beam", graph=graph)
    course = Course(1, judge=judge)
    trainer = SCST(policy, course, rollout=drawing, baseline="leave_one_out", optimiser=STILL)
    for got, exact in zip(gradients(trainer, batch), wanted, strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-9, atol=1e-9)  # float64: rounding alone


def test_minimum_risk_is_exact_for_the_beam(policy, batch):
    words = best(policy, batch)
    rewards = judge(Candidates(words, caption_mask(words, 1).sum(-1), batch.images, N)).total
    p = log_probs(policy, batch, words).exp()
    expected = (p * rewards).sum(1) / p.sum(1)
    wanted = torch.autograd.grad(-expected.mean() / LENGTH, weights(policy))
    trainer = MinimumRisk(policy, Course(1, judge=judge), rollout=BEAM, alpha=1.0, optimiser=STILL)
    for got, exact in zip(gradients(trainer, batch), wanted, strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-9, atol=1e-9)


def test_where_there_are_too_few_captions_the_best_comes_again(policy, batch):
    drawing = Drawing(samples=6, length=1, samples_from="beam")  # an end token and three words: four captions
    words = roll_out(policy, batch, judge, drawing, seed=1, update=0).words[..., 0]
    for of_image in words.tolist():
        assert sorted(of_image[:4]) == [1, 3, 4, 5]
        assert of_image[4:] == [of_image[0]] * 2


def test_what_does_not_go_with_a_beam(policy, batch):
    with pytest.raises(ConfigError, match=r"rollout.*'samples_from: beam' takes .* leave out temperature"):
        check_arguments(SCST, {"rollout": {"samples_from": "beam", "temperature": 0.5}}, "trainer")
    trainer = Mixer(policy, Course(1, judge=judge), rollout=BEAM, anneal=Anneal())
    with pytest.raises(ConfigError, match=r"samples_from=beam: .* leave out trainer\.anneal"):
        trainer.update(batch)
