"""`rlcap caption RUN IMAGE…`: from raw pixels to captions, with a picture of the attention if asked."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rlcap.cli.decoding import add_switches, given

if TYPE_CHECKING:
    from rlcap.decoding.decode import Hypothesis
    from rlcap.run import Picture


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a run, or an exported one")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="pictures, or folders of them")
    parser.add_argument("--n-best", type=int, default=1, metavar="N", help="captions an image")
    parser.add_argument("--attention", metavar="OUT.png", help="draw the attention, word by word (one image)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--strict", action="store_true", help="fail on an unreadable picture instead of skipping it")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument("--device", default="auto")
    add_switches(parser)


def run(arguments: argparse.Namespace) -> int:
    import sys

    from rlcap.data.images import list_images, read_image
    from rlcap.errors import ConfigError, DataError
    from rlcap.run import load

    if arguments.n_best < 1:
        raise ConfigError(f"--n-best {arguments.n_best}: must be at least 1")
    paths: list[Path] = []
    for name in arguments.images:
        if "://" in name:
            raise ConfigError(f"{name}: is an address; download the picture and give its path")
        paths += list_images(Path(name)) if Path(name).is_dir() else [Path(name)]
    if arguments.attention and len(paths) != 1:
        raise ConfigError(f"--attention draws one image, and {len(paths)} were given")
    captioner = load(arguments.run, arguments.device, arguments.checkpoint)
    skipped: list[str] = []
    for path in paths:
        try:
            image = read_image(path)
        except DataError as error:
            if arguments.strict or len(paths) == 1:
                raise
            skipped.append(str(error))
            continue
        picture = captioner.look([image], arguments.n_best, **given(arguments))[0]
        _show(path, picture.captions, arguments.json, many=len(paths) > 1)
        if arguments.attention:
            _draw(picture, arguments.attention)
    if skipped:
        print(f"skipped {len(skipped)} of {len(paths)} pictures:", *skipped, sep="\n  ", file=sys.stderr)
    if len(skipped) == len(paths):
        raise DataError(f"none of the {len(paths)} pictures could be read")
    return 0


def _show(path: Path, captions: "list[Hypothesis]", as_json: bool, many: bool) -> None:
    import json

    if as_json:
        found = [{"caption": caption.text, "log_prob": caption.log_prob} for caption in captions]
        print(json.dumps({"image": str(path), "captions": found}, ensure_ascii=False))
        return
    for caption in captions:
        prefix = f"{path}: " if many else ""
        score = f"  ({caption.log_prob:.2f})" if len(captions) > 1 else ""
        print(f"{prefix}{caption.text}{score}")


def _draw(picture: "Picture", target: str) -> None:
    from rlcap.errors import ConfigError
    from rlcap.pictures import attention_picture, save_picture

    best = picture.captions[0]
    if best.attention is None or (picture.grid is None and picture.boxes is None):
        raise ConfigError("--attention: this policy looks at nothing that has a place, so there is nothing to draw")
    drawn = attention_picture(
        picture.image,
        best.words,
        best.attention,
        grid=picture.grid,
        boxes=picture.boxes,
        resize=picture.resize,
    )
    save_picture(drawn, target)
