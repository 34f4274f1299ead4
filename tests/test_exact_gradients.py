"""Gradient estimates against the exact gradient, by enumerating every caption of a tiny language.

Vocabulary: an end token and three words, three words a caption at most: 40 captions. A batch holds many images of the
same features, so that one update averages many independent estimates. Float64. What is compared with a sampling
error is the mean of `BATCHES` such updates, parameter by parameter, with the deviation among them.
"""

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from toy_policies import ToyCodec, ToyPolicy, toy_features

from rlcap import losses
from rlcap.agents.baselines import CriticSettings
from rlcap.agents.minimum_risk import MinimumRisk
from rlcap.agents.mixer import Anneal, Mixer
from rlcap.agents.optimisers import Optimiser
from rlcap.agents.ppo import PPO
from rlcap.agents.rollout import Drawing
from rlcap.agents.scst import SCST
from rlcap.contracts import Batch, Candidates, Course, Features, Judgement, Scores, Step, caption_mask

LENGTH, END, WORDS = 3, 1, (3, 4, 5)
IMAGES, BATCHES = 600, 24
STILL = Optimiser(lr=1e-30, clip=0)  # float64 weights do not move


class Silent(ToyCodec):
    def encode(self, words):  # none of the English words that captions should not end on
        return []


def captions() -> Tensor:
    """(40, 3), padded."""
    rows = set()
    for row in product((END, *WORDS), repeat=LENGTH):
        end = row.index(END) + 1 if END in row else LENGTH
        rows.add((*row[:end], *[0] * (LENGTH - end)))
    return torch.tensor(sorted(rows))


ALL = captions()
MASK = caption_mask(ALL, END)
VALUES = torch.randn(6, LENGTH, generator=torch.Generator().manual_seed(4)).double()  # of each word at each place


def worth(words: Tensor, lengths: Tensor) -> Tensor:
    """(…, T): any number for each word that counts, and more for a caption that ends."""
    credit = VALUES[words, torch.arange(words.shape[-1])]
    return credit.masked_fill(torch.arange(words.shape[-1]) >= lengths[..., None], 0) + 0.3 * (words == END)


def judge(candidates: Candidates) -> Judgement:
    total = worth(candidates.words, candidates.lengths).sum(-1)
    return Judgement(total, {"worth": (total, total)})


def by_word(candidates: Candidates) -> Judgement:
    """Half of the reward belongs to single words."""
    credit = worth(candidates.words, candidates.lengths)
    total = credit.sum(-1)
    return Judgement(total, {"worth": (total, total)}, credit / 2)


REWARDS = worth(ALL, MASK.sum(-1)).sum(-1)  # (40,)


def policy() -> ToyPolicy:
    made = ToyPolicy(Silent(), seed=3, hidden=4).double()
    made.load_state_dict({name: 0.5 * value for name, value in made.state_dict().items()})
    return made


def images(count: int) -> Batch:
    one = toy_features(1)
    values = one.values.double().expand(count, -1, -1)
    words = torch.tensor([3, 5, END]).expand(count, 1, 3)  # a reference
    return Batch(
        torch.arange(count), Features(values, one.mask.expand(count, -1)), words, torch.ones_like(words).bool()
    )


def weights(of: ToyPolicy) -> list[Tensor]:
    return [of.see, of.recur, of.embed, of.say]


def flat(gradients) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


def log_probs(of: ToyPolicy, temperature: float = 1.0) -> Tensor:
    """(40, 3) with gradient, by the plain loop over `step`; 0 behind the end."""
    logits = of.score(of.remember(images(1).features), ALL[None], want=["logits"]).logits[0] / temperature
    legal = logits[..., [END, *WORDS]].log_softmax(-1)
    place = torch.tensor([0, 0, 0, 1, 2, 3])[ALL]
    return legal.gather(-1, place[..., None])[..., 0] * MASK


def exact(of: ToyPolicy, temperature: float = 1.0) -> Tensor:
    """Of -E[reward] / LENGTH: what descends is minus the mean reward, and losses divide by the length."""
    p = log_probs(of, temperature).sum(-1).exp()
    assert float(p.detach().sum()) == pytest.approx(1)
    return flat(torch.autograd.grad(-(p * REWARDS).sum() / LENGTH, weights(of)))


