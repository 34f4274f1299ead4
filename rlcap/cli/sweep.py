"""`rlcap sweep RECIPE --space FILE.yaml`: many trainings of a recipe with other values; `--show`: results."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.study import Study


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", nargs="?", help="a shipped recipe or a YAML file")
    parser.add_argument("overrides", metavar="section.key=value", nargs="*", help="values that all trials share")
    parser.add_argument(
        "--space", metavar="FILE.yaml", help="what is searched: section.key: {low: 1e-5, high: 1e-3, log: true}, say"
    )
    parser.add_argument("--trials", type=_positive, default=20, metavar="N", help="in all (20)")
    parser.add_argument("--workers", type=_positive, default=1, metavar="K", help="trials that are trained at once (1)")
    parser.add_argument("--pruner", choices=("median", "hyperband", "none"), default="median", help="ends bad trials")
    parser.add_argument("--stage", metavar="NAME", help="train this stage of the recipe alone")
    parser.add_argument("--out", metavar="FOLDER", help="where the trials are kept (default: runs/NAME_sweep)")
    parser.add_argument("--storage", metavar="URL", help="of a database (default: sqlite:///FOLDER/study.db)")
    parser.add_argument("--study", metavar="NAME", default="sweep", help="its name in the database (sweep)")
    parser.add_argument("--resume", action="store_true", help="go on with a sweep, its unfinished trials first")
    parser.add_argument("--show", action="store_true", help="only show what the sweep in --out has found")
    parser.add_argument("--json", action="store_true", help="print the trials as JSON, and nothing else")


def run(arguments: argparse.Namespace) -> int:
    from importlib.util import find_spec
    from pathlib import Path

    from rlcap import progress
    from rlcap.errors import ComponentError, ConfigError

    if find_spec("optuna") is None:
        raise ComponentError("rlcap sweep needs the package optuna: pip install 'rlcap[sweep]'")
    from rlcap.sweep.study import Place

    if arguments.show:
        if not arguments.out:
            raise ConfigError("--show: name the folder of the sweep with --out")
        folder = Path(arguments.out)
        _print(Place.of(folder, arguments.storage, arguments.study).load(), folder, arguments.json)
        return 0
    if not (arguments.recipe and arguments.space):
        raise ConfigError("name a recipe and what is searched: rlcap sweep RECIPE --space FILE.yaml")
    from rlcap.sweep.plan import Plan
    from rlcap.sweep.search import search

    progress.QUIET |= arguments.json
    given = (arguments.recipe, arguments.overrides, arguments.stage, arguments.space)
    plan = Plan.checked(*given, arguments.out, arguments.allow)
    place = Place.of(plan.folder, arguments.storage, arguments.study, arguments.pruner)
    _print(search(plan, place, arguments.trials, arguments.workers, arguments.resume), plan.folder, arguments.json)
    return 0


def _print(study: "Study", folder: "Path", as_json: bool) -> None:
    import json
    from dataclasses import asdict

    from rlcap.sweep.results import TABLE, best_row, rows_of, table
    from rlcap.sweep.study import METRIC

    rows = rows_of(study)
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print(table(rows, study.user_attrs[METRIC]))
    if best := best_row(rows):
        print(f"the best: {folder / best.folder}, as {best.command}")
    print(f"as a file: {folder / TABLE}\ncurves:    tensorboard --logdir {folder}, its page HParams too")


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"should be a whole number above 0, not {text!r}")
    return number
