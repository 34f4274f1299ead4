"""The same recipe with several seeds: each a complete run in a folder of its own, and how far they spread.

A run of several seeds is a folder with `seeds.json`, which names them in order, a folder for each, and, when all are
trained, `summary.json`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev

from rlcap.checkpoint import BEST, FOLDER, META, begun
from rlcap.config import Experiment
from rlcap.errors import CheckpointError, ConfigError, RlcapError
from rlcap.evaluation import Evaluation
from rlcap.files import write_text
from rlcap.progress import say
from rlcap.recipe import load_recipe
from rlcap.retrieval import RANKS, RETRIEVED
from rlcap.stages import train_stages
from rlcap.text_evaluation import TextEvaluation
from rlcap.weights import SEEDS, run_folder

SUMMARY = "summary.json"
# Of each kind of evaluation: its figures' names for people, and which of them are not shown x100.
FIGURES: Sequence[tuple[Mapping[str, str], Sequence[str]]] = (
    (Evaluation.names, Evaluation.as_they_are),
    (TextEvaluation.names, TextEvaluation.as_they_are),
    (RETRIEVED | RANKS, tuple(RANKS)),
)


@dataclass(frozen=True)
class Spread:
    """Of one figure over the seeds, in their order."""

    mean: float
    deviation: float  # standard, of a sample
    values: list[float]

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        return Spread(mean(values), stdev(values), list(values))


@dataclass(frozen=True)
class Summary:
    """What the seeds' best checkpoints reach on the evaluated split."""

    split: str
    seeds: list[str]
    figures: dict[str, Spread]

    def table(self) -> str:
        names, as_they_are = next(kind for kind in FIGURES if self.figures.keys() <= kind[0].keys())
        width = max(len(names[key]) for key in self.figures)
        lines = [f"mean ± standard deviation of {len(self.seeds)} seeds on {self.split}, best checkpoints, x100"]
        for key, spread in self.figures.items():
            times = 1 if key in as_they_are else 100
            values = "  ".join(f"{times * value:.2f}" for value in spread.values)
            told = f"{times * spread.mean:7.2f} ± {times * spread.deviation:.2f}"
            lines.append(f"{names[key]:<{width}}  {told}  ({values})")
        return "\n".join(lines)


def train_seeds(stages: Mapping[str, Experiment], folder: Path, count: int, resume: bool = False) -> Summary:
    """Trains `count` runs one after the other, with training.seed as the recipe says, one more, and so on.

    `resume` goes on with those that have begun (a complete one has nothing left to do) and begins the others.
    """
    if count < 2:
        raise ConfigError(f"--seeds {count}: a spread needs two at least; leave it out to train one run")
    first = next(iter(stages.values())).training.seed
    names = [f"seed{first + number}" for number in range(count)]
    runs = [folder / name for name in names]
    started = [any(begun(run / stage) for stage in stages) for run in runs]
    _check_folder(folder, names, any(started), resume)
    write_text(folder / SEEDS, json.dumps(names))
    for number, run in enumerate(runs):
        say(f"{run.name}, {number + 1} of {count}")
        try:
            train_stages(_with_seed(stages, number), run, resume and started[number])
        except RlcapError as error:
            if not any(each.exists() for each in runs):  # the very first never began
                (folder / SEEDS).unlink()
                with suppress(OSError):  # it holds something else
                    folder.rmdir()
            raise type(error)(f"{run.name}: {error}") from error
    summary = summarise(runs)
    write_text(folder / SUMMARY, json.dumps(asdict(summary), indent=2))
    return summary


def seed_folders(folder: Path) -> list[Path]:
    """The runs of a folder of several seeds, in order; none if it is no such folder."""
    path = folder / SEEDS
    if not path.exists():
        return []
    try:
        names = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not names or not all(re.fullmatch(r"seed\d+", str(name)) for name in names):
        raise CheckpointError(f'{path}: does not name folders of seeds; restore it, such as ["seed1", "seed2"]')
    return [folder / name for name in names]


def refuse_seeds(folder: Path) -> None:
    """A folder of several seeds is no place for a single run."""
    if seeds := seed_folders(folder):
        raise ConfigError(
            f"{folder}: holds a run of {len(seeds)} seeds; go on with --seeds {len(seeds)} --resume, or name another "
            "folder with --out"
        )


def best_evaluation(run: Path) -> Path:
    """Where a run keeps what the evaluation of its best checkpoint said: the file's path without its ending."""
    experiment = load_recipe(run / "config.yaml", unused=("encoder", "policy", "scorer", "trainer", "rewards"))
    meta = run / FOLDER / BEST / META
    try:
        update = int(json.loads(meta.read_text("utf-8"))["update"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{meta}: does not say of which update the best checkpoint is; train it first") from error
    return run / "captions" / f"{experiment.data.evaluate}_{update:07d}"


def summarise(runs: Sequence[Path]) -> Summary:
    """Of the best checkpoints; of runs of stages, those of the last stage."""
    found = []
    for run in runs:
        path = best_evaluation(run_folder(run))
        found.append(json.loads(path.with_name(f"{path.name}_scores.json").read_text("utf-8")))
    figures = {key: Spread.of([scores["corpus"][key] for scores in found]) for key in found[0]["corpus"]}
    return Summary(found[0]["split"], [run.name for run in runs], figures)


def _with_seed(stages: Mapping[str, Experiment], number: int) -> dict[str, Experiment]:
    """The same recipe, each stage's seed so much higher."""
    return {
        name: replace(stage, training=replace(stage.training, seed=stage.training.seed + number))
        for name, stage in stages.items()
    }


def _check_folder(folder: Path, names: Sequence[str], started: bool, resume: bool) -> None:
    """Whether these seeds can be trained into the folder, given what it holds."""
    held = [run.name for run in seed_folders(folder)]
    others = [] if held or not folder.is_dir() else sorted(path.name for path in folder.iterdir())
    others = [name for name in others if not name.startswith(".")]  # what a process that was killed has left
    if others:
        raise ConfigError(f"{folder}: holds something else ({others[0]}); name another folder with --out")
    if held != list(names[: len(held)]):
        raise ConfigError(
            f"{folder}: holds {', '.join(held)}, and these would be {', '.join(names)}; ask for the same or more, or "
            "name another folder with --out"
        )
    if started and not resume:
        raise ConfigError(f"{folder}: holds a run already; go on with --resume, or name another folder with --out")
    if resume and not started:
        raise CheckpointError(f"{folder}: has no checkpoint to resume from; start it without --resume")
