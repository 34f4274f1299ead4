"""`rlcap replay RUN/replay/update_0000123`: an update whose figures were not finite, once more."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="what a run kept of the update: RUN/replay/update_…")


def run(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from rlcap.replaying import replay

    for line in replay(Path(arguments.folder)):
        print(line)
    return 0
