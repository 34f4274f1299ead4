"""The folder of a run as plain data, without its model: settings, curves, warnings, captions and their scores."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from rlcap.errors import CheckpointError, DataError, did_you_mean
from rlcap.loggers import METRICS, WARNING
from rlcap.metrics import LOWER_IS_BETTER
from rlcap.report.intervals import is_mean, mean_intervals
from rlcap.weights import STAGES
from rlcap.yaml12 import Loader

SCORES = "_scores.json"


@dataclass(frozen=True)
class Told:
    """A warning of the run."""

    update: int
    text: str


@dataclass
class Log:
    """What metrics.jsonl holds."""

    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # by tag: (update, value)
    warnings: list[Told] = field(default_factory=list)
    begun: float | None = None  # seconds since 1970
    ended: float | None = None
    updates: int = 0


@dataclass(frozen=True)
class Scored:
    """The captions of a split and their scores, as an evaluation saved them."""

    name: str  # of the files
    split: str
    corpus: Mapping[str, float]
    health: Mapping[str, float]
    images: list[str]  # their ids
    captions: list[str]  # none of a scorer
    per_image: Mapping[str, NDArray[np.float64]]

    @cached_property
    def place(self) -> dict[str, int]:
        return {image: place for place, image in enumerate(self.images)}

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Of the metrics that are means over images: 95%."""
        keys = [key for key, values in self.per_image.items() if key in self.corpus]
        keys = [key for key in keys if is_mean(self.corpus[key], self.per_image[key])]
        if not keys or len(self.images) < 2:
            return {}
        bounds = mean_intervals(np.stack([self.per_image[key] for key in keys], 1))
        return {key: (float(low), float(high)) for key, (low, high) in zip(keys, bounds, strict=True)}

    @property
    def of_images(self) -> bool:
        """False for drawn sentences, which belong to no image; only those are compared with one another."""
        return bool(self.captions) and "self_bleu_2" not in self.corpus


@dataclass(frozen=True)
class Column:
    """A run, or a stage of one: what the page shows side by side."""

    label: str
    folder: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    log: Log
    before: int = 0  # updates of the stages before

    def setting(self, name: str) -> Any:
        """A value of the config by its dotted name; None if there is none."""
        value: Any = self.config
        for key in name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    @property
    def metric(self) -> str:
        """What chose the best checkpoint."""
        return str(self.setting("training.metric") or "cider_d")

    @property
    def best(self) -> tuple[int, float] | None:
        """The evaluation that gave the best checkpoint: its update and its value."""
        points = self.log.curves.get(f"eval/{self.setting('data.evaluate')}/{self.metric}", [])
        sign = -1 if self.metric in LOWER_IS_BETTER else 1
        return max(points, key=lambda point: sign * point[1], default=None)

    def scored(self, name: str | None) -> Scored | None:
        """The captions called `name` (RUN/captions/NAME.json), or those of the best checkpoint if there are any."""
        folder = self.folder / "captions"
        if name is not None:
            if not (folder / f"{name}{SCORES}").exists():
                known = [path.name.removesuffix(SCORES) for path in folder.glob(f"*{SCORES}")]
                raise DataError(
                    f"{folder}: holds no {name}{SCORES}{did_you_mean(name, known)}; make it with rlcap evaluate "
                    f"{self.folder}, or name another by --captions"
                )
            return _scored(folder, name)
        chosen = None if self.best is None else f"{self.setting('data.evaluate')}_{self.best[0]:07d}"
        return _scored(folder, chosen) if chosen and (folder / f"{chosen}{SCORES}").exists() else None


def columns(paths: Sequence[str | Path]) -> list[Column]:
    """Of each run; the stages of a run stand one after the other."""
    runs = [Path(path) for path in dict.fromkeys(map(str, paths))]
    named = _short_names(runs)
    found: list[Column] = []
    for run, name in zip(runs, named, strict=True):
        stages, before = _stages(run), 0
        if not stages:
            found.append(_column(run, name, 0))
        for stage in stages:
            found.append(_column(run / stage, stage if len(runs) == 1 else f"{name} · {stage}", before))
            before += found[-1].log.updates
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their dotted names."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _stages(run: Path) -> list[str]:
    """The stages of a run that have begun; none of a run without stages."""
    path = run / STAGES
    if not path.exists():
        return []
    names = _json(path)
    if not isinstance(names, list) or not all(
        isinstance(name, str) and re.fullmatch(r"\w[\w-]*", name) for name in names
    ):
        raise CheckpointError(f"{path}: is no list of stages; copy the whole folder of the run")
    begun = [name for name in names if (run / name / "config.yaml").exists()]
    if not begun:
        raise CheckpointError(f"{run}: none of its stages ({', '.join(names)}) has begun yet; train it first")
    return begun


def _column(folder: Path, label: str, before: int) -> Column:
    path = folder / "config.yaml"
    if not path.exists():
        raise CheckpointError(f"{folder}: is no run (config.yaml is missing); name the folder that rlcap train made")
    try:
        written = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(written, Loader=Loader)):
            raise ValueError("it holds an alias, which multiplies what it names")
        config = yaml.load(written, Loader=Loader)  # a SafeLoader
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: cannot be read ({reason}); copy the whole folder of the run") from error
    environment = _json(folder / "environment.json") if (folder / "environment.json").exists() else {}
    for value in (config, environment):
        if not isinstance(value, dict):
            raise CheckpointError(f"{folder}: its config.yaml or environment.json is damaged; copy the whole folder")
    return Column(label, folder, config, environment, _log(folder / METRICS), before)


def _log(path: Path) -> Log:
    """Lines that a kill cut short are left out, as are values that are not finite."""
    log = Log()
    if not path.exists():
        return log
    with path.open(encoding="utf-8", errors="replace") as file:
        for written in file:
            try:
                line = json.loads(written)
                update, time = int(line.pop("update")), float(line.pop("wall_time"))
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
                continue
            log.updates = max(log.updates, update)
            log.begun, log.ended = time if log.begun is None else log.begun, time
            for tag, value in line.items():
                if tag.startswith(WARNING):
                    log.warnings.append(Told(update, str(value)))
                elif isinstance(value, int | float) and math.isfinite(value):
                    log.curves.setdefault(tag, []).append((update, float(value)))
    return log


def _scored(folder: Path, name: str) -> Scored:
    path, results = folder / f"{name}{SCORES}", folder / f"{name}.json"
    scores, said = _json(path), _json(results) if results.exists() else []
    try:
        images = [str(result["image_id"]) for result in said] or [str(image) for image in scores.get("images", [])]
        per_image = {str(key): np.array(values, dtype=np.float64) for key, values in scores["per_image"].items()}
        found = Scored(
            name=name,
            split=str(scores["split"]),
            corpus={str(key): float(value) for key, value in scores["corpus"].items()},
            health={str(key): float(value) for key, value in scores.get("health", {}).items()},
            images=images,
            captions=[str(result["caption"]) for result in said],
            per_image={key: values for key, values in per_image.items() if np.isfinite(values).all()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: is not what an evaluation writes; evaluate the run again") from error
    if (
        not images
        or len(set(images)) < len(images)
        or any(values.shape != (len(images),) for values in per_image.values())
    ):
        raise DataError(f"{path}: does not go with {results}; evaluate the run again")
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())}); copy it again") from error


def _short_names(paths: Sequence[Path]) -> list[str]:
    """As little of each path's end as tells them apart."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(some[-length:]) for some in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
