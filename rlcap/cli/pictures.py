"""Where the pictures of a command come from: files and folders, or a split of a data set."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rlcap.album import Album
    from rlcap.pictures import Picture
    from rlcap.run import Run


class Shot(NamedTuple):
    """An image and what each run says of it."""

    image: str  # as a person called it
    file: str  # its name among the others
    pictures: "Mapping[str, Picture]"


def open_album(run: "Run", split: str, data: str | None, features: str | None, pictures: str | None) -> "Album":
    """A split with its pictures, where the recipe names them unless given."""
    from dataclasses import replace

    from rlcap.album import Album
    from rlcap.building import rows_for
    from rlcap.data.dataset import DataSet
    from rlcap.materials import features_of

    where = run.experiment.data
    where = replace(where, path=data or where.path, features=features or where.features)
    experiment = replace(run.experiment, data=where)
    prepared = DataSet.load(where.path)
    store = features_of(experiment, prepared)
    run.check(prepared, store)
    chosen, folder = prepared.split(split), pictures or where.pictures
    return Album(chosen, store, rows_for(experiment, store, chosen), Path(folder) if folder else None)


def named_paths(given: Sequence[str]) -> dict[Path, str]:
    """The pictures among these files and folders, each with its name among the others."""
    from rlcap.data.images import list_images
    from rlcap.errors import ConfigError

    paths: dict[Path, str] = {}
    for name in given:
        if "://" in name:
            raise ConfigError(f"{name}: is an address; download the picture and give its path")
        path = Path(name)
        if path.is_dir():
            paths |= {inside: inside.relative_to(path).as_posix() for inside in list_images(path)}
        else:
            paths[path] = path.name
    return paths


def of_paths(runs: "Mapping[str, Run]", paths: Mapping[Path, str], arguments: argparse.Namespace) -> Iterator[Shot]:
    """Leaves out those that cannot be read, and says so at the end, unless all are or `--strict` is given."""
    import sys

    from rlcap.cli.decoding import given
    from rlcap.data.images import read_image
    from rlcap.errors import DataError

    skipped: list[str] = []
    for path, file in paths.items():
        try:
            image = read_image(path)
        except DataError as error:
            if arguments.strict or len(paths) == 1:
                raise
            skipped.append(str(error))
            continue
        looks = {name: run.look([image], arguments.n_best, **given(arguments))[0] for name, run in runs.items()}
        yield Shot(str(path), file, looks)
    if skipped:
        print(f"skipped {len(skipped)} of {len(paths)} pictures:", *skipped, sep="\n  ", file=sys.stderr)
    if len(skipped) == len(paths):
        raise DataError(f"none of the {len(paths)} pictures could be read")


def of_split(runs: "Mapping[str, Run]", arguments: argparse.Namespace) -> Iterator[Shot]:
    """The images of a split whose pictures are there, with progress."""
    from rlcap.cli.decoding import given
    from rlcap.errors import DataError
    from rlcap.progress import track
    from rlcap.recipe import revised

    where = arguments.split, arguments.data, arguments.features, arguments.pictures
    albums = [open_album(run, *where) for run in runs.values()]
    split = albums[0].split
    for name, album in zip(runs, albums, strict=True):
        if album.split.images != split.images:
            raise DataError(f"{name}: its split {split.name} has other images than that of {next(iter(runs))}")
    places = sorted(set.intersection(*(set(album.there()) for album in albums)))
    looks = [
        album.looks(
            run.policy,
            places,
            revised(run.experiment.decoding, **given(arguments)),
            run.device,
            run.experiment.training.seed,
            arguments.n_best,
        )
        for run, album in zip(runs.values(), albums, strict=True)
    ]
    for place, *seen in track(zip(places, *looks, strict=True), f"captioning {split.name}", len(places)):
        image = split.records[place].image
        yield Shot(image, image, dict(zip(runs, seen, strict=True)))
