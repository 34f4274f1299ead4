"""What a feature file holds: its layout, its names, the card of the encoder that made it. See features.py."""

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from rlcap.contracts import FeatureShape
from rlcap.errors import DataError, did_you_mean

FORMAT = 1  # of the file: a higher one was written by a later rlcap
KINDS = ("grid", "regions", "global", "pixels")
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class EncoderCard:
    """What made the features, so that a caption can later go from raw pixels."""

    spec: str  # a short name, or module:Name
    options: dict[str, Any]
    size: int  # the side of the square of pixels that it sees
    resize: str  # "squash" | "crop"
    weights: str = ""  # their hash; empty: unknown

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "EncoderCard":
        return EncoderCard(**json.loads(text))


@dataclass(frozen=True)
class Layout:
    """How a file holds its features: the same for all of its images."""

    kind: str
    item: tuple[int, ...]  # one image: (R, D); pixels: (3, S, S)
    grid: tuple[int, int] | None = None
    dtype: str = "float16"
    scale: float | None = None  # a stored value stands for itself times this
    varying: bool = False  # the number of regions differs: the file has `counts`
    boxes: bool = False

    @staticmethod
    def of(shape: FeatureShape) -> "Layout":
        """Of features of this shape, all regions real."""
        kind = "grid" if shape.grid else "global" if shape.regions == 1 else "regions"
        return Layout(kind, (shape.regions, shape.width), shape.grid)

    @staticmethod
    def of_pixels(size: int) -> "Layout":
        return Layout("pixels", (3, size, size), dtype="uint8")

    @property
    def shape(self) -> FeatureShape:
        """As a policy wants to know it; of pixels it is the encoder that decides."""
        if self.kind == "pixels":
            return FeatureShape(0, 0)
        return FeatureShape(self.item[0], self.item[1], self.grid)


def layout_of_image(shape: tuple[int, ...], place: str) -> Layout:
    """What an array of one image is: (D,) global, (R, D) regions, (h, w, D) a grid."""
    if 0 in shape:
        raise DataError(f"{place}: shape {shape} has no regions or no values; remove it, or extract it again")
    if len(shape) == 3 and shape[1] == shape[2] < shape[0]:
        last = (*shape[1:], shape[0])
        raise DataError(f"{place}: shape {shape} has its channels first; transpose it to {last}")
    match shape:
        case (width,):
            return Layout("global", (1, width))
        case (regions, width):
            return Layout("global" if regions == 1 else "regions", (regions, width))
        case (high, wide, width):
            return Layout("grid", (high * wide, width), (high, wide))
    raise DataError(f"{place}: shape {shape} of one image is none of (D,), (R, D), (h, w, D); reshape it")


def open_hdf5(path: Path) -> h5py.File:
    """For reading. A missing, foreign or truncated file is one clear line."""
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {problem}; give a feature file (.h5)")
    try:
        return h5py.File(path, "r", locking="best-effort")  # some network file systems know no locks
    except OSError as error:
        if not h5py.is_hdf5(path):
            remedy = "give a feature file (.h5), or make one with 'rlcap features import'"
            raise DataError(f"{path}: is not an HDF5 file; {remedy}") from error
        remedy = "copy it again, or extract or import it anew"
        raise DataError(f"{path}: cannot be opened ({reason(error)}); {remedy}") from error


DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)  # as h5py tells it


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """What h5py stumbles over inside a file that it could open, as one line."""
    try:
        yield
    except DAMAGE as error:
        remedy = "the file is damaged: copy it again, or extract or import it anew"
        raise DataError(f"{path}: cannot be read ({reason(error)}); {remedy}") from error


def read_layout(file: h5py.File, path: Path) -> Layout:
    """The layout of an open file, ours or foreign; what cannot be one is refused."""
    for name in ("features", "names"):
        if name in file and not isinstance(file[name], h5py.Dataset):
            raise DataError(f"{path}: '{name}' is a group, not a data set; import from another form")
        if name not in file:
            near = did_you_mean(name, file)
            raise DataError(f"{path}: has no data set '{name}'{near}; rename it, or import from another form")
    if _mark(file, path, "rlcap_features", int, FORMAT) > FORMAT:
        raise DataError(f"{path}: was written by a later rlcap; update rlcap")
    features = file["features"]
    if features.dtype.kind not in "fu":
        raise DataError(f"{path}: features of type {features.dtype}; write them as floats or as uint8 with a scale")
    if features.ndim < 2 or not len(features):
        raise DataError(f"{path}: features of shape {features.shape} hold no image; extract or import them anew")
    layout = _layout(file, path)
    for name in BESIDE:
        if name in file:
            _check_beside(file[name], name, path, layout, len(features))
    return layout


