"""What it takes to make references into tensors, once a data set."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlcap.bench.captions import made_up
from rlcap.bench.timing import using_threads
from rlcap.data.references import References
from rlcap.errors import RlcapError
from rlcap.metrics.packed_words import PackedWords
from rlcap.metrics.packing import pack_with_end
from rlcap.progress import track

COCO_IMAGES = 113_287  # the usual training split
PACKERS: dict[str, tuple[Callable[[References], Any], tuple[str, ...]]] = {  # and the rewards that need them
    "n-grams": (pack_with_end, ("cider_d", "bleu_4")),
    "words": (PackedWords.pack, ("rouge_l",)),
}


@dataclass(frozen=True)
class Packing:
    what: str
    rewards: tuple[str, ...]  # that share it
    images: int
    references: int
    seconds: float
    cpu_seconds: float  # of them, those that the process really had
    megabytes: float  # of the tensors
    peak_megabytes: float | None  # by which the process grew meanwhile; None: not measured


def measure_packing(references: References) -> list[Packing]:
    return [_measure(what, references) for what in PACKERS]


def measure_coco_packing(images: int = COCO_IMAGES) -> list[Packing]:
    """With made-up references, each form in a process of its own, so that the peak is its own."""
    return [_in_a_process(what, images) for what in track(PACKERS, "packing COCO-size references", len(PACKERS))]


def _in_a_process(what: str, images: int) -> Packing:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_measure_made_up, what, images).result()
        except BrokenProcessPool:
            raise RlcapError(
                f"packing the references of {images} images: the process was killed; is there memory enough?"
            ) from None


def _measure_made_up(what: str, images: int) -> Packing:
    return _measure(what, made_up(images), with_peak=True)


def _measure(what: str, references: References, with_peak: bool = False) -> Packing:
    """On one thread."""
    pack, rewards = PACKERS[what]
    before = _forget_peak() if with_peak else None
    with using_threads(1):
        begun, worked = time.perf_counter(), time.process_time()
        packed = pack(references)
        seconds, worked = time.perf_counter() - begun, time.process_time() - worked
    peak = None if before is None else (_status("VmHWM") - before) / 1e6
    size = sum(part.nbytes for part in vars(packed).values() if hasattr(part, "nbytes")) / 1e6
    count = sum(map(len, references.tokens))
    return Packing(what, rewards, len(references), count, seconds, worked, size, peak)


def _forget_peak() -> int | None:
    """The bytes that this process holds, from here on the least peak; None where the system (not Linux) cannot tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return None


def _status(key: str) -> int:
    """Bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
