"""Reads a whole feature file, ours or foreign, and says what it holds and what is wrong with it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from rlcap.data.dataset import DataSet
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
from rlcap.progress import track

BATCH = 32  # images in memory at once
SHOWN = 5  # names in a message


@dataclass
class Check:
    """What a file holds; `problems` is empty if it is sound."""

    path: Path
    layout: Layout
    guessed: bool  # nothing in the file says its kind
    names: list[str]
    encoder: EncoderCard | None
    packing: str | None
    regions: tuple[int, int]  # the smallest and the largest number
    low: float = np.inf
    high: float = -np.inf
    mean: float = 0.0
    zeros: float = 0.0  # share
    complete: str = ""  # what it was held against, if that lacks nothing
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """For people."""
        layout, (least, most) = self.layout, self.regions
        kind = f"grid {layout.grid[0]}x{layout.grid[1]}" if layout.grid else layout.kind
        number = f"{least} to {most} regions, " if layout.varying else ""
        stored = layout.dtype + (f" times {layout.scale:g}" if layout.scale else "")
        card = self.encoder
        yield f"file:     {self.path}"
        yield f"kind:     {kind}{' (guessed: the file does not say)' if self.guessed else ''}"
        boxes = ", with boxes" if layout.boxes else ""
        yield f"images:   {len(self.names)}, of {number}shape {layout.item}{boxes}"
        yield f"stored:   {stored}, {self.packing or 'not'} packed"
        yield f"values:   {self.low:.4g} to {self.high:.4g}, mean {self.mean:.4g}, {self.zeros:.1%} zeros"
        made = f"{card.spec} {card.options}, {card.size} pixels ({card.resize}), weights {card.weights}" if card else ""
        yield f"encoder:  {made or 'unknown: captions of new pictures need it (import with --encoder)'}"
        yield f"names:    {', '.join(self.names[:3])}{', …' if len(self.names) > 3 else ''}"
        if self.complete:
            yield f"against:  {self.complete}"
        yield from (f"note:     {note}" for note in self.notes)
        yield from (f"problem:  {problem}" for problem in self.problems)


def check_features(path: str | Path, against: str | Path | None = None) -> Check:
    """Reads the whole file. What makes it unreadable is a DataError; all else is gathered."""
    path = Path(path)
    data = DataSet.load(against) if against is not None else None
    with open_hdf5(path) as file, damage_told(path):
        layout = read_layout(file, path)
        counts = file["counts"][:] if layout.varying else np.array([layout.item[0]])
        check = Check(
            path=path,
            layout=layout,
            guessed="kind" not in file["features"].attrs,
            names=read_names(file, path),
            encoder=read_card(file, path),
            packing=file["features"].compression,
            regions=(int(counts.min()), int(counts.max())),
        )
        _check_names(check)
        if counts.min() < 1 or counts.max() > layout.item[0]:
            bad = [check.names[row] for row in np.flatnonzero((counts < 1) | (counts > layout.item[0]))]
            check.problems.append(f"their number of regions is not 1 to {layout.item[0]}: {_some(bad)}")
            counts = counts.clip(1, layout.item[0])
        _check_values(check, file, counts)
        if layout.boxes:
            _check_boxes(check, file, counts)
    if data is not None:
        _compare(check, data)
    return check


def _check_names(check: Check) -> None:
    empty = sum(not name for name in check.names)
    if empty:
        check.problems.append(f"{empty} images have an empty name")
    if twice := [name for name, times in Counter(check.names).items() if times > 1 and name]:
        check.problems.append(f"these names come more than once: {_some(twice)}")


def _check_values(check: Check, file: h5py.File, counts: np.ndarray) -> None:
    features, layout = file["features"], check.layout
    total = zeros = 0
    weighed = 0.0
    nan: list[str] = []
    infinite: list[str] = []
    dark: list[str] = []
    damaged: list[str] = []
    for row in track(range(len(features)), "checking", len(features)):
        try:
            values = features[row].reshape(layout.item).astype(np.float32)
        except DAMAGE as error:
            damaged.append(f"{check.names[row]} ({reason(error)})")
            continue
        values = values[: counts[row]] if layout.varying else values
        low, high = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
        if not (np.isfinite(low) and np.isfinite(high)):
            (nan if np.isnan(values).any() else infinite).append(check.names[row])
            continue
        full = np.count_nonzero(values)
        if not full:
            dark.append(check.names[row])
        check.low, check.high = min(check.low, low), max(check.high, high)
        total, zeros = total + values.size, zeros + values.size - full
        weighed += float(values.sum(dtype=np.float64))
    scale = layout.scale or 1.0
    check.low, check.high = check.low * scale, check.high * scale
    if total:
        check.mean, check.zeros = weighed / total * scale, zeros / total
    for what, names in (("hold NaN", nan), ("hold infinity", infinite), ("cannot be read", damaged)):
        if names:
            check.problems.append(f"the features of {_some(names)} {what}; extract or import them anew")
    if dark:
        check.notes.append(f"nothing but zeros: {_some(dark)}")


def _check_boxes(check: Check, file: h5py.File, counts: np.ndarray) -> None:
    wrong = []
    for row, name in enumerate(check.names):
        boxes = file["boxes"][row][: counts[row] if check.layout.varying else None]
        inside = bool(((boxes >= 0) & (boxes <= 1)).all())
        if not inside or not (boxes[:, :2] <= boxes[:, 2:]).all():
            wrong.append(name)
    if wrong:
        check.problems.append(f"boxes are not left, top, right, bottom as shares of the image: {_some(wrong)}")


def _compare(check: Check, data: DataSet) -> None:
    here = set(check.names)
    for name in data.splits:
        images = data.split(name).images
        if missing := [image for image in images if image not in here]:
            check.problems.append(f"{len(missing)} of {len(images)} images of '{name}' have none: {_some(missing)}")
    if here.issuperset(record.image for record in data.records):
        check.complete = f"{data.path}, all of whose {len(data.records)} images have features"
    there = {record.image for record in data.records}
    if unused := [name for name in check.names if name not in there]:
        check.notes.append(f"{len(unused)} are of no image of {data.path}: {_some(unused)}")
    stems = {PurePosixPath(image).stem for image in there}
    if not here & there and stems & {PurePosixPath(name).stem for name in here}:
        check.notes.append("the names agree but for the extension: import them with --names-of that data set")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
