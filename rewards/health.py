"""What shows that a caption has gone wrong. Each is a penalty: give it a negative weight."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlcap.config import Positive
from rlcap.contracts import Candidates, Reward
from rlcap.data.references import References
from rlcap.metrics.diversity import BAD_ENDINGS, bad_ending, repetition
from rlcap.metrics.ngrams import Words
from rlcap.metrics.packed_words import NOTHING, number_ngrams, said_words, tabulate


class Repetition(Reward):
    """The share of a caption's n-grams that it has said before: 0 where none is, or there are none; always below 1."""

    def __init__(self, references: References, *, n: Positive = 2) -> None:
        self.references = references
        self.n = n

    def __call__(self, candidates: Candidates) -> Tensor:
        said = said_words(candidates, self.references.vocabulary.end)
        number, there = number_ngrams(said.flatten(0, 1)[:, None], self.n)[-1]  # each caption by itself
        counts = tabulate(number, there.to(self.references.dtype))
        again = (counts - 1).clamp_min(0).sum(-1) / counts.sum(-1).clamp_min(1)
        return again.view_as(candidates.lengths)

    def plain(self, captions: Sequence[Words], ended: Sequence[bool], images: Sequence[int]) -> list[float]:
        return [repetition(words, self.n) for words in captions]


class BadEnding(Reward):
    """1 for a caption that was cut, without an end token, or that ends on one of `words`; 0 otherwise."""

    def __init__(self, references: References, *, words: tuple[str, ...] = BAD_ENDINGS) -> None:
        self.references = references
        self.words = words
        vocabulary = references.vocabulary
        ids = [i for i in vocabulary.encode(words) if i != vocabulary.unknown]
        self.ids = torch.tensor(ids, dtype=torch.long, device=references.device)

    def __call__(self, candidates: Candidates) -> Tensor:
        said = said_words(candidates, self.references.vocabulary.end)
        length = (said != NOTHING).sum(-1)
        last = said.gather(-1, (length - 1).clamp_min(0)[..., None])  # NOTHING in an empty caption
        cut = length == candidates.lengths
        return (cut | (last == self.ids).any(-1)).to(self.references.dtype)

    def plain(self, captions: Sequence[Words], ended: Sequence[bool], images: Sequence[int]) -> list[float]:
        return [float(bad_ending(words, end, self.words)) for words, end in zip(captions, ended, strict=True)]


class Length(Reward):
    """The number of words, without the end token."""

    def __init__(self, references: References) -> None:
        self.references = references

    def __call__(self, candidates: Candidates) -> Tensor:
        said = said_words(candidates, self.references.vocabulary.end)
        return (said != NOTHING).sum(-1).to(self.references.dtype)

    def plain(self, captions: Sequence[Words], ended: Sequence[bool], images: Sequence[int]) -> list[float]:
        return [float(len(words)) for words in captions]
