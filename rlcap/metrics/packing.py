"""References -> PackedReferences, once a data set: numpy over all words at a time."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rlcap.data.frequencies import DocumentFrequencies
from rlcap.data.references import References
from rlcap.data.vocabulary import END, SPECIALS
from rlcap.errors import DataError
from rlcap.metrics.lookup import Ints, Lookup
from rlcap.metrics.ngrams import ORDERS, Words, check_references
from rlcap.metrics.packed import PackedReferences

NOWHERE = 1  # the number of a word that no reference has
FIELD = 1 << 16
Grams = NDArray[np.int32]  # (n-grams, n): the numbers of their words


def pack_with_end(references: References) -> PackedReferences:
    return _pack(references, end_token=True)


def pack_without_end(references: References) -> PackedReferences:
    return _pack(references, end_token=False)


def spelt_out(
    references: References, captions: Sequence[Words], ended: Sequence[bool], images: Sequence[int], end_token: bool
) -> tuple[list[Words], list[list[Words]]]:
    """Captions (of words without the end token; `ended`: it was said) and their references for the plain metrics."""
    end = [END] if end_token else []
    said = [[*words, *end] if done else words for words, done in zip(captions, ended, strict=True)]
    return said, [[[*words, *end] for words in references.tokens[image]] for image in images]


class _Numbers(dict[str, int]):
    """The number of each word, given at first sight."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self) + NOWHERE + 1
        return number


class _Text:
    """All references of a split end to end."""

    def __init__(self, references: References, numbers: _Numbers, end_token: bool) -> None:
        ending = (END,) if end_token else ()
        captions = [(*words, *ending) for image in references.tokens for words in image]
        lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        words = chain.from_iterable(captions)
        self.words = np.fromiter(map(numbers.__getitem__, words), np.int32, int(lengths.sum()))
        each = np.array([len(image) for image in references.tokens])
        self.images, self.most = len(each), int(each.max())
        first = np.repeat(each.cumsum() - each, each)
        owner = np.repeat(np.arange(self.images), each)
        cell = owner * self.most + np.arange(len(captions)) - first  # of a reference, in tables (images, R)
        self.lengths = np.full((self.images, self.most), -1)
        self.lengths.flat[cell] = lengths
        self.cell = np.repeat(cell, lengths)  # of a word
        self._left = np.repeat(lengths.cumsum(), lengths) - np.arange(len(self.words))  # words to the reference's end

    def grams(self, n: int) -> tuple[Grams, Ints]:
        """Every n-gram of every reference, and the cell of the reference."""
        begins = np.flatnonzero(self._left >= n)
        if not len(begins):
            return np.zeros((0, n), np.int32), begins
        return sliding_window_view(self.words, n)[begins], self.cell[begins]


