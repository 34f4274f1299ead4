"""CIDEr and BLEU as tensor programs against the plain forms over strings, and the hash table that they stand on."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcap.contracts import Candidates
from rlcap.data.frequencies import END, DocumentFrequencies
from rlcap.data.references import References
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import DataError
from rlcap.metrics.bleu import bleu, smooth_bleu
from rlcap.metrics.cider import CiderReferences
from rlcap.metrics.lookup import Lookup, SectionsBuilder
from rlcap.metrics.packed import repeats
from rlcap.metrics.packing import _distinct_rows, _sound, pack_with_end
from rlcap.rewards.bleu import Bleu1, Bleu2, Bleu3, Bleu4, SmoothBleu
from rlcap.rewards.cider import Cider, CiderD

# Relative to max(1, score), as rewards promise. The worst seen in 600 worlds is 2e-7 and 4e-16.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
REWARDS = [CiderD, Cider, Bleu1, Bleu2, Bleu3, Bleu4, SmoothBleu]
KNOWN = ["a", "b", "c"]  # few, so that n-grams repeat and match
VOCABULARY = Vocabulary(KNOWN)
Image = list[list[str]]


@dataclass(frozen=True)
class World:
    training: list[Image]  # whose document frequencies count
    images: list[Image]
    batch: list[tuple[int, list[tuple[list[str], bool]]]]  # images, each with captions and whether they ended


reference = st.lists(st.sampled_from([*KNOWN, "rare", "odd"]), max_size=9)
image = st.lists(reference, min_size=1, max_size=4)
caption = st.tuples(st.lists(st.sampled_from([*KNOWN, "<unk>"]), max_size=14), st.booleans())


@st.composite
def worlds(draw: st.DrawFn) -> World:
    images = draw(st.lists(image, min_size=1, max_size=4))
    others = draw(st.lists(image, min_size=1, max_size=3))
    training = draw(st.sampled_from([others, images, images + others]))
    n = draw(st.integers(1, 3))
    said = st.tuples(st.integers(0, len(images) - 1), st.lists(caption, min_size=n, max_size=n))
    return World(training, images, draw(st.lists(said, min_size=1, max_size=4)))


def references_of(world: World, dtype: torch.dtype = torch.float32, vocabulary: Vocabulary = VOCABULARY) -> References:
    frequencies = DocumentFrequencies.build(world.training, "test")
    names = list(range(len(world.images)))
    return References(names, world.images, [], vocabulary, frequencies, torch.device("cpu"), dtype)


def candidates_of(world: World, garbage: int = 0, vocabulary: Vocabulary = VOCABULARY) -> Candidates:
    """As a rollout gives them; `garbage` makes what stands behind the captions."""
    ids = [
        [vocabulary.encode(words) + [vocabulary.end] * ended for words, ended in captions]
        for _, captions in world.batch
    ]
    longest = max(1, *(len(tokens) for captions in ids for tokens in captions)) + garbage % 3
    behind = np.random.default_rng(garbage).integers(-100, 100, (len(ids), len(ids[0]), longest))
    words = torch.from_numpy(behind if garbage else behind * 0)
    for row, captions in enumerate(ids):
        for n, tokens in enumerate(captions):
            words[row, n, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
    lengths = torch.tensor([[len(tokens) for tokens in captions] for captions in ids])
    return Candidates(words, lengths, torch.tensor([image for image, _ in world.batch]), len(ids[0]))


def plain(reward: type, world: World, end_token: bool) -> list[float]:
    """The definition, without a line of the reward's."""
    end = [END] if end_token else []
    said = [words + end * ended for _, captions in world.batch for words, ended in captions]
    rows = [image for image, captions in world.batch for _ in captions]
    references = [[words + end for words in world.images[row]] for row in rows]
    if reward in (CiderD, Cider):
        prepared = CiderReferences(references, DocumentFrequencies.build(world.training, "test"))
        result = prepared.cider_d(said) if reward is CiderD else prepared.cider(said)
        return list(result.per_image)
    if reward is SmoothBleu:
        return [smooth_by_hand(words, image, 4) for words, image in zip(said, references, strict=True)]
    return list(bleu(said, references)[int(reward.__name__[-1]) - 1].per_image)


def smooth_by_hand(caption: Sequence[str], references: Sequence[Sequence[str]], order: int) -> float:
    """Lin & Och 2004, written down once more: the mean of log precisions, brevity in the exponent."""

    def grams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    total = 0.0
    for n in range(1, order + 1):
        most: Counter[tuple[str, ...]] = Counter()
        for words in references:
            most |= grams(words, n)
        said = grams(caption, n)
        hits, count = (said & most).total() + (n > 1), said.total() + (n > 1)
        if not hits:
            return 0.0
        total += math.log(hits / count) / order
    closest = min((abs(len(words) - len(caption)), len(words)) for words in references)[1]
    return math.exp(total + min(0.0, 1 - closest / len(caption)))


def assert_equal(scores: torch.Tensor, expected: Sequence[float], dtype: torch.dtype) -> None:
    assert scores.dtype == dtype
    for score, value in zip(scores.flatten().tolist(), expected, strict=True):
        assert abs(score - value) <= TOLERANCE[dtype] * max(1, value)


