"""The one outer loop: batches, trainer.update, evaluation, logging, checkpoints."""

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from rlcap import distributed
from rlcap.building import begin_words
from rlcap.checkpoint import begun, check_same_recipe, checkpoints, newest_whole, sweep_up
from rlcap.config import Experiment, in_updates
from rlcap.contracts import Batch, Policy
from rlcap.data.batches import training_batches
from rlcap.errors import CheckpointError, ConfigError, RlcapError
from rlcap.evaluation import Evaluation
from rlcap.files import only_writer
from rlcap.guard import Guard, NotFiniteError
from rlcap.loggers import Logger
from rlcap.materials import Materials, gather
from rlcap.metrics import LOWER_IS_BETTER
from rlcap.observer import Observer, before_training
from rlcap.progress import say, track
from rlcap.recipe import load_recipe
from rlcap.samples import album_of, sample_pictures
from rlcap.standing import Progress, describe, keep, restore, state_of
from rlcap.weights import WEIGHTS

Watch = Callable[[int, int, float], bool]  # told of each evaluation: update, how many are left, metric; True: stop


def train(experiment: Experiment, folder: Path, resume: bool = False, watch: Watch | None = None) -> Path:
    """Trains as the config says, into `folder`, and returns it. `resume` goes on from its last checkpoint.

    `watch` may end the run at an evaluation. What was evaluated in the moment of a kill is told to it again.
    """
    saved = checkpoints(folder)
    if not resume and (saved or (folder / WEIGHTS).exists()):
        raise ConfigError(f"{folder}: holds a run already; go on with --resume, or name another folder with --out")
    if resume and (not begun(folder) or (folder / WEIGHTS).exists()):
        raise CheckpointError(f"{folder}: has no checkpoint to resume from; start it without --resume")
    if resume:
        check_same_recipe(load_recipe(folder / "config.yaml"), experiment, folder)
    made = gather(experiment)
    if distributed.size() > 1 and not getattr(made.trainer, "shares_batches", True):
        raise ConfigError(
            f"trainer.name={experiment.trainer.name}: compares all captions of a batch, of which each process has a "
            "part; start one"
        )
    album = album_of(experiment, made.store, made.evaluated)
    if album is not None:
        album.there()  # a wrong folder is told now
    progress = Progress()
    distributed.wait()  # nobody writes before all have looked
    with only_writer(folder) if distributed.is_first() else nullcontext():
        if distributed.is_first():
            sweep_up(folder)
        if saved:
            progress = restore(made, newest_whole(folder))
            say(f"resumed at update {progress.update}")
        else:
            if resume:
                say(f"{folder}: was stopped before its first checkpoint, and begins anew")
            begin_words(experiment, made.model)
            if distributed.is_first():
                describe(made, folder)
        made.check_rewards()
        if distributed.rank() > 0:  # all else agrees, but not dropout
            torch.manual_seed(experiment.training.seed + 10_007 * distributed.rank() + progress.update)
        observer = Observer.of(experiment)
        observer.load_state_dict(progress.symptoms)
        after = progress.update if saved else -1
        with Logger(folder, distributed.rank(), after) as logger, _stop_at_signal() as stopped:
            logger.layout(rewards=made.judge is not None)
            for symptom in [] if saved else before_training(experiment):
                logger.warning(symptom.update, symptom.name, symptom.text)
            enough = _out_of_patience(made, progress)  # a stage that stopped early and is resumed has nothing to do
            if experiment.training.start is not None and progress.best is None:
                enough = _evaluate(made, folder, progress, logger, observer, watch)  # where the curves begin
            if not enough:
                _loop(made, folder, progress, logger, observer, stopped, watch)
            distributed.wait()  # a stage that follows reads what the first process has kept
            if stopped:  # during the last update: this run is complete, and no other stage begins
                raise KeyboardInterrupt(f"stopped by {stopped[0]} when {folder} was complete")
    return folder


def _loop(
    made: Materials,
    folder: Path,
    progress: Progress,
    logger: Logger,
    observer: Observer,
    stopped: list[str],
    watch: Watch | None,
) -> None:
    settings, course = made.experiment.training, made.course
    evaluate_every = in_updates(settings.evaluate_every, len(made.plan))
    save_every = settings.save_every and in_updates(settings.save_every, len(made.plan))
    batches = training_batches(made.batches, made.plan, settings.workers, pin=course.device.type == "cuda")
    ahead = itertools.islice(batches, course.updates - progress.update)
    clock = _Clock()
    guard = Guard(made, folder)
    here = made.plan.state_dict()
    for batch in track(ahead, f"training {made.experiment.name}", course.updates, progress.update):
        clock.waited()
        before = state_of(made, progress) | {"plan": here}
        guard.remember()
        with _keeping(made, folder, logger, before):
            batch = batch.to(course.device)
            metrics = _update(made, batch)
            guard.watch(progress.update + 1, batch, before, metrics)
        progress.update += 1
        clock.updated(batch.words.shape[0] * batch.words.shape[1])
        done, stopping = progress.update == course.updates, distributed.any_of(bool(stopped))
        logging = done or progress.update % settings.log_every == 0
        evaluating = done or progress.update % evaluate_every == 0
        saving = not evaluating and (stopping or (save_every and progress.update % save_every == 0))
        if logging or evaluating or saving:
            with _keeping(made, folder, logger, before):
                guard.read()
        if logging:
            _log(logger, observer, progress, {**_of_all(metrics), **clock.read()})
        if evaluating:
            if _evaluate(made, folder, progress, logger, observer, watch):
                why = f"{settings.metric} has not gained for {settings.patience} evaluations"
                say(f"stopped early: {why if _out_of_patience(made, progress) else 'not worth going on with'}")
                break
            clock = _Clock()
        if saving:
            logger.flush()
            if distributed.is_first():
                keep(made, folder, state_of(made, progress))
        if stopping and not done:
            by = stopped[0] if stopped else "another process"
            raise KeyboardInterrupt(f"stopped by {by} after update {progress.update}; go on with --resume")
        here = made.plan.state_dict()
        clock.ready()


