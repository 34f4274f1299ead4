"""Scheduled sampling: the decays by hand, which words are fed, and that without any it is teacher forcing."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toy_policies import ToyCodec, ToyPolicy, toy_features

from rlcap.agents.cross_entropy import CrossEntropy
from rlcap.agents.optimisers import Optimiser
from rlcap.agents.scheduled_sampling import Scheduled, score_own_words
from rlcap.components import check_arguments
from rlcap.contracts import Batch, Course, Features, Judgement, Step, caption_mask
from rlcap.decoding.uniforms import keyed_uniforms
from rlcap.errors import ConfigError
from rlcap.models.show_tell import ShowTell

SEED, UPDATE = 3, 7


class Listening(ToyPolicy):
    """Notes the words that it hears. `firm`: what it says does not depend on them."""

    def __init__(self, codec: ToyCodec, firm: Tensor | None = None):
        super().__init__(codec, seed=1)
        self.firm, self.heard = firm, []

    def step(self, words, state, memory, *, uniforms=None, choices=None, want=()) -> Step:
        self.heard.append(words)
        step = super().step(words, state, memory)
        return step if self.firm is None else replace(step, logits=self.firm.expand(len(words), -1) + 0 * step.logits)


def scored(policy, features: Features, words: Tensor, probability: float, **settings):
    images, n, length = words.shape
    uniforms = keyed_uniforms(SEED, UPDATE, torch.arange(images), n, length, 2)
    return score_own_words(policy, features, words, probability, uniforms, **settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"decay": "linear", "k": 1.0, "slope": 0.01, "least": 0.25}, {0: 1.0, 30: 0.7, 75: 0.25, 500: 0.25}),
        ({"decay": "linear", "k": 0.9, "slope": 0.1}, {0: 0.9, 4: 0.5, 9: 0.0, 10: 0.0}),
        ({"decay": "exponential", "k": 0.99}, {0: 1.0, 1: 0.99, 2: 0.9801, 100: 0.36603234}),
        ({"decay": "exponential", "k": 0.5, "least": 0.1}, {3: 0.125, 4: 0.1}),
        ({"decay": "inverse_sigmoid", "k": 1.0}, {0: 0.5, 1: 0.26894142, 9999: 0.0}),  # 1 / (1 + e)
        ({"decay": "inverse_sigmoid", "k": 100.0}, {0: 100 / 101, 100: 0.97353648, 461: 0.49879}),  # 100 ln 100 = 460.5
    ],
)
def test_decays_by_hand(settings, expected):
    schedule = Scheduled(**settings)
    assert {update: schedule.of_true_words(update) for update in expected} == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("feed", ["drawn", "greedy"])
def test_the_share_and_the_distribution_of_the_words_fed(feed):
    """A policy that says the same whatever it hears: words 3, 4, 5 and the end with 0.4, 0.3, 0.1 and 0.2."""
    codec, share = ToyCodec(), 0.4
    firm = torch.tensor([0.9, 0.2, 0.9, 0.4, 0.3, 0.1]).log()  # padding and start are likely, and never said
    policy = Listening(codec, firm)
    words = torch.full((500, 2, 5), 5)
    scores, own = scored(policy, toy_features(500), words, share, feed=feed)
    heard = torch.stack(policy.heard, 1).unflatten(0, (500, 2))
    assert (heard[..., 0] == codec.start).all()
    assert not own[..., 0].any()
    assert (heard[..., 1:][~own[..., 1:]] == 5).all()
    told = heard[own]
    expected = {3: 0.4, 4: 0.3, 5: 0.1} if feed == "drawn" else {3: 1.0}
    count = 500 * 2 * 4
    for word in range(codec.size):
        p = share * expected.get(word, 0.0)  # a coin, then the word
        wanted, deviation = count * p, math.sqrt(count * p * (1 - p))
        assert abs(int((told == word).sum()) - wanted) <= 4 * deviation, word
    assert torch.allclose(scores.log_prob, firm.log_softmax(-1)[5].expand(500, 2, 5))  # what is to be said stays


def test_what_it_says_follows_from_what_it_heard():
    """Behind the words that were fed the plain loop says the same; the caption's own words are what is asked for."""
    codec = ToyCodec()
    policy, features = Listening(codec), toy_features(4)
    words = torch.randint(3, 6, (4, 3, 6), generator=torch.Generator().manual_seed(0))
    scores, own = scored(policy, features, words, 0.5, want=["logits", "attention", "entropy"])
    heard = torch.stack(policy.heard, 1).unflatten(0, (4, 3))
    shifted = torch.cat((heard[..., 1:], words[..., -1:]), -1)
    plain = policy.score(policy.remember(features), shifted, want=["logits", "attention", "entropy"])
    for name in ("logits", "entropy"):
        assert torch.equal(getattr(scores, name), getattr(plain, name))
    assert scores.attention is None or torch.equal(scores.attention, plain.attention)
    told = plain.logits.log_softmax(-1).gather(-1, words[..., None])[..., 0]
    assert torch.equal(scores.log_prob, told)
    assert 0 < (heard[..., 1:] != words[..., :-1]).sum() <= own.sum()
    scores.log_prob.sum().backward()
    assert policy.recur.grad.abs().max() > 0


