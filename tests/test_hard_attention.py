"""Hard attention: how the gaze is drawn, its gradients against enumeration, and the same captions in Glimpse-v0."""

import copy
from itertools import product

import pytest
import torch
from torch import Tensor
from toy_policies import ToyCodec, toy_features

from rlcap.agents.curves import gaze_curves
from rlcap.agents.glimpse import GlimpseAgent
from rlcap.agents.hard_attention import VariationalBound
from rlcap.agents.mixer import Anneal, Mixer
from rlcap.agents.optimisers import Optimiser
from rlcap.agents.rollout import Drawing
from rlcap.agents.scst import SCST
from rlcap.contracts import Batch, Candidates, Course, Features, FeatureShape, Judgement, caption_mask
from rlcap.decoding.choosing import Sampling
from rlcap.decoding.loop import write
from rlcap.decoding.uniforms import keyed_uniforms
from rlcap.envs.glimpse import GlimpseEnv
from rlcap.envs.world import tiny_world
from rlcap.errors import ConfigError
from rlcap.models.hard_attention import MEAN, HardAttention
from rlcap.models.soft_attention import SoftAttention

STILL = Optimiser(lr=1e-30, clip=0)  # float64 weights do not move


@pytest.fixture
def policy(codec, shape) -> HardAttention:
    torch.manual_seed(1)
    made = HardAttention(codec, shape, hidden=16, embedding=12, attention=8, dropout=0.0, soft_share=0.25)
    made.network.attend.energy.weight.data.mul_(8)  # some regions are far likelier than others
    return made


def test_what_is_seen_is_the_one_region_or_the_mean(policy, codec, shape, features):
    words = torch.tensor([codec.encode(["a", "red", "ball"])]).expand(3, 2, -1)
    soft = SoftAttention(codec, shape, hidden=16, embedding=12, attention=8, dropout=0.0)
    soft.load_state_dict(policy.state_dict())
    mean = policy(features, words, choices=torch.full_like(words, MEAN), want=["attention"])
    softly = soft(features, words, want=["attention"])
    assert mean.log_prob.equal(softly.log_prob)
    assert mean.attention.equal(softly.attention)
    assert not mean.choice_log_prob.any()
    assert not mean.choice_entropy.any()

    net, memory = policy.network, policy.remember(features)
    state = policy.start(memory, 1, 4)
    step = policy.step(words[:, 0, 0], state, memory, choices=torch.tensor([4, 0, 3]))
    h, y = state["cell"][0], net.embed(words[:, 0, 0])
    z = torch.sigmoid(net.gate(h)) * features.values[torch.arange(3), torch.tensor([4, 0, 3])]
    h = net.cell(net.word_to_cell(y) + net.seen_to_cell(z), state["cell"])[0]
    logits = net.output(torch.tanh(y + net.state_to_output(h) + net.seen_to_output(z)))
    assert torch.allclose(step.logits, logits, atol=1e-5)  # float32: sums in another order


@torch.no_grad()
def test_gazes_come_as_often_as_they_should(policy, codec, features):
    rows, sides = 2000, 4
    one = Features(features.values[1:2], features.mask[1:2])  # two of its regions are absent
    memory = policy.remember(one)
    each = rows // sides
    uniforms = torch.cartesian_prod((torch.arange(each) + 0.5) / each, (torch.arange(sides) + 0.5) / sides)
    step = policy.step(
        torch.full((rows,), codec.start), policy.start(memory, rows, 4), memory, uniforms=uniforms, want=["attention"]
    )
    assert float((step.choices == MEAN).float().mean()) == 0.25  # one side of four
    hard = step.choices[step.choices != MEAN]
    found = torch.bincount(hard, minlength=6) / len(hard)
    assert torch.allclose(found, step.attention[0], atol=1.01 / each)  # evenly spread: off by one at most
    assert not found[-2:].any()

    scores = policy.score(memory, torch.full((1, 6, 1), codec.start), choices=torch.arange(6).view(1, 6, 1))
    p = step.attention[0, :4]
    assert torch.allclose(scores.choice_log_prob[0, :4, 0].exp(), p, atol=1e-6)
    surprise = -(p * scores.choice_log_prob[0, :4, 0]).sum()
    assert torch.allclose(scores.choice_entropy, surprise.expand(1, 6, 1), atol=1e-5)


