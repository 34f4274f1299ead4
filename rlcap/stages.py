"""A recipe of several stages: each a run in a folder of its own, from the best weights of the stage before.

A run of stages is a folder with `stages.json`, which names them in order, and a folder for each. Whoever is given
it as a run means its last stage that has a checkpoint.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rlcap.config import Experiment
from rlcap.errors import ConfigError
from rlcap.files import write_text
from rlcap.progress import say
from rlcap.training import train
from rlcap.weights import STAGES


def train_stages(stages: Mapping[str, Experiment], folder: Path, resume: bool = False) -> Path:
    """Trains one stage after the other into `folder`; `resume` goes on in the stage where it stopped."""
    if list(stages) == [""]:
        return train(stages[""], folder, resume)
    if (folder / STAGES).exists() and not resume:
        raise ConfigError(f"{folder}: holds a run already; go on with --resume, or name another folder with --out")
    write_text(folder / STAGES, json.dumps(list(stages)))
    before: Path | None = None
    for name, experiment in stages.items():
        say(f"stage {name}")
        if before is not None and experiment.training.start is None:
            start = replace(experiment.training, start=str(before))
            experiment = replace(experiment, training=start)
        target = folder / name
        before = train(experiment, target, resume and (target / "checkpoints" / "last").exists())
    return folder
