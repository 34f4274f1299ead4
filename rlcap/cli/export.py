"""`rlcap export RUN --out FOLDER`: one folder that can be carried elsewhere."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--out", metavar="FOLDER", required=True)
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")


def run(arguments: argparse.Namespace) -> int:
    from rlcap.run import load

    folder = load(arguments.run, "cpu", arguments.checkpoint).export(arguments.out)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"exported: {folder} ({size / 1e6:.1f} MB); use it with rlcap caption {folder} IMAGE")
    return 0
