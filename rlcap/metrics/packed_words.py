"""The words of captions and references as tensors: n-grams in common, and the longest common subsequence.

Each word of an image's references has a mask for each of them: bit j is set where the word is the reference's
j-th. So one word of a caption is compared with a whole reference by three operations on integers
(Crochemore et al. 2001, https://doi.org/10.1016/S0020-0190(00)00214-X; Hyyrö 2004).
"""

from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rlcap.contracts import Candidates
from rlcap.data.references import References

NOTHING = -1  # no word: behind a caption's end
EMPTY = -2  # the one empty word that coco-caption takes an empty caption for
BEYOND = 2**31 - 1  # above all words
BITS = 62  # of a mask in one int64, so that a sum of two and a carry fits; longer references have several
FULL = 2**BITS - 1


def said_words(candidates: Candidates, end: int | None, *, end_token: bool = False) -> Tensor:
    """(B, N, T): the words that count, `end` only on request, and NOTHING elsewhere; T is at least 1."""
    words, lengths = candidates.words, candidates.lengths
    if words.device.type == "cpu":
        words = words[..., : int(lengths.max())]
    if words.shape[-1] == 0:
        words = functional.pad(words, (0, 1))
    count = torch.arange(words.shape[-1], device=words.device) < lengths[..., None]
    return words.masked_fill(~(count if end_token or end is None else count & (words != end)), NOTHING)


def number_ngrams(said: Tensor, n: int) -> list[tuple[Tensor, Tensor]]:
    """Of each order up to `n`, (B, N, T): the number of the n-gram that begins at each place, and whether one does.

    Equal n-grams of an image's captions have the same number, below N·T.
    """
    words = _numbered(said)
    orders = [(words, said != NOTHING)]
    for k in range(1, n):
        last, there = (functional.pad(tensor, (0, k))[..., k:] for tensor in orders[0])
        orders.append((_numbered(orders[-1][0] * words[0].numel() + last), there))
    return orders


def _numbered(keys: Tensor) -> Tensor:
    """Of each image's keys, (B, N, T), the rank of each among those that differ."""
    ordered, places = keys.flatten(1).sort(-1)
    rank = functional.pad((ordered[:, 1:] != ordered[:, :-1]).cumsum(-1), (1, 0))
    return torch.zeros_like(rank).scatter_(1, places, rank).view_as(keys)


def tabulate(numbers: Tensor, weights: Tensor) -> Tensor:
    """(B, N, T) both -> (B, N, N·T): of each caption, the summed weights of its n-grams by their number."""
    return weights.new_zeros(*numbers.shape[:2], numbers[0].numel()).scatter_add_(-1, numbers, weights)


