"""Leaked features, the same at once and a word at a time; judgements that learn, and that see the image."""

import pytest
import torch
from torch.nn import functional as F
from toy_policies import ToyCodec, toy_features

from rlcap import losses
from rlcap.contracts import FeatureShape
from rlcap.errors import ConfigError
from rlcap.models.discriminators import Discriminating, Discriminator, make_discriminator

CODEC = ToyCodec(size=9)
KINDS = ["sru", "cnn"]


def made(name: str, sees_image: bool = False, **settings) -> Discriminator:
    torch.manual_seed(1)
    shape = FeatureShape(4, 3)
    return make_discriminator(
        CODEC, shape, Discriminating(name, embedding=6, hidden=40, sees_image=sees_image, **settings)
    )


@pytest.mark.parametrize("name", KINDS)
def test_a_prefix_leaks_the_same_at_once_and_word_by_word(name):
    of = made(name).double().eval()
    words = torch.randint(3, 9, (5, 26), generator=torch.Generator().manual_seed(2))  # the longest window has 20 words
    at_once = of.leak(words)
    assert at_once.shape == (5, 27, of.width)
    state, said = of.start(5), of.from_start(words)
    for t in range(27):
        leaked, state = of.extend(said[:, t], state)
        assert torch.allclose(leaked, at_once[:, t], atol=1e-12)  # float64: sums in another order
    assert torch.allclose(of.leak(words[:, :9]), at_once[:, :10], atol=1e-12)  # what follows does not leak
    assert not torch.allclose(at_once[:, -1], at_once[:, -2], atol=1e-3)


@pytest.mark.parametrize("name", KINDS)
def test_it_learns_to_tell_orders_of_the_same_words_apart(name):
    """People count upwards, the others downwards; each word comes as often."""
    of = made(name, dropout=0.0).train()
    descent = torch.optim.Adam(of.parameters(), lr=3e-3)
    start, every = torch.arange(6), torch.ones(6, 1, dtype=torch.bool)
    up = (start[:, None] + torch.arange(5)) % 6 + 3
    lengths = torch.full((6, 1), 5)
    for _ in range(60):
        real, other = (of.judge_captions(each[:, None], lengths, None) for each in (up, up.flip(1)))
        loss = losses.discrimination(real, every, [(other, every)])
        descent.zero_grad()
        loss.backward()
        descent.step()
    assert (real > 0).all()
    assert (other < 0).all()
    assert float(loss.detach()) < 0.3  # from log 2


@pytest.mark.parametrize("name", ["sru", "cnn"])
def test_what_counts_ends_with_the_caption(name: str):
    of = made(name).eval()
    words = torch.tensor([[[3, 4, 1, 0, 0], [3, 4, 5, 6, 7]]])
    found = of.judge_captions(words, torch.tensor([[3, 5]]), None)
    for n, length in enumerate((3, 5)):
        alone = of.judge(of.leak(words[0, n : n + 1, :length])[:, -1], None)
        assert torch.allclose(found[0, n], alone[0], atol=1e-6)


def test_with_eyes_the_same_caption_may_fit_one_image_and_not_another():
    features = toy_features(2)
    blind, seeing = made("sru").eval(), made("sru", sees_image=True).eval()
    leaked = seeing.leak(torch.tensor([[3, 4, 5]]))[:, -1:].expand(2, -1, -1)  # (B, 1, F)
    assert blind.remember(features) is None
    logits = seeing.judge(leaked, seeing.remember(features))
    assert logits.shape == (2, 1)
    assert not torch.isclose(logits[0], logits[1])
    image = features.values.mean(1) @ seeing.of_image.weight.T
    wanted = seeing.judgement(leaked)[..., 0] + (leaked[:, 0] * image).sum(-1, keepdim=True) / seeing.width**0.5
    assert torch.allclose(logits, wanted, atol=1e-6)


def test_the_loss_weighs_people_and_the_others_alike_and_leaves_out_what_does_not_count():
    real, first, second = torch.tensor([[2.0, -1.0, 9.0]]), torch.tensor([[0.5]]), torch.tensor([[-3.0, 1.0, 0.0, 7.0]])
    counts = [torch.tensor([[True, True, False]]), torch.tensor([[True]]), torch.tensor([[True, True, True, False]])]
    by_hand = F.binary_cross_entropy_with_logits(real[:, :2], torch.ones(1, 2)) / 2
    for each in (first, second[:, :3]):
        by_hand += F.binary_cross_entropy_with_logits(each, torch.zeros_like(each)) / 4
    found = losses.discrimination(real, counts[0], [(first, counts[1]), (second, counts[2])])
    assert float(found) == pytest.approx(float(by_hand))


def test_text_has_no_image_to_see():
    with pytest.raises(ConfigError, match=r"sees_image=true: text has no images; set it false"):
        make_discriminator(CODEC, FeatureShape(0, 0), Discriminating(sees_image=True))
