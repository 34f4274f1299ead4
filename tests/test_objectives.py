"""Every policy-gradient trainer solves a trivial world in seconds, and its own settings do what they say."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toy_policies import ToyCodec, ToyPolicy, toy_features

from rlcap import losses
from rlcap.agents import practice
from rlcap.agents.baselines import CriticSettings
from rlcap.agents.curves import CaptionCurves
from rlcap.agents.minimum_risk import MinimumRisk, repeated
from rlcap.agents.mixer import Anneal, Mixer
from rlcap.agents.optimisers import Optimiser
from rlcap.agents.ppo import PPO
from rlcap.agents.regularise import Regularise
from rlcap.agents.rollout import Drawing, Rollout, roll_out
from rlcap.agents.scst import SCST
from rlcap.contracts import Batch, Candidates, Course, FeatureShape, Judgement
from rlcap.decoding.loop import Captions, write
from rlcap.errors import ConfigError
from rlcap.models.hard_attention import HardAttention

LENGTH, IMAGES, UPDATES = 4, 9, 50
WANTED = torch.tensor([3, 4, 5])  # image i is to be called by this word, i modulo 3, and then nothing more
END = 1


class Codec(ToyCodec):
    """Two of its words are words that captions should not end on."""

    def encode(self, words):
        return [{"a": 3, "with": 4}[word] for word in words if word in ("a", "with")]


def judge(candidates: Candidates) -> Judgement:
    """1 for the image's word at once, and 1 for a caption of one word and the end, whatever the word is."""
    right = candidates.words[..., 0] == WANTED[candidates.images[:, None] % 3]
    ended = (candidates.words == END).any(-1) & (candidates.lengths == 2)
    total = 1.0 * right + ended
    return Judgement(total, {"called": (total, total)})


BEST = 2.0


@pytest.fixture
def policy() -> ToyPolicy:
    """Unsure of all words at first, and unlikely to end: what is not learned of the end itself comes too slowly."""
    made = ToyPolicy(Codec(), seed=3, width=IMAGES, hidden=12, end_bias=-3.0)
    made.load_state_dict({name: 0.3 * value for name, value in made.state_dict().items()})
    return made


@pytest.fixture
def batch() -> Batch:
    """Images that are easy to tell apart. Of their references nothing is to be learned: they say the wrong words."""
    features = toy_features(IMAGES, width=IMAGES)
    values = features.values * 0.1 + torch.eye(IMAGES)[:, None]
    words = WANTED[(torch.arange(IMAGES)[:, None] + torch.tensor([1, 2, 1, 2])) % 3][:, None]
    return Batch(torch.arange(IMAGES), type(features)(values, features.mask), words, words != 0)


def greedy_reward(policy: ToyPolicy, batch: Batch) -> float:
    captions = write(policy, policy.remember(batch.features), images=IMAGES, length=LENGTH)
    return float(judge(Candidates(captions.words, captions.mask.sum(-1), batch.images, 0)).total.mean())


def course(updates: int = UPDATES) -> Course:
    return Course(updates, judge=judge)