def test_the_coin_is_the_captions_and_nobody_tosses_it_without_uniforms(policy, codec, features):
    words = torch.tensor([codec.encode(["a", "red", "ball"])]).expand(3, 40, -1)
    uniforms = keyed_uniforms(1, 0, torch.arange(3), 40, 3, 2)
    soft = policy(features, words, uniforms=uniforms).choices == MEAN
    assert soft.all(-1).equal(soft.any(-1))
    assert 0.1 < soft.float().mean() < 0.4
    plain = policy(features, words, want=["attention"])
    assert plain.choices.equal(plain.attention.argmax(-1))
    riding = policy(features, words, uniforms=torch.full_like(uniforms, torch.nan))  # as a greedy caption among draws
    assert riding.choices.equal(plain.choices)


# A tiny world: two regions, an end token and two words, captions of two words at most.
END, LENGTH, REGIONS = 1, 2, 2


class Silent(ToyCodec):
    def encode(self, words):  # none of the English words that captions should not end on
        return []


def tiny(soft_share: float, loud: float = 2.0) -> HardAttention:
    torch.manual_seed(5)
    made = HardAttention(
        Silent(size=5), FeatureShape(REGIONS, 3), hidden=3, embedding=3, attention=3, dropout=0.0, soft_share=soft_share
    ).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(loud)
    return made


def tiny_batch(images: int, words: Tensor) -> Batch:
    """Many images of the same features, so that one update averages many independent estimates."""
    one = toy_features(1, regions=REGIONS)
    values, mask = one.values.double().expand(images, -1, -1), one.mask.expand(images, -1)
    words = words.expand(images, *words.shape)
    return Batch(torch.arange(images), Features(values, mask), words, caption_mask(words, END))


def all_gazes(length: int) -> Tensor:
    return torch.tensor(list(product(range(REGIONS), repeat=length)))


