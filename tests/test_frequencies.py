"""Document frequencies against a plain count in sets."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcap.data.frequencies import END, DocumentFrequencies, frequencies_fingerprint
from rlcap.errors import DataError

References = list[list[list[str]]]
words = st.sampled_from(["a", "b", "c", "ä"])
references = st.lists(st.lists(st.lists(words, max_size=6), min_size=1, max_size=3), min_size=1, max_size=5)


def counted_plainly(images: References) -> Counter[tuple[str, ...]]:
    """The definition: an image counts an n-gram once, in however many of its references it stands."""
    counts: Counter[tuple[str, ...]] = Counter()
    for captions in images:
        seen = set()
        for caption in captions:
            ended = [*caption, END]
            seen |= {tuple(ended[i : i + n]) for n in range(1, 5) for i in range(len(ended) - n + 1)}
        counts.update(seen)
    return counts


@settings(deadline=None)
@given(references)
def test_counts_are_those_of_the_definition(images: References) -> None:
    table, truth = DocumentFrequencies.build(images, "print"), counted_plainly(images)
    assert table.images == len(images)
    assert {ngram: table.count(ngram) for ngram in truth} == truth
    assert sum(len(keys) for keys in table.keys) == len(truth)  # and nothing else is in it


def test_what_was_never_seen_counts_nothing() -> None:
    table = DocumentFrequencies.build([[["a", "b"], ["a", "b"]], [["b", "a"]]], "print")
    assert [table.count(ngram) for ngram in (("a", "b"), ("b", END), ("b", "b"), ("z",), ("a", "z"))] == [
        1,
        1,
        0,
        0,
        0,
    ]
    assert table.count((END, "a")) == 0
    assert table.count(("b", "a", END, "a")) == 0
    with pytest.raises(ValueError, match="1 to 4 words, not 5"):
        table.count(("a",) * 5)


@pytest.mark.parametrize("images", [[[["a", "b", "ä"]], [["a", "b", "c", "d"]]], [[[]]], []])
def test_file(tmp_path: Path, images: References) -> None:
    path = tmp_path / "frequencies.npz"
    DocumentFrequencies.build(images, "print").save(path)
    table = DocumentFrequencies.load(path)
    assert (table.images, table.fingerprint) == (len(images), "print")
    truth = counted_plainly(images)
    assert {ngram: table.count(ngram) for ngram in truth} == truth
    with np.load(path, allow_pickle=False) as arrays:
        assert all(array.dtype.kind in "iu" for array in arrays.values())


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "frequencies.npz"
    with pytest.raises(DataError, match="there are no document frequencies"):
        DocumentFrequencies.load(path)
    DocumentFrequencies.build([[["a", "b", "c"]]], "print").save(path)
    raw = path.read_bytes()
    middle = len(raw) // 2
    for damaged in (b"", b"hello", raw[:middle], raw[:60] + b"\xff" * 8 + raw[68:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read") as caught:
            DocumentFrequencies.load(path)
        assert str(path) in str(caught.value)
    np.savez(path.open("wb"), meta=np.frombuffer(b"other\nprint\n3", np.uint8))
    with pytest.raises(DataError, match="the format is 'other'"):
        DocumentFrequencies.load(path)


def test_fingerprint() -> None:
    table = DocumentFrequencies.build([[["a"]]], frequencies_fingerprint("v", "t", "train", ["1", "2"]))
    table.check(frequencies_fingerprint("v", "t", "train", ["1", "2"]), "mine")
    for other in (
        ("w", "t", "train", ["1", "2"]),
        ("v", "u", "train", ["1", "2"]),
        ("v", "t", "val", ["1", "2"]),
    ):
        with pytest.raises(DataError, match="mine: the document frequencies belong to another vocabulary"):
            table.check(frequencies_fingerprint(*other), "mine")
    with pytest.raises(DataError, match="another vocabulary, split or tokeniser"):
        table.check(frequencies_fingerprint("v", "t", "train", ["1"]), "mine")
