"""In how many images' references each n-gram occurs: what CIDEr-D weighs n-grams by (Vedantam et al. 2015).

The table is a trie in sorted arrays. Words are numbered by `words`; the n-grams of each order are numbered in
the order of their keys, and the key of an n-gram is (number of its first n-1 words) · W + (number of its last
word), with W the number of words. So a look-up is n binary searches, for one n-gram or for a tensor of them.
"""

import zipfile
import zlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlcap.data.vocabulary import END as END
from rlcap.data.vocabulary import fingerprint_of
from rlcap.errors import DataError
from rlcap.files import atomic_path

ORDERS = 4
FORMAT = "rlcap document frequencies 1"
Ints = NDArray[np.int64]


def frequencies_fingerprint(vocabulary: str, tokeniser: str, split: str, images: Sequence[str]) -> str:
    """What a table belongs to: `vocabulary` is the fingerprint of one, `images` the names in the split."""
    return fingerprint_of(vocabulary, tokeniser, split, *images)


class DocumentFrequencies:
    """`count(ngram)` over `images` documents. References end in "<end>": it counts as a word."""

    def __init__(
        self,
        words: Sequence[str],
        keys: Sequence[Ints],
        counts: Sequence[Ints],
        images: int,
        fingerprint: str,
    ) -> None:
        self.words = tuple(words)
        self.keys = tuple(keys)  # of each order, sorted
        self.counts = tuple(counts)
        self.images = images
        self.fingerprint = fingerprint
        self._ids = {word: i for i, word in enumerate(self.words)}

    @staticmethod
    def build(references: Sequence[Sequence[Sequence[str]]], fingerprint: str) -> "DocumentFrequencies":
        """From the references (word lists, without the end token) of each image."""
        captions = [(*words, END) for image in references for words in image]
        owners = np.repeat(np.arange(len(references)), [len(image) for image in references])
        lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        words = sorted(set(chain.from_iterable(captions)))
        ids = {word: i for i, word in enumerate(words)}
        flat = np.fromiter((ids[word] for word in chain.from_iterable(captions)), np.int64, int(lengths.sum()))
        document = np.repeat(owners, lengths)  # of each position
        left = np.repeat(lengths.cumsum(), lengths) - np.arange(len(flat))  # words to the caption's end
        gram = np.zeros(len(flat), np.int64)  # number of the n-gram that begins at each position
        all_keys, all_counts = [], []
        for n in range(1, ORDERS + 1):
            fits = np.flatnonzero(left >= n)
            key = gram[fits] * len(words) + flat[fits + n - 1]
            order = key.argsort(kind="stable")  # equal n-grams side by side, and those of one image too
            key, owner = key[order], document[fits][order]
            new = np.diff(key, prepend=-1) != 0
            number = new.cumsum() - 1
            gram[fits[order]] = number
            counted = new | (np.diff(owner, prepend=-1) != 0)  # an image counts an n-gram once
            all_keys.append(key[new])
            all_counts.append(np.bincount(number[counted]))
        return DocumentFrequencies(words, all_keys, all_counts, len(references), fingerprint)

    def count(self, ngram: tuple[str, ...]) -> int:
        """The number of images in whose references the n-gram occurs; 0 for one never seen."""
        if not 1 <= len(ngram) <= ORDERS:
            raise ValueError(f"n-grams have 1 to {ORDERS} words, not {len(ngram)}")
        row = 0
        for word, keys in zip(ngram, self.keys, strict=False):
            if (last := self._ids.get(word)) is None:
                return 0
            key = row * len(self.words) + last
            row = int(keys.searchsorted(key))
            if row == len(keys) or keys[row] != key:
                return 0
        return int(self.counts[len(ngram) - 1][row])

    def check(self, fingerprint: str, what: str) -> None:
        """Refuses to serve a data set that it was not made from; `what` names that data set."""
        if fingerprint != self.fingerprint:
            raise DataError(
                f"{what}: the document frequencies belong to another vocabulary, split or tokeniser "
                f"({self.fingerprint}, not {fingerprint}); run `rlcap prepare` again"
            )

    def save(self, path: Path) -> None:
        arrays: dict[str, NDArray[np.generic]] = {
            "meta": _bytes([FORMAT, self.fingerprint, str(self.images)]),
            "words": _bytes(self.words),
        }
        for n, (keys, counts) in enumerate(zip(self.keys, self.counts, strict=True), 1):
            parents, last = np.divmod(keys, max(len(self.words), 1))
            above = len(self.keys[n - 2]) if n > 1 else 1
            arrays[f"children{n}"] = np.bincount(parents, minlength=above).astype(np.int32)
            arrays[f"last{n}"] = last.astype(np.int32)
            arrays[f"counts{n}"] = counts.astype(np.int32)
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    @staticmethod
    def load(path: Path) -> "DocumentFrequencies":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                format_, fingerprint, images = _texts(arrays["meta"])
                if format_ != FORMAT:
                    raise ValueError(f"the format is '{format_}', not '{FORMAT}'")
                words = _texts(arrays["words"])
                keys, counts, above = [], [], 1
                for n in range(1, ORDERS + 1):
                    parents = np.repeat(np.arange(above), arrays[f"children{n}"])
                    keys.append(parents * len(words) + arrays[f"last{n}"])
                    counts.append(arrays[f"counts{n}"].astype(np.int64))
                    above = len(keys[-1])
                return DocumentFrequencies(words, keys, counts, int(images), fingerprint)
        except FileNotFoundError:
            raise DataError(f"{path}: there are no document frequencies; run `rlcap prepare` again") from None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"{path}: the document frequencies cannot be read ({error}); run `rlcap prepare` again"
            ) from None


def _bytes(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Texts as UTF-8 lines: numpy's own text arrays would take four bytes for every letter of the longest."""
    return np.frombuffer("\n".join(texts).encode(), np.uint8)


def _texts(array: NDArray[np.uint8]) -> list[str]:
    text = array.tobytes().decode()
    return text.split("\n") if text else []
