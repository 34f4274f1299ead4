"""`rlcap train RECIPE [section.key=value …]`: trains a recipe into a folder."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a shipped recipe (rlcap list recipes) or a YAML file")
    parser.add_argument(
        "overrides", metavar="section.key=value", nargs="*", help="any value; stages.NAME.section.key=value of a stage"
    )
    parser.add_argument("--stage", metavar="NAME", help="train this stage of the recipe alone, into FOLDER/NAME")
    parser.add_argument("--out", metavar="FOLDER", help="where the run is kept (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    parser.add_argument(
        "--seeds",
        metavar="N",
        type=int,
        help="train N runs, with training.seed, training.seed + 1, …, into FOLDER/seed1, …, and tell how they spread",
    )


def run(arguments: argparse.Namespace) -> int:
    from rlcap import distributed

    with distributed.joined():
        return _train(arguments)


def _train(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from rlcap.errors import ConfigError
    from rlcap.progress import say
    from rlcap.recipe import load_stages
    from rlcap.seeds import refuse_seeds, train_seeds
    from rlcap.stages import train_stages

    stages = load_stages(arguments.recipe, arguments.overrides, arguments.stage)
    name = stages[arguments.stage or next(iter(stages))].name
    folder = Path(arguments.out) if arguments.out else Path("runs") / name
    if arguments.seeds is not None:
        if arguments.stage:
            raise ConfigError(f"--stage {arguments.stage}: --seeds trains all stages; leave one of the two out")
        print(train_seeds(stages, folder, arguments.seeds, arguments.resume).table())
        say(f"curves:  tensorboard --logdir {folder}\nnext:    rlcap compare {folder} ANOTHER")
        return 0
    refuse_seeds(folder)
    train_stages(stages, folder, arguments.resume, arguments.stage)
    trained = folder / arguments.stage if arguments.stage else folder
    say(f"trained: {trained}\ncurves:  tensorboard --logdir {trained}\nnext:    rlcap evaluate {trained}")
    return 0
