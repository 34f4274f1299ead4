"""`rlcap demo`: the whole story on made-up scenes, told with the commands that anybody would type."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlcap.data.records import Record

SCENES = 4000
OF_SCENES_ALONE = ("name=", "trainer.", "training.updates=", "training.epochs=", "training.evaluate_every=")
PICTURES = 12  # unseen scenes that are written as PNG files, to be captioned from raw pixels


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", metavar="section.key=value", nargs="*", help="any value of the recipe `scenes`")
    parser.add_argument("--out", metavar="FOLDER", default="demo", help="everything is written here (demo)")


def run(arguments: argparse.Namespace) -> int:
    import os
    import shutil
    import sys
    import time

    from rlcap.data.dataset import DataSet
    from rlcap.data.scenes import write_images

    began = time.perf_counter()
    out = Path(arguments.out)
    scenes, pictures = out / "scenes", out / "pictures"
    sighted, blind, tuned = (out / name for name in ("sighted", "blind", "tuned"))
    for old in (sighted, blind, tuned):
        if (old / "config.yaml").exists():
            shutil.rmtree(old)

    print("\nMade-up scenes: coloured shapes, and five captions of each as people might put it.")
    _do("prepare", "scenes", "--out", scenes, "--count", SCENES, "--seed", 1)
    unseen = DataSet.load(scenes).split("test").records[:PICTURES]
    files = write_images(pictures, unseen, PICTURES)

    print("\nA soft-attention captioner and its encoder. Beside it, one whose pictures are shuffled: it is blind.")
    recipe = ["scenes", f"data.path={scenes}", "training.threads=1", *arguments.overrides]
    with _beside("train", *recipe, "data.blind=true", "--out", blind, log=out / "blind.log"):
        _do("train", *recipe, "--out", sighted)

    print("\nThe one that sees goes on by reinforcement: its own captions are rewarded with CIDEr-D.")
    kept = [override for override in arguments.overrides if not override.startswith(OF_SCENES_ALONE)]
    _do("train", "scenes_scst", f"data.path={scenes}", f"training.start={sighted}", *kept, "--out", tuned)

    print("\nAll three on scenes that they have never seen.")
    for run in (blind, sighted, tuned):
        _do("evaluate", run, "--split", "test")
    guessing, seeing, better = (_cider(run / "captions" / "test_scores.json") for run in (blind, sighted, tuned))
    print(f"\nCIDEr-D {guessing:.3f} without eyes, {seeing:.3f} with them, {better:.3f} after reinforcement.")

    print("\nCaptions from raw pixels, and where the captioner looks at each word.")
    _do("caption", tuned, pictures)
    _do("caption", tuned, files[0], "--n-best", 3, "--attention", out / "attention.png")
    _lay_out(tuned, unseen, files, out / "captions.png")

    python = f'"{shown}"' if " " in (shown := os.path.relpath(sys.executable)) else shown
    print(
        f"\nDone in {time.perf_counter() - began:.0f} s. Where to look:\n"
        f"  {out / 'attention.png'}: where the captioner looked, word by word\n"
        f"  {out / 'captions.png'}: pictures that it had never seen, and what it said of them\n"
        f"  {python} -m tensorboard.main --logdir {out}: the curves of all three\n"
        f"  {python} -m rlcap caption {tuned} PICTURE.png: a 64x64 drawing of your own"
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


@contextmanager
def _beside(*words: object, log: Path) -> Iterator[None]:
    """One command of rlcap in a process of its own while the block runs, at whose end it is waited for.

    Two small trainings with one core each take less time than one after the other with both.
    """
    import subprocess
    import sys

    from rlcap.errors import RlcapError

    argv = [str(word) for word in words]
    print("\n$ rlcap", *argv, f"> {log} &", flush=True)
    with log.open("w", encoding="utf-8") as lines:
        process = subprocess.Popen([sys.executable, "-m", "rlcap", *argv], stdout=lines, stderr=subprocess.STDOUT)
        try:
            yield
            if process.wait():
                raise RlcapError(f"the demo stopped at rlcap {argv[0]}: {log} says why")
        finally:
            process.terminate()
            process.wait()


def _lay_out(run: Path, records: "Sequence[Record]", files: "Sequence[Path]", target: Path) -> None:
    """A sheet of pictures with the run's captions, their scores, and what people say."""
    import json

    from PIL import Image

    from rlcap.pictures import contact_sheet, save_picture

    said = json.loads((run / "captions" / "test.json").read_text(encoding="utf-8"))
    scores = json.loads((run / "captions" / "test_scores.json").read_text(encoding="utf-8"))
    sheet = contact_sheet(
        [Image.open(file) for file in files],
        [result["caption"] for result in said[: len(files)]],
        [record.captions for record in records],
        scores["per_image"]["cider_d"][: len(files)],
    )
    save_picture(sheet, target)


def _cider(scores: Path) -> float:
    import json

    value: float = json.loads(scores.read_text(encoding="utf-8"))["corpus"]["cider_d"]
    return value
