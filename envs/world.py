"""What an environment is about: images, what people said of them, and who judges a caption."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from rlcap.config import Term
from rlcap.contracts import Codec, Features, FeatureShape, Judge
from rlcap.data.dataset import DataSet
from rlcap.data.features import FeatureStore
from rlcap.data.frequencies import DocumentFrequencies
from rlcap.data.images import read_image
from rlcap.data.references import References
from rlcap.data.scenes import scene
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import ConfigError
from rlcap.rewards.combination import make_rewards

DIFFICULTY, GRID = 1, 4  # of the tiny world: one or two things, features of 4x4 patches
CIDER_D: Mapping[str, Term] = {"cider_d": Term("cider_d")}
PATCHES, PATCH = 8, 8  # of pixels that stand in for features: patches a side, pixels a side of each
UNBOUNDED = 1e30  # no feature is larger; infinity itself is no bound of a space that can be sampled


class Source(Protocol):
    """The features of a world's images."""

    shape: FeatureShape
    bounds: tuple[float, float]

    def read(self, images: Tensor) -> Features:
        """(rows,) images, as `World.references` counts them -> new tensors on their device."""
        ...


@dataclass(frozen=True)
class World:
    """Shared by all environments that are about it, and never copied."""

    source: Source
    references: References  # its images are the world's images, and its device the environment's
    judge: Judge
    codec: Codec  # how agents spell: an action is an id of it
    pictures: Callable[[int], Image.Image] | None = None  # for rendering

    def __len__(self) -> int:
        return len(self.references)

    def __deepcopy__(self, memo: Any) -> "World":  # gymnasium copies the arguments of an environment
        return self

    @property
    def device(self) -> torch.device:
        return self.references.device

    @property
    def unknown(self) -> int:
        """What is written where an agent says what is no word."""
        unknown: int = getattr(self.codec, "unknown", self.codec.pad)
        return unknown


class Resident:
    """Features that all fit into the device's memory: reading them never waits for the host."""

    def __init__(self, features: Features) -> None:
        self._features = features
        _, regions, width = features.values.shape
        self.shape = FeatureShape(regions, width, features.grid)
        self.bounds = float(features.values.min()), float(features.values.max())

    def read(self, images: Tensor) -> Features:
        kept = self._features
        boxes = None if kept.boxes is None else kept.boxes.index_select(0, images)
        return Features(kept.values.index_select(0, images), kept.mask.index_select(0, images), kept.grid, boxes)


class Stored:
    """Features in a file. Reading them waits for the device, and for the disk where the images are new ones.

    Of pixels, the regions are 8x8 patches of 8x8 pixels (R = 64, D = 192: red, green, blue), larger pictures having
    been averaged down to 64x64. For photographs, better extract features.
    """

    def __init__(self, store: FeatureStore, rows: np.ndarray) -> None:
        self._store, self._rows = store, rows
        pixels = store.kind == "pixels"
        self.shape = FeatureShape(PATCHES**2, 3 * PATCH**2, (PATCHES, PATCHES)) if pixels else store.shape
        self.bounds = (0.0, 1.0) if pixels else (-UNBOUNDED, UNBOUNDED)
        self._asked, self._found = np.empty(0, np.int64), self._read(rows[:0])

    def read(self, images: Tensor) -> Features:
        asked = images.cpu().numpy()
        if not np.array_equal(asked, self._asked):
            self._asked, self._found = asked.copy(), self._read(self._rows[asked])
        found = self._found
        boxes = None if found.boxes is None else found.boxes.clone()
        return Features(found.values.clone(), found.mask.clone(), found.grid, boxes).to(images.device)

    def _read(self, rows: np.ndarray) -> Features:
        found = self._store.read(rows)
        if found.pixels is None:
            return found
        small = F.adaptive_avg_pool2d(found.pixels, PATCHES * PATCH)
        values = F.unfold(small, PATCH, stride=PATCH).transpose(1, 2).contiguous()
        return Features(values, torch.ones(values.shape[:2], dtype=torch.bool), self.shape.grid)


