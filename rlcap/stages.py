"""A recipe of several stages: each a run in a folder of its own, from the best weights of the stage before.

A run of stages is a folder with `stages.json`, which names them in order, and a folder for each. Whoever is given
it as a run means its last stage that has a checkpoint. A stage from which another has begun stays as it is.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rlcap.checkpoint import FOLDER, begun, check_same_recipe, checkpoints
from rlcap.config import Experiment
from rlcap.errors import CheckpointError, ConfigError, RlcapError
from rlcap.files import write_text
from rlcap.progress import say
from rlcap.recipe import load_recipe
from rlcap.training import Watch, train
from rlcap.weights import STAGES

LENGTH = ("updates", "epochs", "patience", "evaluate_every")  # of a stage, and which of its checkpoints is the best


def train_stages(
    stages: Mapping[str, Experiment],
    folder: Path,
    resume: bool = False,
    only: str | None = None,
    watch: Watch | None = None,
) -> Path:
    """Trains one stage after the other into `folder`, or `only` one of them; `resume` goes on where it stopped.

    A stage without `training.start` begins with the best weights of the one before it, as `folder` holds them.
    The last one is watched.
    """
    if list(stages) == [""]:
        _check_folder(folder, [], resume)
        return train(stages[""], folder, resume, watch)
    names = list(stages)
    _check_folder(folder, names, resume, only)
    asked = [name for name in names if only in (None, name)]
    experiments = {name: _begun_from(stages[name], names[: names.index(name)][-1:], folder) for name in asked}
    if only is not None:
        _check_start(experiments[only], stages[only], only)
    write_text(folder / STAGES, json.dumps(names))
    for name, experiment in experiments.items():
        run, later = folder / name, [after for after in names[names.index(name) + 1 :] if _begun(folder / after)]
        if resume and later and _begun(run):
            _check_complete(experiment, run, later[0])
            say(f"stage {name} stays as it is: {later[0]} has begun from it")
        else:
            say(f"stage {name}")
            try:
                train(experiment, run, resume and begun(run), watch if name == list(experiments)[-1] else None)
            except RlcapError:
                if not any((folder / each).exists() for each in names):  # the very first never began
                    (folder / STAGES).unlink()
                    with suppress(OSError):  # it holds something else
                        folder.rmdir()
                raise
    return folder


def _begun_from(experiment: Experiment, before: Sequence[str], folder: Path) -> Experiment:
    """With the stage before as its start, if it has none of its own."""
    if experiment.training.start is not None or not before:
        return experiment
    return replace(experiment, training=replace(experiment.training, start=str(folder / before[0])))


def _check_start(experiment: Experiment, recipe: Experiment, name: str) -> None:
    """Trained alone, a stage may find that the one before it is not there."""
    start = experiment.training.start
    if start is not None and recipe.training.start is None and not _begun(Path(start)):
        raise ConfigError(
            f"{start}: has no checkpoint for stage {name} to begin with; train that stage first, or name another run "
            "with training.start=RUN"
        )


def _begun(run: Path) -> bool:
    return (run / FOLDER).exists()


def _check_folder(folder: Path, names: Sequence[str], resume: bool, only: str | None = None) -> None:
    """Whether these stages, or none, can be trained into the folder, given what it holds."""
    listed: list[str] = json.loads((folder / STAGES).read_text("utf-8")) if (folder / STAGES).exists() else []
    held = listed if any(_begun(folder / name) for name in listed) else []
    if held != list(names[: len(held)]):
        theirs, ours = ", ".join(held), ", ".join(names) or "none"
        raise ConfigError(
            f"{folder}: holds a run of the stages {theirs}, and the recipe's are {ours}; name them as they were, or "
            "another folder with --out"
        )
    if names and _begun(folder):
        raise ConfigError(f"{folder}: holds a run without stages; name another folder with --out")
    if not resume and (checkpoints(folder / only) if only else held):
        raise ConfigError(f"{folder}: holds a run already; go on with --resume, or name another folder with --out")
    if names and resume and not (held or any(begun(folder / name) for name in listed)):
        raise CheckpointError(f"{folder}: has no checkpoint to resume from; start it without --resume")
    trained = [_begun(folder / name) for name in names]
    if only is None and trained != sorted(trained, reverse=True):
        missing, there = names[trained.index(False)], names[len(trained) - 1 - trained[::-1].index(True)]
        raise ConfigError(
            f"{folder}: holds stage {there}, and not {missing}, which comes before it; train that alone with "
            f"--stage {missing}, or name another folder with --out"
        )


def _check_complete(now: Experiment, run: Path, later: str) -> None:
    """If it went on, the later stage would not have begun from what the recipe says."""
    before = load_recipe(run / "config.yaml")
    check_same_recipe(before, now, run)
    for key in LENGTH:
        was, wanted = getattr(before.training, key), getattr(now.training, key)
        if was != wanted:
            raise ConfigError(
                f"{run}: was trained with training.{key}={was}, not {wanted}, and stage {later} has begun from it; "
                f"leave it so, or move {run.parent / later} away, to have both trained on"
            )
