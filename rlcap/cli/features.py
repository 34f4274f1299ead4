"""`rlcap features extract | import | check`: feature files made from pictures, taken over, looked at."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlcap.data.features import EncoderCard


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _configure_extract(_action(actions, "extract", "what an encoder sees in pictures -> a feature file"))
    _configure_import(_action(actions, "import", "features that another program made -> a feature file"))
    check = _action(actions, "check", "say what a feature file holds, or what is wrong with it")
    check.add_argument("file", metavar="FILE.h5")
    check.add_argument("--against", metavar="DATASET", help="a prepared data set: have all its images features?")


def run(arguments: argparse.Namespace) -> int:
    action = {"extract": _extract, "import": _import, "check": _check}[arguments.action]
    if ":" in (getattr(arguments, "encoder", None) or ""):  # one's own, which may lie in the current folder
        from pathlib import Path

        from rlcap.components import find

        find("encoder", arguments.encoder, [Path.cwd()])
    try:
        return action(arguments)
    except KeyboardInterrupt as stop:
        if arguments.action == "check":
            raise
        raise KeyboardInterrupt("the same command goes on from here") from stop


def _action(actions: Any, name: str, meaning: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=meaning, description=meaning, allow_abbrev=False)
    quiet = argparse.SUPPRESS  # the switches of every command also stand behind an action
    parser.add_argument("--debug", action="store_true", default=quiet, help="show the traceback of an error")
    parser.add_argument("--quiet", action="store_true", default=quiet, help="no progress, only results")
    return parser


def _configure_extract(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FILE_OR_FOLDER", help="a picture, or a folder of pictures")
    parser.add_argument("--out", metavar="FILE.h5", required=True, help="the feature file to write")
    parser.add_argument("--encoder", required=True, help="a short name (rlcap list encoders), module:Name or pixels")
    parser.add_argument("--weights", help="the encoder's: 'none', or as it names them")
    parser.add_argument("--layer", help="the encoder's layer whose output is kept")
    _add_encoder_options(parser)
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (the GPU if there is one)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="images at once (32)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="threads that decode (0: one a core)")
    parser.add_argument("--strict", action="store_true", help="an unreadable picture ends it, instead of a note")


def _configure_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder of .npy/.npz, an HDF5 file, or the .tsv of bottom-up attention",
    )
    parser.add_argument("--out", metavar="FILE.h5", required=True, help="the feature file to write")
    parser.add_argument("--encoder", help="what made them: a short name or module:Name")
    _add_encoder_options(parser)
    parser.add_argument("--dtype", choices=("fp16", "uint8"), help="as stored (default: as in the source, or fp16)")
    parser.add_argument("--scale", type=_positive, help="of uint8: a stored byte stands for itself times this")
    grid = parser.add_mutually_exclusive_group()
    grid.add_argument("--grid", type=_grid, metavar="HxW", help="the regions are this grid, row by row")
    grid.add_argument("--no-grid", action="store_true", help="they are none, though their number is a square")
    parser.add_argument(
        "--names-of",
        metavar="DATASET",
        help="a prepared data set whose image names they get; known by number or name without extension",
    )


def _add_encoder_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, metavar="S", help="pictures become S by S pixels")
    parser.add_argument("--resize", choices=("squash", "crop"), help="how they do")
    parser.add_argument(
        "--encoder-option",
        type=_option,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other option of the encoder; may be given again",
    )


def _extract(arguments: argparse.Namespace) -> int:
    from rlcap.extraction import extract

    report = extract(
        arguments.source,
        arguments.out,
        encoder=arguments.encoder,
        options=_options(arguments, "weights", "layer", "size", "resize"),
        device=arguments.device,
        batch=arguments.batch,
        workers=arguments.workers,
        strict=arguments.strict,
    )
    for _, why in report.skipped:
        print(f"skipped:  {why}")
    resumed = f", {report.resumed} of them by an earlier run" if report.resumed else ""
    skipped = f"; {len(report.skipped)} unreadable, skipped" if report.skipped else ""
    print(f"features: {arguments.out} ({report.done} images{resumed}{skipped})")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from rlcap.data.feature_import import import_features

    report = import_features(
        arguments.source,
        arguments.out,
        card=_card(arguments),
        dtype=arguments.dtype,
        scale=arguments.scale,
        grid=arguments.grid,
        no_grid=arguments.no_grid,
        names_of=arguments.names_of,
    )
    if report.repeated:
        print(f"note:     {report.repeated} images came again in the source; the first of each counts")
    if report.left_out:
        print(f"note:     {report.left_out} are of no image of {arguments.names_of}, and left out")
    resumed = f", {report.resumed} of them by an earlier run" if report.resumed else ""
    print(f"features: {arguments.out} ({report.images} images{resumed})")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from rlcap.data.feature_check import check_features

    check = check_features(arguments.file, arguments.against)
    for line in check.lines():
        print(line)
    return 2 if check.problems else 0


def _card(arguments: argparse.Namespace) -> "EncoderCard | None":
    """Of the encoder that made the features; it is loaded for its size and the hash of its weights."""
    from rlcap.errors import ConfigError

    options = _options(arguments, "size", "resize")
    if arguments.encoder is None:
        if options:
            raise ConfigError(f"{', '.join(options)}: belong to an encoder; name it with --encoder")
        return None
    from rlcap.models.encoders import card_of, frozen_encoder

    return card_of(arguments.encoder, options, frozen_encoder(arguments.encoder, options))


def _options(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The encoder's options: those that have a switch of their own, where given, and the others."""
    named = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return named | dict(arguments.encoder_option)


def _option(text: str) -> tuple[str, Any]:
    import yaml

    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"'{text}' is no KEY=VALUE")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"'{value}' cannot be read as YAML") from error


def _grid(text: str) -> tuple[int, int]:
    high, _, wide = text.partition("x")
    if not (high.isdecimal() and wide.isdecimal() and int(high) and int(wide)):
        raise argparse.ArgumentTypeError(f"'{text}' is no grid such as 7x7")
    return int(high), int(wide)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return number