FAST, DRAWING = Optimiser(lr=0.05), Drawing(samples=10, length=LENGTH)
SOLVERS = {
    "greedy": lambda policy: SCST(policy, course(), rollout=DRAWING, optimiser=FAST),
    "none": lambda policy: SCST(policy, course(), rollout=DRAWING, baseline="none", optimiser=FAST),
    "moving_average": lambda policy: SCST(policy, course(), rollout=DRAWING, baseline="moving_average", optimiser=FAST),
    "leave_one_out": lambda policy: SCST(policy, course(), rollout=DRAWING, baseline="leave_one_out", optimiser=FAST),
    "mean": lambda policy: SCST(policy, course(), rollout=DRAWING, baseline="mean", optimiser=FAST),
    "group": lambda policy: SCST(policy, course(), rollout=DRAWING, baseline="group", optimiser=FAST),
    "critic": lambda policy: SCST(
        policy, course(), rollout=DRAWING, baseline="critic", critic=CriticSettings(hidden=16), optimiser=FAST
    ),
    "ppo": lambda policy: PPO(policy, course(), rollout=DRAWING, optimiser=FAST),
    "minimum_risk": lambda policy: MinimumRisk(policy, course(), rollout=DRAWING, alpha=0.5, optimiser=FAST),
    "mixer": lambda policy: Mixer(policy, course(), rollout=DRAWING, cross_entropy=0.05, optimiser=FAST),
    "annealed": lambda policy: Mixer(
        policy, course(), rollout=DRAWING, anneal=Anneal(words=1, period=1), optimiser=FAST
    ),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_it_solves_a_trivial_world(name, policy, batch):
    torch.manual_seed(3)  # for the critic
    trainer = SOLVERS[name](policy)
    assert greedy_reward(policy, batch) < 0.4 * BEST
    curves = [{key: float(value) for key, value in trainer.update(batch).items()} for _ in range(UPDATES)]
    assert greedy_reward(policy, batch) > 0.95 * BEST
    assert curves[-1]["reward/total"] > 0.8 * BEST
    assert curves[-1]["policy/entropy"] < curves[0]["policy/entropy"]


def shifted(chosen: Tensor, by: int) -> Tensor:
    moved = chosen.roll(by, -1)
    moved[..., -1 if by < 0 else 0] = False
    return moved


BROKEN = {  # what is changed in a rollout: its total rewards, or which of its words get the gradient
    "negated": lambda total, _: -total,
    "of the neighbouring caption": lambda total, _: total.roll(1, 1),
    "of the neighbouring image": lambda total, _: total.roll(1, 0),
    "mask shifted left": lambda _, rollout: shifted(rollout.chosen, -1),
    "mask shifted right": lambda _, rollout: shifted(rollout.chosen, 1),
    "without the end": lambda _, rollout: rollout.chosen & (rollout.words != END),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("name", ["greedy", "leave_one_out", "ppo", "minimum_risk", "mixer", "annealed"])
def test_a_broken_gradient_does_not_solve_it(name, how, policy, batch, monkeypatch):
    def broken(*arguments, **settings) -> Rollout:
        rollout = roll_out(*arguments, **settings)
        changed = BROKEN[how](rollout.judgement.total, rollout)
        if changed.dtype != torch.bool:
            return replace(rollout, judgement=Judgement(changed, {}))
        rollout.__dict__["chosen"] = changed  # a cached property
        return rollout

    monkeypatch.setattr(practice, "roll_out", broken)
    trainer = SOLVERS[name](policy)
    for _ in range(UPDATES):
        trainer.update(batch)
    assert greedy_reward(policy, batch) < 0.9 * BEST


KINDS = [SCST, PPO, Mixer, MinimumRisk]


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_rewards_are_shown_now_and_then_whatever_the_baseline(kind, policy, batch):
    settings = {} if kind is MinimumRisk else {"baseline": "none"}
    trainer = kind(policy, course(), rollout=DRAWING, optimiser=Optimiser(lr=1e-30), **settings)
    shown = [trainer.update(batch).get("reward/greedy") for _ in range(20)]
    assert [i + 1 for i, value in enumerate(shown) if value is not None] == [10, 20]
    assert float(shown[9]) == pytest.approx(greedy_reward(policy, batch))


def test_minimum_risk_is_nearly_scst_against_the_mean(policy, batch):
    """With alpha near 0, as long as all captions differ; and what holds back weighs the same."""
    drawing, gradients = Drawing(samples=3, length=12), []
    policy.end_bias = -30.0
    for kind, settings in ((SCST, {"baseline": "mean"}), (MinimumRisk, {"alpha": 1e-4})):
        own = copy.deepcopy(policy)
        held = Regularise(entropy=0.3)
        trainer = kind(own, course(), rollout=drawing, regularise=held, optimiser=FAST, **settings)
        metrics = trainer.update(batch)
        gradients.append(torch.cat([own.say.grad.flatten(), own.recur.grad.flatten()]))
    assert float(metrics["risk/candidates"]) == 3
    # alpha times a log-probability of some -15 is what shares differ by
    assert torch.allclose(*gradients, atol=3e-3 * float(gradients[0].abs().max()))


def test_ppo_stops_words_that_have_moved_far(policy, batch):
    trainer = PPO(policy, course(), rollout=DRAWING, steps=1, optimiser=FAST)
    metrics = trainer.update(batch)
    assert float(metrics["policy/clipped"]) == 0
    assert float(metrics["policy/moved"]) == 0
    trainer = PPO(policy, course(), rollout=DRAWING, steps=4, ratio=0.05, optimiser=FAST)
    metrics = trainer.update(batch)
    assert 0.1 < float(metrics["policy/clipped"]) < 0.9
    assert float(metrics["policy/moved"]) > 0


def test_a_repeated_caption_is_one_candidate():
    words = torch.tensor([[[3, 1, 9], [3, 1, 8], [3, 4, 1], [3, 1, 0]]])
    mask = torch.tensor([[[True, True, False], [True, True, False], [True, True, True], [True, True, False]]])
    captions = Captions(words, mask, torch.zeros(1, 4, 3))
    rollout = Rollout(captions, Judgement(torch.zeros(1, 4), {}), toy_features(1), {}, Drawing(samples=4))
    assert repeated(rollout).tolist() == [[False, True, False, True]]


def test_annealing_leaves_more_and_more_words_free(policy, batch):
    rollout = Drawing(samples=5, length=5)
    trainer = Mixer(policy, course(), rollout=rollout, anneal=Anneal(words=1, period=2), baseline="greedy")
    words = torch.tensor([[3, 4, 5, 1, 0], [5, 1, 0, 0, 0]]).expand(IMAGES, 2, 5)
    batch = Batch(batch.images, batch.features, words, words != 0)
    forced = trainer.forced(batch, trainer.learned(batch))
    assert forced[0].tolist() == [
        [3, 4, 5, -1, -1],
        [5, -1, -1, -1, -1],
        [3, 4, 5, -1, -1],
        [5, -1, -1, -1, -1],
        [3, 4, 5, -1, -1],
    ]
    shares = [float(trainer.update(batch)["mixer/forced"]) for _ in range(7)]
    assert shares[0] > shares[2] > shares[4] > shares[6] == 0
    assert "loss/cross_entropy" in trainer.update(batch)
    for _ in range(2):  # from now on not a word of the references is learned
        assert "loss/cross_entropy" not in trainer.update(batch)
    assert (trainer.forced(batch, trainer.learned(batch)) == -1).all()


def test_an_anchor_keeps_the_policy_near_its_start(policy, batch):
    def moved(**settings) -> tuple[float, float]:
        own = copy.deepcopy(policy)
        trainer = SCST(
            own, course(), rollout=DRAWING, baseline="leave_one_out", regularise=Regularise(**settings), optimiser=FAST
        )
        curves = [trainer.update(batch) for _ in range(20)]
        assert float(curves[0]["policy/kl_to_start"]) == pytest.approx(0, abs=1e-6)
        for name, value in policy.state_dict().items():
            assert trainer.networks["start"].state_dict()[name].equal(value)
        return float(curves[-1]["policy/kl_to_start"]), float(curves[-1]["reward/total"])

    free, rewarded = moved(anchor="kl")
    for anchor in ("kl", "cross_entropy"):
        held, earned = moved(anchor=anchor, weight=3.0)
        assert held < free / 4
        assert earned < rewarded


@pytest.mark.parametrize("kind", KINDS)
def test_the_entropy_bonus_keeps_words_open(kind, policy, batch):
    def entropy(weight: float) -> float:
        regularise = Regularise(entropy=weight)
        trainer = kind(copy.deepcopy(policy), course(), rollout=DRAWING, regularise=regularise, optimiser=FAST)
        return [float(trainer.update(batch)["policy/entropy"]) for _ in range(15)][-1]

    assert entropy(3.0) > max(1.2, entropy(0.0) + 0.1)  # log 4 = 1.39 at most


@pytest.fixture
def gazing(batch) -> HardAttention:
    """Some regions are far likelier to it than others."""
    torch.manual_seed(2)
    shape = FeatureShape(*batch.features.values.shape[1:])
    made = HardAttention(Codec(), shape, hidden=8, embedding=8, attention=8, dropout=0.0, soft_share=0.25)
    made.network.attend.energy.weight.data.mul_(50)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_the_gaze_is_shown_and_can_be_kept_open(kind, gazing, batch):
    """Rewards are all alike, so nothing else moves it (but mixer's references, a little)."""

    def curves(weight: float) -> dict[str, float]:
        trainer = kind(
            copy.deepcopy(gazing),
            Course(12, judge=lambda candidates: Judgement(torch.zeros(candidates.lengths.shape), {})),
            rollout=Drawing(samples=4, length=LENGTH),
            regularise=Regularise(gaze_entropy=weight),
            optimiser=FAST,
        )
        return [{key: float(value) for key, value in trainer.update(batch).items()} for _ in range(12)][-1]

    closed, opened = curves(0.0), curves(3.0)
    assert opened["gaze/entropy"] > max(1.2, closed["gaze/entropy"] + 0.2)  # log 4 = 1.39 at most
    assert 0 <= opened["gaze/moved"] <= 1


def test_a_gaze_that_is_not_there_is_neither_shown_nor_kept_open(policy, batch):
    assert not [key for key in SCST(policy, course(), optimiser=FAST).update(batch) if key.startswith("gaze/")]
    with pytest.raises(ConfigError, match=r"gaze_entropy=0.1: .*makes no choices.*policy\.name=hard_attention"):
        SCST(policy, course(), regularise=Regularise(gaze_entropy=0.1))


def test_kl_is_that_of_the_formula():
    one, other = (torch.randn(5, 4, generator=torch.Generator().manual_seed(i)).log_softmax(-1) for i in (1, 2))
    wanted = torch.distributions.kl_divergence(*(torch.distributions.Categorical(logits=x) for x in (one, other)))
    assert torch.allclose(losses.kl_divergence(one, other), wanted, atol=1e-6)
    banned = torch.full((5, 1), -torch.inf)
    p, q = torch.cat((one, banned), 1).requires_grad_(), torch.cat((other, banned), 1)
    apart = losses.kl_divergence(p, q)
    assert torch.allclose(apart, wanted, atol=1e-6)
    assert torch.autograd.grad(apart.sum(), p)[0].isfinite().all()


def test_an_anchor_is_asked_once_a_draw(policy, batch):
    trainer = PPO(policy, course(), rollout=DRAWING, steps=3, regularise=Regularise(anchor="kl"), optimiser=FAST)
    trainer.update(batch)
    asked = trainer.networks["start"].steps
    assert 0 < asked <= LENGTH
    metrics = trainer.update(batch)
    assert asked < trainer.networks["start"].steps <= 2 * LENGTH
    assert float(metrics["policy/kl_to_start"]) > 0


def test_an_anchor_does_not_go_with_truncation(policy):
    with pytest.raises(ConfigError, match="leave out top_k and top_p"):
        SCST(policy, course(), rollout=Drawing(top_k=3), regularise=Regularise(anchor="kl"))
    with pytest.raises(ConfigError, match=r"set trainer\.regularise\.anchor"):
        SCST(policy, course(), regularise=Regularise(weight=0.1))


def test_the_curves_of_captions_by_hand():
    words = torch.tensor([[[3, 5, 3, 5], [5, 3, 1, 0]], [[5, 5, 1, 0], [4, 1, 0, 0]]])
    mask = torch.tensor([[[1, 1, 1, 1], [1, 1, 1, 0]], [[1, 1, 1, 0], [1, 1, 0, 0]]]).bool()
    captions = Captions(words, mask, torch.zeros(2, 2, 4))
    rollout = Rollout(captions, Judgement(torch.zeros(2, 2), {}), toy_features(2), {}, Drawing(samples=2))
    curves = CaptionCurves(Codec())(rollout)
    assert float(curves["caption/length"]) == 3
    assert float(curves["caption/bad_ending"]) == 3 / 4  # cut, "a", and "with"
    assert float(curves["caption/repetition"]) == pytest.approx((1 / 3) / 4)  # "3 5" of three pairs
    assert float(curves["caption/distinct_2"]) == pytest.approx((2 / 4 + 1 / 1) / 2)


@pytest.mark.parametrize("name", ["critic", "ppo", "minimum_risk", "annealed"])
def test_it_goes_on_where_it_stopped(name, policy, batch):
    through = SOLVERS[name](policy)
    for _ in range(3):
        through.update(batch)
    resumed = SOLVERS[name](ToyPolicy(Codec(), seed=9, width=IMAGES, hidden=12, end_bias=-3.0))
    for network, module in resumed.networks.items():
        module.load_state_dict(through.networks[network].state_dict())
    resumed.load_state_dict(copy.deepcopy(through.state_dict()))
    through.update(batch)
    resumed.update(batch)
    mine, theirs = (list(trainer.networks["policy"].parameters()) for trainer in (through, resumed))
    assert all(one.equal(other) for one, other in zip(mine, theirs, strict=True))


def test_padding_behind_the_end_does_not_matter_to_any_loss():
    generator = torch.Generator().manual_seed(2)

    def random() -> Tensor:
        return torch.randn(2, 3, 4, generator=generator)

    mask = torch.arange(4) < torch.tensor([[4, 2, 1], [3, 3, 2]])[..., None]
    log_prob, before, advantage = random(), random(), random()
    noise = log_prob.masked_fill(~mask, 7.0)
    for loss in (
        lambda log_prob: losses.policy_gradient(log_prob, advantage, mask, 4),
        lambda log_prob: losses.clipped_policy_gradient(log_prob, before, advantage, mask, 4, 0.2)[0],
    ):
        assert float(loss(log_prob)) == float(loss(noise))


@pytest.mark.parametrize("baseline", ["critic", "group", "greedy", "moving_average"])
def test_equal_rewards_and_captions_without_a_choice_leave_every_number_finite(policy, batch, baseline):
    def indifferent(candidates: Candidates) -> Judgement:
        return Judgement(torch.full(candidates.lengths.shape, 0.5), {})

    trainer = Mixer(
        policy,
        Course(2, judge=indifferent),
        rollout=Drawing(samples=2, length=1),
        anneal=Anneal(words=1),  # the reference has two words, so that the first is given
        baseline=baseline,
        optimiser=FAST,
    )
    for _ in range(2):
        metrics = trainer.update(batch)
        assert all(value.isfinite().all() for value in metrics.values())
    assert float(metrics["mixer/forced"]) == 1


def test_ppo_does_not_go_with_truncation(policy):
    with pytest.raises(ConfigError, match="ppo compares each word before and after; leave out top_k and top_p"):
        PPO(policy, course(), rollout=Drawing(top_p=0.9))