def flat(of: HardAttention, total: Tensor) -> Tensor:
    parts = torch.autograd.grad(
        total, list(of.parameters()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([part.flatten() for part in parts])


def assert_mean(trainer, of: HardAttention, batch: Batch, wanted: Tensor, updates: int = 20) -> None:
    """Within 5 standard errors everywhere (some 70 parameters: chance says 3), and these are small enough to tell."""
    trainer.update(batch)  # its baseline is its own mean, which is biased a little
    found = []
    for _ in range(updates):
        trainer.update(batch)
        grads = [torch.zeros_like(each) if each.grad is None else each.grad for each in of.parameters()]
        found.append(torch.cat([grad.flatten() for grad in grads]))
    drawn = torch.stack(found)
    error = drawn.std(0) / updates**0.5
    moved = error > 1e-12
    assert torch.allclose(drawn[0, ~moved], wanted[~moved], atol=1e-12)
    assert float(((drawn.mean(0) - wanted) / error)[moved].abs().max()) < 5
    assert float(error.norm() / wanted.norm()) < 0.05


@pytest.mark.parametrize(("lambda_r", "lambda_e", "soft_share"), [(1.0, 0.0, 0.0), (0.3, 0.7, 0.4)])
def test_the_estimate_is_right_in_the_mean(lambda_r, lambda_e, soft_share):
    of = tiny(soft_share, loud=1.4)
    captions = torch.tensor([[3, 4, END], [4, END, 0]])  # the second is shorter: its padding must not count
    batch = tiny_batch(100, captions)
    memory = of.remember(Features(batch.features.values[:1], batch.features.mask[:1]))
    bound, total = torch.zeros(()).double(), torch.zeros(()).double()
    for caption in captions:
        length = int((caption == END).nonzero()[0, 0]) + 1
        gazes = all_gazes(length)
        words = caption[:length].expand(1, len(gazes), -1)
        scores = of.score(memory, words, choices=gazes[None])
        likelihood, log_s = scores.log_prob[0].sum(-1), scores.choice_log_prob[0].sum(-1)
        bound = bound + (log_s.exp() * likelihood).sum()
        credit = likelihood + lambda_r * likelihood.detach() * log_s + lambda_e * scores.choice_entropy[0].sum(-1)
        hard = (log_s.exp().detach() * credit).sum()
        soft = of.score(memory, words[:, :1], choices=torch.full_like(words[:, :1], MEAN)).log_prob.sum()
        total = total + (1 - soft_share) * hard + soft_share * soft
    wanted = flat(of, -total / 5)  # the loss is a mean over the five words
    if (lambda_r, lambda_e, soft_share) == (1.0, 0.0, 0.0):  # then it is the gradient of the bound itself
        assert torch.allclose(wanted, flat(of, -bound / 5), atol=1e-12)
    trainer = VariationalBound(of, Course(30), samples=4, lambda_r=lambda_r, lambda_e=lambda_e, optimiser=STILL)
    assert_mean(trainer, of, batch, wanted)
    assert trainer.update(batch)["advantage/deviation"] < 1  # or it would have been scaled


@pytest.mark.parametrize(("average", "loud"), [(None, 1.0), (-4.0, 2.0)])
def test_an_update_is_that_of_the_formula(average, loud):
    of = tiny(0.4, loud)
    batch = tiny_batch(3, torch.tensor([[3, 4, END], [4, END, 0]]))
    trainer = VariationalBound(of, Course(5), samples=2, lambda_r=0.3, lambda_e=0.7, optimiser=STILL)
    if average is not None:
        trainer.load_state_dict(copy.deepcopy(trainer.state_dict()) | {"average": torch.tensor(average)})
    metrics = trainer.update(batch)
    words = batch.words[:, [0, 0, 1, 1]]
    scores = of(batch.features, words, uniforms=keyed_uniforms(1, 0, batch.images, 4, 3, 2))
    parts = (scores.log_prob, scores.choice_log_prob, scores.choice_entropy)
    captions = [[part[b, n, : (3, 3, 2, 2)[n]] for part in parts] for b in range(3) for n in range(4)]
    mean = sum(float(log_p.detach().sum()) for log_p, _, _ in captions) / 30
    base, total = mean if average is None else average, torch.zeros(()).double()
    to_come = torch.stack([(log_p[t:].detach() - base).sum() for log_p, _, _ in captions for t in range(len(log_p))])
    scale = float(to_come.square().mean().sqrt().clamp_min(1))
    assert (scale > 1) == (loud > 1)  # both cases are tried
    for log_p, log_s, entropy in captions:
        total = total + log_p.sum() + 0.7 * entropy.sum()
        for t in range(len(log_p)):
            total = total + 0.3 * (log_p[t:].detach() - base).sum() / scale * log_s[t]
    wanted = flat(of, -total / 30)
    found = torch.cat([each.grad.flatten() for each in of.parameters()])
    assert torch.allclose(found, wanted, atol=1e-12)  # float64: sums in another order
    assert float(metrics["baseline/average"]) == pytest.approx(0.9 * base + 0.1 * mean)
    assert float(metrics["loss/cross_entropy"]) == pytest.approx(-mean)


@pytest.mark.parametrize("given", [0, 1])
def test_under_a_reward_words_and_gazes_get_their_gradient(given):
    """Captions are marginalised over all gazes and both sides of the coin.

    Where the first word is given, its gaze still shapes the second one, and gets the gradient for that.
    """
    of = tiny(0.4)
    legal = torch.tensor([END, 3, 4])
    captions = torch.tensor([[END, 0], *([a, b] for a in (3, 4) for b in (END, 3, 4))])
    rewards = torch.tensor([0.3, -1.0, 2.0, 0.5, 1.5, -0.5, 1.0]).double()

    def judge(candidates: Candidates) -> Judgement:
        padded = torch.nn.functional.pad(candidates.words, (0, LENGTH - candidates.words.shape[-1]))
        total = ((padded[..., None, :] == captions).all(-1).double() * rewards).sum(-1)
        return Judgement(total, {"known": (total, total)})

    batch = tiny_batch(600, torch.tensor([[3, END]]))
    memory = of.remember(Features(batch.features.values[:1], batch.features.mask[:1]))
    gazes = torch.cat((all_gazes(LENGTH), torch.full((1, LENGTH), MEAN)))
    place = torch.tensor([0, 0, 0, 1, 2])
    p = torch.zeros(len(captions)).double()
    for gaze in gazes:
        choices = gaze.expand(1, len(captions), -1)
        scores = of.score(memory, captions[None], choices=choices, want=["logits"])
        log_p = scores.logits[0][..., legal].log_softmax(-1).gather(-1, place[captions][..., None])[..., 0]
        share = 0.4 if gaze[0] == MEAN else 0.6
        drawn = caption_mask(captions, END) & (torch.arange(LENGTH) >= given)
        p = p + share * ((log_p * drawn).sum(-1) + scores.choice_log_prob[0].sum(-1)).exp()
    p = p * (captions[:, :given] == 3).all(-1)
    assert float(p.detach().sum()) == pytest.approx(1)
    wanted = flat(of, -(p * rewards).sum() / LENGTH)
    drawing = Drawing(samples=4, length=LENGTH)
    settings = {"rollout": drawing, "baseline": "leave_one_out", "optimiser": STILL}
    if given:
        trainer = Mixer(of, Course(30, judge=judge), cross_entropy=0.0, anneal=Anneal(words=1), **settings)
    else:
        trainer = SCST(of, Course(30, judge=judge), **settings)
    assert_mean(trainer, of, batch, wanted)


def test_the_gaze_learns_where_to_look():
    """Word t names what lies in region t; the mean of all regions tells what there is, but not where."""
    torch.manual_seed(1)
    regions, things, images, updates = 3, 4, 32, 100
    shape = FeatureShape(regions, regions + things)
    policy = HardAttention(
        ToyCodec(size=3 + things, end=None), shape, hidden=16, embedding=8, attention=16, dropout=0.0, soft_share=0.0
    )
    trainer = VariationalBound(policy, Course(updates), samples=4, lambda_r=1.0, optimiser=Optimiser(lr=0.02))
    places, all_there = torch.eye(regions).expand(images, -1, -1), torch.ones(images, regions, dtype=torch.bool)
    for _ in range(updates):
        lies = torch.randint(things, (images, regions))
        features = Features(torch.cat((places, torch.eye(things)[lies]), -1), all_there)
        metrics = trainer.update(Batch(torch.arange(images), features, 3 + lies[:, None], all_there[:, None]))
    # 0.57 nats a word where the gaze learns nothing (lambda_r 0)
    assert metrics["loss/cross_entropy"] < 0.1
    # two looks are enough for three words: what is left has not been seen yet
    assert metrics["gaze/moved"] > 0.4


def test_gaze_curves_by_hand():
    # the gaze goes from the first region to an even one and stays there; the last word does not count
    attention = torch.tensor([[[[1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.0, 1.0]]]])
    curves = gaze_curves(attention, torch.tensor([[[True, True, True, False]]]))
    assert float(curves["gaze/moved"]) == pytest.approx((0.5 + 0) / 2)
    assert float(curves["gaze/entropy"]) == pytest.approx(2 * 0.6931472 / 3)


def test_a_policy_without_choices_is_refused(codec, shape):
    with pytest.raises(ConfigError, match=r"SoftAttention makes no choices .*policy\.name=hard_attention"):
        VariationalBound(SoftAttention(codec, shape, hidden=4, embedding=4, attention=4), Course(1))


@pytest.mark.parametrize("sampled", [False, True])
def test_it_says_the_same_where_to_see_is_to_act(sampled):
    world, samples = tiny_world(6), 4 if sampled else 1
    shape = world.source.shape
    torch.manual_seed(1)
    policy = HardAttention(world.codec, shape, hidden=16, embedding=12, attention=8, soft_share=0.25).eval()
    policy.network.attend.energy.weight.data.mul_(20)
    env = GlimpseEnv(world, peripheral="all")
    length, images = env.unwrapped.observation_space["words"].shape[0], torch.arange(len(world))
    features = world.source.read(images)
    uniforms = keyed_uniforms(1, 0, images, samples, length, 1 + policy.coins) if sampled else None
    with torch.no_grad():
        alone = write(
            policy,
            policy.remember(features),
            images=len(world),
            n=samples,
            length=length,
            sampling=Sampling() if sampled else None,
            uniforms=uniforms,
            want=["attention"],
        )
    gazes = torch.where(alone.choices == MEAN, alone.attention.argmax(-1), alone.choices)
    assert (alone.choices == MEAN).any() == sampled
    for image, n in product(range(len(world)), range(samples)):
        agent = GlimpseAgent(policy, None if uniforms is None else uniforms[image, n])
        seen, _ = env.reset(options={"image": image})
        over, looked = False, []
        while not over:
            seen, _, ended, cut, _ = env.step(agent(seen))
            over = ended or cut
            looked.append(int(seen["where"][0]))
            assert (seen["glimpse"] == features.values[image, looked[-1]].numpy()).all()
        said = int(alone.mask[image, n].sum())
        assert seen["words"][:said].tolist() == alone.words[image, n, :said].tolist()
        assert int(seen["step"][0]) == said
        assert looked[:said] == gazes[image, n, :said].tolist()