@settings(max_examples=80, deadline=None)
@given(worlds(), st.sampled_from(list(TOLERANCE)), st.booleans(), st.integers(0, 99))
def test_every_reward_equals_its_plain_form(world: World, dtype: torch.dtype, end_token: bool, garbage: int) -> None:
    references, candidates = references_of(world, dtype), candidates_of(world, garbage)
    for reward in REWARDS:
        scores = reward(references, end_token=end_token)(candidates)
        assert scores.shape == candidates.lengths.shape
        assert_equal(scores, plain(reward, world, end_token), dtype)


@settings(max_examples=25, deadline=None)
@given(worlds(), st.booleans())
def test_plain_is_the_definition(world: World, end_token: bool) -> None:
    references = references_of(world)
    said = [(words, ended, image) for image, captions in world.batch for words, ended in captions]
    for reward in REWARDS:
        scores = reward(references, end_token=end_token).plain(*map(list, zip(*said, strict=True)))
        assert scores == pytest.approx(plain(reward, world, end_token), abs=1e-12)


SMALL = World(
    training=[[["a", "b"], ["c"]], [["b", "rare"]], [["c", "c", "a"]]],
    images=[[["a", "b", "rare"], ["b"]], [["c", "a", "c", "a", "c"]]],
    batch=[(1, [(["c", "a", "c"], True)] * 2), (0, [(["a", "b", "<unk>"], True), (["a", "b", "c"], False)])],
)


def test_a_score_may_be_saved_for_a_backward_pass() -> None:
    weight = torch.ones(2, 2, requires_grad=True)
    for reward in (CiderD, Bleu4):
        scores = reward(references_of(SMALL))(candidates_of(SMALL))
        (weight * scores).sum().backward()
        torch.testing.assert_close(weight.grad, scores)
        weight.grad = None


def test_images_stand_in_any_order() -> None:
    reward, candidates = CiderD(references_of(SMALL)), candidates_of(SMALL)
    order = torch.tensor([1, 0, 1])
    permuted = replace(candidates, **{key: getattr(candidates, key)[order] for key in ("words", "lengths", "images")})
    torch.testing.assert_close(reward(permuted), reward(candidates)[order], rtol=0, atol=0)


def test_unknown_words_earn_nothing() -> None:
    """The reference's "rare" is outside the vocabulary: both would be <unk> as token ids."""
    unk, end = VOCABULARY.unknown, VOCABULARY.end
    world = World([[["rare", "rare"]], [["a"]]], [[["rare", "rare"]]], [])
    words = torch.tensor([[[unk, unk, end], [unk, unk, unk], [VOCABULARY.pad, VOCABULARY.start, unk]]])
    candidates = Candidates(words, torch.tensor([[3, 3, 3]]), torch.tensor([0]), 3)
    for reward in (CiderD, Cider, Bleu4, SmoothBleu):
        assert reward(references_of(world), end_token=False)(candidates).abs().max() < 1e-3
    assert Bleu1(references_of(world))(candidates)[0].tolist() == pytest.approx([1 / 3, 0, 0], abs=1e-6)  # <end>


def test_an_unknown_word_costs_as_much_as_any_other_wrong_one() -> None:
    world = replace(SMALL, batch=[(0, [(["a", "b", "<unk>", "<unk>"], True), (["a", "b", "c"], True)])])
    assert_equal(CiderD(references_of(world))(candidates_of(world)), plain(CiderD, world, True), torch.float32)


def test_more_words_than_fit_into_exact_keys() -> None:
    words = [f"w{i}" for i in range(66_000)]
    images: list[Image] = [[words[i : i + 12], words[i + 6 : i + 20 : 2]] for i in range(0, len(words), 12)]
    vocabulary = Vocabulary(words)
    captions = [(images[i][0][:5] + images[-i][1][2:4], True) for i in range(40)]
    world = World(images, images, [(i, [caption]) for i, caption in enumerate(captions)])
    references = references_of(world, torch.float64, vocabulary)
    assert references.once(pack_with_end).factor % 2 == 1
    for reward in (CiderD, Bleu4):
        scores = reward(references)(candidates_of(world, vocabulary=vocabulary))
        assert_equal(scores, plain(reward, world, True), torch.float64)


def test_keys_that_collide_are_seen() -> None:
    grams = np.array([[1, 2], [3, 4], [1, 2], [5, 6]], np.int32)
    assert _sound(grams, np.array([7, 8, 7, 9]))
    assert not _sound(grams, np.array([7, 8, 7, 8]))


