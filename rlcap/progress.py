"""Progress on long work: a bar on a terminal, a plain line now and then elsewhere, nothing when quiet."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")
QUIET = False  # set once by the command line's --quiet
PLAIN_EVERY = 10.0  # seconds between two lines where there is no terminal
_showing: "Progress | None" = None  # the bars on the screen; work inside other work adds a bar to them


def track(items: Iterable[Item], what: str, total: int | None = None, done: int = 0) -> Iterator[Item]:
    """`items`, while standard error shows how many of `total` are done, how fast, and the time that is left.

    `done` were done before, by a run that is being resumed.
    """
    if QUIET:
        yield from items
    elif sys.stderr.isatty():
        yield from _bar(items, what, total, done)
    else:
        yield from _lines(items, what, total, done)


def say(text: str) -> None:
    """A line on standard output, above the bars if there are any."""
    if QUIET:
        return
    if _showing is None:
        print(text, flush=True)
    else:
        _showing.console.print(text, markup=False, highlight=False)


def warn(text: str) -> None:
    """A line on standard error, above the bars if there are any; quiet does not hide it."""
    if _showing is None:
        print(text, file=sys.stderr, flush=True)
    else:
        _showing.console.print(text, markup=False, highlight=False)


def _bar(items: Iterable[Item], what: str, total: int | None, done: int) -> Iterator[Item]:
    global _showing
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    outermost = _showing is None
    if _showing is None:
        _showing = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        _showing.start()
    bars, begun, now = _showing, time.perf_counter(), 0
    task = bars.add_task(what, total=total, completed=done, speed="")
    try:
        for item in items:
            yield item
            now += 1
            bars.update(task, advance=1, speed=f"{now / (time.perf_counter() - begun):.1f}/s")
    finally:
        if outermost:
            bars.stop()
            _showing = None
        else:
            bars.remove_task(task)


def _lines(items: Iterable[Item], what: str, total: int | None, done: int) -> Iterator[Item]:
    begun = said = time.perf_counter()
    first = done
    for item in items:
        yield item
        done += 1
        now = time.perf_counter()
        if now - said >= PLAIN_EVERY:
            said = now
            speed = (done - first) / (now - begun)
            left = f", {(total - done) / speed:.0f} s left" if total else ""
            print(f"{what}: {done}/{total or '?'} ({speed:.1f}/s{left})", file=sys.stderr, flush=True)
