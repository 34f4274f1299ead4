"""The same few images at each evaluation, with what the policy says of them and where it looks."""

import numpy as np
import torch
from PIL import Image

from rlcap.config import Decoding
from rlcap.contracts import Policy
from rlcap.data.features import FeatureStore
from rlcap.decoding.decode import decode
from rlcap.models.seeing import Seeing
from rlcap.pictures import attention_picture, contact_sheet

SHOWN = 4
TILE = 72  # pixels: an event file grows by some 80 kB an image


def sample_pictures(
    policy: Policy,
    store: FeatureStore,
    rows: np.ndarray,
    settings: Decoding,
    device: torch.device,
    seed: int,
) -> list[Image.Image]:
    """Of the first images of a split. Only a store of pixels holds pictures: there are none with other features."""
    if not isinstance(policy, Seeing):
        return []
    features = store.read(rows[:SHOWN])
    assert features.pixels is not None
    squares = (features.pixels * 255).round().byte().permute(0, 2, 3, 1).numpy()
    keys = torch.arange(len(squares), device=device)  # as in the evaluation: the captions are the same
    found = decode(policy, features.to(device), settings, keys=keys, seed=seed, want=["attention"])
    grid, pictures = policy.encoder.shape.grid, []
    for square, (best, *_) in zip(squares, found, strict=True):
        if best.attention is None or grid is None:
            pictures.append(contact_sheet([square], [best.text], tile=TILE, columns=1))
        else:
            pictures.append(attention_picture(square, best.words, best.attention, grid=grid, tile=TILE))
    return pictures