@pytest.mark.parametrize("length", [1, 2, 3, 7, 300])
def test_repeats(length: int) -> None:
    """Of 300 equal words the last has stood 299 times before: more than fits into a byte."""
    words = np.random.default_rng(length).integers(0, 2, (length, 3))
    words[:, 0] = 1
    apart = words + np.array([0, 10, 20])  # no word stands in two columns
    found = repeats(torch.from_numpy(apart.T.flatten()), length).numpy().reshape(4, 3, length)
    for column in range(3):
        for n in range(1, 5):
            said = [tuple(words[i : i + n, column]) for i in range(length - n + 1)]
            seen: Counter[tuple[int, ...]] = Counter()
            for place, gram in enumerate(said):
                assert found[n - 1, column, place] == seen[gram]
                seen[gram] += 1


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(-(2**63), 2**63 - 1), max_size=300), st.integers(0, 2**40), st.integers(1, 5000))
def test_the_table_finds_every_key_and_no_other(keys: set[int], first: int, most: int) -> None:
    run = {first + step * 2**16 for step in range(50)}  # keys of a pattern, as those of n-grams are
    known = np.array(sorted(keys | run), np.int64)
    values = known % most + 1
    table = Lookup.build(known, values)
    places, found = table.find(torch.from_numpy(known).view(1, -1))
    assert found[0].tolist() == values.tolist()
    assert len(set(places[0].tolist())) == len(known)
    others = {key ^ change for key in map(int, known) for change in (1, 2**20, 2**50, -(2**63))} - set(map(int, known))
    missed = table.find(torch.tensor(sorted(others)))[1]
    assert ((missed == 0) | (missed == table.absent)).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sets(st.integers(1, 2**36 - 1), max_size=60), max_size=5), min_size=1, max_size=3))
def test_a_table_of_sections_finds_each_key_in_its_own_section_alone(parts: list[list[set[int]]]) -> None:
    """Sections are added part by part; some are empty."""
    builder = SectionsBuilder(key_bits=36)
    for part in parts:
        section = np.repeat(np.arange(len(part)), [len(keys) for keys in part])
        keys = np.array([key for keys in part for key in keys], np.int64)
        builder.add(section, keys, keys % 999 + 1, len(part))
    table, sections = builder.done(), [keys for part in parts for keys in part]
    asked = sorted({key ^ change for keys in sections for key in keys for change in (0, 1, 2**20)} | {0})
    rows = torch.arange(len(sections))
    found = table.find(torch.tensor(asked, dtype=torch.long)[:, None].expand(-1, len(sections)), rows)
    for key, values in zip(asked, found.tolist(), strict=True):
        for keys, value in zip(sections, values, strict=True):
            assert value == key % 999 + 1 if key in keys else value in (0, table.absent)


def test_a_table_refuses_a_key_twice() -> None:
    with pytest.raises(ValueError, match="a key stands twice"):
        Lookup.build(np.array([7, 7]), np.array([1, 2]))
    with pytest.raises(ValueError, match="a key is 0 or less"):
        SectionsBuilder(key_bits=8).add(np.array([0]), np.array([0]), np.array([1]), 1)


def test_a_table_of_nothing() -> None:
    table = Lookup.build(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert set(table.find(torch.arange(9))[1].tolist()) <= {0, table.absent}


@pytest.mark.parametrize(("columns", "most"), [(3, 2), (40, 200)])
def test_distinct_rows(columns: int, most: int) -> None:
    table = np.random.default_rng(0).integers(0, most, (60, columns))
    table[30:] = table[:30]
    table[59, 0] ^= 1  # a difference in the first column alone is seen, however many columns follow
    distinct, number = _distinct_rows(table)
    assert (distinct[number] == table).all()
    assert len(distinct) == len({row.tobytes() for row in table})


def test_smooth_bleu_equals_sacrebleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    references = ["a brown dog runs over green grass", "the dog is on the grass"]
    for caption in ("a brown dog runs on the green grass", "dog on grass", "a dog", "dog", "dog dog dog dog dog"):
        ours = smooth_bleu([caption.split()], [[words.split() for words in references]])
        theirs = sacrebleu.sentence_bleu(
            caption, references, smooth_method="add-k", smooth_value=1, tokenize="none", use_effective_order=False
        )
        assert ours == pytest.approx([theirs.score / 100], abs=1e-12)


def test_smooth_bleu_of_lower_orders() -> None:
    candidates = candidates_of(SMALL)
    said = [words + [END] * ended for _, captions in SMALL.batch for words, ended in captions]
    images = [SMALL.images[image] for image, captions in SMALL.batch for _ in captions]
    scores = []
    orders: tuple[Literal[1, 2, 3, 4], ...] = (1, 2, 3, 4)
    for order in orders:
        reward = SmoothBleu(references_of(SMALL), order=order)
        expected = [
            smooth_by_hand(words, [[*ref, END] for ref in image], order)
            for words, image in zip(said, images, strict=True)
        ]
        scores.append(reward(candidates).flatten().tolist())
        assert scores[-1] == pytest.approx(expected, abs=1e-6)
    assert all(lower != higher for lower, higher in pairwise(scores))


def test_references_are_packed_once() -> None:
    references = references_of(SMALL)
    packed = references.once(pack_with_end)
    assert CiderD(references)._packed is Bleu4(references)._packed is packed
    assert CiderD(references, end_token=False)._packed is not packed
    assert packed.nbytes > 0


def test_an_image_without_references_is_refused() -> None:
    with pytest.raises(DataError, match="image 1 has no reference captions"):
        CiderD(references_of(replace(SMALL, images=[[["a"]], []])))
