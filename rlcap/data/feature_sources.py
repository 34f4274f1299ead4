"""The forms in which others keep features, each read as a stream. Nothing is ever unpickled."""

import base64
import binascii
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np

from rlcap.data.feature_file import layout_of_image
from rlcap.data.features import EncoderCard, FeatureStore, Layout
from rlcap.errors import DataError, did_you_mean
from rlcap.progress import track

NPZ_KEYS = ("feat", "features", "x")
TSV_FIELDS = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")
BATCH = 32  # images that are read from HDF5 at once


@dataclass(frozen=True)
class Found:
    """One image of a source."""

    name: str
    values: np.ndarray  # (R, D)
    boxes: np.ndarray | None = None  # (R, 4), shares of the image


@dataclass(frozen=True)
class Source:
    """What was found at a path, after a first look at all of it."""

    layout: Layout  # with the largest number of regions
    names: list[str]
    read: Callable[[Sequence[str]], Iterator[Found]]  # those of some names, in that order
    repeated: int = 0
    card: EncoderCard | None = None


def from_hdf5(path: Path) -> Source:
    store = FeatureStore(path)
    store.rows([])  # refuses names that come twice
    if store.kind == "pixels":
        raise DataError(f"{path}: holds pixels: it needs no import")

    def read(names: Sequence[str]) -> Iterator[Found]:
        for first in range(0, len(names), BATCH):
            some = names[first : first + BATCH]
            features = store.read(store.rows(some))
            for row, name in enumerate(some):
                mask = features.mask[row]
                boxes = None if features.boxes is None else features.boxes[row][mask].numpy()
                yield Found(name, features.values[row][mask].numpy(), boxes)

    return Source(store.layout, store.names, read, card=store.encoder)


def from_folder(folder: Path) -> Source:
    """A file an image, known by its path below the folder without .npy or .npz."""
    files: dict[str, Path] = {}
    for file in sorted(folder.rglob("[!.]*.np[yz]")):
        name = file.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            raise DataError(f"{file}: {files[name].name} lies beside it, of the same image; remove one of the two")
        files[name] = file
    if not files:
        raise DataError(f"{folder}: holds no .npy and no .npz file; name the folder that does")
    layout: Layout | None = None
    for file in track(files.values(), "looking at the files", len(files)):
        one = layout_of_image(_header(file), str(file))
        layout = one if layout is None else _joined(layout, one, file)
    assert layout is not None  # there was a file

    def read(names: Sequence[str]) -> Iterator[Found]:
        for name in names:
            values = _array(files[name])
            yield Found(name, values.reshape(-1, values.shape[-1]))

    return Source(layout, list(files), read)


def _joined(layout: Layout, one: Layout, file: Path) -> Layout:
    """The layout of some files and one more: only the number of regions may differ."""
    sets = ("regions", "global")  # one region alone looks like a global vector
    if one.item[1] != layout.item[1] or (one.kind != layout.kind and not {one.kind, layout.kind} <= {*sets}):
        raise DataError(f"{file}: {_words(one)} where the files before have {_words(layout)}; all must be alike")
    if one.item[0] == layout.item[0] and one.grid == layout.grid:
        return layout
    if one.grid is not None:
        raise DataError(f"{file}: {_words(one)} where the files before have {_words(layout)}; make them alike")
    return replace(layout, kind="regions", item=(max(one.item[0], layout.item[0]), one.item[1]), varying=True)


def _words(layout: Layout) -> str:
    regions = f"a {layout.grid[0]}x{layout.grid[1]} grid" if layout.grid else f"{layout.item[0]} regions"
    return f"{regions} of width {layout.item[1]}"


def _header(file: Path) -> tuple[int, ...]:
    """The shape of a file's array, without reading the array."""

    def shape_in(stream: IO[bytes]) -> tuple[int, ...]:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        if dtype.kind not in "fiu":
            kind = "pickled Python objects" if dtype.hasobject else f"values of type {dtype}"
            raise DataError(f"{file}: holds {kind}, which are not read; save it anew as an array of floats")
        return tuple(shape)

    try:
        if file.suffix == ".npy":
            with file.open("rb") as stream:
                return shape_in(stream)
        with (
            zipfile.ZipFile(file) as archive,
            archive.open(f"{_key(archive.namelist(), file)}.npy") as member,
        ):
            return shape_in(member)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(file, error) from error


