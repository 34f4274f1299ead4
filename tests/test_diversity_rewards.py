"""Diversity and health as tensor programs against the plain forms, and those against sums by hand."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcap.contracts import Candidates, Reward
from rlcap.data.frequencies import DocumentFrequencies
from rlcap.data.references import References
from rlcap.data.vocabulary import Vocabulary
from rlcap.metrics.cider import CiderReferences
from rlcap.metrics.diversity import (
    bad_ending,
    distinct,
    health,
    mbleu,
    own_ngrams,
    repetition,
    self_bleu,
    self_cider,
)
from rlcap.metrics.ngrams import Words
from rlcap.rewards.diversity import Distinct, SelfBleu, SelfCider
from rlcap.rewards.health import BadEnding, Length, Repetition

VOCABULARY = Vocabulary(["a", "dog", "on", "the", "grass"])
TOKENS = [[["a", "dog", "on", "the", "grass"], ["the", "dog"]], [["a", "zebra"]], [["dog", "on", "a", "dog"]]]
FREQUENCIES = DocumentFrequencies.build(TOKENS, "")

Said = tuple[list[int], bool]  # ids without the end token, and whether it was said
CAPTION = st.tuples(st.lists(st.integers(4, VOCABULARY.size - 1), max_size=9), st.booleans())


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[list[Said]], int]:
    """Some captions of each image, the first ones drawn; some of them twice."""
    number = draw(st.integers(1, 4))
    pool = draw(st.lists(CAPTION, min_size=1, max_size=6))
    one = st.lists(st.sampled_from(pool), min_size=number, max_size=number)
    return draw(st.lists(one, min_size=1, max_size=3)), draw(st.integers(0, number))


def references_of(dtype: torch.dtype) -> References:
    raw = [[" ".join(words) for words in image] for image in TOKENS]
    return References(range(len(TOKENS)), TOKENS, raw, VOCABULARY, FREQUENCIES, dtype=dtype)


def candidates_of(captions: Sequence[Sequence[Said]], drawn: int) -> Candidates:
    """Behind each caption stands garbage."""
    spelt = [[[*ids, *([VOCABULARY.end] if ended else [])] for ids, ended in image] for image in captions]
    longest = max(len(ids) for image in spelt for ids in image) + drawn % 2
    rows = [[[*ids, *[4] * (longest - len(ids))] for ids in image] for image in spelt]
    lengths = torch.tensor([[len(ids) for ids in image] for image in spelt])
    words = torch.tensor(rows, dtype=torch.long).view(*lengths.shape, -1)
    return Candidates(words, lengths, torch.zeros(len(captions), dtype=torch.long), drawn)


def words_of(ids: Sequence[int]) -> list[str]:
    return [VOCABULARY.entries[i] for i in ids]


def assert_equal(
    make: Callable[[References], Reward],
    plain: Callable[[Words, list[Words]], float],  # of a caption and the others that were drawn
    batch: tuple[list[list[Said]], int],
) -> None:
    captions, drawn = batch
    expected = [
        [
            plain(words_of(ids), [words_of(other) for m, (other, _) in enumerate(image[:drawn]) if m != n])
            for n, (ids, _) in enumerate(image)
        ]
        for image in captions
    ]
    for dtype in (torch.float64, torch.float32):
        scores = make(references_of(dtype))(candidates_of(captions, drawn))
        assert scores.dtype == dtype
        # A few roundings of numbers of about 1.
        atol = 1e-9 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(scores.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=atol)


@settings(max_examples=60, deadline=None)
@given(batches(), st.integers(1, 4))
def test_own_ngrams(batch: tuple[list[list[Said]], int], n: int) -> None:
    assert_equal(lambda r: Distinct(r, n=n), lambda words, others: own_ngrams(words, others, n), batch)


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from([1, 2, 3, 4]))
def test_self_bleu(batch: tuple[list[list[Said]], int], n: int) -> None:
    assert_equal(lambda r: SelfBleu(r, n=n), lambda words, others: self_bleu(words, others, n), batch)


@settings(max_examples=60, deadline=None)
@given(batches())
def test_self_cider(batch: tuple[list[list[Said]], int]) -> None:
    captions, drawn = batch
    sets = [[words_of(ids) for ids, _ in image[:drawn]] for image in captions]
    scores_of_sets = [self_cider(words, FREQUENCIES) if words else 0.0 for words in sets]
    expected = torch.tensor(scores_of_sets, dtype=torch.float64)
    for dtype, atol in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        scores = SelfCider(references_of(dtype))(candidates_of(captions, drawn))
        assert scores.dtype == dtype
        wide = expected[:, None].expand(scores.shape)
        torch.testing.assert_close(scores.double(), wide, rtol=0, atol=atol)


@pytest.mark.parametrize("kind", [Distinct, SelfBleu, SelfCider])
def test_a_caption_that_rides_along_changes_nothing(kind: Callable[[References], Reward]) -> None:
    drawn = [([4, 5, 6, 7, 8], True), ([7, 5, 6, 4, 5], True)]
    reward = kind(references_of(torch.float64))
    alone = reward(candidates_of([drawn], 2))
    for rider in drawn[1], ([8, 8], False):
        assert torch.equal(reward(candidates_of([[*drawn, rider]], 2))[:, :2], alone)


@settings(max_examples=60, deadline=None)
@given(batches(), st.integers(1, 4))
def test_health_rewards(batch: tuple[list[list[Said]], int], n: int) -> None:
    captions, drawn = batch
    flat = [caption for image in captions for caption in image]
    words, ended = [words_of(ids) for ids, _ in flat], [end for _, end in flat]
    for make in (
        lambda r: Repetition(r, n=n),
        lambda r: BadEnding(r, words=("on", "the", "zebra")),
        BadEnding,
        Length,
    ):
        for dtype in (torch.float64, torch.float32):
            reward = make(references_of(dtype))
            scores = reward(candidates_of(captions, drawn))
            assert scores.dtype == dtype
            expected = torch.tensor(reward.plain(words, ended, [0] * len(words)), dtype=torch.float64)
            torch.testing.assert_close(
                scores.double().flatten(), expected, rtol=0, atol=1e-9 if dtype == torch.float64 else 1e-6
            )


@pytest.mark.parametrize("kind", [Distinct, SelfBleu, SelfCider, Repetition, BadEnding, Length])
def test_nothing_is_read_back_from_an_accelerator(kind: Callable[[References], Reward]) -> None:
    """The meta device has shapes and no values: whatever needs a value on the host fails there."""
    references = replace(references_of(torch.float32), device=torch.device("meta"))
    words, lengths = (torch.zeros(shape, dtype=torch.long, device="meta") for shape in ((2, 3, 5), (2, 3)))
    assert kind(references)(Candidates(words, lengths, lengths[:, 0], 2)).shape == (2, 3)


def test_plain_forms_by_hand() -> None:
    a, b = ["a", "dog", "on", "a", "dog"], ["a", "dog"]
    assert distinct([a, b], 1) == pytest.approx(3 / 7)
    assert distinct([a, b], 2) == pytest.approx(3 / 5)  # (a dog) three times, (dog on), (on a)
    assert distinct([[]], 2) == 0.0
    assert own_ngrams(a, [b], 2) == 0.5
    assert own_ngrams(b, [a], 1) == 0.0
    assert own_ngrams(b, [], 1) == 1.0
    assert repetition(a, 1) == pytest.approx(2 / 5)
    assert repetition(a, 2) == pytest.approx(1 / 4)
    assert repetition(["a"], 2) == 0.0
    assert bad_ending(["on", "the"], True)
    assert bad_ending(["on", "grass"], False)
    assert not bad_ending([], True)
    # Of b, both words and the one pair are in a; it is three words shorter.
    assert self_bleu(b, [a], 2) == pytest.approx(math.exp(1 - 5 / 2), abs=1e-8)
    assert mbleu([[b, b], [b]], 2) == pytest.approx(2 / 3, abs=1e-8)  # one that is alone has 0


def test_self_cider_by_hand() -> None:
    grass, yard = ["a", "dog", "on", "the", "grass"], ["the", "dog", "in", "a", "yard"]
    assert self_cider([grass], FREQUENCIES) == 0.0
    assert self_cider([[], []], FREQUENCIES) == 0.0
    assert self_cider([grass, grass, grass], FREQUENCIES) == pytest.approx(0.0, abs=1e-6)
    assert self_cider([list("bcde"), list("fghi")], FREQUENCIES) == pytest.approx(1.0)
    # The eigenvalues of [[1, s], [s, 1]] are 1 + s and 1 - s.
    s = CiderReferences([[yard]], FREQUENCIES).cider([grass]).corpus / 10
    high, low = math.sqrt(1 + s), math.sqrt(1 - s)
    assert self_cider([grass, yard], FREQUENCIES) == pytest.approx(-math.log2(high / (high + low)))


def test_health_by_hand() -> None:
    captions = [["a", "dog"], ["a", "dog", "a", "dog"], ["on", "the"], []]
    figures = health(captions, [True, True, True, False], vocabulary_size=10)
    assert figures == pytest.approx(
        {
            "length": 2.0,
            "repetition": (1 / 3) / 4,
            "bad_ending": 2 / 4,
            "vocabulary_use": 4 / 10,
            "distinct_1": 4 / 8,
            "distinct_2": 3 / 5,
        }
    )
    assert health(captions, None, 10)["bad_ending"] == 1 / 4
