"""Processes that call a user's function: several at once, within a time limit.

Each worker is a fresh interpreter with one thread for its arithmetic. It runs nothing of the program that started
it (a training script needs no `if __name__ == "__main__"`), and stands in a process group of its own: Ctrl-C
reaches the program alone, which then ends its workers, and with each what it has started itself.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
import weakref
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

from rlcap.errors import ComponentError
from rlcap.rewards.calling import CallError, Function, Inputs, call

BOOT = """import json, sys
sys.path[:] = json.loads(sys.argv[2])
from rlcap.rewards.pool import work
work(int(sys.argv[1]))"""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
GRACE = 2.0  # seconds in which a process may end by itself


class Pool:
    """`call` as in rlcap.rewards.calling, by several processes. They start at the first call and end with the pool."""

    def __init__(self, function: Function, workers: int) -> None:
        self._function = _by_name(function)
        self._size = workers
        self._workers: list[_Worker] = []
        # Also called when the program ends. A fork of it (a loader of batches) must not end them.
        self._end = weakref.finalize(self, _end, self._workers, os.getpid())

    def call(self, inputs: Inputs, settings: Mapping[str, Any], time_limit: float | None) -> list[float]:
        """The captions are split evenly, in their order. `time_limit`: seconds, without the workers' start."""
        captions = len(next(iter(inputs.values())))
        bounds = [captions * k // self._size for k in range(self._size + 1)]
        pieces = [range(low, high) for low, high in pairwise(bounds) if low < high]
        try:
            self._start()
            until = None if time_limit is None else time.monotonic() + time_limit
            pending = dict(zip(self._workers, pieces, strict=False))
            for worker, piece in pending.items():
                part = {name: values[piece.start : piece.stop] for name, values in inputs.items()}
                worker.send((part, settings), piece)
            scores = [0.0] * captions
            while pending:
                left = None if until is None else max(0.0, until - time.monotonic())
                ready = wait([worker.connection for worker in pending], left)
                if not ready:
                    late = [place for piece in pending.values() for place in piece]
                    raise CallError(f"was ended after its time_limit of {time_limit:g} s", late)
                for worker in [worker for worker in pending if worker.connection in ready]:
                    piece = pending.pop(worker)
                    scores[piece.start : piece.stop] = worker.answer(piece)
            return scores
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Ends the workers at once; the next call starts others."""
        _end(self._workers, os.getpid(), grace=0.0)

    def _start(self) -> None:
        if self._workers:
            return
        for _ in range(self._size):
            self._workers.append(_Worker())
        for worker in self._workers:
            worker.send(self._function, ())
        for worker in self._workers:
            worker.answer(())


class _Worker:
    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        with theirs:
            file = theirs.fileno()
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOT, str(file), json.dumps([str(folder) for folder in sys.path])],
                stdin=subprocess.DEVNULL,
                pass_fds=[file],
                process_group=0,
                env=os.environ | ONE_THREAD,
            )

    def send(self, what: Any, judged: range | tuple[()]) -> None:
        try:
            self.connection.send(what)
        except ConnectionError:
            raise self._death(judged) from None

    def answer(self, judged: range | tuple[()]) -> list[float]:
        try:
            answer = self.connection.recv()
        except (EOFError, ConnectionError):
            raise self._death(judged) from None
        if isinstance(answer, list):
            return answer
        text, suspects, trace = answer
        raise CallError(text, [judged[place] for place in suspects]) from RuntimeError(f"in a worker process:\n{trace}")

    def _death(self, judged: range | tuple[()]) -> CallError:
        try:
            status = self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return CallError("its worker process has closed the connection to the program", judged)
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        hint = " (was there memory enough?)" if status == -signal.SIGKILL else ""
        return CallError(f"its worker process {how}{hint}", judged)


def _end(workers: list[_Worker], owner: int, grace: float = GRACE) -> None:
    """Ends the processes and empties the list. An idle worker ends by itself when its connection closes."""
    if os.getpid() != owner:
        return
    until = time.monotonic() + grace
    for worker in workers:
        worker.connection.close()
    for worker in workers:
        try:
            worker.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(worker.process.pid, signal.SIGKILL)
            worker.process.wait()
    workers.clear()


def _by_name(function: Function) -> bytes:
    """What a worker needs to import the function; pickle stores functions and classes by module and name."""
    name = getattr(function, "__qualname__", type(function).__name__)
    remedy = "put it into a module of its own (a def at the top level of a file), or leave workers and time_limit out"
    try:
        stored = pickle.dumps(function)
    except Exception:
        raise ComponentError(f"{name}: worker processes cannot import it by its name; {remedy}") from None
    if b"__main__" in stored:
        raise ComponentError(f"{name}: is written in the program itself, which workers do not run; {remedy}")
    return stored


def work(file: int) -> None:
    """What a worker does: imports the function, then answers until nobody asks any more."""
    os.set_inheritable(file, False)  # not for processes that the function starts
    connection = Connection(file)
    try:
        function = pickle.loads(connection.recv())
    except Exception as error:
        said = " ".join(str(error).split())
        text = f"a worker process cannot import it: {type(error).__name__}: {said}"
        connection.send((text, (), traceback.format_exc()))
        return
    connection.send([])
    while True:
        try:
            inputs, settings = connection.recv()
        except EOFError:
            return
        try:
            answer: Any = call(function, inputs, settings)
        except CallError as refusal:
            answer = (refusal.text, list(refusal.suspects), traceback.format_exc())
        with suppress(OSError):  # nobody reads what the function prints
            sys.stdout.flush()
        try:
            connection.send(answer)
        except ConnectionError:  # the program is gone
            return
