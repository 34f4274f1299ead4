"""The cross-entropy trainer: its gradient is that of the formula, written out word by word, and padding is nothing."""

import copy
import math

import pytest
import torch
from torch import Tensor
from toy_policies import ToyCodec, ToyPolicy, toy_features

from rlcap import losses
from rlcap.agents.cross_entropy import CrossEntropy
from rlcap.agents.optimisers import Optimiser
from rlcap.contracts import Batch, Course, Features, Policy
from rlcap.errors import ComponentError
from rlcap.models.soft_attention import SoftAttention

# Sums of some hundred terms in float64 in another order: far below, but a mask of shares is made in float32 in both.
CLOSE = {"rtol": 1e-9, "atol": 1e-12}
NOTHING, NAN = -torch.inf, torch.nan


@pytest.fixture
def policy(codec, shape) -> Policy:
    torch.manual_seed(1)
    return SoftAttention(codec, shape, hidden=6, embedding=5, attention=4, dropout=0.0).double()


@pytest.fixture
def batch(features, codec) -> Batch:
    """Three images with two captions of 1 to 5 words, the last one cut before its end token."""
    ball, box, end = codec.encode(["ball"])[0], codec.encode(["box"])[0], codec.end
    captions = [
        [[ball, box, end], [box, end]],
        [[end], [ball, ball, ball, box, end]],
        [[box, ball, ball, end], [ball, box, box, ball, box]],
    ]
    return padded(features, captions, 5, codec.pad)


def padded(features: Features, captions: list[list[list[int]]], length: int, filler: int) -> Batch:
    words = torch.tensor([[[*c, *[filler] * (length - len(c))] for c in image] for image in captions])
    lengths = torch.tensor([[len(caption) for caption in image] for image in captions])
    double = Features(features.values.double(), features.mask, grid=features.grid)
    return Batch(torch.arange(len(captions)), double, words, torch.arange(length) < lengths[..., None])


def by_hand(policy: Policy, batch: Batch, smoothing: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy a word and attention penalty a caption, from the policy's logits and looks."""
    scores = policy(batch.features, batch.words, want=["logits", "attention"])
    of_words, of_captions = [], []
    for b, n in torch.cartesian_prod(*map(torch.arange, batch.words.shape[:2])).tolist():
        length = int(batch.mask[b, n].sum())
        for t in range(length):
            log_p = scores.logits[b, n, t].log_softmax(-1)
            target = torch.full_like(log_p, smoothing / len(log_p))
            target[batch.words[b, n, t]] += 1 - smoothing
            of_words.append(-(target * log_p).sum())
        looks = scores.attention[b, n, :length].unbind(0)
        of_captions.append(sum((1 - region) ** 2 for region in sum(looks).unbind(0)))
    return torch.stack(of_words).mean(), torch.stack(of_captions).mean()


def gradients(policy: Policy, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*policy.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters, materialize_grads=True), strict=True))


