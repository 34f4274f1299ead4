"""Batches centred on images: what they hold, how they pad, and that they go on where they stopped."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from rlcap.contracts import Features
from rlcap.data.batches import Captioned, Plan, encode_captions, pad, training_batches


@dataclass
class Numbered:
    """A source whose features are the row's number: so a batch shows where its features came from."""

    def read(self, rows: np.ndarray) -> Features:
        values = torch.as_tensor(rows).float()[:, None, None]
        return Features(values, torch.ones(len(rows), 1, dtype=torch.bool))


@pytest.fixture
def data(codec) -> Captioned:
    """Thirteen images; image i has 1 + i mod 4 captions, told apart by their lengths."""
    words = ["a", "red", "ball", "and"]
    tokens = [[[words[i % 4]] * (c + 1) for c in range(1 + i % 4)] for i in range(13)]
    return Captioned(Numbered(), np.arange(13) * 10, encode_captions(tokens, codec, 20), codec)


def first(data: Captioned, plan: Plan, count: int, workers: int = 0):
    return list(itertools.islice(training_batches(data, plan, workers), count))


def test_a_long_caption_is_cut_and_then_has_no_end(codec):
    words = ["a", "red", "ball"]
    (fits,), (cut,) = encode_captions([[words]], codec, 3)[0], encode_captions([[words]], codec, 2)[0]
    assert fits == [*codec.encode(words), codec.end]
    assert cut == codec.encode(words[:2])


def test_an_epoch_shows_each_image_once_with_its_own_features_and_captions(data, codec):
    batches = first(data, Plan(data.captions, 4, 3, seed=1), 4)
    seen = torch.cat([batch.images for batch in batches])
    assert sorted(seen.tolist()) == list(range(13))
    for batch in batches:
        assert (batch.features.values[:, 0, 0] == batch.images * 10).all()
        for image, captions, mask in zip(batch.images.tolist(), batch.words, batch.mask, strict=True):
            ids = [caption[keep].tolist() for caption, keep in zip(captions, mask, strict=True)]
            assert all(caption in data.captions[image] for caption in ids)
            different = {len(caption) for caption in ids}
            assert len(different) == min(3, len(data.captions[image]))
        assert batch.mask.any(1).any(0).all(), "no column is all padding"
        assert (batch.words[~batch.mask] == codec.pad).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_goes_on_where_it_stopped_whatever_was_read_ahead(data, workers):
    whole = first(data, Plan(data.captions, 4, 2, seed=3), 10)
    plan = Plan(data.captions, 4, 2, seed=3)
    begun = first(data, plan, 6, workers)
    resumed = Plan(data.captions, 4, 2, seed=3)
    resumed.load_state_dict(plan.state_dict())
    rest = first(data, resumed, 4, workers)
    for a, b in zip(whole, begun + rest, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.words, b.words)


def test_epochs_and_seeds_differ(data):
    one = torch.cat([batch.images for batch in first(data, Plan(data.captions, 4, 2, seed=3), 8)])
    other = torch.cat([batch.images for batch in first(data, Plan(data.captions, 4, 2, seed=4), 4)])
    assert not torch.equal(one[:13], one[13:])
    assert not torch.equal(one[:13], other)


def test_captions_of_like_length_come_together():
    random = np.random.default_rng(0)
    captions = [[[7] * int(n)] for n in random.integers(3, 30, 2000)]
    plan = Plan(captions, 20, 1, seed=0)
    longest = [max(len(captions[i][0]) for i in images) for images, _ in plan.rest_of_epoch()]
    padded = sum(longest) * 20 / sum(len(image[0]) for image in captions)
    assert padded < 1.1, "of random batches it would be 1.7"


def test_pad():
    assert pad([[[1, 2], [3]], [[4], [5]]], 0).tolist() == [[[1, 2], [3, 0]], [[4, 0], [5, 0]]]
