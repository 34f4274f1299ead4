"""What lies beside a run: the split that it captioned, its references, pictures and features, as far as they are there.

Whatever is missing is told in a line, and left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from rlcap.album import Album
from rlcap.config import Experiment
from rlcap.data.dataset import DataSet, Split
from rlcap.data.features import FeatureStore
from rlcap.data.images import read_image
from rlcap.errors import DataError, RlcapError
from rlcap.materials import features_of
from rlcap.recipe import load_recipe
from rlcap.report.reading import Column, Scored

LONGEST = 360  # pixels of a picture's longer side


@dataclass(frozen=True)
class Where:
    """Where things lie, if not where the recipe says, and whether to load models."""

    data: str | None = None
    features: str | None = None
    pictures: str | None = None
    device: str = "auto"
    models: bool = True


@dataclass
class Missing:
    """What is not shown and why, each with the labels of the columns that lack it."""

    lines: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, column: Column) -> None:
        labels = self.lines.setdefault(what, [])
        if column.label not in labels:
            labels.append(column.label)


@dataclass(frozen=True)
class Source:
    """The split behind a column's captions."""

    experiment: Experiment
    data: DataSet
    split: Split
    places: dict[str, int]  # of the images in the split, by their ids
    store: FeatureStore | None

    @property
    def folder(self) -> Path | None:
        """Of the pictures; where there is none, pixels may be stored."""
        named = self.experiment.data.pictures
        return Path(named) if named else None

    def references(self, image: str) -> list[list[str]]:
        """In words."""
        return self.split.tokens[self.places[image]]

    def pictured(self) -> set[str]:
        """The images whose picture is there."""
        if self.folder is None:
            return set(self.places) if self.store is not None and self.store.kind == "pixels" else set()
        return {image for image in self.places if self._file(image).is_file()}

    def picture(self, image: str) -> Image.Image:
        if self.folder is not None:
            found = read_image(self._file(image))
        else:
            assert self.store is not None
            found = Album(self.split, self.store, self.store.rows(self.split.images)).image(self.places[image])
        found = found.convert("RGB")
        found.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
        return found

    def _file(self, image: str) -> Path:
        record = self.split.records[self.places[image]]
        assert self.folder is not None
        return self.folder / (record.file or record.image)


def sources(columns: Sequence[Column], scored: Sequence[Scored], where: Where, missing: Missing) -> list[Source | None]:
    """Of each column in turn."""
    loaded: dict[str, DataSet] = {}
    found: list[Source | None] = []
    for column, evaluation in zip(columns, scored, strict=True):
        try:
            experiment = _experiment(column, where)
            path = experiment.data.path
            if path not in loaded:
                loaded[path] = DataSet.load(path)
            split = loaded[path].split(evaluation.split)
            ids = [str(record.image if record.image_id is None else record.image_id) for record in split.records]
            if ids != evaluation.images:
                raise DataError(f"{path}: its split {split.name} has other images than {evaluation.name} captioned")
        except RlcapError as error:
            missing.add(f"No references, pictures or attention: {error}", column)
            found.append(None)
            continue
        store = None
        try:
            store = features_of(experiment, loaded[path])
            store.rows(split.images)
        except RlcapError as error:
            missing.add(f"No features, so no attention: {error}", column)
        places = {image: place for place, image in enumerate(ids)}
        found.append(Source(experiment, loaded[path], split, places, store))
    return found


def pictures(
    sources: Sequence[Source | None], columns: Sequence[Column], images: Sequence[str], missing: Missing
) -> dict[str, Image.Image]:
    """Of these images, from the first column that has them."""
    found: dict[str, Image.Image] = {}
    for source, column in zip(sources, columns, strict=True):
        if source is None:
            continue
        there = source.pictured()
        if not there:
            missing.add("No pictures: name their folder with --pictures FOLDER", column)
        for image in images:
            if image in there and image not in found:
                try:
                    found[image] = source.picture(image)
                except DataError as error:
                    missing.add(f"A picture is not shown: {error}", column)
    return found


def _experiment(column: Column, where: Where) -> Experiment:
    experiment = load_recipe(column.folder / "config.yaml", unused=("trainer", "rewards"))
    data = experiment.data
    path, features, pictures = where.data or data.path, where.features or data.features, where.pictures or data.pictures
    return replace(experiment, data=replace(data, path=path, features=features, pictures=pictures))
