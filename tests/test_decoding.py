"""The word loop, the ways of choosing a word, and the numbers that they are drawn with."""

import pytest
import torch

from rlcap.contracts import Policy, caption_mask
from rlcap.decoding.choosing import Sampling, drawn
from rlcap.decoding.loop import write
from rlcap.decoding.uniforms import keyed_uniforms
from rlcap.models.soft_attention import SoftAttention


@pytest.fixture
def policy(codec, shape) -> Policy:
    torch.manual_seed(1)
    return SoftAttention(codec, shape, hidden=16, embedding=12, attention=8, dropout=0.0).eval()


def test_uniforms_belong_to_their_image_not_to_their_batch():
    both = keyed_uniforms(1, 2, torch.tensor([7, 9]), samples=3, words=4, streams=2)
    alone = keyed_uniforms(1, 2, torch.tensor([9]), samples=3, words=4, streams=2)
    fewer = keyed_uniforms(1, 2, torch.tensor([9]), samples=2, words=3)
    assert (both[1] == alone[0]).all()
    assert (alone[:, :2, :3, :1] == fewer).all()
    for other in (
        keyed_uniforms(2, 2, torch.tensor([9]), 3, 4, 2),
        keyed_uniforms(1, 3, torch.tensor([9]), 3, 4, 2),
    ):
        assert (other != alone).all()


def test_uniforms_are_uniform_and_unrelated():
    u = keyed_uniforms(0, 0, torch.arange(100), samples=10, words=20, streams=5).double()
    assert 0 < u.min() < 2e-5
    assert 1 - 2e-5 < u.max() < 1
    # 100,000 draws: the mean's deviation is 0.289/316 = 0.0009, a correlation's 0.003; five of them each
    assert abs(u.mean() - 0.5) < 0.0045
    flat = u - u.mean()
    for dim in range(4):
        neighbours = flat.narrow(dim, 1, u.shape[dim] - 1) * flat.narrow(dim, 0, u.shape[dim] - 1)
        assert abs(neighbours.mean() * 12) < 0.017, dim


def test_drawn_words_follow_their_probabilities_and_forbidden_ones_never_come():
    p = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    u = keyed_uniforms(3, 0, torch.arange(20000), 1, 1).flatten()
    words = drawn(p.log().expand(20000, -1), u)
    share = torch.bincount(words, minlength=6) / 20000
    # five standard deviations of a share of one half: 5·0.5/√20000
    assert (share - p).abs().max() < 0.018
    assert share[[0, 2, 5]].max() == 0
    edges = drawn(p.log().expand(2, -1), torch.tensor([0.5 / 2**23, 1 - 0.5 / 2**23]))
    assert edges.tolist() == [1, 4]


def test_sampling_bends_the_distribution_as_named():
    scores = torch.tensor([[2.0, 1.0, 0.0, -torch.inf]])
    p = scores.softmax(-1)
    assert torch.allclose(Sampling().log_probabilities(scores).exp(), p)
    assert torch.allclose(Sampling(temperature=0.5).log_probabilities(scores).exp(), (scores * 2).softmax(-1))
    two = p[0, :2] / p[0, :2].sum()
    assert torch.allclose(Sampling(top_k=2).log_probabilities(scores).exp(), torch.tensor([[*two, 0, 0]]))
    # p = 0.665, 0.245, 0.090: the first two hold 0.91, the smallest set that reaches 0.7
    assert torch.allclose(Sampling(top_p=0.7).log_probabilities(scores).exp(), torch.tensor([[*two, 0, 0]]))
    assert torch.allclose(Sampling(top_p=0.6).log_probabilities(scores).exp(), torch.tensor([[1.0, 0, 0, 0]]))


def test_greedy_takes_the_likeliest_legal_word_each_time(policy, features, codec):
    memory = policy.remember(features)
    written = write(policy, memory, images=3, length=7, want=["attention"])
    scores = policy.score(memory, written.words, want=["logits"])
    logits = scores.logits.clone()
    logits[..., list(codec.banned)] = -torch.inf
    assert (logits.argmax(-1) == written.words)[written.mask].all()
    log_p = logits.log_softmax(-1).gather(-1, written.words[..., None])[..., 0]
    assert torch.allclose(written.log_prob[written.mask], log_p[written.mask], atol=1e-5)
    assert (written.mask == caption_mask(written.words, codec.end)).all()
    assert written.attention.shape == (*written.words.shape, 6)


def test_samples_are_the_same_batched_and_one_by_one(policy, features):
    memory = policy.remember(features)
    u = keyed_uniforms(1, 0, torch.tensor([5, 6, 7]), 4, 8)
    together = write(policy, memory, images=3, n=4, length=8, sampling=Sampling(), uniforms=u)
    for b in range(3):
        one = {key: value[b : b + 1] for key, value in memory.items()}
        alone = write(policy, one, images=1, n=4, length=8, sampling=Sampling(), uniforms=u[b : b + 1])
        length = alone.words.shape[-1]
        assert (together.words[b : b + 1, :, :length] == alone.words).all()
        assert not together.mask[b : b + 1, :, length:].any()


def test_nothing_stands_behind_the_end(policy, features, codec):
    u = keyed_uniforms(1, 0, torch.arange(3), 50, 8)
    written = write(policy, policy.remember(features), images=3, n=50, length=8, sampling=Sampling(), uniforms=u)
    assert (written.words[~written.mask] == codec.pad).all()
    assert (written.log_prob[~written.mask] == 0).all()
    assert (written.words == codec.end).sum(-1).max() == 1
    said = written.words[written.mask]
    assert not any((said == banned).any() for banned in codec.banned)


def test_captions_are_gone_on_with_as_if_they_had_never_stopped(policy, features):
    u = keyed_uniforms(1, 0, torch.arange(3), 20, 8)
    memory, how = policy.remember(features), {"images": 3, "n": 20, "length": 8, "sampling": Sampling(), "uniforms": u}
    whole = write(policy, memory, **how, want=["attention", "distribution"])
    part = write(policy, memory, **how, until=1, want=["attention", "distribution", "state"])
    part = write(policy, memory, **how, after=part, until=4, want=["attention", "distribution", "state"])
    assert part.words.shape[-1] == 4
    assert (part.words[..., -1] == policy.codec.pad).any()  # some have ended, and stay so
    found = write(policy, memory, **how, after=part, want=["attention", "distribution"])
    for name in ("words", "mask", "log_prob", "attention", "distribution"):
        assert torch.equal(getattr(found, name), getattr(whole, name)), name
