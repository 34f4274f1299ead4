"""Self-critical training: what is drawn, what it is compared with, and that the gradient is that of the formula."""

import copy

import pytest
import torch
from torch import Tensor
from toy_policies import ToyCodec, ToyPolicy, toy_features

from rlcap.agents.optimisers import Optimiser
from rlcap.agents.rollout import Drawing, rescore, roll_out, score
from rlcap.agents.scst import SCST
from rlcap.contracts import Batch, Candidates, Course, Judgement, Policy
from rlcap.decoding.loop import write
from rlcap.errors import ConfigError

WORD = 4  # what the judge likes


class Silent(ToyCodec):
    def encode(self, words):  # none of the English words that captions should not end on
        return []


def judge(candidates: Candidates) -> Judgement:
    """1 for each time that WORD is said, less a tenth of the length."""
    counts = torch.arange(candidates.words.shape[-1]) < candidates.lengths[..., None]
    liked = ((candidates.words == WORD) & counts).sum(-1) - 0.1 * candidates.lengths
    return Judgement(liked, {"liked": (liked, liked)})


@pytest.fixture
def policy() -> Policy:
    return ToyPolicy(Silent(), seed=3)


@pytest.fixture
def batch() -> Batch:
    images = 5
    nothing = torch.zeros(images, 1, 1, dtype=torch.long)
    return Batch(torch.arange(images), toy_features(images), nothing, nothing.bool())


def test_the_greedy_caption_rides_behind_the_drawn_ones(policy, batch):
    rollout = roll_out(policy, batch, judge, Drawing(samples=3, length=6), seed=1, update=0, greedy=True)
    greedy = write(policy, policy.remember(batch.features), images=5, length=6)
    length = greedy.words.shape[-1]
    assert rollout.captions.words[:, 3, :length].equal(greedy.words[:, 0])
    assert not rollout.captions.mask[:, 3, length:].any()
    assert rollout.rewards.shape == (5, 3)
    assert rollout.greedy.equal(judge(Candidates(greedy.words, greedy.mask.sum(-1), batch.images, 0)).total[:, 0])


def test_a_greedy_caption_that_rides_along_changes_no_draw(policy, batch):
    drawing = Drawing(samples=3, length=6)
    alone, beside = (roll_out(policy, batch, judge, drawing, seed=1, update=9, greedy=each) for each in (False, True))
    width = alone.words.shape[-1]
    assert beside.words[..., :width].equal(alone.words)
    assert not beside.mask[..., width:].any()
    assert beside.rewards.equal(alone.rewards)


def test_draws_differ_from_update_to_update_and_not_otherwise(policy, batch):
    def drawn(update: int) -> Tensor:
        return roll_out(policy, batch, judge, Drawing(samples=3, length=6), seed=1, update=update).captions.words

    assert drawn(4).equal(drawn(4))
    assert drawn(4).shape != drawn(5).shape or not drawn(4).equal(drawn(5))


BENT = [{"temperature": 1.7}, {"top_k": 2}, {"top_p": 0.6}, {"temperature": 0.5, "top_k": 3, "top_p": 0.9}]