def surrogate(of: ToyPolicy, advantages, n: int) -> Tensor:
    """The mean gradient of an estimator that gives `advantages` (K, n) to each of K = 40^n sets of rewards."""
    log_p = log_probs(of).sum(-1)
    sets = torch.cartesian_prod(*[torch.arange(len(ALL))] * n).view(-1, n)
    chance = log_p.detach()[sets].sum(-1).exp()
    return flat(
        torch.autograd.grad(
            -(chance * (advantages(REWARDS[sets], sets) * log_p[sets]).mean(-1)).sum() / LENGTH, weights(of)
        )
    )


def estimates(trainer, batches: int = BATCHES) -> Tensor:
    """(batches, parameters)"""
    batch, gradients = images(IMAGES), []
    for _ in range(batches):
        trainer.update(batch)
        gradients.append(flat(weight.grad.clone() for weight in weights(trainer.networks["policy"])))
    return torch.stack(gradients)


def assert_mean(drawn: Tensor, wanted: Tensor, precision: float = 0.07) -> None:
    """Within 5 standard errors everywhere (73 parameters: chance says 3), and these are small enough to tell."""
    error = drawn.std(0) / len(drawn) ** 0.5
    known = error < 1e-12  # what no draw moves, such as of words that are never said
    assert torch.allclose(drawn.mean(0)[known], wanted[known], atol=1e-12)
    z = ((drawn.mean(0) - wanted) / error)[~known]
    assert float(z.abs().max()) < 5
    assert float(error.norm() / wanted.norm()) < precision


def course(batches: int = BATCHES, using=judge) -> Course:
    return Course(batches, judge=using)


UNBIASED = ["none", "moving_average", "greedy", "leave_one_out", "critic"]


@pytest.mark.parametrize("baseline", UNBIASED)
def test_an_unbiased_baseline_gives_the_exact_gradient(baseline):
    torch.manual_seed(1)  # for the critic
    trainer = SCST(
        policy(),
        course(),
        rollout=Drawing(samples=3, length=LENGTH),
        baseline=baseline,
        critic=CriticSettings(hidden=8, optimiser=Optimiser(lr=0.05)),
        optimiser=STILL,
    )
    assert_mean(estimates(trainer), exact(trainer.networks["policy"]))


@pytest.mark.parametrize("baseline", ["none", "greedy", "leave_one_out"])
def test_credit_by_word_leaves_it_exact(baseline):
    drawing = Drawing(samples=3, length=LENGTH)
    trainer = SCST(policy(), course(using=by_word), rollout=drawing, baseline=baseline, optimiser=STILL)
    assert_mean(estimates(trainer), exact(trainer.networks["policy"]))


@pytest.mark.parametrize("graph", ["kept", "scored"])
def test_so_does_a_tempered_distribution(graph):
    drawing = Drawing(samples=3, length=LENGTH, temperature=0.6, graph=graph)
    trainer = SCST(policy(), course(), rollout=drawing, baseline="leave_one_out", optimiser=STILL)
    assert_mean(estimates(trainer), exact(trainer.networks["policy"], temperature=0.6))


def test_the_mean_of_samples_gives_its_known_share():
    drawing = Drawing(samples=3, length=LENGTH)
    trainer = SCST(policy(), course(), rollout=drawing, baseline="mean", optimiser=STILL)
    assert_mean(estimates(trainer), 2 / 3 * exact(trainer.networks["policy"]))


def test_the_group_baseline_follows_its_own_surrogate():
    """It is biased: here its mean is half as long as the exact gradient, and points 15 degrees beside it."""
    trainer = SCST(policy(), course(), rollout=Drawing(samples=2, length=LENGTH), baseline="group", optimiser=STILL)

    def advantages(rewards: Tensor, _: Tensor) -> Tensor:
        middle = rewards.mean(-1, keepdim=True)
        return (rewards - middle) / ((rewards - middle).square().mean(-1, keepdim=True).sqrt() + 1e-4)

    wanted, true = surrogate(trainer.networks["policy"], advantages, 2), exact(trainer.networks["policy"])
    assert float(wanted.norm() / true.norm()) == pytest.approx(0.512, abs=1e-3)
    assert float(torch.cosine_similarity(wanted, true, 0)) == pytest.approx(0.965, abs=1e-3)
    assert_mean(estimates(trainer), wanted)