def _array(file: Path) -> np.ndarray:
    try:
        if file.suffix == ".npy":
            return np.asarray(np.load(file, allow_pickle=False))
        with np.load(file, allow_pickle=False) as arrays:
            return np.asarray(arrays[_key([f"{name}.npy" for name in arrays.files], file)])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{file}: cannot be read ({reason}); it is damaged: remove it, or extract it again")


def _key(members: Sequence[str], file: Path) -> str:
    names = [member.removesuffix(".npy") for member in members if member.endswith(".npy")]
    known = [key for key in NPZ_KEYS if key in names]
    if known or len(names) == 1:
        return (known or names)[0]
    near = did_you_mean("feat", names)
    raise DataError(f"{file}: none of its arrays is called {', '.join(NPZ_KEYS)}{near}; rename the right one")


def from_tsv(path: Path) -> Source:
    """A line an image, its numbers as base64 of float32; boxes are in pixels."""
    lines: dict[str, tuple[int, int, int]] = {}  # name -> offset, line number, regions
    repeated = width = 0
    with path.open("rb") as file:
        offset = 0
        for number, line in enumerate(track(file, f"looking at {path.name}"), 1):
            if not (number == 1 and line.startswith(b"image_id\t")):
                fields = _fields(line, path, number)
                regions, wide = _measure(fields, path, number)
                if width and wide != width:
                    raise DataError(f"{path}:{number}: features of width {wide}, the lines before have {width}")
                width = wide
                repeated += fields[0] in lines
                lines.setdefault(fields[0], (offset, number, regions))
            offset += len(line)
    if not lines:
        raise DataError(f"{path}: is empty; give the .tsv of bottom-up attention")
    counts = {regions for _, _, regions in lines.values()}
    layout = Layout("regions", (max(counts), width), varying=len(counts) > 1, boxes=True)

    def read(names: Sequence[str]) -> Iterator[Found]:
        with path.open("rb") as file:
            for name in names:
                offset, number, regions = lines[name]
                file.seek(offset)
                fields = _fields(file.readline(), path, number)
                values = _numbers(fields[5], (regions, width), path, number)
                boxes = _numbers(fields[4], (regions, 4), path, number)
                size = np.array([fields[1], fields[2]] * 2, np.float32)
                yield Found(name, values, (boxes / size).clip(0, 1))

    return Source(layout, list(lines), read, repeated)


def _fields(line: bytes, path: Path, number: int) -> list[str]:
    # Not csv: its fields may not be as long as these, and neither base64 nor numbers need quotes.
    fields = line.decode("ascii", "replace").rstrip("\r\n").split("\t")
    if len(fields) != len(TSV_FIELDS):
        wanted = ", ".join(TSV_FIELDS)
        raise DataError(
            f"{path}:{number}: {len(fields)} fields, not {len(TSV_FIELDS)} ({wanted}); is the file cut off?"
        )
    return fields


def _measure(fields: Sequence[str], path: Path, number: int) -> tuple[int, int]:
    """How many regions, and how wide, by the lengths alone."""
    name, *sizes, _, features = fields
    try:
        wide, high, regions = (int(size) for size in sizes)
    except ValueError as error:
        raise DataError(f"{path}:{number}: {error}; {', '.join(TSV_FIELDS[1:4])} must be whole numbers") from error
    if not name or min(wide, high, regions) < 1:
        size = f"{regions} regions in {wide}x{high} pixels"
        raise DataError(f"{path}:{number}: image '{name}' has {size}; remove the line, or extract it again")
    values = len(features) // 4 * 3 - features[-2:].count("=")
    if values % (4 * regions) or len(features) % 4 or not values:
        counted = f"{values} bytes of features for {regions} regions"
        raise DataError(f"{path}:{number}: image '{name}' has {counted}; it is damaged: extract it again")
    return regions, values // (4 * regions)


def _numbers(text: str, shape: tuple[int, int], path: Path, number: int) -> np.ndarray:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{path}:{number}: is no base64 ({error}); it is damaged: extract it again") from error
    if len(raw) != shape[0] * shape[1] * 4:
        wanted = f"{shape[0]}x{shape[1]} float32"
        raise DataError(f"{path}:{number}: {len(raw)} bytes are not {wanted}; it is damaged: extract it again")
    return np.frombuffer(raw, "<f4").reshape(shape)
