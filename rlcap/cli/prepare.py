"""`rlcap prepare FILE… --out FOLDER`: annotations become a data set; `--check` only looks at them."""

import argparse
from typing import TYPE_CHECKING

from rlcap.cli.prepare_text import ORACLE, TEXT, add_options, prepare_oracle, prepare_text

if TYPE_CHECKING:
    from pathlib import Path

    from rlcap.data.annotations import Annotations
    from rlcap.data.dataset import DataSet

SCENES, COUNT = "scenes", 1000  # in place of a FILE: made-up pictures and captions


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="annotations: Karpathy or COCO JSON, Flickr token file, CSV, JSON Lines; SPLIT=FILE names "
        "a split; or the word 'scenes' for made-up pictures, 'text FILE' or 'oracle' for sentences without any",
    )
    parser.add_argument("--out", metavar="FOLDER", help="the data set to write")
    parser.add_argument("--check", action="store_true", help="only say what the files hold, or what is wrong")
    parser.add_argument("--images", metavar="FOLDER", help="the pictures: each image must be there")
    parser.add_argument(
        "--splits",
        metavar="FILE",
        nargs="+",
        default=[],
        help="lists of image names, a split each (or SPLIT=FILE)",
    )
    parser.add_argument(
        "--min-count",
        metavar="N",
        type=_positive,
        default=5,
        help="a word of the vocabulary occurs N times (5)",
    )
    parser.add_argument("--train-split", metavar="NAME", default="train", help="the split to learn from (train)")
    parser.add_argument(
        "--hold-out", metavar="N", type=_natural, help="cut N images from training; oracle: draw N more for dev (2000)"
    )
    parser.add_argument("--hold-out-name", metavar="NAME", default="held-out", help="their split (held-out)")
    parser.add_argument("--seed", metavar="N", type=_natural, default=0, help="which images, scenes, oracle (0)")
    parser.add_argument(
        "--count", metavar="N", type=_positive, help="scenes: how many (1000); oracle: sentences to train on (10000)"
    )
    parser.add_argument(
        "--difficulty", metavar="N", type=int, choices=(1, 2, 3), default=2, help="scenes: how hard (2)"
    )
    add_options(parser, _positive)


def run(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from rlcap.data.dataset import DataSet
    from rlcap.data.preparation import check_source, data_folder, write_parts
    from rlcap.data.readers import read
    from rlcap.errors import ConfigError

    made = {TEXT: prepare_text, ORACLE: prepare_oracle}.get(arguments.files[0])
    scenes = arguments.files == [SCENES]
    annotations = None
    if not scenes and made is None:
        annotations = read(
            arguments.files,
            splits=arguments.splits,
            images=Path(arguments.images) if arguments.images else None,
        )
    if arguments.check:
        if annotations is None:
            raise ConfigError("--check is for annotations: leave it out")
        _describe(annotations)
        return 0
    if arguments.out is None:
        raise ConfigError("--out FOLDER is missing: name the data set to write (or --check to look only)")
    out = Path(arguments.out)
    if made is not None:
        made(out, arguments)
        _report(DataSet.load(out))
        return 0
    check_source(out, _label(arguments) if annotations is None else annotations.format)
    with data_folder(out) as part:
        if annotations is None:
            annotations = _made_up(part, arguments)
        write_parts(
            annotations,
            part,
            min_count=arguments.min_count,
            train_split=arguments.train_split,
            hold_out=arguments.hold_out or 0,
            hold_out_name=arguments.hold_out_name,
            seed=arguments.seed,
        )
    _report(DataSet.load(out))
    return 0


def _made_up(folder: "Path", arguments: argparse.Namespace) -> "Annotations":
    from rlcap.data.annotations import Annotations
    from rlcap.data.scenes import make

    records = make(folder, count=arguments.count or COUNT, seed=arguments.seed, difficulty=arguments.difficulty)
    return Annotations(_label(arguments), tuple(records))


def _label(arguments: argparse.Namespace) -> str:
    return f"made-up scenes (seed {arguments.seed}, difficulty {arguments.difficulty})"


def _describe(annotations: "Annotations") -> None:
    from rlcap.data.annotations import survey

    splits = ", ".join(f"{name or '(unnamed)'} {images}" for name, images in annotations.splits.items())
    print(f"format:   {annotations.format}")
    print(f"images:   {len(annotations.records)}")
    print(f"captions: {annotations.captions}")
    print(f"splits:   {splits}")
    for note in (*annotations.notes, *survey(annotations.records)):
        print(f"note:     {note}")


def _report(data: "DataSet") -> None:
    for name, counts in data.meta["splits"].items():
        images = f"{counts['images']} images, " if data.has_images else ""
        print(f"{name}: {images}{counts['captions']} {'captions' if data.has_images else 'sentences'}")
    print(f"vocabulary: {data.vocabulary.size} words, special tokens among them")
    for note in data.meta["notes"]:
        print(f"note: {note}")
    print(f"data set: {data.path}")


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def _positive(text: str) -> int:
    number = _natural(text)
    if number == 0:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
