"""`rlcap caption RUN IMAGE…`: from raw pixels to captions, with pictures of the attention if asked."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlcap.cli.decoding import add_switches

if TYPE_CHECKING:
    from rlcap.cli.pictures import Shot
    from rlcap.decoding.decode import Hypothesis


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a run, or an exported one")
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="pictures, or folders of them")
    parser.add_argument("--against", metavar="RUN", action="append", default=[], help="another run beside it")
    parser.add_argument("--n-best", type=int, default=1, metavar="N", help="captions an image")
    parser.add_argument(
        "--attention", metavar="OUT", help="draw the attention, word by word: OUT.png of one image, OUT/ of many"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--strict", action="store_true", help="fail on an unreadable picture instead of skipping it")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument("--device", default="auto")
    split = parser.add_argument_group("a whole split", "drawn with --attention OUT/; where its parts lie, if not there")
    split.add_argument("--split", metavar="NAME", help="the split, in the place of IMAGE")
    split.add_argument("--pictures", metavar="FOLDER", help="its pictures (data.pictures; stored pixels)")
    split.add_argument("--data", metavar="FOLDER", help="the prepared data set (data.path)")
    split.add_argument("--features", metavar="FILE.h5", help="its features (data.features)")
    add_switches(parser)


def run(arguments: argparse.Namespace) -> int:
    from rlcap.cli.pictures import named_paths, of_paths, of_split
    from rlcap.errors import ConfigError
    from rlcap.run import load

    if arguments.n_best < 1:
        raise ConfigError(f"--n-best {arguments.n_best}: must be at least 1")
    _check_split(arguments)
    paths = {} if arguments.split else named_paths(arguments.images)
    if arguments.attention:
        _check_target(arguments.attention, arguments.split, len(paths))
    runs = {name: load(name, arguments.device, arguments.checkpoint) for name in (arguments.run, *arguments.against)}
    shots = of_split(runs, arguments) if arguments.split else of_paths(runs, paths, arguments)
    lines: list[str] = []
    drawn: set[Path] = set()
    show = lines.append if arguments.split else print  # they would run into the bar of a split's progress
    for shot in shots:
        if arguments.attention:  # first: it says so if there is nothing to draw
            _draw(shot, _target(arguments.attention, shot.file, drawn))
        for name, picture in shot.pictures.items():
            called = {"image": shot.image} if arguments.json or len(paths) != 1 else {}
            show(_told(called | ({"run": name} if len(runs) > 1 else {}), picture.captions, arguments.json))
    for line in lines:
        print(line)
    return 0


def _check_split(arguments: argparse.Namespace) -> None:
    from rlcap.errors import ConfigError

    if arguments.split is None:
        if not arguments.images:
            raise ConfigError("there is nothing to caption: name pictures, folders of them, or --split NAME")
        for switch in ("pictures", "data", "features"):
            if getattr(arguments, switch) is not None:
                raise ConfigError(f"--{switch} {getattr(arguments, switch)}: goes with --split NAME")
    elif arguments.images:
        raise ConfigError(f"--split {arguments.split} and {arguments.images[0]}: caption one or the other")
    elif arguments.attention is None:
        raise ConfigError(
            f"--split {arguments.split}: name a folder to draw in, --attention OUT/ (captions alone: rlcap evaluate)"
        )


def _check_target(target: str, split: str | None, images: int) -> None:
    from rlcap.errors import ConfigError
    from rlcap.pictures import check_format

    if _is_folder(target):
        return
    check_format(target)
    if images != 1:
        given = f"split {split} was" if split else f"{images} were"
        raise ConfigError(f"--attention draws one image, and {given} given; name a folder: {Path(target).stem}/")


def _is_folder(target: str) -> bool:
    return target.endswith("/") or Path(target).is_dir() or not Path(target).suffix


def _told(called: Mapping[str, str], captions: "list[Hypothesis]", as_json: bool) -> str:
    import json

    if as_json:
        found = [{"caption": caption.text, "log_prob": caption.log_prob} for caption in captions]
        return json.dumps({**called, "captions": found}, ensure_ascii=False)
    prefix = "".join(f"{name}: " for name in called.values())
    scores = [f"  ({caption.log_prob:.2f})" if len(captions) > 1 else "" for caption in captions]
    texts = [caption.text or "(nothing)" for caption in captions]
    return "\n".join(f"{prefix}{text}{score}" for text, score in zip(texts, scores, strict=True))


def _target(attention: str, name: str, drawn: set[Path]) -> Path:
    """In a folder, JPEG by the name of the image: PNG of photos takes four times the room."""
    from rlcap.data.images import EXTENSIONS
    from rlcap.errors import ConfigError

    target = Path(attention)
    if _is_folder(attention):
        target = target.joinpath(*(part for part in Path(name).parts if part not in ("/", "..")))
        if target.suffix.lower() in EXTENSIONS:
            target = target.with_suffix("")
        target = target.with_name(f"{target.name}.jpg")
    if target in drawn:
        raise ConfigError(f"--attention {attention}: two images would be drawn as {target}; draw them apart")
    drawn.add(target)
    return target


def _draw(shot: "Shot", target: Path) -> None:
    from rlcap.errors import ConfigError
    from rlcap.pictures import has_places, illustrated, save_picture, side_by_side

    if not any(map(has_places, shot.pictures.values())):
        raise ConfigError("--attention: this policy looks at nothing that has a place, so there is nothing to draw")
    one, *others = shot.pictures.values()
    save_picture(side_by_side(shot.pictures) if others else illustrated(one), target)
