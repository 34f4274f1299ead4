"""Made-up scenes: small pictures of coloured shapes, what people might say of them, and where things stand.

Difficulty 1: one or two things. 2: two or three, of several sizes, in relations. 3: counts, similar colours,
and specks that nobody mentions. Scene i of a seed is the same whatever the number of scenes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count as counting
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rlcap.data.features import EncoderCard, FeatureWriter
from rlcap.data.records import Record, SceneObject
from rlcap.data.scene_drawing import SIZE, box_of, draw
from rlcap.data.scene_grammar import captions
from rlcap.data.scene_layout import Sketch, sketch
from rlcap.errors import ConfigError, DataError
from rlcap.files import atomic_path
from rlcap.progress import track

DIFFICULTIES = (1, 2, 3)
SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}
STORE = "scenes.h5"  # the pixels, in the folder of the data set
NAME = re.compile(r"scene-([1-3])-([0-9]+)-([0-9]+)\.png")  # difficulty, seed, index: enough to make it anew
NOISE = {1: 3, 2: 5, 3: 8}
WRITE_EVERY = 256  # scenes


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture (64, 64, 3), its things, and captions, each with its (word, thing) pairs."""

    image: NDArray[np.uint8]
    objects: tuple[SceneObject, ...]
    captions: tuple[str, ...]
    mentions: tuple[tuple[tuple[int, int], ...], ...]


def scene(seed: int, index: int, difficulty: int = 2) -> Scene:
    """Scene `index` of the endless row that `seed` stands for."""
    _check(seed, difficulty)
    return _finished(sketch(seed, index, difficulty), difficulty)


def make(
    folder: Path,
    *,
    count: int,
    seed: int = 0,
    difficulty: int = 2,
    splits: Mapping[str, float] = SPLITS,
) -> list[Record]:
    """`count` scenes: their pixels go to `folder`/scenes.h5; the records name their splits.

    What a scene shows decides its split, so that nothing that is shown in one split is shown in another.
    """
    _check(seed, difficulty)
    wanted = _quotas(count, splits)
    card = EncoderCard(spec="pixels", options={"size": SIZE, "resize": "squash"}, size=SIZE, resize="squash")
    records: list[Record] = []
    images: list[NDArray[np.uint8]] = []
    writer = FeatureWriter(folder / STORE, kind="pixels", card=card)
    writer.part.unlink(missing_ok=True)  # left by an interrupt, perhaps of another seed; making anew is quick
    with writer:
        for index, split, drawn in track(_assigned(wanted, splits, seed, difficulty), "scenes", count):
            made = _finished(drawn, difficulty)
            name = f"scene-{difficulty}-{seed}-{index:06d}.png"
            records.append(Record(name, split, made.captions, index, objects=made.objects, mentions=made.mentions))
            images.append(made.image.transpose(2, 0, 1))
            if len(images) == WRITE_EVERY or len(records) == count:
                writer.append([record.image for record in records[-len(images) :]], np.stack(images))
                images = []
    return records


def write_images(folder: Path, records: Sequence[Record], how_many: int = 20) -> list[Path]:
    """The first `how_many` of `records` as PNG files in `folder`, drawn anew from what their names say."""
    paths = []
    for record in records[:how_many]:
        named = NAME.fullmatch(record.image)
        if not named:
            raise DataError(f"'{record.image}' is no made-up scene (they are called scene-2-0-000123.png)")
        difficulty, seed, index = (int(number) for number in named.groups())
        paths.append(folder / record.image)
        with atomic_path(paths[-1]) as part:
            Image.fromarray(scene(seed, index, difficulty).image).save(part, format="PNG")
    return paths


def _check(seed: int, difficulty: int) -> None:
    if difficulty not in DIFFICULTIES:
        raise ConfigError(f"difficulty {difficulty}: scenes are made at difficulty 1, 2 or 3")
    if seed < 0:
        raise ConfigError(f"seed {seed}: the seed of the scenes must be 0 or more")


def _quotas(count: int, splits: Mapping[str, float]) -> dict[str, int]:
    """How many scenes each split gets: its share, and at least one."""
    shares = {name: share for name, share in splits.items() if share > 0}
    if count < max(1, len(shares)):
        raise ConfigError(f"{count} scenes cannot fill {len(shares)} splits: ask for more")
    if not shares or min(splits.values()) < 0:
        raise ConfigError(f"splits {dict(splits)}: give each split a share above 0")
    total = sum(shares.values())
    quotas = {name: max(1, round(count * share / total)) for name, share in shares.items()}
    largest = max(quotas, key=lambda name: quotas[name])
    quotas[largest] += count - sum(quotas.values())
    return quotas


def _assigned(
    wanted: Mapping[str, int], splits: Mapping[str, float], seed: int, difficulty: int
) -> Iterator[tuple[int, str, Sketch]]:
    """Scenes in their order, each with its split, until all splits are full; a full split takes no more."""
    missing = dict(wanted)
    names = list(missing)
    bounds = np.cumsum([splits[name] for name in names])
    for index in counting():
        if not any(missing.values()):
            return
        made = sketch(seed, index, difficulty)
        at = crc32(made.content.encode()) / 2**32 * bounds[-1]
        split = names[int(np.searchsorted(bounds, at, side="right"))]
        if missing[split]:
            missing[split] -= 1
            yield index, split, made


def _finished(made: Sketch, difficulty: int) -> Scene:
    told = captions(made.plot, made.dice)
    return Scene(
        image=draw(made.things, made.dice.generator, noise=NOISE[difficulty]).transpose(1, 2, 0),
        objects=tuple(SceneObject(f"{thing.colour} {thing.shape}", box_of(thing)) for thing in made.things),
        captions=tuple(text for text, _ in told),
        mentions=tuple(mentions for _, mentions in told),
    )
