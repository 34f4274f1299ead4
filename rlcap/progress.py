"""Progress on long work: a bar on a terminal, a plain line now and then elsewhere, nothing when quiet."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
QUIET = False  # set once by the command line's --quiet
PLAIN_EVERY = 10.0  # seconds between two lines where there is no terminal


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """`items`, while standard error shows how many of `total` are done, how fast, and the time that is left."""
    if QUIET:
        yield from items
    elif sys.stderr.isatty():
        yield from _bar(items, what, total)
    else:
        yield from _lines(items, what, total)


def _bar(items: Iterable[Item], what: str, total: int | None) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    begun, done = time.perf_counter(), 0
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total, speed="")
        for item in items:
            yield item
            done += 1
            progress.update(task, advance=1, speed=f"{done / (time.perf_counter() - begun):.1f}/s")


def _lines(items: Iterable[Item], what: str, total: int | None) -> Iterator[Item]:
    begun = said = time.perf_counter()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.perf_counter()
        if now - said >= PLAIN_EVERY:
            said = now
            speed = done / (now - begun)
            left = f", {(total - done) / speed:.0f} s left" if total else ""
            print(f"{what}: {done}/{total or '?'} ({speed:.1f}/s{left})", file=sys.stderr, flush=True)