def test_an_image_hears_the_same_words_alone():
    policy, features = Listening(ToyCodec()), toy_features(4)
    words = torch.randint(3, 6, (4, 3, 6), generator=torch.Generator().manual_seed(0))
    together, own = scored(policy, features, words, 0.5)
    one = replace(features, values=features.values[2:3], mask=features.mask[2:3])
    uniforms = keyed_uniforms(SEED, UPDATE, torch.tensor([2]), 3, 6, 2)
    alone, own_alone = score_own_words(policy, one, words[2:3], 0.5, uniforms)
    assert torch.equal(own_alone, own[2:3])
    torch.testing.assert_close(alone.log_prob, together.log_prob[2:3])


@pytest.fixture
def batch(codec, features) -> Batch:
    ball, box, end, pad = *codec.encode(["ball", "box"]), codec.end, codec.pad
    words = torch.tensor([[[ball, box, ball, end]], [[box, box, end, pad]], [[ball, ball, box, box]]])
    return Batch(torch.arange(3), features, words, caption_mask(words, end))


def losses_of(codec, shape, batch: Batch, scheduled: Scheduled | None, updates: int = 3) -> list[dict[str, float]]:
    """Of a policy with dropout, whose draws must fall alike."""
    torch.manual_seed(5)
    policy = ShowTell(codec, shape, hidden=8, embedding=6, dropout=0.3)
    trainer = CrossEntropy(policy, Course(updates=updates), scheduled=scheduled, optimiser=Optimiser(lr=0.01))
    return [{name: value.item() for name, value in trainer.update(batch).items()} for _ in range(updates)]


def test_without_words_of_its_own_it_is_teacher_forcing_to_the_bit(codec, shape, batch):
    plain = losses_of(codec, shape, batch, None)
    still = losses_of(codec, shape, batch, Scheduled("exponential", k=1.0))
    assert [{"scheduled/fed_back": 0.0, **each} for each in plain] == still
    assert "scheduled/fed_back" not in plain[0]


def test_the_curve_is_the_share_of_words_heard(codec, shape, batch):
    """Eleven words count, and eight of them are heard. Where it would have ended, it hears the true word."""
    shares = [each["scheduled/fed_back"] for each in losses_of(codec, shape, batch, Scheduled("linear", 1.0, 0.5), 30)]
    assert shares[0] == 0
    assert all(share * 8 == pytest.approx(round(share * 8)) for share in shares)
    assert sum(shares[2:]) / 28 > 0.7  # from the third update on every coin falls for its own words


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"decay": "exponential", "k": 1.5}, "'k' is at most 1 for exponential, not 1.5"),
        ({"decay": "inverse_sigmoid", "k": 0.5}, "'k' is at least 1 for inverse_sigmoid, not 0.5"),
        ({"decay": "linear", "k": 1.0}, "'slope' belongs to linear, which needs it above 0; it is 0.0 for linear"),
        ({"decay": "exponential", "k": 0.9, "slope": 0.1}, "it is 0.1 for exponential"),
        ({"decay": "linear", "k": 1.0, "slope": 0.1, "least": 1.5}, "'least' is a probability: give 0 to 1, not 1.5"),
        ({"k": 1.0}, "scheduled.decay: is missing"),
    ],
)
def test_wrong_schedules_are_told_in_one_line(settings, said):
    with pytest.raises(ConfigError) as error:
        check_arguments(CrossEntropy, {"scheduled": settings}, "trainer")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_rewards_that_nothing_would_learn_from_are_refused(codec, shape):
    course = Course(updates=1, judge=lambda candidates: Judgement(candidates.lengths.float(), {}))
    with pytest.raises(ConfigError, match=r"^trainer cross_entropy: learns from the captions alone, .*scst\)$"):
        CrossEntropy(ShowTell(codec, shape), course)
