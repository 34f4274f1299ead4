"""Where a run's figures go: TensorBoard, metrics.jsonl and the console.

Tags are stable: `loss/…`, `eval/<split>/<metric>`, `time/…`.
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
from rlcap.files import write_text
from rlcap.progress import PLAIN_EVERY, say

METRICS = "metrics.jsonl"


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
                write_text(path, _whole_lines(path, after))
            self._lines = path.open("a", encoding="utf-8")
            self._board = SummaryWriter(
                str(self.folder), purge_step=None if after is None else after + 1, flush_secs=30
            )

    def scalars(self, update: int, values: Mapping[str, Tensor | float]) -> None:
        if not self.writing:
            return
        read = {tag: float(value) for tag, value in values.items()}
        with self._named():
            self._line(update, {tag: _as_json(value) for tag, value in read.items()})
            for tag, value in read.items():
                self._board.add_scalar(tag, value, update)
        # The console hears of training now and then; the training loop itself tells every evaluation.
        told = {tag: value for tag, value in read.items() if not tag.startswith("eval/")}
        if told and time.monotonic() - self._said >= PLAIN_EVERY:
            say(f"update {update}  " + "  ".join(f"{tag} {value:.4g}" for tag, value in told.items()))
            self._said = time.monotonic()

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
