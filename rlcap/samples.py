"""The same few images at each evaluation, with what the policy says of them and where it looks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rlcap.config import Decoding
from rlcap.contracts import Policy
from rlcap.data.dataset import Split
from rlcap.data.features import FeatureStore
from rlcap.data.images import read_image
from rlcap.decoding.decode import decode
from rlcap.errors import DataError
from rlcap.models.seeing import Seeing
from rlcap.pictures import attention_picture, contact_sheet

SHOWN = 4
TILE = 72  # pixels: an event file grows by some 80 kB an image


def picture_files(folder: Path, split: Split, store: FeatureStore, rows: np.ndarray) -> list[Path]:
    """In a folder of pictures, those of the first images, whose features stand in these rows."""
    files = {record.image: folder / (record.file or record.image) for record in split.records}
    found = [files[store.names[row]] for row in rows[:SHOWN]]
    for file in found:
        if not file.is_file():
            raise DataError(
                f"{file}: there is no such picture; data.pictures is to be the folder of split {split.name}'s"
            )
    return found


def sample_pictures(
    policy: Policy,
    store: FeatureStore,
    rows: np.ndarray,
    settings: Decoding,
    device: torch.device,
    seed: int,
    files: Sequence[Path] = (),
) -> list[Image.Image]:
    """Of the first images of a split. Pixels are pictures themselves; of other features they are read from `files`."""
    features = store.read(rows[:SHOWN])
    images: list[Image.Image] = [read_image(file) for file in files]
    resize, grid = store.encoder.resize if store.encoder else "squash", features.grid
    if features.pixels is not None:
        squares = (features.pixels * 255).round().byte().permute(0, 2, 3, 1).numpy()
        images, resize = [Image.fromarray(square) for square in squares], "squash"
    if isinstance(policy, Seeing):
        grid = policy.encoder.shape.grid
    if not images:
        return []
    keys = torch.arange(features.images, device=device)  # as in the evaluation: the captions are the same
    found = decode(policy, features.to(device), settings, keys=keys, seed=seed, want=["attention"])
    pictures = []
    for image, (best, *_) in zip(images, found, strict=True):
        if best.attention is None or grid is None or best.attention.shape[-1] != grid[0] * grid[1]:
            pictures.append(contact_sheet([image], [best.text], tile=TILE, columns=1))
        else:
            pictures.append(attention_picture(image, best.words, best.attention, grid=grid, resize=resize, tile=TILE))
    return pictures
