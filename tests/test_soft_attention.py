"""The soft-attention LSTM against its equations, its own step, and eight captions learnt by heart."""

import torch

from rlcap import losses
from rlcap.contracts import Features, Policy, caption_mask
from rlcap.decoding.loop import write
from rlcap.models.soft_attention import SoftAttention


def small(codec, shape, dropout=0.0) -> SoftAttention:
    torch.manual_seed(1)
    return SoftAttention(codec, shape, hidden=16, embedding=12, attention=8, dropout=dropout)


def some_words(codec) -> torch.Tensor:
    return torch.tensor([[*codec.encode(["a", "red", "ball"]), codec.end], codec.encode(["a", "blue", "box", "and"])])


def test_score_equals_the_loop_over_step(codec, shape, features):
    # the same numbers in another order of operations: float64 leaves only rounding
    policy = small(codec, shape).double()
    features = Features(features.values.double(), features.mask)
    words = some_words(codec).repeat(3, 1, 1)
    memory = policy.remember(features)
    want = ["entropy", "logits", "attention"]
    fast, plain = policy.score(memory, words, want=want), Policy.score(policy, memory, words, want=want)
    for name in ("log_prob", *want):
        assert torch.allclose(getattr(fast, name), getattr(plain, name), atol=1e-9), name


def test_one_step_by_the_papers_equations(codec, shape, features):
    policy = small(codec, shape)
    memory = policy.remember(features)
    step = policy.step(torch.full((3,), codec.start), policy.start(memory, 1, 4), memory, want=["attention"])

    a = features.values[0]
    mean = a.mean(0)
    h, c = torch.tanh(policy.first_state.weight @ mean + policy.first_state.bias).chunk(2)
    att = policy.attend
    e = torch.tanh(a @ att.of_values.weight.T + att.of_values.bias + att.of_query.weight @ h) @ att.energy.weight[0]
    alpha = e.exp() / e.exp().sum()
    beta = torch.sigmoid(policy.gate.weight[0] @ h + policy.gate.bias[0])
    z = beta * (alpha @ a)
    y = policy.embed.weight[codec.start]
    gates = policy.word_to_gates(y) + policy.seen_to_gates(z) + policy.state_to_gates(h)
    i, f, o, g = gates.chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    logits = policy.output(torch.tanh(y + policy.state_to_output(h) + policy.seen_to_output(z)))
    assert torch.allclose(step.attention[0], alpha, atol=1e-6)
    assert torch.allclose(step.logits[0], logits, atol=1e-5)


def test_absent_regions_get_no_attention_and_change_nothing(codec, shape, features):
    policy = small(codec, shape)
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


def test_learns_eight_images_by_heart(codec, shape):
    torch.manual_seed(2)
    features = Features(torch.randn(8, shape.regions, shape.width), torch.ones(8, shape.regions, dtype=torch.bool))
    words = torch.randint(4, codec.size, (8, 1, 6))
    words[:, :, -1] = codec.end
    words[::2, :, -2] = codec.end
    words[::2, :, -1] = codec.pad
    mask = caption_mask(words, codec.end)
    policy = SoftAttention(codec, shape, hidden=32, embedding=32, attention=16, dropout=0.0)
    optimiser = torch.optim.Adam(policy.parameters(), 0.01)
    for _ in range(150):
        loss = -losses.masked_mean(policy(features, words).log_prob, mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.05
    written = write(policy, policy.remember(features), images=8, length=6)
    assert (written.words == words).all()