def test_minimum_risk_follows_its_own_surrogate():
    """Of two samples with alpha 0.4: just under half of the exact gradient's length, 2 degrees beside it.

    Half is what the mean of two samples gives, to which it tends as alpha nears 0.
    """
    alpha = 0.4
    drawing = Drawing(samples=2, length=LENGTH)
    trainer = MinimumRisk(policy(), course(), rollout=drawing, alpha=alpha, optimiser=STILL)
    log_p = log_probs(trainer.networks["policy"]).sum(-1).detach()

    def advantages(rewards: Tensor, sets: Tensor) -> Tensor:
        powers = (alpha * log_p[sets]).exp()
        shares = powers / powers.sum(-1, keepdim=True)
        apart = (sets[:, 0] != sets[:, 1]).double()[:, None]  # one candidate alone has share 1, and no gradient
        return apart * shares * (rewards - (shares * rewards).sum(-1, keepdim=True)) * 2

    wanted, true = surrogate(trainer.networks["policy"], advantages, 2), exact(trainer.networks["policy"])
    assert float(wanted.norm() / true.norm()) == pytest.approx(0.465, abs=1e-3)
    assert float(torch.cosine_similarity(wanted, true, 0)) == pytest.approx(0.999, abs=1e-3)
    assert_mean(estimates(trainer), wanted)


def test_the_risk_of_all_captions_is_the_exact_gradient():
    of = policy()
    risk = losses.minimum_risk(log_probs(of).sum(-1)[None], REWARDS[None], alpha=1.0)
    # float64, two ways of the same sum
    assert torch.allclose(flat(torch.autograd.grad(risk, weights(of))), LENGTH * exact(of), atol=1e-12)


def test_ppo_begins_with_the_exact_gradient():
    trainer = PPO(policy(), course(), rollout=Drawing(samples=3, length=LENGTH), steps=1, optimiser=STILL)
    assert_mean(estimates(trainer), exact(trainer.networks["policy"]))


def test_the_clipped_surrogate_is_that_of_the_paper():
    """Enumerated word by word in plain Python, at a policy that has moved far enough to be clipped."""
    old, now, clip = policy(), policy(), 0.2
    with torch.no_grad():
        for weight in weights(now):
            weight.mul_(1.4)
    before, log_p = log_probs(old).detach(), log_probs(now)
    chance, total, count, stopped = before.sum(-1).exp(), torch.zeros(()), 0, 0
    for k in range(len(ALL)):
        for t in range(int(MASK[k].sum())):
            ratio, advantage = (log_p[k, t] - before[k, t]).exp(), REWARDS[k]
            plain = float(ratio.detach())
            limit = min(plain, 1 + clip) if advantage > 0 else max(plain, 1 - clip)
            gets = limit == plain
            total = total - chance[k] * advantage * (ratio if gets else limit) / LENGTH
            stopped, count = stopped + (not gets), count + 1
    # A weight of the advantage is a weight of the loss: 40 captions, each as often as the old policy says it.
    weighed = (chance * REWARDS * len(ALL))[None, :, None]
    loss, share = losses.clipped_policy_gradient(log_p[None], before[None], weighed, MASK[None], LENGTH, clip)
    mine, theirs = (flat(torch.autograd.grad(each, weights(now), retain_graph=True)) for each in (loss, total))
    # float64, sums in another order
    assert torch.allclose(mine, theirs, atol=1e-12)
    assert float(loss.detach()) == pytest.approx(float(total.detach()))
    assert float(share) == pytest.approx(stopped / count)
    assert 0.1 < stopped / count < 0.9


def learned(of: ToyPolicy, words: int) -> Tensor:
    """Of the cross-entropy of the reference's first words; captions' plain distribution, with words they never say."""
    plain = of(images(1).features, images(1).words).log_prob[..., :words].sum()
    return flat(torch.autograd.grad(-plain / LENGTH, weights(of)))


