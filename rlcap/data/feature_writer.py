"""Writing a feature file as a stream. See features.py for what it holds."""

import errno
import math
import os
import zlib
from collections.abc import Sequence, Set
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from rlcap.data.feature_file import FORMAT, KINDS, EncoderCard, Layout, reason
from rlcap.data.feature_part import Part
from rlcap.errors import ConfigError, DataError, did_you_mean
from rlcap.progress import track

DTYPES = {"fp16": "float16", "uint8": "uint8"}
LARGEST = {"float16": 65504.0, "uint8": 255.0}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ROOM_FOR_HDF5 = 2**20, 400  # bytes that HDF5 adds to the file, and to an image beside its name


class FeatureWriter:
    """Writes in bounded memory; the target appears when it is whole.

    Until then the work lies in a hidden neighbour, `.NAME.part`. After an interrupt the same writer goes on
    from there: `done` holds the names that it need not see again. The first images decide the shape of all.
    """

    def __init__(
        self,
        path: str | Path,
        kind: str,
        *,
        card: EncoderCard | None = None,
        grid: tuple[int, int] | None = None,
        dtype: str = "fp16",  # or "uint8" with a scale; pixels are always uint8
        scale: float | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ConfigError(f"kind '{kind}' of features is unknown{did_you_mean(kind, KINDS)}")
        if (kind == "grid") != (grid is not None):
            raise ConfigError(f"kind '{kind}' of features with grid {grid}: a grid, and nothing else, has one")
        if dtype not in DTYPES:
            raise ConfigError(f"dtype '{dtype}' of features is unknown{did_you_mean(dtype, DTYPES)}")
        self.path, self.kind, self.card, self.grid, self.scale = Path(path), kind, card, grid, scale
        self.dtype = "uint8" if kind == "pixels" else DTYPES[dtype]
        if self.dtype == "uint8" and kind != "pixels" and not (scale and scale > 0):
            raise ConfigError(f"{path}: uint8 features need a scale above 0: values are stored as value / scale")
        self.part = self.path.with_name(f".{self.path.name}.part")
        self._log: Part | None = None
        self._layout: Layout | None = None  # known with the first images
        self._packed = False

    @property
    def done(self) -> Set[str]:
        """The names that the file holds already."""
        return self._log.records.keys() if self._log else frozenset()

    def __enter__(self) -> Self:
        if self.path.is_dir():
            raise DataError(f"{self.path}: is a folder; name the file to write, such as {self.path / 'features.h5'}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._log = Part(self.part)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror}); choose another place") from error
        if self._log.settings is not None:
            self._resume(self._log, self._log.settings)
        return self

    def append(
        self,
        names: Sequence[str],
        values: np.ndarray,  # (n, R, D) or (n, 3, S, S): floats, or uint8 as it shall be stored
        counts: np.ndarray | None = None,  # (n,): how many regions are real; what lies beyond is zero
        boxes: np.ndarray | None = None,  # (n, R, 4): shares of the image
    ) -> None:
        if not len(names):
            return
        given = {"features": values, "counts": counts, "boxes": boxes}
        self._check(names, {name: array for name, array in given.items() if array is not None})
        stored = self._encoded(names, values)
        log, layout = self._opened(), self._layout
        try:
            if layout is None:
                layout = self._begin(log, stored, counts is not None, boxes is not None)
            blobs = [zlib.compress(image, 1) if self._packed else image.tobytes() for image in stored]
            if boxes is not None:
                blobs = [box.astype("<f4").tobytes() + blob for box, blob in zip(boxes, blobs, strict=True)]
            numbers = [layout.item[0]] * len(names) if counts is None else [int(count) for count in counts]
            log.append(names, blobs, numbers)
        except OSError as error:
            raise self._unwritable(error, log) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        log, self._log = self._opened(), None
        try:
            if not log.records:
                log.delete()
                if kind is None:
                    raise DataError(f"{self.path}: no image gave features; nothing was written")
            elif kind is None and self._layout is not None:
                self._assemble(log, self._layout)
                log.delete()
        except OSError as failure:
            raise self._unwritable(failure, log) from failure
        finally:
            log.close()

    def _opened(self) -> Part:
        if self._log is None:
            raise RuntimeError("a FeatureWriter writes inside its with block")
        return self._log

    def _settings(self) -> dict[str, Any]:
        card = None if self.card is None else self.card.to_json()
        grid = None if self.grid is None else list(self.grid)
        return {"kind": self.kind, "grid": grid, "dtype": self.dtype, "scale": self.scale, "encoder": card}

    def _begin(self, log: Part, first: np.ndarray, varying: bool, boxes: bool) -> Layout:
        """The first images decide what they all look like, and whether packing is worth its price.

        Measured on one core, 64 random images at a time. MobileNet 7x7x1280 uint8, 82% zeros: plain 61 KiB an
        image and 20,000 images/s, lzf 27 KiB and 2,900/s, gzip-1 22 KiB and 3,200/s. 36x2048 fp16, half of it
        zeros: plain 144 KiB and 15,000/s, lzf 114 KiB and 1,170/s, gzip-1 90 KiB and 1,120/s. So gzip-1 where
        it saves most of the room, and the page cache then holds the file, and nothing elsewhere. A byte
        shuffle made sparse features larger.
        """
        self._packed = bool(np.count_nonzero(first) < first.size / 3)
        layout = Layout(self.kind, first.shape[1:], self.grid, self.dtype, self.scale, varying, boxes)
        shape = {"item": layout.item, "varying": varying, "boxes": boxes, "packed": self._packed}
        log.begin(self._settings() | shape)
        self._layout = layout
        return layout

    def _resume(self, log: Part, then: dict[str, Any]) -> None:
        if other := [f"{key} {then[key]}, now {new}" for key, new in self._settings().items() if then[key] != new]:
            log.close()
            self._log = None
            remedy = "repeat that run to finish it, or delete the file to begin anew"
            raise DataError(f"{self.part}: was left by a run with other settings ({'; '.join(other)}); {remedy}")
        item, varying, boxes = tuple(then["item"]), then["varying"], then["boxes"]
        self._layout = Layout(self.kind, item, self.grid, self.dtype, self.scale, varying, boxes)
        self._packed = then["packed"]

    def _check(self, names: Sequence[str], given: dict[str, np.ndarray]) -> None:
        """What is appended must be whole, new, and like what is there."""
        new = set(names)
        if len(new) < len(names) or not new.isdisjoint(self.done):
            twice = next(name for name in names if name in self.done or list(names).count(name) > 1)
            raise DataError(f"{self.path}: '{twice}' comes twice; give every image once")
        if (unfit := next((name for name in names if not _storable(name)), None)) is not None:
            raise DataError(f"{self.path}: an image cannot be called {unfit!r}; use UTF-8 text")
        if {len(array) for array in given.values()} != {len(names)}:
            raise DataError(f"{self.path}: {len(names)} names do not go with {len(given['features'])} features")
        item, regions = given["features"].shape[1:], given["features"].shape[1]
        now = {"shape": item, "counts": "counts" in given, "boxes": "boxes" in given}
        if self._layout is not None:
            then = {"shape": self._layout.item, "counts": self._layout.varying, "boxes": self._layout.boxes}
            other = "; ".join(f"{key} {now[key]}, not {then[key]}" for key in now if now[key] != then[key])
            if other:
                raise DataError(f"{self.path}: '{names[0]}' differs from the images before: {other}")
        if self.grid is not None and math.prod(self.grid) != regions:
            raise DataError(f"{self.path}: '{names[0]}' has {regions} regions, not a grid of {self.grid}")
        if "boxes" in given and given["boxes"].shape[1:] != (regions, 4):
            raise DataError(f"{self.path}: '{names[0]}' has boxes {given['boxes'].shape[1:]}, not {(regions, 4)}")
        counts = given.get("counts", np.array([regions]))
        if 0 in item or counts.min() < 1 or counts.max() > regions:
            bad = int(np.argmax((counts < 1) | (counts > regions)))
            raise DataError(f"{self.path}: '{names[bad]}' has {counts[bad]} regions, not 1 to {regions}")

    def _encoded(self, names: Sequence[str], values: np.ndarray) -> np.ndarray:
        """As they will be stored. What does not fit is refused under the name of its image."""
        if self.dtype == "uint8" and values.dtype == np.uint8:
            return np.ascontiguousarray(values)
        if self.kind == "pixels":
            raise TypeError(f"pixels are stored as uint8, not {values.dtype}")
        stored = np.asarray(values, dtype=np.float32) / np.float32(self.scale or 1.0)
        if self.dtype == "uint8":
            np.rint(stored, out=stored)
        low, high = 0.0 if self.dtype == "uint8" else -LARGEST[self.dtype], LARGEST[self.dtype]
        if not (stored.min() >= low and stored.max() <= high):  # NaN is neither
            fits = (stored >= low) & (stored <= high)
            bad = int(fits.reshape(len(names), -1).all(1).argmin())
            worst = values[bad][~fits[bad]][0]
            problem = "NaN" if np.isnan(worst) else f"{worst:g}, beyond what {self.dtype} can hold here"
            remedy = "choose another dtype or scale" if np.isfinite(worst) else "extract it anew"
            raise DataError(f"{self.path}: the features of '{names[bad]}' hold {problem}; {remedy}")
        return np.ascontiguousarray(stored, dtype=self.dtype)

    def _assemble(self, log: Part, layout: Layout) -> None:
        """The log as HDF5, one image a chunk. The chunks are as HDF5 wants them: none is packed again."""
        new = self.path.with_name(f".{self.path.name}.new")
        try:
            fixed, each = ROOM_FOR_HDF5
            _demand_room(new, log.size + fixed + sum(each + len(name.encode()) for name in log.records))
            with h5py.File(new, "w") as file:
                self._fill(file, log, layout)
            with new.open("rb") as written:
                os.fsync(written.fileno())
            new.replace(self.path)
        finally:
            new.unlink(missing_ok=True)

    def _fill(self, file: h5py.File, log: Part, layout: Layout) -> None:
        total, regions = len(log.records), layout.item[0]
        how = {"compression": "gzip", "compression_opts": 1} if self._packed else {}
        one = (1, *layout.item)
        features = file.create_dataset("features", (total, *layout.item), layout.dtype, chunks=one, **how)
        boxes = (
            file.create_dataset("boxes", (total, regions, 4), "<f4", chunks=(1, regions, 4)) if layout.boxes else None
        )
        head = regions * 16 if layout.boxes else 0
        rest = (0,) * len(layout.item)
        for row, (_, _, blob) in enumerate(track(log.blobs(), f"writing {self.path.name}", total)):
            features.id.write_direct_chunk((row, *rest), blob[head:])
            if boxes is not None:
                boxes.id.write_direct_chunk((row, 0, 0), blob[:head])
        file.create_dataset("names", data=list(log.records), dtype=h5py.string_dtype())
        if layout.varying:
            file["counts"] = [record.count for record in log.records.values()]
        marks = {"kind": layout.kind, "grid": layout.grid, "scale": layout.scale}
        features.attrs.update({key: value for key, value in marks.items() if value is not None})
        file.attrs["rlcap_features"] = FORMAT
        if self.card is not None:
            file.attrs["encoder"] = self.card.to_json()

    def _unwritable(self, error: OSError, log: Part) -> DataError:
        kept = f"what is done lies in {self.part.name}: make room and run the same command again to go on from there"
        remedy = kept if log.records else "make room, or choose another place"
        return DataError(f"{self.path}: cannot be written ({error.strerror or reason(error)}); {remedy}")


def _storable(name: str) -> bool:
    return bool(name) and "\0" not in name and name == name.encode(errors="ignore").decode()


def _demand_room(path: Path, size: int) -> None:
    """Fails now, as an OSError, if the disk cannot take `size` bytes: HDF5 would crash in the middle."""
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno in FULL:
                raise