@cache
def tiny_world(count: int = 32, *, seed: int = 0, device: str = "cpu") -> World:
    """Made-up scenes of one or two things, told in a few words ("a red ball and a blue star"), judged by CIDEr-D.

    Its features are the mean and the deviation of the colours in 4x4 patches of the picture.
    """
    made = [scene(seed, index, DIFFICULTY) for index in range(count)]
    names = [f"scene-{DIFFICULTY}-{seed}-{index:06d}.png" for index in range(count)]
    told = [[f"{'an' if thing.name[0] in 'aeiou' else 'a'} {thing.name}" for thing in each.objects] for each in made]
    raw = [[" and ".join(things) for things in dict.fromkeys([tuple(each), tuple(each[::-1])])] for each in told]
    tokens = [[text.split() for text in texts] for texts in raw]
    vocabulary = Vocabulary.build((words for image in tokens for words in image), 1)
    frequencies = DocumentFrequencies.build(tokens, "made-up scenes")
    references = References(names, tokens, raw, vocabulary, frequencies, torch.device(device))
    patches = _patches(torch.from_numpy(np.stack([each.image for each in made])))
    features = Features(patches, torch.ones(patches.shape[:2], dtype=torch.bool), (GRID, GRID)).to(device)
    pictures = partial(_scene_picture, seed)
    return World(Resident(features), references, make_rewards(CIDER_D, references), vocabulary, pictures)


def world_of(
    path: str | Path,
    split: str = "train",
    *,
    features: str | Path | None = None,  # None: the one .h5 file of the folder
    pictures: str | Path | None = None,  # a folder, for rendering; None: the pixels of the file, if it holds them
    rewards: Mapping[str, Term] = CIDER_D,
    device: str = "cpu",
) -> World:
    """A split of a prepared data set. Of a file of pixels, agents see the patches (`Stored`)."""
    data = DataSet.load(path)
    part = data.split(split)
    if features is None:
        found = sorted(data.path.glob("*.h5"))
        if len(found) != 1:
            raise ConfigError(f"{data.path}: holds {len(found)} feature files; name one with features=FILE.h5")
        features = found[0]
    store = FeatureStore(features)
    references = References.of(part, data.vocabulary, data.frequencies, torch.device(device))
    rows = store.rows(part.images)
    shown: Callable[[int], Image.Image] | None = None
    if pictures is not None:
        shown = partial(_file_picture, Path(pictures), [record.file or record.image for record in part.records])
    elif store.kind == "pixels":
        shown = partial(_stored_picture, store, rows)
    return World(Stored(store, rows), references, make_rewards(rewards, references), data.vocabulary, shown)


def _patches(pictures: Tensor) -> Tensor:
    """(B, 64, 64, 3) levels -> (B, 16, 6) in [0, 1]."""
    pixels = pictures.permute(0, 3, 1, 2).double() / 255  # in float32 the difference of squares loses its digits
    mean = F.adaptive_avg_pool2d(pixels, GRID)
    deviation = (F.adaptive_avg_pool2d(pixels.square(), GRID) - mean.square()).clamp_min(0).sqrt()
    return torch.cat((mean, deviation), 1).float().flatten(2).transpose(1, 2).contiguous()


def _scene_picture(seed: int, image: int) -> Image.Image:
    return Image.fromarray(scene(seed, image, DIFFICULTY).image)


def _stored_picture(store: FeatureStore, rows: np.ndarray, image: int) -> Image.Image:
    pixels = store.read(rows[image : image + 1]).pixels
    assert pixels is not None
    return Image.fromarray((pixels[0].permute(1, 2, 0) * 255).round().byte().numpy())


def _file_picture(folder: Path, files: list[str], image: int) -> Image.Image:
    return read_image(folder / files[image])
