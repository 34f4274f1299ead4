"""`rlcap evaluate RUN`: free-running captions of a split and their metrics; of a scorer, what it finds."""

import argparse
from typing import TYPE_CHECKING

from rlcap.cli.decoding import add_switches, given

if TYPE_CHECKING:
    from rlcap.album import Album
    from rlcap.run import Run


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a run, or an exported one")
    parser.add_argument("--split", help="default: the recipe's data.evaluate")
    parser.add_argument("--data", metavar="FOLDER", help="the prepared data set, if it has moved")
    parser.add_argument("--features", metavar="FILE.h5", help="its features, if they have moved")
    parser.add_argument("--ensemble", metavar="RUN", nargs="+", default=[], help="decode together with these runs")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument("--out", metavar="FOLDER", help="where captions and scores go (default: RUN/captions)")
    parser.add_argument("--metrics", metavar="NAME", nargs="+", default=[], help="besides: meteor, spice (Java), cider")
    parser.add_argument("--sheet", metavar="OUT.png", help="draw the best and the worst captions")
    parser.add_argument("--pictures", metavar="FOLDER", help="the split's, for --sheet (data.pictures; stored pixels)")
    parser.add_argument("--json", action="store_true", help="print the corpus metrics as JSON")
    parser.add_argument("--device", default="auto")
    add_switches(parser)


def run(arguments: argparse.Namespace) -> int:
    import json
    from pathlib import Path

    from rlcap.errors import ConfigError
    from rlcap.pictures import save_picture
    from rlcap.recipe import load_recipe
    from rlcap.run import load, search
    from rlcap.weights import find_weights, run_folder

    folder = run_folder(arguments.run)
    find_weights(folder, arguments.checkpoint)
    if load_recipe(folder / "config.yaml", unused=("trainer", "rewards")).scorer is not None:
        if arguments.sheet:
            raise ConfigError(f"--sheet {arguments.sheet}: {folder} is a scorer's, which writes no captions")
        where = (arguments.split, arguments.data, arguments.features)
        found = search(arguments.run, *where, arguments.device, arguments.checkpoint)
        found.save(Path(arguments.out or Path(arguments.run) / "captions"), found.split)
        print(json.dumps(found.corpus) if arguments.json else found.table())
        return 0
    main = load(arguments.run, arguments.device, arguments.checkpoint)
    others = [load(path, arguments.device, arguments.checkpoint) for path in arguments.ensemble]
    album = _album(main, arguments) if arguments.sheet else None
    settings = given(arguments)
    result, looks = main.evaluate(
        arguments.split, arguments.data, arguments.features, others, arguments.metrics, **settings
    )
    folder = Path(arguments.out) if arguments.out else main.folder / "captions"
    way = "_".join(f"{name}{value}" for name, value in settings.items())
    name = "_".join(part for part in (result.split, "ensemble" if others else "", way) if part)
    result.save(folder, name)
    if album is not None:
        save_picture(album.best_and_worst(result.captions, result.per_image["cider_d"]), arguments.sheet)
    if arguments.json:
        print(json.dumps(result.corpus))
        return 0
    print(f"{main.folder} on {result.split} ({len(result.captions)} {result.unit}), x100")
    print(result.table())
    if looks is not None:
        pointed = looks.pointing
        print(
            f"attention on the named object: {pointed.mass:.0%} of it, its peak {pointed.accuracy:.0%} of the time "
            f"(chance {pointed.chance:.0%}; {pointed.words} words that name an object); "
            f"{looks.moved:.0%} of it moves from word to word"
        )
    if album is not None:
        print(f"the best and the worst: {arguments.sheet}")
    print(f"captions: {folder / name}.json (coco results format), scores: {folder / name}_scores.json")
    return 0


def _album(main: "Run", arguments: argparse.Namespace) -> "Album":
    """Made before the long work: what cannot be drawn is told at once."""
    from rlcap.cli.pictures import open_album
    from rlcap.pictures import check_format

    check_format(arguments.sheet)
    split = arguments.split or main.experiment.data.evaluate
    album = open_album(main, split, arguments.data, arguments.features, arguments.pictures)
    album.there()
    return album
