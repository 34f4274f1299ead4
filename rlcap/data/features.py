"""The feature store: what an encoder saw of each image, in one HDF5 file.

`features` holds one image a chunk: (N, R, D) of kind grid, regions or global (R = 1), or the pixels
(N, 3, S, S) for an encoder that is trained along. `names` (N,) says whose they are. Regions of varying number
are padded with zeros, `counts` (N,) says how many are real; `boxes` (N, R, 4) are shares of the image: left,
top, right, bottom. A foreign file that has `features`, `names` and perhaps an attribute `scale` is read as it
is; a square number of regions then counts as a grid.
"""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from rlcap.contracts import Features, FeatureShape
from rlcap.data.feature_file import (
    DAMAGE,
    EncoderCard,
    Layout,
    damage_told,
    open_hdf5,
    read_card,
    read_layout,
    read_names,
    reason,
)
from rlcap.data.feature_writer import FeatureWriter
from rlcap.errors import DataError

__all__ = ["EncoderCard", "FeatureStore", "FeatureWriter", "Layout"]


class FeatureStore:
    """Reads a feature file. Each process opens it for itself at its first read: safe over fork and pickle."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with open_hdf5(self.path) as file, damage_told(self.path):
            self.layout: Layout = read_layout(file, self.path)
            self.names: list[str] = read_names(file, self.path)
            self.encoder: EncoderCard | None = read_card(file, self.path)
            self._counts = None
            if self.layout.varying:
                self._counts = torch.from_numpy(file["counts"][:].astype(np.int64))
                self._refuse_counts(self._counts)
        self._file: h5py.File | None = None
        self._process = 0
        self._index: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    @property
    def kind(self) -> str:
        """ "grid", "regions", "global" or "pixels"."""
        return self.layout.kind

    @property
    def shape(self) -> FeatureShape:
        return self.layout.shape

    def rows(self, names: Sequence[str]) -> np.ndarray:
        """The rows of these images, in their order. A name must be equal, its extension included."""
        if not self._index:
            index = {name: row for row, name in enumerate(self.names)}
            if len(index) < len(self.names):
                twice = next(name for row, name in enumerate(self.names) if index[name] != row)
                raise DataError(f"{self.path}: holds '{twice}' more than once; extract or import it anew")
            self._index = index
        missing = [name for name in names if name not in self._index]
        if missing:
            raise DataError(
                f"{self.path}: has no features of {len(missing)} of {len(names)} images, the first is "
                f"'{missing[0]}' ({self._hint(missing[0])}); extract those too, "
                "or import with --names-of DATASET"
            )
        return np.array([self._index[name] for name in names], dtype=np.int64)

    def read(self, rows: np.ndarray) -> Features:
        """The features of these rows, in the order asked, in float32 on the CPU."""
        rows = np.asarray(rows, dtype=np.int64)
        stored = torch.from_numpy(self._stored("features", rows))
        values = stored.float()
        if self.kind == "pixels":
            none = torch.zeros(len(rows), 0, dtype=torch.bool)
            return Features(torch.zeros(len(rows), 0, 0), none, pixels=values.div_(255))
        values = values.reshape(len(rows), *self.layout.item)
        if self.layout.scale is not None:
            values.mul_(self.layout.scale)
        if stored.is_floating_point():
            self._refuse_not_finite(values, rows)
        mask = torch.ones(values.shape[:2], dtype=torch.bool)
        if self._counts is not None:
            mask = torch.arange(values.shape[1]) < self._counts[torch.from_numpy(rows)][:, None]
        boxes = torch.from_numpy(self._stored("boxes", rows)).float() if self.layout.boxes else None
        return Features(values, mask, self.layout.grid, boxes)

    def _stored(self, name: str, rows: np.ndarray) -> np.ndarray:
        """As they lie in the file, each row read once and in the file's order.

        One row at a time: of MobileNet 7x7x1280 one core reads 3,400 images/s so (20,000 unpacked), and 300
        with h5py's selection of a list of rows.
        """
        with damage_told(self.path):
            data = self._open()[name]
            out = np.empty((len(rows), *data.shape[1:]), data.dtype.newbyteorder("="))
        before = -1
        for place in np.argsort(rows, kind="stable"):
            if before >= 0 and rows[before] == rows[place]:
                out[place] = out[before]
                continue
            try:
                out[place] = data[rows[place]]
            except DAMAGE as error:
                where = f"'{self.names[rows[place]]}' (row {rows[place]})"
                remedy = "the file is damaged: copy it again, or extract or import it anew"
                raise DataError(f"{self.path}: {where} cannot be read ({reason(error)}); {remedy}") from error
            before = int(place)
        return out

    def _refuse_counts(self, counts: Tensor) -> None:
        most = self.layout.item[0]
        wrong = (counts < 1) | (counts > most)
        if wrong.any():
            bad = int(wrong.int().argmax())
            raise DataError(
                f"{self.path}: '{self.names[bad]}' (row {bad}) has {int(counts[bad])} regions, not 1 to {most}; "
                "extract or import them anew"
            )

    def _refuse_not_finite(self, values: Tensor, rows: np.ndarray) -> None:
        # The sum costs 0.3 ms for 64 images, of the 4 to 30 ms of their reading; testing each value costs 12.
        if values.sum().isfinite() or values.isfinite().all():
            return
        bad = int(rows[int(values.isfinite().flatten(1).all(1).int().argmin())])
        raise DataError(
            f"{self.path}: the features of '{self.names[bad]}' (row {bad}) hold NaN or infinity; extract "
            "them anew ('rlcap features check' lists all such images)"
        )

    def _open(self) -> h5py.File:
        if self._file is None or self._process != os.getpid():
            self._file = None  # what came over a fork is closed in this process, then opened anew
            self._file, self._process = open_hdf5(self.path), os.getpid()
        return self._file

    def _hint(self, name: str) -> str:
        stem = PurePosixPath(name).stem
        near = next((known for known in self.names if PurePosixPath(known).stem == stem), None)
        return f"did you mean '{near}'?" if near else f"its names look like '{self.names[0]}'"