# What stands beside the features: the shape of one image's part (R: its regions), and the kinds of type.
BESIDE: dict[str, tuple[tuple[str | int, ...], str]] = {
    "names": ((), "OSiu"),
    "counts": ((), "iu"),
    "boxes": (("R", 4), "f"),
}


def _check_beside(data: Any, name: str, path: Path, layout: Layout, images: int) -> None:
    (rest, types), remedy = BESIDE[name], "extract or import them anew"
    wanted = (images, *(layout.item[0] if side == "R" else side for side in rest))
    if not isinstance(data, h5py.Dataset) or data.dtype.kind not in types:
        raise DataError(f"{path}: {name} of type {getattr(data, 'dtype', 'group')}; {remedy}")
    if data.ndim == len(wanted) and len(data) != images:
        counted = f"{images} features but {len(data)} {name}"
        raise DataError(f"{path}: {counted}; one of the two is incomplete: {remedy}")
    if data.shape != wanted:
        raise DataError(f"{path}: {name} of shape {data.shape}, not {wanted}; {remedy}")


def _mark(owner: Any, path: Path, name: str, kind: Callable[[Any], Kind], default: Kind) -> Kind:
    """An attribute of the file or of its features."""
    value = owner.attrs.get(name)
    try:
        return default if value is None else kind(value)
    except (TypeError, ValueError, IndexError) as error:
        shown = np.asarray(value).tolist()
        raise DataError(f"{path}: attribute '{name}' cannot be {shown!r}; extract or import it anew") from error


def _scale(value: Any) -> float:
    if not 0 < (scale := float(value)) < math.inf:
        raise ValueError
    return scale


def _grid(value: Any) -> tuple[int, int]:
    high, wide = value
    return int(high), int(wide)


def _layout(file: h5py.File, path: Path) -> Layout:
    features = file["features"]
    kind: str | None = _mark(features, path, "kind", str, None)
    scale: float | None = _mark(features, path, "scale", _scale, None)
    varying, boxes = "counts" in file, "boxes" in file
    if kind == "pixels":
        item = features.shape[1:]
        if features.dtype != "uint8" or len(item) != 3 or item[0] != 3 or item[1] != item[2]:
            found = f"{features.dtype} of shape {item}"
            raise DataError(f"{path}: holds pixels as {found}, not as uint8 (3, S, S); extract them anew")
        return Layout(kind, item, None, str(features.dtype), scale)
    seen = layout_of_image(features.shape[1:], str(path))
    regions, grid = seen.item[0], _mark(features, path, "grid", _grid, seen.grid)
    if kind is None and grid is None and seen.kind == "regions" and not varying and not boxes:
        side = math.isqrt(regions)
        grid = (side, side) if side * side == regions else None
    kind = kind or ("grid" if grid else seen.kind)
    if kind not in KINDS or (grid is not None and math.prod(grid) != regions):
        raise DataError(f"{path}: kind '{kind}' and grid {grid} do not fit shape {features.shape}; import it anew")
    return Layout(kind, seen.item, grid, str(features.dtype), scale, varying, boxes)


def read_names(file: h5py.File, path: Path) -> list[str]:
    names = file["names"]
    if h5py.check_string_dtype(names.dtype) is None:
        return [str(name) for name in names[:]]  # the numbers of images
    try:
        return list(names.asstr("utf-8", "strict")[:])
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a name is not UTF-8 ({error}); write 'names' as UTF-8") from error


def read_card(file: h5py.File, path: Path) -> EncoderCard | None:
    """Of the encoder that made the features, where the file says so."""
    if "encoder" not in file.attrs:
        return None
    try:
        return EncoderCard.from_json(file.attrs["encoder"])
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: attribute 'encoder' is no encoder card ({error}); import it anew") from error


def reason(error: Exception) -> str:
    """The cause that h5py's message hides between its brackets, on one line."""
    text = " ".join(str(error).split())
    if system := re.search(r"error message = '([^']*)'", text):
        return system[1]
    return text[text.find("(") + 1 : text.rfind(")")] if "(" in text else text
