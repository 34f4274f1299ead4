"""The same few images at each evaluation, with what the policy says of them and where it looks."""

from pathlib import Path

import torch
from PIL import Image

from rlcap.album import Album
from rlcap.building import rows_for
from rlcap.config import Experiment
from rlcap.contracts import Policy
from rlcap.data.dataset import Split
from rlcap.data.features import FeatureStore
from rlcap.pictures import illustrated

SHOWN = 4
TILE = 96  # pixels: an event file grows by some 180 kB a photo, and "jumping" still fits above it


def album_of(experiment: Experiment, store: FeatureStore, split: Split) -> Album | None:
    """The split's pictures: those of data.pictures, or the pixels themselves; None if there are neither."""
    folder = experiment.data.pictures
    if folder is None and store.kind != "pixels":
        return None
    return Album(split, store, rows_for(experiment, store, split), Path(folder) if folder else None)


def sample_pictures(policy: Policy, album: Album, experiment: Experiment, device: torch.device) -> list[Image.Image]:
    """Of the first images of a split."""
    places, seed = album.there()[:SHOWN], experiment.training.seed
    looks = album.looks(policy, places, experiment.decoding, device, seed)
    return [illustrated(look, tile=TILE) for look in looks]
