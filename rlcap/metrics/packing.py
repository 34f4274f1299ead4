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
from rlcap.metrics.lookup import Ints, Lookup, Sections, SectionsBuilder
from rlcap.metrics.ngrams import ORDERS, Words, check_references
from rlcap.metrics.packed import PackedReferences

NOWHERE = 1  # the number of a word that no reference has
FIELD = 1 << 16
CHUNK = 4096  # images at a time: what bounds the memory of packing
Floats = NDArray[np.float64]
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
        self._cell = np.repeat(cell, lengths)  # of a word
        self._left = np.repeat(lengths.cumsum(), lengths) - np.arange(len(self.words))  # words to the reference's end
        self._ends = np.concatenate([[0], lengths.cumsum()])[np.concatenate([[0], each.cumsum()])]  # of each image

    def grams(self, n: int, images: slice = slice(None)) -> tuple[Grams, Ints]:
        """Every n-gram of every reference of the images, and the cell of the reference."""
        start, stop, _ = images.indices(self.images)
        words = slice(self._ends[start], self._ends[stop])
        begins = np.flatnonzero(self._left[words] >= n)
        if not len(begins):
            return np.zeros((0, n), np.int32), begins
        return sliding_window_view(self.words[words], n)[begins], self._cell[words][begins]


def _pack(references: References, end_token: bool) -> PackedReferences:
    check_references(references.tokens)
    device, dtype = references.device, references.dtype
    frequencies, vocabulary = references.frequencies, references.vocabulary
    numbers = _Numbers()
    trie = list(_trie(frequencies, numbers))
    text = _Text(references, numbers, end_token)
    codec = [NOWHERE] * len(SPECIALS) + [numbers.get(word, NOWHERE) for word in vocabulary.entries[len(SPECIALS) :]]
    codec[vocabulary.end_token] = numbers.get(END, NOWHERE)

    factor, known, counts = _keys(trie, text, frequencies, exact=len(numbers) + NOWHERE < FIELD)
    values, rarities = np.unique(counts, return_inverse=True)
    idf = np.log(frequencies.images) - np.log(np.concatenate([[1], values, [1]]))
    ngrams = Lookup.build(known, rarities + 1)
    matches, pattern_counts, norms = _matches(text, factor, ngrams, idf)

    def tensor(array: Ints | Floats) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device, dtype)

    return PackedReferences(
        end_token=end_token,
        end=vocabulary.end_token,
        factor=factor,
        numbers=torch.tensor(codec, device=device),
        ngrams=ngrams.to(device),
        matches=matches.to(device),
        squared_idf=tensor(idf**2),
        counts=tensor(pattern_counts),
        lengths=tensor(text.lengths),
        norms=tensor(norms),
    )


def _matches(text: _Text, factor: int, ngrams: Lookup, idf: Floats) -> tuple[Sections, Floats, Floats]:
    """Image and n-gram -> the pattern of its counts in the references; the patterns; the norms (images, 4, R)."""
    key_bits = ngrams.bits + len(idf).bit_length()
    table = SectionsBuilder(key_bits)
    patterns = {bytes(8 * text.most): 0}  # the first stands for no match
    norms = np.zeros((text.images, ORDERS, text.most))
    for begin in range(0, text.images, CHUNK):
        images = slice(begin, min(begin + CHUNK, text.images))
        many = images.stop - images.start
        names, counts = [], []
        for n in range(1, ORDERS + 1):
            grams, cell = text.grams(n, images)
            place, rarity = (found.numpy() for found in ngrams.find(torch.from_numpy(_key(grams, factor))))
            image, reference = np.divmod(cell - begin * text.most, text.most)
            name = (image << key_bits) + (rarity << ngrams.bits) + place
            name, count = np.unique(name * text.most + reference, return_counts=True)
            name, reference = np.divmod(name, text.most)
            weight = (count * idf[(name & ((1 << key_bits) - 1)) >> ngrams.bits]) ** 2
            square = np.bincount((name >> key_bits) * text.most + reference, weight, many * text.most)
            norms[images, n - 1] = np.sqrt(square).reshape(many, text.most)
            new = np.diff(name, prepend=-1) != 0
            names.append(name[new])
            counts.append(np.zeros((len(names[-1]), text.most), np.int64))
            counts[-1][new.cumsum() - 1, reference] = count
        distinct, number = _distinct_rows(np.concatenate(counts))
        pattern = np.array([patterns.setdefault(row.tobytes(), len(patterns)) for row in distinct], np.int64)
        name = np.concatenate(names)
        table.add(name >> key_bits, name & ((1 << key_bits) - 1), pattern[number], many)
    rows = np.frombuffer(b"".join([*patterns, bytes(8 * text.most)]), np.int64).reshape(-1, text.most)
    return table.done(), rows.astype(np.float64), norms


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
            keys = np.sort(np.concatenate([counted, said]))  # np.union1d is several times slower
            keys = keys[np.diff(keys, prepend=keys[0] - 1) != 0] if len(keys) else keys
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


def _distinct_rows(table: Ints) -> tuple[Ints, Ints]:
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