def test_the_mixture_adds_the_references():
    drawing = Drawing(samples=3, length=LENGTH)
    trainer = Mixer(policy(), course(), rollout=drawing, cross_entropy=0.7, optimiser=STILL)
    wanted = exact(trainer.networks["policy"]) + 0.7 * learned(trainer.networks["policy"], LENGTH)
    assert_mean(estimates(trainer), wanted)


def test_annealed_it_adds_what_is_given_to_the_mean_of_the_rest():
    """The first word is the reference's, and learned; the rest is drawn, with the reward of the whole caption."""
    drawing = Drawing(samples=3, length=LENGTH)
    settings = {"baseline": "none", "cross_entropy": 0.7, "anneal": Anneal(words=2)}  # what is given is not paid
    trainer = Mixer(policy(), course(), rollout=drawing, **settings, optimiser=STILL)
    of = trainer.networks["policy"]
    begun = ALL[:, 0] == images(1).words[0, 0, 0]
    p = log_probs(of)[begun, 1:].sum(-1).exp()
    assert float(p.detach().sum()) == pytest.approx(1)
    rest = flat(torch.autograd.grad(-(p * REWARDS[begun]).sum() / LENGTH, weights(of)))
    assert_mean(estimates(trainer), rest + 0.7 * learned(of, 1))


class Coin(ToyPolicy):
    """Tosses a coin before each word, which lifts some words."""

    coins = 1

    def __init__(self) -> None:
        super().__init__(Silent(), seed=3, hidden=4)
        self.lift = nn.Parameter(torch.tensor([0.0, 1.0, 0.0, -1.0, 0.5, 1.5]))

    def sides(self, state) -> Tensor:
        return (state[0] @ self.gaze[:, 0]).sigmoid()

    def step(self, words, state, memory, *, uniforms=None, choices=None, want=()) -> Step:
        plain = super().step(words, state, memory)
        heads = self.sides(plain.state)
        if choices is None:
            choices = heads > 0.5 if uniforms is None else uniforms[:, 0] < heads
        return Step(plain.logits + choices[:, None] * self.lift, plain.state, choices=choices)

    def score(self, memory, words, *, choices=None, uniforms=None, want=()) -> Scores:
        images, n, length = words.shape
        state, said = self.start(memory, n, length), torch.full((images * n,), self.codec.start)
        logits, tosses = [], []
        for t in range(length):
            toss = choices[..., t].flatten()
            step = self.step(said, state, memory, choices=toss)
            state, said = step.state, words[..., t].flatten()
            heads = self.sides(state)
            logits.append(step.logits)
            tosses.append(torch.where(toss, heads, 1 - heads).log())
        stacked = torch.stack(logits, 1).unflatten(0, (images, n))
        log_prob = stacked.log_softmax(-1).gather(-1, words[..., None])[..., 0]
        return Scores(log_prob, choice_log_prob=torch.stack(tosses, 1).view_as(words), logits=stacked)


def test_choices_besides_words_get_their_gradient():
    """The coin's own: captions are marginalised over it."""
    of = Coin().double()
    memory, sides = of.remember(images(1).features), []
    for toss in (True, False):
        scores = of.score(memory, ALL[None], choices=torch.full((1, *ALL.shape), toss))
        legal = scores.logits[0][..., [END, *WORDS]].log_softmax(-1)
        place = torch.tensor([0, 0, 0, 1, 2, 3])[ALL]
        sides.append(scores.choice_log_prob[0] + legal.gather(-1, place[..., None])[..., 0])
    p = (torch.logaddexp(*sides) * MASK).sum(-1).exp()
    assert float(p.detach().sum()) == pytest.approx(1)
    parts = [*weights(of), of.gaze, of.lift]
    wanted = flat(torch.autograd.grad(-(p * REWARDS).sum() / LENGTH, parts))
    drawing = Drawing(samples=3, length=LENGTH)
    trainer = SCST(of, course(), rollout=drawing, baseline="leave_one_out", optimiser=STILL)
    batch, gradients = images(IMAGES), []
    for _ in range(BATCHES):
        trainer.update(batch)
        gradients.append(flat(weight.grad.clone() for weight in parts))
    assert_mean(torch.stack(gradients), wanted)
