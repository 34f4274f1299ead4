"""Learning rates by hand, clipping, and that each optimiser is torch's own."""

import io
import math

import pytest
import torch
from torch import nn

from rlcap.agents import TRAINERS
from rlcap.agents.optimisers import Descent, Optimiser
from rlcap.components import find
from rlcap.contracts import Course, Encoder, Features
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import ConfigError
from rlcap.models.encoders import load_encoder
from rlcap.models.seeing import Seeing

# lr 0.8, warm-up over updates 0 to 3, 12 updates in all, floor a quarter: at update 6 a quarter of the fall is over,
# at 8 half, at 11 seven eighths, from 12 on all.
BEGINNING = {0: 0.2, 1: 0.4, 3: 0.8, 4: 0.8}
COSINE = {6: 0.2 + 0.6 * (1 + math.sqrt(0.5)) / 2, 8: 0.5, 11: 0.2 + 0.6 * (1 - math.cos(math.pi / 8)) / 2}
LINEAR = {6: 0.65, 8: 0.5, 11: 0.275}
BY_HAND = {
    "none": BEGINNING | dict.fromkeys((6, 8, 11, 12, 14), 0.8),
    "cosine": BEGINNING | COSINE | {12: 0.2, 14: 0.2},
    "linear": BEGINNING | LINEAR | {12: 0.2, 14: 0.2},
}