def updated(policy: Policy, batch: Batch, **settings) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One update without clipping that hardly moves the weights: the metrics, and the gradients that it used."""
    trainer = CrossEntropy(policy, Course(updates=1), optimiser=Optimiser(lr=1e-30, clip=0), **settings)
    metrics = trainer.update(batch)
    return metrics, {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in policy.named_parameters()
    }


def assert_alike(mine: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name in mine.keys() | other.keys():
        torch.testing.assert_close(mine[name], other[name], msg=lambda text, name=name: f"{name}: {text}", **CLOSE)


@pytest.mark.parametrize("penalty", [0.0, 0.7])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_gradient_is_that_of_the_formula(policy, batch, smoothing, penalty):
    entropy, attention = by_hand(policy, batch, smoothing)
    expected = gradients(policy, entropy + penalty * attention)
    metrics, mine = updated(policy, batch, label_smoothing=smoothing, attention_penalty=penalty)
    assert_alike(mine, expected)
    told = {"loss/cross_entropy": entropy.detach()} | ({"loss/attention": attention.detach()} if penalty else {})
    assert_alike({name: value for name, value in metrics.items() if name.startswith("loss/")}, told)
    norm = torch.stack([gradient.square().sum() for gradient in expected.values()]).sum().sqrt()
    assert metrics["optimiser/gradient_norm"].item() == pytest.approx(norm.item())
    assert not any(value.requires_grad for value in metrics.values())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_what_pads_a_batch_and_how_far_changes_nothing(policy, batch, codec, smoothing):
    settings = {"label_smoothing": smoothing, "attention_penalty": 0.7}
    metrics, mine = updated(policy, batch, **settings)
    captions = [
        [words[counts].tolist() for words, counts in zip(of_image, mask, strict=True)]
        for of_image, mask in zip(batch.words, batch.mask, strict=True)
    ]
    for filler, length in ((codec.encode(["red"])[0], 5), (codec.pad, 9)):
        other_metrics, other = updated(policy, padded(batch.features, captions, length, filler), **settings)
        assert_alike(other, mine)
        for name in ("loss/cross_entropy", "loss/attention"):
            assert other_metrics[name].item() == pytest.approx(metrics[name].item())


def test_an_update_lowers_the_loss_and_trains_in_training_mode(policy, batch):
    trainer = CrossEntropy(policy.eval(), Course(updates=20), optimiser=Optimiser(lr=0.05))
    told = [trainer.update(batch)["loss/cross_entropy"].item() for _ in range(20)]
    assert told[-1] < told[0] / 2
    assert policy.training
    assert trainer.networks == {"policy": policy}


def test_a_penalty_on_a_policy_without_attention_is_refused():
    class Blind(ToyPolicy):
        def step(self, words, state, memory, *, uniforms=None, choices=None, want=()):
            return super().step(words, state, memory)

    words = torch.tensor([[[3, 4, 1]]])
    batch = Batch(torch.tensor([0]), toy_features(1), words, torch.ones_like(words, dtype=torch.bool))
    trainer = CrossEntropy(Blind(ToyCodec(), seed=0), Course(updates=1), attention_penalty=1.0)
    with pytest.raises(ComponentError, match=r"^trainer\.attention_penalty: Blind gives no attention; set it to 0$"):
        trainer.update(batch)


def test_a_saved_trainer_goes_on_identically(policy, batch, codec, shape):
    course, optimiser = Course(updates=6), Optimiser(lr=0.05, warmup=3, decay="linear")
    trainer = CrossEntropy(policy, course, optimiser=optimiser)
    trainer.update(batch)
    twin = SoftAttention(codec, shape, hidden=6, embedding=5, attention=4, dropout=0.0).double()
    twin.load_state_dict(policy.state_dict())
    other = CrossEntropy(twin, course, optimiser=optimiser)
    other.load_state_dict(copy.deepcopy(trainer.state_dict()))
    for _ in range(2):
        assert trainer.update(batch) == other.update(batch)


def test_a_masked_mean_does_not_see_what_is_masked():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    values = torch.tensor([[-1.0, -2.0, NAN], [-6.0, NOTHING, torch.inf]], requires_grad=True)
    mean = losses.masked_mean(values, mask)
    assert mean.item() == -3.0
    mean.backward()
    assert torch.equal(values.grad, mask / 3)


def test_cross_entropy_does_not_see_words_of_probability_zero_behind_the_mask():
    mask = torch.tensor([[[True, False]]])
    logits = torch.zeros(1, 1, 2, 4)
    logits[0, 0, 1, 3] = NOTHING
    logits.requires_grad_()
    for smoothing in (0.0, 0.2):
        loss = losses.cross_entropy(logits, torch.tensor([[[2, 3]]]), mask, smoothing)
        assert loss.item() == pytest.approx(math.log(4))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.equal(gradient[0, 0, 1], torch.zeros(4))
        assert gradient[0, 0, 0, 2] < 0


def test_the_attention_penalty_does_not_see_looks_behind_the_mask():
    """Looks of 0.5 and 0.25 leave (1 - 0.75)² and of 0.5 and 0.75 (1 - 1.25)²: 0.125; none leaves 2."""
    attention = torch.tensor([[[[0.5, 0.5], [0.25, 0.75], [NAN, torch.inf]], [[NAN, NAN]] * 3]], requires_grad=True)
    mask = torch.tensor([[[True, True, False], [False, False, False]]])
    penalty = losses.doubly_stochastic(attention, mask)
    assert penalty.item() == (0.125 + 2) / 2
    penalty.backward()
    assert torch.equal(attention.grad[~mask], torch.zeros(4, 2))
    assert torch.equal(attention.grad[0, 0, 0], torch.tensor([-0.25, 0.25]))
