"""Words and ids: order, fingerprint, the special tokens, and the file."""

import json
from pathlib import Path

import pytest

from rlcap.contracts import Codec
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import DataError

CAPTIONS = [["a", "dog", "runs"], ["a", "cat", "runs"], ["a", "bird", "<end>", "<end>"]]


def test_words_stand_in_order_of_count_then_alphabet() -> None:
    vocabulary = Vocabulary.build(CAPTIONS, min_count=1)
    assert vocabulary.entries == ("<pad>", "<start>", "<end>", "<unk>", "a", "runs", "bird", "cat", "dog")
    assert Vocabulary.build(reversed(CAPTIONS), min_count=1).entries == vocabulary.entries
    assert Vocabulary.build(CAPTIONS, min_count=2).entries[4:] == ("a", "runs")


def test_it_is_a_codec() -> None:
    vocabulary = Vocabulary.build(CAPTIONS, min_count=1)
    codec: Codec = vocabulary  # for mypy
    assert isinstance(codec, Codec)
    assert (codec.pad, codec.start, codec.end, vocabulary.unknown, codec.size) == (0, 1, 2, 3, 9)
    assert codec.banned == (0, 1, 3)


def test_encode_and_words() -> None:
    vocabulary = Vocabulary.build(CAPTIONS, min_count=1)
    assert vocabulary.encode(["a", "dog", "flies"]) == [4, 8, 3]
    assert vocabulary.encode(["<end>", "<pad>"]) == [3, 3]  # text cannot end a caption
    assert vocabulary.words([1, 4, 8, 2, 5, 0]) == ["a", "dog"]
    assert vocabulary.words([4, 0, 3]) == ["a", "<unk>"]


def test_fingerprint_covers_words_and_tokeniser() -> None:
    plain = Vocabulary(["a", "b"])
    assert plain.fingerprint == Vocabulary(["a", "b"], min_count=3).fingerprint
    others = [Vocabulary(["b", "a"]), Vocabulary(["a b"]), Vocabulary(["a", "b"], tokeniser="other")]
    assert plain.fingerprint not in {other.fingerprint for other in others}
    with pytest.raises(ValueError, match="twice"):
        Vocabulary(["a", "a"])


def test_file(tmp_path: Path) -> None:
    vocabulary = Vocabulary(["café", "\u2028", "b"], min_count=2)
    path = tmp_path / "vocabulary.json"
    vocabulary.save(path)
    loaded = Vocabulary.load(path)
    assert (loaded.entries, loaded.fingerprint, loaded.min_count) == (
        vocabulary.entries,
        vocabulary.fingerprint,
        2,
    )
    assert "café" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text.replace('"b"', '"c"'), "was changed"),
        (lambda text: text.replace('"<pad>"', '"pad"'), "was changed"),
        (lambda text: text.replace('"b"', "3"), "was changed"),
        (lambda text: text.replace('"b"', '"a"'), "was changed"),
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: "[]", "not a vocabulary"),
        (lambda text: json.dumps({**json.loads(text), "format": "2"}), "not a vocabulary of this version"),
        (lambda text: json.dumps({"format": json.loads(text)["format"]}), "was changed"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change, complaint: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "vocabulary.json"
    Vocabulary(["a", "b"]).save(path)
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=complaint) as caught:
        Vocabulary.load(path)
    assert str(path) in str(caught.value)
    path.unlink()
    with pytest.raises(DataError, match="no such vocabulary"):
        Vocabulary.load(path)
