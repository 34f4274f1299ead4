"""Several rewards as one: weights, schedules, normalisation, clipping, products, and what is refused."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from worlds import candidates_of, references_of

from rlcap.config import Term
from rlcap.contracts import Candidates, Reward
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import ComponentError, ConfigError, DataError
from rlcap.rewards.agreement import check_agreement
from rlcap.rewards.combination import Combination, Normaliser, Speller, weight_at

CAPTIONS = [["a red ball", "a ball", "the …"], ["a box", "blue blue blue", ""]]


class Length(Reward):
    """Words, the end token among them."""

    def __call__(self, candidates: Candidates) -> Tensor:
        return candidates.lengths.float()


class EachWord(Reward):
    """2 for each word; behind the caption nonsense, which must not count."""

    def __call__(self, candidates: Candidates) -> Tensor:
        behind = torch.arange(candidates.words.shape[-1]) >= candidates.lengths[..., None]
        return torch.where(behind, 1000.0, 2.0)


class Wrong(Reward):
    def __init__(self, answer) -> None:
        self.answer = answer

    def __call__(self, candidates: Candidates) -> Tensor:
        return self.answer


@pytest.fixture
def candidates() -> Candidates:
    return candidates_of(references_of(), CAPTIONS)


def combined(*terms: tuple[Term, Reward]) -> Combination:
    labels = [term.name for term, _ in terms]
    return Combination(
        dict(zip(labels, (term for term, _ in terms), strict=True)),
        dict(zip(labels, (reward for _, reward in terms), strict=True)),
        references_of(),
    )


def test_terms_are_weighed_clipped_and_added(candidates):
    judge = combined(
        (Term("length", 0.5), Length()),
        (Term("short", -1.0, clip=(0.0, 2.0)), Length()),
        (Term("watched", 0.0), Length()),
    )
    judgement = judge(candidates)
    lengths = candidates.lengths.float()
    assert judgement.total.equal(0.5 * lengths - lengths.clamp(0, 2))
    raw, weighted = judgement.parts["short"]
    assert raw.equal(lengths)
    assert weighted.equal(-lengths.clamp(0, 2))
    assert judgement.parts["watched"][0].equal(lengths)
    assert not judgement.parts["watched"][1].any()


def test_curves_are_means_over_drawn_captions_alone(candidates):
    curves = combined((Term("length", 2.0), Length()))(candidates).curves(drawn=2)
    drawn = candidates.lengths[:, :2].float().mean()
    assert {name: float(value) for name, value in curves.items()} == {
        "reward/total": pytest.approx(2 * drawn),
        "reward/length/raw": pytest.approx(drawn),
        "reward/length/weighted": pytest.approx(2 * drawn),
    }


def test_a_factor_multiplies_another_reward(candidates):
    judge = combined((Term("length", 3.0), Length()), (Term("factor", 0.5, times="length"), Length()))
    lengths = candidates.lengths.float()
    assert torch.allclose(judge(candidates).total, 3 * lengths * 0.5 * lengths)


@pytest.mark.parametrize(
    ("times", "said"),
    [("lenth", "there is no reward 'lenth' (did you mean 'length'?)"), ("factor", "name one that is added")],
)
def test_a_factor_of_nothing_is_refused(times, said):
    with pytest.raises(ConfigError, match=r"rewards\.factor\.times") as caught:
        combined((Term("length"), Length()), (Term("factor", times=times), Length()))
    assert said in str(caught.value)


def test_credit_by_word_counts_within_the_caption(candidates):
    judgement = combined((Term("length"), Length()), (Term("word", 0.25), EachWord()))(candidates)
    lengths = candidates.lengths.float()
    assert judgement.by_word.sum(-1).equal(0.5 * lengths)
    assert judgement.total.equal(1.5 * lengths)


def test_credit_by_word_is_not_normalised(candidates):
    with pytest.raises(ConfigError, match=r"rewards\.word: gives credit by word"):
        combined((Term("word", normalise=True), EachWord()))(candidates)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (torch.zeros(2), "a tensor of shape (2,) for 2 images x 3 captions"),
        (torch.zeros(3, 2), "give a tensor of shape (2, 3), or (2, 3, 4) for credit by word"),
        ([1.0] * 6, "gave list"),
    ],
)
def test_an_answer_of_another_form_is_refused(candidates, answer, said):
    with pytest.raises(ComponentError) as caught:
        combined((Term("wrong"), Wrong(answer)))(candidates)
    assert said in str(caught.value)
    assert "reward 'wrong'" in str(caught.value)


def test_weights_follow_their_points():
    points = ((10, 1.0), (20, 3.0), (40, 0.0))
    assert [weight_at(points, update) for update in (0, 10, 15, 20, 30, 99)] == [1.0, 1.0, 2.0, 3.0, 1.5, 0.0]


def test_a_schedule_moves_with_batches_of_drawn_captions_and_survives_a_stop(candidates):
    term = Term("length", ((0, 0.0), (4, 4.0)))
    judge = combined((term, Length()))
    seen = [float(judge(each).total[0, 0]) for each in (candidates, replace(candidates, drawn=0), candidates)]
    length = float(candidates.lengths[0, 0])
    assert seen == [0.0, length, length]
    again = combined((term, Length()))
    again.load_state_dict(judge.state_dict())
    assert float(again(candidates).total[0, 0]) == 2 * length


def test_a_normaliser_learns_from_drawn_captions_as_if_it_had_seen_all_at_once():
    torch.manual_seed(0)
    batches = [torch.randn(size, 3) * 5 + 2 for size in (1, 4, 7)]
    normaliser = Normaliser(torch.device("cpu"))
    for batch in batches:
        last = normaliser(batch, drawn=2)
    before = normaliser.state_dict()
    normaliser(torch.full((4, 3), 1e6), drawn=0)
    assert normaliser.state_dict() == before
    seen = torch.cat([batch[:, :2].flatten() for batch in batches]).double()
    wanted = (batches[-1].double() - seen.mean()) / seen.std(correction=0)
    assert torch.allclose(last.double(), wanted, atol=1e-6)  # the answer is float32


def test_normalising_what_never_varies_gives_nothing(candidates):
    judge = combined((Term("same", normalise=True), Wrong(torch.full((2, 3), 7.0))))
    assert judge(candidates).total.equal(torch.zeros(2, 3))


def test_normalisers_are_saved(candidates):
    judge, again = (combined((Term("length", normalise=True), Length())) for _ in range(2))
    for _ in range(3):
        judge(candidates)
    again.load_state_dict(judge.state_dict())
    other = replace(candidates, lengths=candidates.lengths + 1)
    assert again(other).total.equal(judge(other).total)


class Doubtful(Length):
    """Has a plain form, which says something else of one caption."""

    def __init__(self, slip: float) -> None:
        self.slip = slip

    def plain(self, captions: Sequence[Sequence[str]], ended: Sequence[bool], images: Sequence[int]) -> list[float]:
        scores = [float(len(words) + end) for words, end in zip(captions, ended, strict=True)]
        scores[4] += self.slip
        return scores


def test_agreement_is_demanded(candidates):
    references = references_of()
    assert check_agreement(combined((Term("length"), Doubtful(0.0))), candidates, references) == {"length": 0.0}
    with pytest.raises(DataError) as caught:
        check_agreement(combined((Term("length"), Doubtful(0.01))), candidates, references)
    assert "reward 'length': gives 4.000000 where the evaluation's code gives 4.010000" in str(caught.value)
    assert "'blue blue blue' of image 1.jpg" in str(caught.value)


def test_nan_is_no_agreement(candidates):
    with pytest.raises(DataError, match="gives 4"):
        check_agreement(combined((Term("length"), Doubtful(float("nan")))), candidates, references_of())


def test_captions_of_another_codec_go_through_text(capsys):
    references = references_of()
    other = Vocabulary(reversed(references.vocabulary.entries[4:]))
    spelt = candidates_of(replace(references, vocabulary=other), CAPTIONS)
    again = Speller(other, references)(spelt)
    wanted = candidates_of(references, CAPTIONS)
    assert "through text" in capsys.readouterr().out
    assert again.lengths.equal(wanted.lengths)
    for mine, theirs, length in zip(
        again.words.flatten(0, 1), wanted.words.flatten(0, 1), wanted.lengths.flatten(), strict=True
    ):
        assert mine[:length].equal(theirs[:length])


class Failing(Reward):
    def __call__(self, candidates: Candidates) -> Tensor:
        raise ValueError("out of\nwords")


def test_a_class_that_raises_is_named_with_the_line(candidates):
    with pytest.raises(ComponentError) as caught:
        combined((Term("failing"), Failing()))(candidates)
    said = str(caught.value)
    assert said.startswith("reward 'failing': ValueError: out of words at ")
    assert __file__ in said


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused_at_once(candidates, number):
    answer = torch.zeros(2, 3)
    answer[1, 2] = number
    with pytest.raises(ComponentError, match=r"reward 'wrong': .* not finite for caption 2 of image 1\.jpg"):
        combined((Term("wrong", 0.0), Wrong(answer)))(candidates)


def test_whole_numbers_and_booleans_are_numbers_and_complex_ones_are_none(candidates):
    for answer in (torch.ones(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.bool)):
        judgement = combined((Term("count", 0.5), Wrong(answer)))(candidates)
        assert judgement.total.equal(torch.full((2, 3), 0.5))
        assert judgement.curves(3)["reward/count/raw"] == 1
    with pytest.raises(ComponentError, match="gave complex numbers"):
        combined((Term("count"), Wrong(torch.ones(2, 3) * 1j)))(candidates)


def test_a_batch_that_fails_teaches_nothing(candidates):
    judge = combined((Term("length", normalise=True), Length()), (Term("failing"), Failing()))
    with pytest.raises(ComponentError):
        judge(candidates)
    assert float(judge.state_dict()["normalisers"]["length"]["count"]) == 0


def test_a_normaliser_that_knows_nothing_changes_nothing():
    values = torch.tensor([[3.0, 5.0]])
    assert Normaliser(torch.device("cpu"))(values, drawn=0).equal(values)
