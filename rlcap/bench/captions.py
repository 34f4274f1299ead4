"""Captions to be scored by benchmarks: of a prepared data set, or made up in the likeness of COCO's."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rlcap.contracts import Candidates
from rlcap.data.dataset import DataSet
from rlcap.data.frequencies import DocumentFrequencies
from rlcap.data.references import References
from rlcap.data.vocabulary import END, Vocabulary

WORDS = 10_000
REFERENCES = 5  # an image
FOLLOWERS = 4  # words that like to stand behind a word
TOPIC = 6  # words that an image's captions like
PHRASE = 5  # words at most that a caption has in common with the image's first, at the same place
LENGTH, DEVIATION = 10.5, 2.3  # of captions, in words
LONGEST = 20  # words of a candidate, its end token among them
CHANGED = 2  # words of a candidate that is made from a reference of its image


def made_up(images: int) -> References:
    """Words as frequent as Zipf's law has it, with favourite followers and a topic an image: n-grams recur.

    Two people's captions of an image share about 40% of their words, 20% of the pairs, and 4% of four in a row.
    """
    dice = np.random.default_rng(0)
    frequent = np.cumsum(np.arange(1, WORDS + 1) ** -1.1)
    frequent /= frequent[-1]

    def draw(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        return np.minimum(frequent.searchsorted(dice.random(shape)), WORDS - 1)

    count = images * REFERENCES
    followers, topics = draw(WORDS, FOLLOWERS), draw(images, TOPIC).repeat(REFERENCES, 0)
    lengths = dice.normal(LENGTH, DEVIATION, count).round().clip(5, 30).astype(int)
    ids = draw(count, int(lengths.max()))
    rows = np.arange(count)
    for place in range(1, ids.shape[1]):
        following = followers[ids[:, place - 1], (dice.random(count) ** 2 * FOLLOWERS).astype(int)]
        topical = topics[rows, dice.integers(TOPIC, size=count)]
        whim = dice.random(count)
        ids[:, place] = np.select([whim < 0.45, whim < 0.85], [following, topical], ids[:, place])
    start = dice.integers(5, size=count)[:, None]
    stop = start + dice.integers(PHRASE + 1, size=count)[:, None]
    places, first = np.arange(ids.shape[1]), rows - rows % REFERENCES
    ids = np.where((start <= places) & (places < stop), ids[first], ids)
    words = [f"w{i}" for i in range(WORDS)]
    captions = [[words[i] for i in line[:length]] for line, length in zip(ids.tolist(), lengths.tolist(), strict=True)]
    tokens = [captions[i : i + REFERENCES] for i in range(0, count, REFERENCES)]
    frequencies = DocumentFrequencies.build(tokens, "made up")
    return References(range(images), tokens, [], Vocabulary(words), frequencies)


def prepared(folder: Path) -> References:
    """The training images of a data set: their document frequencies are those of their references."""
    data = DataSet.load(folder)
    split = data.split(data.meta["train_split"])
    return References.of(split, data.vocabulary, data.frequencies, torch.device("cpu"))


@dataclass(frozen=True)
class CaptionBatch:
    """The same captions as rewards and as plain scorers take them."""

    candidates: Candidates
    captions: list[str]  # words with blanks between; "<end>" is one
    references: list[list[str]]  # of each caption
    images: list[int]  # of each caption: its row of the references


def make_batch(references: References, images: int, each: int, seed: int) -> CaptionBatch:
    """Half of an image's captions are references of it with some words changed, half belong to other images."""
    dice = np.random.default_rng(seed)
    vocabulary, tokens = references.vocabulary, references.tokens
    rows = dice.choice(len(references), images, replace=images > len(references)).tolist()
    words = torch.full((images, each, LONGEST), vocabulary.pad)
    lengths = torch.zeros(images, each, dtype=torch.long)
    captions = []
    for b, row in enumerate(rows):
        for n in range(each):
            other = tokens[int(dice.integers(len(references)))][0]
            said = list(tokens[row][n // 2 % len(tokens[row])]) if n % 2 == 0 else list(other)
            for place in dice.integers(len(said), size=CHANGED if n % 2 == 0 else 0):
                said[place] = other[int(dice.integers(len(other)))]
            ids = [i for i in vocabulary.encode(said) if i != vocabulary.unknown][:LONGEST]  # no policy says <unk>
            ended = len(ids) < LONGEST
            captions.append(" ".join([*vocabulary.words(ids), *[END] * ended]))
            ids += [vocabulary.end_token] * ended
            words[b, n, : len(ids)] = torch.tensor(ids)
            lengths[b, n] = len(ids)
    texts = [[" ".join([*each_one, END]) for each_one in tokens[row]] for row in rows]
    return CaptionBatch(
        Candidates(words, lengths, torch.tensor(rows), each),
        captions,
        [texts[b] for b in range(images) for _ in range(each)],
        [row for row in rows for _ in range(each)],
    )