def weight(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


@pytest.mark.parametrize("decay", BY_HAND)
def test_rates_are_those_by_hand_and_move_the_weights(decay):
    one = weight(0.0)
    descent = Descent(nn.ParameterList([one]), Optimiser(lr=0.8, warmup=4, decay=decay, floor=0.25), updates=12)
    rates, moves = [], []
    for _ in range(15):
        next_rate, before = descent.rate(), one.item()
        rates.append(descent.step(one.sum())["optimiser/rate"].item())
        moves.append(before - one.item())
        assert rates[-1] == pytest.approx(next_rate, rel=1e-6)  # logged in float32
    for update, rate in BY_HAND[decay].items():
        assert rates[update] == pytest.approx(rate, rel=1e-6), update
        # Adam moves by the rate itself while the gradient is always 1, but for its epsilon of 1e-8
        assert moves[update] == pytest.approx(rate, rel=1e-7), update


def test_the_floor_is_zero_unless_it_is_given_and_a_warm_up_may_fill_the_run():
    def rates(updates: int, **settings) -> list[float]:
        one = weight(0.0)
        descent = Descent(nn.ParameterList([one]), Optimiser(lr=0.1, **settings), updates)
        return [descent.step(one.sum())["optimiser/rate"].item() for _ in range(updates + 2)]

    assert rates(2) == pytest.approx([0.1, 0.1, 0.1, 0.1])
    assert rates(2, decay="linear") == pytest.approx([0.1, 0.05, 0, 0])
    assert rates(2, decay="cosine") == pytest.approx([0.1, 0.05, 0, 0])
    assert rates(2, decay="linear", warmup=2) == pytest.approx([0.05, 0.1, 0.1, 0])


class Eye(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([weight(1.0), weight(1.0)])
        self.weights[1].requires_grad_(False)

    def forward(self, images: torch.Tensor) -> Features:
        return Features.of_pixels(images * self.weights[0])


class Seen(nn.Module):
    """A weight of its own, and one in its encoder."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.own = weight(1.0)


def test_an_encoder_has_a_rate_of_its_own_on_the_same_schedule():
    network = Seen(Eye())
    settings = Optimiser(lr=0.8, encoder_lr=0.02, warmup=4, decay="cosine", floor=0.25)
    descent = Descent(network, settings, updates=12)
    for update in range(12):
        if update == 6:  # a run that goes on
            state, descent = descent.state_dict(), Descent(network, settings, updates=12)
            descent.load_state_dict(state)
        before = network.own.item(), network.encoder.weights[0].item()
        told = descent.step(network.own.sum() + network.encoder.weights[0].sum())["optimiser/rate"].item()
        moves = before[0] - network.own.item(), before[1] - network.encoder.weights[0].item()
        assert moves == pytest.approx((told, told / 40), rel=1e-6)  # as Adam does while the gradient is 1
        assert told == pytest.approx(BY_HAND["cosine"].get(update, told), rel=1e-6)
    assert network.encoder.weights[1].item() == 1.0, "frozen"


@pytest.mark.parametrize("network", [nn.Linear(1, 1), Seen(nn.Linear(1, 1))], ids=["none", "a part of that name"])
def test_the_rate_of_an_encoder_that_is_not_there(network):
    with pytest.raises(ConfigError, match="encoder_lr: no encoder is trained along"):
        Descent(network, Optimiser(encoder_lr=1e-5), updates=1)


@pytest.mark.parametrize("name", sorted(TRAINERS.keys() - {"contrastive"}))
def test_every_trainer_of_policies_knows_the_encoder(name):
    encoder = load_encoder("small_cnn", {"size": 8, "width": 32})
    codec = Vocabulary(["a"])
    kind = {"hard_attention": "hard_attention", "adversarial": "leakgan"}.get(name, "soft_attention")
    policy = Seeing(find("policy", kind)(codec, encoder.shape, hidden=4, embedding=4, attention=4), encoder)
    judge = None if name in ("cross_entropy", "hard_attention", "adversarial") else lambda candidates: None
    trainer = find("trainer", name)(policy, Course(1, judge=judge), optimiser=Optimiser(encoder_lr=1e-5))
    assert len(trainer.state_dict()["descent"]["optimiser"]["param_groups"][1]["params"]) == 12


@pytest.mark.parametrize(("clip", "left"), [(1.0, (0.6, 0.8)), (10.0, (3.0, 4.0)), (0.0, (3.0, 4.0))])
def test_the_whole_gradient_is_clipped_and_its_norm_told_before(clip, left):
    three, four = weight(0.0), weight(0.0)
    descent = Descent(nn.ParameterList([three, four]), Optimiser(clip=clip), updates=2)
    for _ in range(2):  # the second gradient is not added to the first
        told = descent.step((3 * three + 4 * four).sum())
        assert told["optimiser/gradient_norm"].item() == pytest.approx(5.0)
        assert not told["optimiser/gradient_norm"].requires_grad
        # torch divides by norm + 1e-6
        assert (three.grad.item(), four.grad.item()) == pytest.approx(left, rel=1e-6)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize(
    ("name", "own"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("rmsprop", torch.optim.RMSprop)],
)
def test_each_name_is_the_optimiser_of_torch(name, own, weight_decay):
    mine, theirs = weight(1.0, -2.0), weight(1.0, -2.0)
    descent = Descent(nn.ParameterList([mine]), Optimiser(name, lr=0.05, weight_decay=weight_decay, clip=0), updates=3)
    optimiser = own([theirs], lr=0.05, weight_decay=weight_decay)
    for _ in range(3):
        descent.step(mine.square().sum())
        optimiser.zero_grad()
        theirs.square().sum().backward()
        optimiser.step()
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_a_saved_descent_goes_on_identically(name):
    settings = Optimiser(name, lr=0.1, warmup=2, decay="cosine", weight_decay=0.01)

    def go_on(descent: Descent, one: nn.Parameter) -> list[float]:
        told = [descent.step((one - 3).square().sum()) for _ in range(4)]
        return [rate.item() for metrics in told for rate in metrics.values()]

    mine = weight(1.0, -2.0)
    descent = Descent(nn.ParameterList([mine]), settings, updates=8)
    go_on(descent, mine)
    file = io.BytesIO()
    torch.save({"descent": descent.state_dict(), "weight": mine.detach()}, file)
    after = go_on(descent, mine)

    file.seek(0)
    saved = torch.load(file, weights_only=True)  # tensors and plain values only
    restored = nn.Parameter(saved["weight"])
    again = Descent(nn.ParameterList([restored]), settings, updates=8)
    again.load_state_dict(saved["descent"])
    assert go_on(again, restored) == after
    assert torch.equal(restored, mine)
