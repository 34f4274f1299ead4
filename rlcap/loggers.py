"""Where a run's figures go: TensorBoard, metrics.jsonl and the console. Warnings also go to warnings.txt.

Tags are stable; docs/curves.md lists them.
Tensors are read here and nowhere else, so that the training loop waits for the device only when it logs.
"""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from rlcap.errors import DataError
from rlcap.files import flush_to_disk, write_text
from rlcap.progress import PLAIN_EVERY, say, warn

METRICS, WARNINGS = "metrics.jsonl", "warnings.txt"
WARNING = "warning/"  # begins the tags of warnings

REWARDS = {
    "all rewards, of drawn and greedy captions": ["reward/total$", "reward/greedy$"],
    "each reward, as it counts": ["reward/.+/weighted$"],
    "each reward, as it judges": ["reward/.+/raw$"],
    "CIDEr-D of the evaluated split": ["eval/[^/]+/cider_d$"],
    "other metrics of the evaluated split": ["eval/[^/]+/(bleu_4|rouge_l|meteor|spice)$"],
    "advantage": ["advantage/"],
}
OTHERS = {
    "Evaluation": {
        "metrics": ["eval/"],
        "captions that end in the middle, and repetition": ["health/[^/]+/(bad_ending|repetition)$"],
        "words a caption": ["health/[^/]+/length$"],
        "different words": ["health/[^/]+/(vocabulary_use|distinct_.)$"],
    },
    "Policy": {
        "entropy, nats a word": ["policy/entropy$"],
        "KL to the start": ["policy/kl_to_start$"],
        "words of a drawn caption": ["caption/length$"],
        "drawn captions": ["caption/(bad_ending|repetition|distinct_.)$"],
    },
    "Training": {
        "losses": ["loss/"],
        "norm of the gradient": ["optimiser/gradient_norm$"],
        "learning rate": ["optimiser/rate$"],
        "where the time goes": ["time/share_"],
    },
}


class Logger:
    """Logs into `folder` on rank 0, and nothing elsewhere.

    A run that goes on `after` an update drops what was logged behind it: those updates will be made again.
    """

    def __init__(self, folder: str | Path, rank: int = 0, after: int | None = None) -> None:
        self.folder, self.writing = Path(folder), rank == 0
        if not self.writing:
            return
        self._said = -math.inf
        self._hook = threading.excepthook
        threading.excepthook = _without_writer_threads(self._hook)
        path = self.folder / METRICS
        with self._named():
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                kept = _whole_lines(path, after)
                write_text(path, kept)
                self._keep_warnings(kept)
            self._lines = path.open("a", encoding="utf-8")
            self._board = SummaryWriter(
                str(self.folder), purge_step=None if after is None else after + 1, flush_secs=30
            )

    def scalars(self, update: int, values: Mapping[str, Tensor | float]) -> dict[str, float]:
        """The values as they were read; none on another rank."""
        if not self.writing:
            return {}
        read = {tag: float(value) for tag, value in values.items()}
        with self._named():
            self._line(update, {tag: _as_json(value) for tag, value in read.items()})
            for tag, value in read.items():
                self._board.add_scalar(tag, value, update)
        # The console hears of training now and then; the training loop itself tells every evaluation.
        told = {tag: value for tag, value in read.items() if not tag.startswith(("eval/", "health/"))}
        if told and time.monotonic() - self._said >= PLAIN_EVERY:
            say(f"update {update}  " + "  ".join(f"{tag} {value:.4g}" for tag, value in told.items()))
            self._said = time.monotonic()
        return read

    def warning(self, update: int, name: str, text: str) -> None:
        """On the console, also of a quiet run, and wherever one may look later."""
        if self.writing:
            self.text(update, WARNING + name, text)
            with self._named(), (self.folder / WARNINGS).open("a", encoding="utf-8") as file:
                file.write(_told(update, text))
            warn(f"warning: {_told(update, text).rstrip()}")

    def layout(self, rewards: bool) -> None:
        """The charts of TensorBoard's page "Custom scalars", those of the rewards first if there are any."""
        if self.writing:
            pages = {"Rewards": REWARDS, **OTHERS} if rewards else OTHERS
            charts = {
                page: {title: ["Multiline", tags] for title, tags in some.items()} for page, some in pages.items()
            }
            with self._named():
                self._board.add_custom_scalars(charts)

    def text(self, update: int, tag: str, text: str) -> None:
        """Markdown for TensorBoard, also kept in metrics.jsonl."""
        if self.writing:
            with self._named():
                self._line(update, {tag: text})
                self._board.add_text(tag, text, update)

    def image(self, update: int, tag: str, image: Any) -> None:
        """A PIL image, or an array (height, width) or (height, width, 3): bytes, or floats in [0, 1]."""
        if self.writing:
            pixels = np.asarray(image.convert("RGB") if hasattr(image, "convert") else image)
            with self._named():
                self._board.add_image(tag, pixels, update, dataformats="HWC" if pixels.ndim == 3 else "HW")

    def flush(self) -> None:
        """All of it onto the disk: a run that goes on after a checkpoint does not log again what lies before."""
        if self.writing:
            with self._named():
                self._board.flush()
                self._lines.flush()
                for path in (self.folder / METRICS, *self.folder.glob("events.out.tfevents.*")):
                    flush_to_disk(path)

    def close(self) -> None:
        if self.writing:
            self.writing = False
            with self._named():
                self._lines.close()
                self._board.flush()  # tells what its thread could not write, as close() does not
                self._board.close()
            threading.excepthook = self._hook

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep_warnings(self, lines: str) -> None:
        """Those of the log's lines, as a run that goes on drops what was logged behind it."""
        path = self.folder / WARNINGS
        if path.exists():
            logged = map(json.loads, lines.splitlines())
            told = [
                _told(line["update"], text) for line in logged for tag, text in line.items() if tag.startswith(WARNING)
            ]
            write_text(path, "".join(told))

    def _line(self, update: int, values: Mapping[str, Any]) -> None:
        """One whole line at a time: whoever reads along never sees half of one."""
        line = {"update": update, "wall_time": round(time.time(), 3), **values}
        self._lines.write(json.dumps(line, allow_nan=False) + "\n")
        self._lines.flush()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise DataError(
                f"{self.folder}: cannot be logged to ({reason}); make room or give another folder"
            ) from error


def _without_writer_threads(hook: Callable[[threading.ExceptHookArgs], object]) -> Callable[..., None]:
    """TensorBoard's thread would print the traceback of a full disk, which it also raises at our next call."""

    def told(failure: threading.ExceptHookArgs) -> None:
        theirs = type(failure.thread).__module__.startswith("tensorboard.")
        if not (theirs and isinstance(failure.exc_value, OSError)):
            hook(failure)

    return told


def _told(update: int, text: str) -> str:
    return f"update {update}: {text}\n"


def _as_json(value: float) -> float | str:
    """JSON has no NaN and no infinity; float() reads these words back."""
    return value if math.isfinite(value) else str(value)


def _whole_lines(path: Path, after: int | None) -> str:
    """What stays of an earlier log: the line that a kill cut short goes, and what lies behind the update."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            behind = after is not None and json.loads(line)["update"] > after
        except (ValueError, KeyError, TypeError):
            continue
        if line.endswith("\n") and not behind:
            kept.append(line)
    return "".join(kept)