@dataclass(frozen=True, eq=False)
class PackedWords:
    """The references of a split, an end token behind each. I images, R references an image at most.

    Words are ids of the vocabulary, below 2**31 - 1. One that it lacks has no mask, so that nothing matches it.
    """

    words: Tensor  # int32: the distinct words of each image, ascending, image behind image
    starts: Tensor  # (I + 1,): the place of each image's first word
    masks: Tensor  # (…, limbs): image by image, word by word, a mask for each reference; at last R times none
    mask_starts: Tensor  # (I,): the place of each image's first mask
    counts: Tensor  # (I,): references that each image has
    lengths: Tensor  # (I, R): their words, without the end token; 0 where there is no reference
    most_words: int  # that an image has

    @staticmethod
    def pack(references: References) -> "PackedWords":
        """COCO's 113,287 x 5 references of 11 words take less than 250 MB, and 700 MB while they are packed."""
        vocabulary = references.vocabulary
        counts = np.fromiter(map(len, references.tokens), np.int64, len(references))
        captions = [caption for image in references.tokens for caption in image]
        lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        image = np.repeat(np.arange(len(counts)), counts)  # of each reference
        rank = np.arange(len(captions)) - np.repeat(counts.cumsum() - counts, counts)  # within its image
        # The words, each with its reference and its place; then the end tokens; then the empty words.
        word = np.fromiter(chain.from_iterable(map(vocabulary.encode, captions)), np.int64, int(lengths.sum()))
        owner = np.repeat(np.arange(len(captions)), lengths)
        place = np.arange(len(word)) - np.repeat(lengths.cumsum() - lengths, lengths)
        known, empty = word != vocabulary.unknown, np.flatnonzero(lengths == 0)
        ends, empties = np.full(len(captions), vocabulary.end_token), np.full(len(empty), EMPTY)
        word = np.concatenate([word[known], ends, empties])
        owner = np.concatenate([owner[known], np.arange(len(captions)), empty])
        place = np.concatenate([place[known], lengths, np.zeros_like(empty)])
        # Equal words of an image share an entry, which has a mask for each of the image's references.
        span = vocabulary.size - EMPTY
        keys, entry = np.unique(image[owner] * span + word - EMPTY, return_inverse=True)
        starts = np.searchsorted(keys, np.arange(len(counts) + 1) * span)
        rows = np.concatenate([[0], counts[keys // span].cumsum()])
        most, limbs = int(counts.max()), int(lengths.max()) // BITS + 1
        masks = np.zeros((int(rows[-1]) + most, limbs), np.int64)
        np.add.at(masks, (rows[entry] + rank[owner], place // BITS), 1 << (place % BITS))
        padded = np.zeros((len(counts), most), np.int64)
        padded[image, rank] = lengths

        def tensor(array: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(array).to(references.device)

        return PackedWords(
            words=tensor((keys % span + EMPTY).astype(np.int32)),
            starts=tensor(starts),
            masks=tensor(masks),
            mask_starts=tensor(rows[starts[:-1]]),
            counts=tensor(counts),
            lengths=tensor(padded),
            most_words=int(np.diff(starts).max()),
        )

    def common(self, said: Tensor, images: Tensor) -> Tensor:
        """(B, N, T) words -> (B, N, R): the length of each caption's longest common subsequence with each reference."""
        counts, first = self.counts[images, None], self.starts[images, None]
        most = int(counts.max()) if said.device.type == "cpu" else self.lengths.shape[1]
        entries = first + torch.arange(self.most_words + 1, device=said.device)
        theirs = self.words[entries.clamp_max(len(self.words) - 1)].masked_fill(
            entries >= self.starts[images + 1, None], BEYOND
        )
        ours = said.flatten(1).int()
        found = torch.searchsorted(theirs, ours)  # (B, N·T), at most most_words
        rows = self.mask_starts[images, None] + found * counts
        rows = rows.where(theirs.gather(1, found) == ours, len(self.masks) - self.lengths.shape[1])
        rows = rows.view(said.shape).permute(2, 0, 1).flatten()  # word by word: T·B·N
        matches = self.masks.unfold(0, most, 1).index_select(0, rows)  # (T·B·N, limbs, R)
        common = _common_bits(matches.view(-1, *said.shape[:2], *matches.shape[1:]))
        # Where an image has fewer references than R, the last masks were another word's.
        return common.masked_fill((torch.arange(most, device=said.device) >= counts)[:, None], 0)


def _common_bits(matches: Tensor) -> Tensor:
    """(T, B, N, limbs, R) -> (B, N, R): each bit that the caption's words turn to 0 is a word in common."""
    limbs = [limb.unbind(0) for limb in matches.unbind(-2)]
    left = [torch.full_like(limb[0], FULL) for limb in limbs]
    for masks in zip(*limbs, strict=True):
        carry: Tensor | None = None
        for i, mask in enumerate(masks):
            both = left[i] & mask
            others = left[i] ^ both
            total = both.add_(left[i])
            if carry is not None:
                total += carry
            if i + 1 < len(masks):
                carry, total = total >> BITS, total & FULL
            left[i] = total.bitwise_or_(others)
    return torch.stack([_ones(~bits & FULL) for bits in left]).sum(0)


def _ones(bits: Tensor) -> Tensor:
    """How many bits are 1, by sums of neighbouring fields that double in width."""
    bits = bits - ((bits >> 1) & 0x5555555555555555)
    bits = (bits & 0x3333333333333333) + ((bits >> 2) & 0x3333333333333333)
    bits = (bits + (bits >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (bits * 0x0101010101010101) >> 56