def _pack(references: References, end_token: bool) -> PackedReferences:
    check_references(references.tokens)
    device, dtype = references.device, references.dtype
    frequencies, vocabulary = references.frequencies, references.vocabulary
    numbers = _Numbers()
    trie = list(_trie(frequencies, numbers))
    text = _Text(references, numbers, end_token)
    codec = [NOWHERE] * len(SPECIALS) + [numbers.get(word, NOWHERE) for word in vocabulary.entries[len(SPECIALS) :]]
    codec[vocabulary.end] = numbers.get(END, NOWHERE)

    factor, known, counts = _keys(trie, text, frequencies, exact=len(numbers) + NOWHERE < FIELD)
    values, rarities = np.unique(counts, return_inverse=True)
    idf = np.log(frequencies.images) - np.log(np.concatenate([[1], values, [1]]))
    ngrams = Lookup.build(known, rarities + 1)
    rarity_unit = 1 << ngrams.bits
    image_unit = rarity_unit * len(idf)
    if text.images * text.most * image_unit >= 1 << 63:
        raise DataError(f"{text.images} images have too many references for one table; train on a part of them")

    names, tables, squares = [], [], []
    for n in range(1, ORDERS + 1):
        grams, cell = text.grams(n)
        place, rarity = (found.numpy() for found in ngrams.find(torch.from_numpy(_key(grams, factor))))
        image, reference = np.divmod(cell, text.most)
        name = image * image_unit + rarity * rarity_unit + place
        name, count = np.unique(name * text.most + reference, return_counts=True)
        name, reference = np.divmod(name, text.most)
        image, rarity = np.divmod(name, image_unit)
        weights = (count * idf[rarity // rarity_unit]) ** 2
        squares.append(np.bincount(image * text.most + reference, weights, text.images * text.most))
        new = np.diff(name, prepend=-1) != 0
        table = np.zeros((int(new.sum()), text.most), np.min_scalar_type(len(text.words)))
        table[new.cumsum() - 1, reference] = count
        names.append(name[new])
        tables.append(table)
    patterns, pattern = _distinct_rows(np.concatenate(tables))
    none = np.zeros_like(patterns, shape=(1, text.most))
    norms = np.sqrt(squares).reshape(ORDERS, text.images, text.most).swapaxes(0, 1)

    def tensor(array: NDArray[np.generic], dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device, dtype)

    return PackedReferences(
        end_token=end_token,
        end=vocabulary.end,
        factor=factor,
        numbers=torch.tensor(codec, device=device),
        ngrams=ngrams.to(device),
        matches=Lookup.build(np.concatenate(names), pattern + 1).to(device),
        rarity_unit=rarity_unit,
        image_unit=image_unit,
        squared_idf=tensor(idf**2, dtype),
        counts=tensor(np.concatenate([none, patterns, none]).astype(np.int64), dtype),
        lengths=tensor(text.lengths, torch.int64),
        norms=tensor(norms, dtype),
    )


def _trie(frequencies: DocumentFrequencies, numbers: _Numbers) -> Iterator[Grams]:
    """The n-grams of each order that the frequencies know, in their order."""
    number = np.array([numbers[word] for word in frequencies.words], np.int32)
    grams = np.zeros((1, 0), np.int32)
    for keys in frequencies.keys:
        parents, last = np.divmod(keys, max(1, len(number)))
        grams = np.concatenate([grams[parents], number[last][:, None]], 1)
        yield grams


def _key(grams: Grams, factor: int) -> Ints:
    key = np.zeros(len(grams), np.int64)
    for numbers in grams.T:
        key *= factor
        key += numbers
    return key


def _keys(trie: list[Grams], text: _Text, frequencies: DocumentFrequencies, exact: bool) -> tuple[int, Ints, Ints]:
    """P, the key of every n-gram that is known, and the images that it counts for (1 at least)."""
    random = np.random.default_rng(0)
    while True:
        factor = FIELD if exact else int(random.integers(-(1 << 62), 1 << 62)) * 2 + 1
        known, counts, sound = [], [], True
        for n, (grams, in_images) in enumerate(zip(trie, frequencies.counts, strict=True), start=1):
            counted, said = _key(grams, factor), _key(text.grams(n)[0], factor)
            keys = np.union1d(counted, said)
            count = np.ones_like(keys)
            count[keys.searchsorted(counted)] = np.maximum(1, in_images)
            known.append(keys)
            counts.append(count)
            if not exact:
                sound = sound and _sound(np.concatenate([grams, text.grams(n)[0]]), np.concatenate([counted, said]))
        keys = np.concatenate(known)
        if exact or (sound and len(np.unique(keys)) == len(keys)):
            return factor, keys, np.concatenate(counts)


def _sound(grams: Grams, keys: Ints) -> bool:
    """Whether no two different n-grams have one key."""
    order = keys.argsort()
    same = np.diff(keys[order]) == 0
    grams = grams[order]
    return bool((grams[1:][same] == grams[:-1][same]).all())


def _distinct_rows(table: NDArray[np.unsignedinteger]) -> tuple[NDArray[np.unsignedinteger], Ints]:
    """The rows that occur, and the number of each row among them. (np.unique(axis=0) is ten times slower.)"""
    base = int(table.max(initial=0)) + 1
    code, span = np.zeros(len(table), np.int64), 1
    for column in table.T:
        if span * base >= 1 << 63:
            code = np.unique(code, return_inverse=True)[1]
            span = int(code.max()) + 1
        code = code * base + column
        span *= base
    _, first, number = np.unique(code, return_index=True, return_inverse=True)
    return table[first], number
