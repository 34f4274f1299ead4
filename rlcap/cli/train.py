"""`rlcap train RECIPE [section.key=value …]`: trains a recipe into a folder."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a shipped recipe (rlcap list recipes) or a YAML file")
    parser.add_argument("overrides", metavar="section.key=value", nargs="*", help="any value of the recipe")
    parser.add_argument("--out", metavar="FOLDER", help="where the run is kept (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")


def run(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from rlcap.progress import say
    from rlcap.recipe import load_stages
    from rlcap.stages import train_stages

    stages = load_stages(arguments.recipe, arguments.overrides)
    name = next(iter(stages.values())).name
    folder = Path(arguments.out) if arguments.out else Path("runs") / name
    train_stages(stages, folder, arguments.resume)
    say(f"trained: {folder}\ncurves:  tensorboard --logdir {folder}\nnext:    rlcap evaluate {folder}")
    return 0
