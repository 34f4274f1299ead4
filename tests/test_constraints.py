"""Which words may come next."""

import random

import pytest
import torch
from toy_policies import ToyCodec, legal_words

from rlcap.decoding.constraints import Constraints, _on_device, constrain
from rlcap.errors import ConfigError


def legal(scores: torch.Tensor) -> list[list[int]]:
    return [[w for w, score in enumerate(row) if score > -float("inf")] for row in scores.tolist()]


@pytest.mark.parametrize("end", [1, None])
@pytest.mark.parametrize("banned", [(), (4,)])
def test_as_the_rules_spelled_out(end, banned):
    codec = ToyCodec(size=6, end=end)
    generator, stuck = random.Random(3), 0
    words = [w for w in range(codec.size) if w not in (*codec.banned, *banned, end)]
    for min_words in (0, 1, 4):
        for n in (0, 1, 2, 3):
            constraints = Constraints(min_words, n, banned)
            for t in range(8):
                prefixes = [tuple(generator.choices(words, k=t)) for _ in range(20)]
                # What stands behind the t words must not matter.
                said = torch.tensor([(*prefix, *generator.choices(words, k=3)) for prefix in prefixes])
                scores = torch.randn(20, codec.size)
                given = scores.clone()
                allowed = constrain(scores, said, t, codec, constraints)
                expected = [legal_words(codec, prefix, constraints) for prefix in prefixes]
                assert legal(allowed) == expected
                assert torch.equal(scores, given)
                assert torch.equal(allowed[allowed > -torch.inf], scores[allowed > -torch.inf])
                stuck += sum(row == [end] for row in expected)
    assert stuck > 0 or end is None  # the fallback was among the cases


def test_a_row_may_end_even_where_the_policy_would_not():
    codec = ToyCodec(size=4)  # one word, 3
    scores = torch.tensor([[0.0, -torch.inf, 0.0, 1.0], [0.0, -2.0, 0.0, 1.0]])
    allowed = constrain(scores, torch.tensor([[3], [3]]), 1, codec, Constraints(no_repeat_ngram=1))
    assert legal(allowed) == [[1], [1]]
    assert torch.equal(allowed.softmax(-1)[:, 1], torch.ones(2))
    assert allowed[1, 1] == -2


def test_nothing_to_do_returns_the_scores_themselves():
    codec = ToyCodec(banned=())
    scores = torch.randn(2, codec.size)
    said = torch.full((2, 5), 3)
    assert constrain(scores, said, 2, codec, Constraints()) is scores
    assert constrain(scores, said, 2, codec, Constraints(min_words=2, no_repeat_ngram=3)) is scores


def test_gradients_pass_to_allowed_words_alone():
    codec = ToyCodec()
    said = torch.tensor([[3, 4, 3], [3, 4, 5]])
    constraints = Constraints(min_words=4, no_repeat_ngram=2)
    _on_device.cache_clear()
    with torch.inference_mode():  # what decoding keeps must serve training as well
        constrain(torch.zeros(2, codec.size), said, 3, codec, constraints)
    scores = torch.zeros(2, codec.size, requires_grad=True)
    constrain(scores, said, 3, codec, constraints).softmax(-1)[:, 5].sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert scores.grad.ne(0).tolist() == [[False, False, False, True, False, True], [False] * 3 + [True] * 3]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Constraints(min_words=-1), "min_words is -1"),
        (lambda: Constraints(no_repeat_ngram=-2), "no_repeat_ngram is -2"),
        (lambda: apply(Constraints(banned=(6,))), "banned id 6"),
        (lambda: apply(Constraints(banned=(-1,))), "banned id -1"),
        (lambda: apply(Constraints(banned=(1, 3, 4, 5))), "all 6 words"),
    ],
)
def test_impossible_constraints_are_answered_in_one_line(make, says):
    with pytest.raises(ConfigError, match=says) as error:
        make()
    assert "\n" not in str(error.value)


def apply(constraints: Constraints) -> None:
    constrain(torch.zeros(1, 6), torch.zeros(1, 3, dtype=torch.long), 0, ToyCodec(), constraints)
