"""ROUGE-L as a tensor program against the string-level code, which is exact to coco-caption."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlcap.contracts import Candidates
from rlcap.data.frequencies import DocumentFrequencies
from rlcap.data.references import References
from rlcap.data.vocabulary import Vocabulary
from rlcap.rewards.rouge import RougeL, RougeLSingle

VOCABULARY = Vocabulary(["a", "dog", "on", "the", "grass"])
# Few words, so that they repeat; the last two are not in the vocabulary.
WORDS = st.sampled_from([*VOCABULARY.entries[4:], "zebra", "yak"])
SHORT = st.lists(WORDS, max_size=9)
REFERENCE = SHORT | st.builds(lambda words, times: words * times, SHORT, st.integers(7, 16))  # up to 144 words
IMAGES = st.lists(st.lists(REFERENCE, min_size=1, max_size=4), min_size=1, max_size=4)
CAPTION = st.tuples(st.lists(st.integers(3, VOCABULARY.size - 1), max_size=12), st.booleans())

Said = tuple[list[int], bool]  # ids without the end token, and whether it was said


def references_of(tokens: Sequence[Sequence[Sequence[str]]], dtype: torch.dtype = torch.float64) -> References:
    frequencies = DocumentFrequencies.build(tokens, "")
    raw = [[" ".join(words) for words in image] for image in tokens]
    return References(range(len(tokens)), tokens, raw, VOCABULARY, frequencies, dtype=dtype)


def candidates_of(captions: Sequence[Sequence[Said]], images: Sequence[int], garbage: int = 0) -> Candidates:
    """`garbage` words stand behind each caption."""
    spelt = [[[*ids, *([VOCABULARY.end] if ended else [])] for ids, ended in image] for image in captions]
    longest = max(len(ids) for image in spelt for ids in image)
    rows = [[[*ids, *[4 + i % 5 for i in range(longest + garbage - len(ids))]] for ids in image] for image in spelt]
    lengths = torch.tensor([[len(ids) for ids in image] for image in spelt])
    words = torch.tensor(rows, dtype=torch.long).view(*lengths.shape, -1)
    return Candidates(words, lengths, torch.tensor(images), words.shape[1])


def assert_plain(reward: RougeL, captions: Sequence[Sequence[Said]], images: Sequence[int], garbage: int = 0) -> None:
    scores = reward(candidates_of(captions, images, garbage))
    said = [caption for image in captions for caption in image]
    owners = [row for row, image in zip(images, captions, strict=True) for _ in image]
    words = [[VOCABULARY.entries[i] for i in ids] for ids, _ in said]
    plain = torch.tensor(reward.plain(words, [ended for _, ended in said], owners), dtype=torch.float64)
    dtype = reward.references.dtype
    assert scores.dtype == dtype
    assert scores.shape == (len(images), len(captions[0]))
    # A few roundings of numbers of about 1.
    torch.testing.assert_close(scores.double().flatten(), plain, rtol=0, atol=1e-9 if dtype == torch.float64 else 1e-6)


@settings(max_examples=60, deadline=None)
@example(tokens=[[["a"] * 62], [["a"] * 124, []]], number=1, data=None)
@given(tokens=IMAGES, number=st.integers(1, 3), data=st.data())
@pytest.mark.parametrize("end_token", [True, False])
@pytest.mark.parametrize("kind", [RougeL, RougeLSingle])
def test_equals_the_words(
    kind: type[RougeL], end_token: bool, tokens: list[list[list[str]]], number: int, data: st.DataObject | None
) -> None:
    if data is None:
        captions, images = [[([4] * 70, True)], [([4] * 130, False)]], [1, 0]
    else:
        images = data.draw(st.lists(st.integers(0, len(tokens) - 1), min_size=1, max_size=4))
        captions = [[data.draw(CAPTION) for _ in range(number)] for _ in images]
    for dtype in (torch.float64, torch.float32):
        assert_plain(kind(references_of(tokens, dtype), end_token=end_token), captions, images, garbage=number - 1)


@pytest.mark.parametrize("end_token", [True, False])
def test_long_captions_of_long_references(end_token: bool) -> None:
    """Carries run from limb to limb: references of 61 to 190 words, captions that share most of them."""
    torch.manual_seed(0)
    lengths = [61, 62, 63, 123, 124, 125, 190]
    ids = [torch.randint(4, VOCABULARY.size, (length,)).tolist() for length in lengths]
    references = references_of([[[VOCABULARY.entries[i] for i in words] for words in ids]])
    captions = [(words[:k] + words[k + 2 :], k % 2 == 0) for words in ids for k in (0, 61, 60, 122)]
    assert_plain(RougeL(references, end_token=end_token), [captions], [0], garbage=3)


def test_by_hand() -> None:
    """ "a dog <end>" and the references "a dog on grass <end>", "a <end>": 3 of 3 and 5 words, 2 of 3 and 2."""
    reward = RougeL(references_of([[["a", "dog", "on", "grass"], ["a"]]]))
    candidates = candidates_of([[([4, 5], True), ([4, 5], False)]], [0])
    assert reward(candidates)[0, 0].item() == pytest.approx(1.0)  # precision of the first, recall of the second
    # Cut: 2 of 2 and 5 words, 1 of 2 and 2. Precision 1, recall 1/2.
    assert reward(candidates)[0, 1].item() == pytest.approx((1 + 1.44) * 0.5 / (0.5 + 1.44))
    single = RougeLSingle(reward.references)(candidates)
    # Of the first: precision 1, recall 3/5. Of the second: precision 2/3, recall 1, which is better.
    assert single[0, 0].item() == pytest.approx((1 + 1.44) * (2 / 3) / (1 + 1.44 * 2 / 3))


def test_unknown_words_earn_nothing() -> None:
    reward = RougeL(references_of([[["zebra", "yak"], ["<unk>"]]]))
    said = candidates_of([[([VOCABULARY.unknown, VOCABULARY.unknown], False)]], [0])
    assert reward(said).tolist() == [[0.0]]


def test_references_are_packed_once() -> None:
    references = references_of([[["a", "dog"]]])
    assert RougeL(references).packed is RougeLSingle(references, end_token=False).packed


@pytest.mark.parametrize("kind", [RougeL, RougeLSingle])
def test_nothing_is_read_back_from_an_accelerator(kind: type[RougeL]) -> None:
    """The meta device has shapes and no values: whatever needs a value on the host fails there."""
    references = replace(references_of([[["a", "dog"], ["dog"]], [["a"] * 70]]), device=torch.device("meta"))
    candidates = candidates_of([[([4, 5], True), ([], False)], [([4], True), ([4], True)]], [0, 1])
    words, lengths, images = (t.to("meta") for t in (candidates.words, candidates.lengths, candidates.images))
    assert kind(references, end_token=False)(Candidates(words, lengths, images, 2)).shape == (2, 2)