@pytest.mark.parametrize("bent", BENT)
def test_the_gradient_is_taken_of_the_distribution_that_words_were_drawn_from(policy, batch, bent):
    """Kept from drawing or scored afterwards: the same numbers, and the same gradient."""
    drawing = Drawing(samples=4, length=6, **bent)
    rollout = roll_out(policy, batch, judge, drawing, seed=1, update=0)
    kept, scored = score(policy, rollout), rescore(policy, rollout)
    mask = rollout.mask
    # float32: two ways of the same handful of sums
    assert torch.allclose(scored.log_prob, kept.log_prob, atol=1e-5)
    assert torch.allclose(scored.distribution[mask].exp(), kept.distribution[mask].exp(), atol=1e-5)
    assert torch.allclose(scored.distribution[mask].exp().sum(-1), torch.ones(()), atol=1e-5)
    assert (kept.log_prob[~mask] == 0).all()
    weighed = torch.randn(mask.shape, generator=torch.Generator().manual_seed(1))
    of = [policy.see, policy.recur, policy.embed, policy.say]
    mine = torch.autograd.grad((weighed * kept.log_prob).sum(), of)
    theirs = torch.autograd.grad((weighed * scored.log_prob).sum(), of)
    for one, other in zip(mine, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_no_word_is_drawn_that_truncation_leaves_out(policy, batch):
    drawing = Drawing(samples=40, length=4, top_k=2)
    rollout = roll_out(policy, batch, judge, drawing, seed=1, update=0)
    distribution = score(policy, rollout).distribution[rollout.mask]
    assert ((distribution > -torch.inf).sum(-1) == 2).all()
    assert (distribution.gather(-1, rollout.words[rollout.mask][:, None]) > -torch.inf).all()


def test_without_the_graph_nothing_is_kept(policy, batch):
    for graph, grad in (("scored", True), ("kept", False)):
        with torch.set_grad_enabled(grad):
            rollout = roll_out(policy, batch, judge, Drawing(samples=2, length=4, graph=graph), seed=1, update=0)
        assert not rollout.captions.log_prob.requires_grad
        assert score(policy, rollout).log_prob.requires_grad


def test_words_that_stand_already_are_said_and_not_paid(policy, batch):
    forced = torch.full((5, 2, 3), -1)
    forced[:, 0, :2] = torch.tensor([5, 3])
    forced[0, 1, :2] = torch.tensor([3, 1])  # the end
    rollout = roll_out(policy, batch, judge, Drawing(samples=2, length=4), seed=1, update=0, forced=forced)
    free = roll_out(policy, batch, judge, Drawing(samples=2, length=4), seed=1, update=0)
    assert (rollout.words[:, 0, :2] == torch.tensor([5, 3])).all()
    assert rollout.mask[:, 0, :2].all()
    assert not rollout.chosen[:, 0, :2].any()
    assert rollout.chosen[:, 0, 2:].equal(rollout.mask[:, 0, 2:])
    assert rollout.mask[0, 1].tolist()[:2] == [True, True]
    assert not rollout.mask[0, 1, 2:].any()
    assert not rollout.chosen[0, 1].any()
    width = min(free.words.shape[-1], rollout.words.shape[-1])
    assert rollout.words[1:, 1, :width].equal(free.words[1:, 1, :width])
    log_prob = score(policy, rollout).log_prob
    assert (log_prob[~rollout.chosen] == 0).all()


@pytest.mark.parametrize("graph", ["kept", "scored"])
def test_the_update_descends_along_the_formula(policy, batch, graph):
    still = Optimiser(lr=1e-30, clip=0)
    trainer = SCST(policy, Course(3, judge=judge), rollout=Drawing(samples=4, length=6, graph=graph), optimiser=still)
    rollout = roll_out(policy, batch, judge, Drawing(samples=4, length=6), seed=1, update=0, greedy=True)
    metrics = trainer.update(batch)
    total = torch.zeros(())
    for b in range(5):
        for n in range(4):
            advantage = rollout.judgement.total[b, n] - rollout.judgement.total[b, 4]
            ids = rollout.captions.words[b, n][rollout.captions.mask[b, n]]
            one = type(batch.features)(batch.features.values[b : b + 1], batch.features.mask[b : b + 1])
            logits = policy(one, ids[None, None], want=["logits"]).logits[0, 0].clone()
            logits[:, list(policy.codec.banned)] = -torch.inf
            total = total - advantage * logits.log_softmax(-1)[range(len(ids)), ids].sum()
    wanted = torch.autograd.grad(total / (20 * 6), list(policy.parameters()), allow_unused=True)
    for parameter, gradient in zip(policy.parameters(), wanted, strict=True):
        if gradient is not None:
            # float32, sums of some hundred terms in another order
            assert torch.allclose(parameter.grad, gradient, atol=1e-5, rtol=1e-4)
    assert float(metrics["loss/policy_gradient"]) == pytest.approx((total / (20 * 6)).item(), abs=1e-5)
    assert float(metrics["reward/greedy"]) == pytest.approx(float(rollout.greedy.mean()))
    assert float(metrics["reward/liked/raw"]) == pytest.approx(float(rollout.rewards.mean()))


def test_it_learns_what_the_judge_likes(policy, batch):
    trainer = SCST(policy, Course(60, judge=judge), rollout=Drawing(samples=5, length=6), optimiser=Optimiser(lr=0.06))
    rewards = [float(trainer.update(batch)["reward/greedy"]) for _ in range(60)]
    assert rewards[0] < 1
    assert rewards[-1] > 4.5  # WORD six times, and no end, would be 6 - 0.6 = 5.4


def test_it_goes_on_where_it_stopped(policy, batch):
    def trainer(of: Policy) -> SCST:
        return SCST(of, Course(6, judge=judge), rollout=Drawing(samples=2, length=5), optimiser=Optimiser(lr=0.01))

    through = trainer(policy)
    for _ in range(3):
        through.update(batch)
    other = ToyPolicy(Silent(), seed=9)
    other.load_state_dict(policy.state_dict())
    resumed = trainer(other)
    resumed.load_state_dict(copy.deepcopy(through.state_dict()))
    for _ in range(3):
        through.update(batch)
        resumed.update(batch)
    for mine, theirs in zip(policy.parameters(), other.parameters(), strict=True):
        assert mine.equal(theirs)


def test_without_rewards_it_says_what_is_missing(policy):
    with pytest.raises(ConfigError, match="give it 'rewards: cider_d'"):
        SCST(policy, Course(1))
