"""`rlcap demo`: the whole story on made-up scenes, told with the commands that anybody would type."""

import argparse
from pathlib import Path

SCENES = 3000
PICTURES = 12  # unseen scenes that are written as PNG files, to be captioned from raw pixels


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", metavar="section.key=value", nargs="*", help="any value of the recipe `scenes`")
    parser.add_argument("--out", metavar="FOLDER", default="demo", help="everything is written here (demo)")


def run(arguments: argparse.Namespace) -> int:
    import shutil
    import time

    from rlcap.data.dataset import DataSet
    from rlcap.data.scenes import write_images

    began = time.perf_counter()
    out = Path(arguments.out)
    scenes, sighted, blind, pictures = (out / name for name in ("scenes", "sighted", "blind", "pictures"))
    for old in (sighted, blind):
        if (old / "config.yaml").exists():
            shutil.rmtree(old)

    print("\nMade-up scenes: coloured shapes, and five captions of each as people might put it.")
    _do("prepare", "scenes", "--out", scenes, "--count", SCENES, "--seed", 1)
    unseen = DataSet.load(scenes).split("test").records[:PICTURES]
    files = write_images(pictures, unseen, PICTURES)

    print("\nA soft-attention captioner, its encoder trained along, and one whose pictures are shuffled: it is blind.")
    recipe = ["scenes", f"data.path={scenes}", *arguments.overrides]
    _do("train", *recipe, "--out", sighted)
    _do("train", *recipe, "data.blind=true", "--out", blind)

    print("\nBoth on scenes that they have never seen.")
    _do("evaluate", sighted, "--split", "test")
    _do("evaluate", blind, "--split", "test")
    seeing, guessing = (_cider(folder / "captions" / "test_scores.json") for folder in (sighted, blind))
    times = f": {seeing / guessing:.1f} times as much" if guessing else ""
    print(f"\nCIDEr-D {seeing:.3f} with eyes, {guessing:.3f} without{times}.")

    print("\nCaptions from raw pixels, and where the captioner looks at each word.")
    _do("caption", sighted, pictures)
    _do("caption", sighted, files[0], "--n-best", 3, "--attention", out / "attention.png")

    print(
        f"\nDone in {time.perf_counter() - began:.0f} s. Where to look:\n"
        f"  {out / 'attention.png'}: the attention, word by word\n"
        f"  tensorboard --logdir {out}: the curves of both\n"
        f"  rlcap caption {sighted} PICTURE.png: your own 64x64 drawing"
    )
    return 0


def _do(*words: object) -> None:
    """One command of rlcap, shown and run."""
    from rlcap import progress
    from rlcap.cli import perform
    from rlcap.errors import RlcapError

    argv = [str(word) for word in words]
    print("\n$ rlcap", *argv, flush=True)
    if perform([*(["--quiet"] if progress.QUIET else []), *argv]):
        raise RlcapError(f"the demo stopped at rlcap {argv[0]}")


def _cider(scores: Path) -> float:
    import json

    value: float = json.loads(scores.read_text(encoding="utf-8"))["corpus"]["cider_d"]
    return value
