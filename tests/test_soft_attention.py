"""Soft attention against its equations and its own step."""

import pytest
import torch

from rlcap import losses
from rlcap.contracts import Features, Policy
from rlcap.models.soft_attention import SoftAttention


@pytest.fixture(params=["lstm", "gru"])
def policy(request, codec, shape) -> SoftAttention:
    torch.manual_seed(1)
    return SoftAttention(codec, shape, cell=request.param, hidden=16, embedding=12, attention=8, dropout=0.0)


def some_words(codec) -> torch.Tensor:
    return torch.tensor([[*codec.encode(["a", "red", "ball"]), codec.end], codec.encode(["a", "blue", "box", "and"])])


def test_score_equals_the_loop_over_step(policy, codec, features):
    # the same numbers in another order of operations: float64 leaves only rounding
    policy = policy.double()
    features = Features(features.values.double(), features.mask)
    words = some_words(codec).repeat(3, 1, 1)
    memory = policy.remember(features)
    want = ["entropy", "logits", "attention"]
    fast, plain = policy.score(memory, words, want=want), Policy.score(policy, memory, words, want=want)
    for name in ("log_prob", *want):
        assert torch.allclose(getattr(fast, name), getattr(plain, name), atol=1e-9), name


def test_one_step_by_the_papers_equations(policy, codec, features):
    memory = policy.remember(features)
    step = policy.step(torch.full((3,), codec.start), policy.start(memory, 1, 4), memory, want=["attention"])

    net, att = policy.network, policy.network.attend
    a = features.values[0]
    state = torch.tanh(net.first_state.weight @ a.mean(0) + net.first_state.bias).chunk(net.cell.tensors)
    h = state[0]
    e = torch.tanh(a @ att.of_values.weight.T + att.of_values.bias + att.of_query.weight @ h) @ att.energy.weight[0]
    alpha = e.exp() / e.exp().sum()
    beta = torch.sigmoid(net.gate.weight[0] @ h + net.gate.bias[0])
    z = beta * (alpha @ a)
    y = net.embed.weight[codec.start]
    given = net.word_to_cell(y) + net.seen_to_cell(z)
    h = net.cell(given[None], tuple(part[None] for part in state))[0][0]  # by its own equations in test_cells
    logits = net.output(torch.tanh(y + net.state_to_output(h) + net.seen_to_output(z)))
    # float32: the same sums in another order
    assert torch.allclose(step.attention[0], alpha, atol=1e-6)
    assert torch.allclose(step.logits[0], logits, atol=1e-5)


def test_absent_regions_get_no_attention_and_change_nothing(policy, codec, features):
    other = Features(torch.where(features.mask[..., None], features.values, 99.0), features.mask)
    words = some_words(codec).repeat(3, 1, 1)
    one = policy.score(policy.remember(features), words, want=["attention"])
    two = policy.score(policy.remember(other), words)
    assert one.attention[1, ..., -2:].abs().max() == 0
    assert torch.allclose(one.log_prob, two.log_prob, atol=1e-6)


def test_doubly_stochastic_penalty_of_known_attention():
    # two words look at region 0, none at region 1: (1 - 2)² + (1 - 0)² = 2; the masked word does not count
    attention = torch.tensor([[[[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]]]])
    mask = torch.tensor([[[True, True, False]]])
    assert losses.doubly_stochastic(attention, mask) == 2.0


def test_cross_entropy_by_hand():
    # uniform logits over four words: log 4 a word, smoothed or not; the padded word does not count
    logits = torch.zeros(1, 1, 3, 4)
    logits[..., 2, 0] = 50.0
    words, mask = torch.tensor([[[1, 2, 3]]]), torch.tensor([[[True, True, False]]])
    assert torch.isclose(losses.cross_entropy(logits, words, mask), torch.tensor(4.0).log())
    assert torch.isclose(losses.cross_entropy(logits, words, mask, 0.1), torch.tensor(4.0).log())