@contextmanager
def _keeping(made: Materials, folder: Path, logger: Logger, before: Mapping[str, Any]) -> Iterator[None]:
    """Where an update fails, by a reward, say, what was learned so far is kept, and its batch is still to come."""
    try:
        yield
    except RlcapError as error:
        logger.flush()
        if distributed.is_first():
            keep(made, folder, error.before if isinstance(error, NotFiniteError) else before)
        raise


def _update(made: Materials, batch: Batch) -> dict[str, Tensor]:
    settings = made.experiment.training
    try:
        return made.trainer.update(batch)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"training.images={settings.images}, training.captions={settings.captions}: the memory of "
            f"{made.course.device} is full; use fewer of one of them"
        ) from error


def _of_all(metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The means over all processes."""
    if distributed.size() == 1:
        return dict(metrics)
    values = torch.stack([value.detach().float().cpu() for value in metrics.values()])
    return dict(zip(metrics, distributed.mean(values), strict=True))


def _log(logger: Logger, observer: Observer, progress: Progress, figures: Mapping[str, Tensor | float]) -> None:
    """Logs them, and warns of what they are a sign of."""
    read = logger.scalars(progress.update, figures)
    for symptom in observer.observe(progress.update, read):
        logger.warning(symptom.update, symptom.name, symptom.text)
    progress.symptoms = observer.state_dict()


def _evaluate(
    made: Materials, folder: Path, progress: Progress, logger: Logger, observer: Observer, watch: Watch | None
) -> bool:
    """Scores the evaluated split, keeps the best checkpoint; True when it is time to stop. Of several processes the
    first does so, and the others wait.
    """
    enough = distributed.is_first() and _score(made, folder, progress, logger, observer, watch)
    found: tuple[bool, float | None] = distributed.from_first((enough, progress.best))
    enough, progress.best = found
    return enough


def _score(
    made: Materials, folder: Path, progress: Progress, logger: Logger, observer: Observer, watch: Watch | None
) -> bool:
    settings = made.experiment.training
    result = made.evaluate()
    value = result.corpus[settings.metric]
    figures = {f"eval/{result.split}/{key}": score for key, score in result.corpus.items()}
    if isinstance(result, Evaluation):
        figures |= {f"health/{result.split}/{key}": score for key, score in result.health.items()}
        logger.text(progress.update, f"captions/{result.split}", "  \n".join(result.captions[:10]))
    _log(logger, observer, progress, figures)
    result.save(folder / "captions", f"{result.split}_{progress.update:07d}")
    sign = -1 if settings.metric in LOWER_IS_BETTER else 1
    gained = progress.best is None or sign * value > sign * progress.best
    progress.without_gain = 0 if gained else progress.without_gain + 1
    if isinstance(result, Evaluation):
        for number, picture in enumerate(_samples(made), 1):
            logger.image(progress.update, f"samples/{result.split}/{number}", picture)
    if gained:
        progress.best, progress.best_update = value, progress.update
    left = made.course.updates - progress.update
    enough = watch is not None and watch(progress.update, left, value)  # before the checkpoint: none goes untold
    logger.flush()  # what lies before a checkpoint will not be logged again
    keep(made, folder, state_of(made, progress), best=gained)
    say(f"update {progress.update}: {result.split} {result.line()}{' (best so far)' if gained else ''}")
    return enough or _out_of_patience(made, progress)


def _out_of_patience(made: Materials, progress: Progress) -> bool:
    patience = made.experiment.training.patience
    return patience is not None and progress.without_gain >= patience


def _samples(made: Materials) -> list[Image]:
    assert isinstance(made.model, Policy)
    album = album_of(made.experiment, made.store, made.evaluated)
    return [] if album is None else sample_pictures(made.model, album, made.experiment, made.course.device)


class _Clock:
    """Where the time of the updates since the last reading goes."""

    def __init__(self) -> None:
        self.mark = self.begun = time.perf_counter()
        self.waiting = 0.0
        self.captions = self.updates = 0

    def waited(self) -> None:
        self.waiting += time.perf_counter() - self.mark

    def updated(self, captions: int) -> None:
        self.captions += captions
        self.updates += 1

    def ready(self) -> None:
        """What follows is waiting for the next batch; what went before was logging."""
        self.mark = time.perf_counter()

    def read(self) -> dict[str, float]:
        passed = time.perf_counter() - self.begun
        read = {
            "time/updates_per_second": self.updates / passed,
            "time/captions_per_second": self.captions / passed,
            "time/share_waiting_for_data": self.waiting / passed,
        }
        self.begun = time.perf_counter()
        self.waiting = 0.0
        self.captions = self.updates = 0
        return read


@contextmanager
def _stop_at_signal() -> Iterator[list[str]]:
    """The name of a signal that asks to stop, so that the loop can end between two updates; a second one insists."""
    asked: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number).name)

    listening = threading.current_thread() is threading.main_thread()  # signals reach no other thread
    numbers = (signal.SIGINT, signal.SIGTERM) if listening else ()
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
