"""Features that other programs made -> a feature file, one image after the other in bounded memory.

Read are a folder of .npy/.npz (one file an image), an HDF5 file with `features` and `names`, and the .tsv of
bottom-up attention (Anderson et al. 2018, arXiv:1707.07998).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from rlcap.data.dataset import DataSet
from rlcap.data.feature_sources import Found, Source, from_folder, from_hdf5, from_tsv
from rlcap.data.features import EncoderCard, FeatureWriter, Layout
from rlcap.errors import ConfigError, DataError
from rlcap.progress import track

BATCH = 32  # images in memory at once


@dataclass(frozen=True)
class Report:
    images: int  # in the file
    resumed: int  # of these, done by an earlier run that was interrupted
    repeated: int  # came again in the source; the first counts
    left_out: int  # are not in the data set that gives the names


def import_features(
    source: str | Path,
    out: str | Path,
    *,
    card: EncoderCard | None = None,  # of what made them
    dtype: str | None = None,  # "fp16" | "uint8"; None: as in the source, or fp16
    scale: float | None = None,  # of uint8; None: as in the source, or what the largest value asks for
    grid: tuple[int, int] | None = None,
    no_grid: bool = False,  # a square number of regions is not one
    names_of: str | Path | None = None,  # a prepared data set whose names the images get
) -> Report:
    """Writes the feature file `out`; goes on after an interrupt."""
    source, out = Path(source), Path(out)
    if source.resolve() == out.resolve():
        raise ConfigError(f"{out}: is the source itself; name another file for --out")
    found = open_source(source)
    layout = with_grid(found.layout, grid, no_grid, source)
    dtype = dtype or ("uint8" if layout.dtype == "uint8" and layout.scale else "fp16")
    if dtype != "uint8" and scale is not None:
        raise ConfigError(f"--scale {scale:g} goes with --dtype uint8")
    if dtype == "uint8":
        scale = scale or layout.scale or _largest(found) / 255
    new_names = {name: name for name in found.names}
    if names_of is not None:
        new_names = names_in(DataSet.load(names_of), found.names, source)
    with FeatureWriter(out, layout.kind, card=card or found.card, grid=layout.grid, dtype=dtype, scale=scale) as writer:
        resumed = len(writer.done)
        wanted = [name for name in found.names if name in new_names and new_names[name] not in writer.done]
        images = track(found.read(wanted), "importing", resumed + len(wanted), resumed)
        while batch := list(islice(images, BATCH)):
            writer.append([new_names[image.name] for image in batch], *_padded(batch, layout))
        return Report(len(writer.done), resumed, found.repeated, len(found.names) - len(new_names))


def open_source(path: Path) -> Source:
    """By what the path is: a folder, a .tsv, or an HDF5 file."""
    if path.is_dir():
        return from_folder(path)
    if path.is_file() and path.suffix.lower() == ".tsv":
        return from_tsv(path)
    if path.is_file() and not h5py.is_hdf5(path) and path.suffix.lower() not in (".h5", ".hdf5"):
        raise DataError(f"{path}: is no HDF5 file, no .tsv and no folder of .npy/.npz; give one of these")
    return from_hdf5(path)


def with_grid(layout: Layout, grid: tuple[int, int] | None, no_grid: bool, source: Path) -> Layout:
    """The layout as --grid or --no-grid says it is."""
    if no_grid and layout.kind == "grid":
        return replace(layout, kind="regions", grid=None)
    if grid is None:
        return layout
    if layout.varying or layout.kind == "global" or math.prod(grid) != layout.item[0]:
        number = f"up to {layout.item[0]}" if layout.varying else str(layout.item[0])
        raise ConfigError(f"{source}: --grid {grid[0]}x{grid[1]} does not go with {number} regions an image")
    return replace(layout, kind="grid", grid=grid)


def names_in(data: DataSet, names: Sequence[str], source: Path) -> dict[str, str]:
    """Name here -> image there, by the image's number or its name, with or without folder and extension."""
    known: dict[str, set[str]] = {}
    for record in data.records:
        path = PurePosixPath(record.image)
        for key in {record.image, str(path.with_suffix("")), path.stem, str(record.image_id)}:
            known.setdefault(key, set()).add(record.image)
    exact = {record.image for record in data.records}
    new = {}
    for name in names:
        images = {name} if name in exact else known.get(name, set())
        if len(images) == 1:
            new[name] = next(iter(images))
    if not new:
        example = f"'{names[0]}' here, '{data.records[0].image}' there"
        raise DataError(f"{source}: no name fits an image of {data.path} ({example}); name their own data set")
    return new


def _largest(source: Source) -> float:
    """A pass over all values."""
    images = track(source.read(source.names), "looking for the largest value", len(source.names))
    largest = max(float(image.values.max()) for image in images)
    if not 0 < largest < math.inf:
        raise DataError(f"the largest value is {largest:g}: uint8 cannot hold that; import as --dtype fp16")
    return largest


def _padded(batch: Sequence[Found], layout: Layout) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Values, counts and boxes of a batch as the writer wants them."""
    values = np.zeros((len(batch), *layout.item), np.float32)
    counts = np.array([len(image.values) for image in batch]) if layout.varying else None
    boxes = np.zeros((len(batch), layout.item[0], 4), np.float32) if layout.boxes else None
    for row, image in enumerate(batch):
        values[row, : len(image.values)] = image.values
        if boxes is not None and image.boxes is not None:
            boxes[row, : len(image.values)] = image.boxes
    return values, counts, boxes
