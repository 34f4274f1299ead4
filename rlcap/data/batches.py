"""Batches centred on images: the features of an image are read once for all of its captions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rlcap import distributed
from rlcap.contracts import Batch, Codec, Features
from rlcap.errors import RlcapError

POOL = 20  # batches whose captions are sorted by length together: short with short, long with long


class FeatureSource(Protocol):
    """Where features come from, by row: a feature store."""

    def read(self, rows: np.ndarray) -> Features: ...


@dataclass(frozen=True)
class Captioned:
    """Images with their captions as ids: what batches are cut from."""

    source: FeatureSource
    rows: np.ndarray  # (images,): the row of each image in the source
    captions: list[list[list[int]]]  # for each image, its captions, ended unless cut
    codec: Codec


def encode_captions(tokens: Sequence[Sequence[Sequence[str]]], codec: Codec, max_words: int) -> list[list[list[int]]]:
    """Words -> ids with the end token. A longer caption is cut, and then has no end token: it did not end there."""
    end = [] if codec.end is None else [codec.end]

    def encode(words: Sequence[str]) -> list[int]:
        ids = codec.encode(words)
        return ids + end if len(ids) <= max_words else ids[:max_words]

    return [[encode(words) for words in captions] for captions in tokens]


def pad(captions: Sequence[Sequence[Sequence[int]]], value: int) -> Tensor:
    """B lists of N captions -> (B, N, T)."""
    longest = max(len(caption) for image in captions for caption in image)
    padded = [[[*caption, *[value] * (longest - len(caption))] for caption in image] for image in captions]
    return torch.tensor(padded, dtype=torch.long)


class Plan:
    """Which images and which of their captions make up each batch, for every epoch from one seed.

    Its position counts the batches that were consumed, so that training goes on where it stopped, whatever the
    workers have read ahead.
    """

    def __init__(self, captions: list[list[list[int]]], images: int, per_image: int, seed: int) -> None:
        self.captions, self.images, self.per_image, self.seed = captions, images, per_image, seed
        self.epoch = self.position = 0

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.captions) // self.images)

    def rest_of_epoch(self) -> list[tuple[np.ndarray, list[np.ndarray]]]:
        """The batches of this epoch that are still to come: images, and which captions of each."""
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.captions))
        chosen = {int(image): self._choose(random, len(self.captions[image])) for image in order}
        longest = {image: max(len(self.captions[image][c]) for c in chosen[image]) for image in chosen}
        batches = []
        for first in range(0, len(order), POOL * self.images):
            pool = sorted(order[first : first + POOL * self.images], key=lambda image: longest[int(image)])
            batches += [np.array(pool[i : i + self.images]) for i in range(0, len(pool), self.images)]
        shuffled = [batches[i] for i in random.permutation(len(batches))]
        shuffled = [images[distributed.share(len(images))] for images in shuffled]
        return [(images, [chosen[int(image)] for image in images]) for images in shuffled[self.position :]]

    def advance(self) -> None:
        """One more batch was consumed."""
        self.position += 1
        if self.position == len(self):
            self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]

    def _choose(self, random: np.random.Generator, available: int) -> np.ndarray:
        """`per_image` different captions; where there are too few, each comes before any comes again."""
        rounds = -(-self.per_image // available)
        return np.concatenate([random.permutation(available) for _ in range(rounds)])[: self.per_image]


class _Reader(Dataset[Batch | RlcapError]):
    """Turns one entry of the plan into a Batch; runs in the workers.

    What the user can mend is handed over, not raised: the loader would bury it in a worker's traceback.
    """

    def __init__(self, data: Captioned) -> None:
        self.data = data

    def __getitem__(self, entry: Any) -> Batch | RlcapError:
        images, chosen = entry
        try:
            features = self.data.source.read(self.data.rows[images])
        except RlcapError as error:
            return error
        captions = [[self.data.captions[image][c] for c in some] for image, some in zip(images, chosen, strict=True)]
        codec = self.data.codec
        words = pad(captions, codec.pad)
        lengths = torch.tensor([[len(caption) for caption in image] for image in captions])
        mask = torch.arange(words.shape[-1]) < lengths[..., None]
        return Batch(torch.as_tensor(images), features, words, mask)


def training_batches(data: Captioned, plan: Plan, workers: int = 0, pin: bool = False) -> Iterator[Batch]:
    """Batches without end, epoch after epoch; the plan advances when a batch is handed out."""
    while True:
        entries = plan.rest_of_epoch()
        # A generator of its own: the loader draws a number when it starts, which would move the global one.
        loader = DataLoader(
            _Reader(data),
            sampler=entries,
            batch_size=None,
            num_workers=workers,
            pin_memory=pin,
            generator=torch.Generator(),
        )
        for batch in loader:
            if isinstance(batch, RlcapError):
                raise batch
            plan.advance()
            yield batch


def feature_batches(source: FeatureSource, rows: np.ndarray, size: int) -> Iterator[Features]:
    """Features of these rows in order, `size` images at a time: for evaluation."""
    for first in range(0, len(rows), size):
        yield source.read(rows[first : first + size])
