"""Programs in Java that judge captions: each a process that is started once, asked line by line, and watched.

Nothing starts before the first question. A process that dies is replaced and asked again, once; one that falls
silent is ended. It ends with this program, however that ends: its standard input closes.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import RLock, Thread
from typing import IO, Generic, TypeVar

from rlcap import progress
from rlcap.errors import ComponentError

Answer = TypeVar("Answer")
Pair = tuple[str, tuple[str, ...]]  # a caption and its image's references, their words joined by blanks
VERSION = re.compile(r'version "(?:1\.)?(\d+)')  # "1.8.0_402" is Java 8, "17.0.15" is Java 17
LAST_LINES = 8  # of a dead program's stderr, for the error
PREFLIGHT = 30.0  # seconds for Java to tell its version
REMEMBERED = 50_000  # pairs: some 50 MB


def pycocoevalcap(part: str) -> Path:
    """A file or folder of the installed package; it need not be there."""
    spec = find_spec("pycocoevalcap")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    if not folders:
        raise ComponentError("METEOR and SPICE are part of pycocoevalcap, which is missing: pip install pycocoevalcap")
    return next((folder / part for folder in folders if (folder / part).exists()), folders[0] / part)


class JavaTool:
    """A Java program that answers lines with lines. Any thread may ask; one question is answered at a time."""

    def __init__(
        self,
        name: str,
        arguments: Callable[[], Sequence[str]],  # behind `java`; raises where a file is missing
        oldest: int,  # the Java that it needs
        compiler: bool = False,  # whether it is started from its source
    ) -> None:
        self.name = name
        self._arguments = arguments
        self._oldest = oldest
        self._compiler = compiler
        self._lock = RLock()
        self._process: _Process | None = None

    def preflight(self) -> list[str]:
        """The command that starts it, or an error that says what is missing."""
        need = f"{self.name} needs Java {self._oldest} or newer{' (a JDK)' if self._compiler else ''}"
        java = shutil.which("java")
        if java is None:
            raise ComponentError(f"{need}, and there is no `java` on PATH; install one, or leave {self.name} out")
        said = _said([java, "-version"])
        version = VERSION.search(said)
        if version is None:
            raise ComponentError(f"{need}, and `{java} -version` says '{' '.join(said.split())[:200]}'; install one")
        if int(version[1]) < self._oldest:
            raise ComponentError(f"{need}, and {java} is Java {version[1]}; install one and put it first on PATH")
        if self._compiler and "jdk.compiler" not in _said([java, "--list-modules"]):
            raise ComponentError(f"{need}, and {java} has no compiler (jdk.compiler); install a JDK instead of a JRE")
        return [java, *self._arguments()]

    def ask(self, lines: Sequence[str], answers: int, timeout: float, read: Callable[[str], Answer]) -> list[Answer]:
        """What it says to `lines`: so many lines, read by `read`; `timeout` is how many seconds it may be silent."""
        with self._lock:
            deaths: list[str] = []
            while len(deaths) < 2:
                process = self._running()
                try:
                    return process.ask(lines, answers, timeout, read)
                except _DiedError as death:
                    self.close()
                    deaths.append(str(death))
                    if len(deaths) == 1:
                        _show(f"{self.name}: {death}; starting it again")
                except BaseException:
                    self.close()  # or its late answers would be taken for those to the next question
                    raise
            raise ComponentError(f"{self.name} died twice over the same {len(lines)} lines: {deaths[-1]}")

    def close(self) -> None:
        """Ends the process, if there is one; the next question starts another."""
        with self._lock:
            if self._process is not None:
                self._process.end()
                self._process = None

    @property
    def pid(self) -> int | None:
        """Of the process, which leads a process group of its own."""
        return None if self._process is None else self._process.popen.pid

    def _running(self) -> "_Process":
        if self._process is None or self._process.owner != os.getpid():  # a forked child has its own
            self._process = _Process(self.name, self.preflight())
        return self._process


class _DiedError(Exception):
    """The process ended before it had answered."""


class _Process:
    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.owner = os.getpid()
        self.popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C is for us: training saves a checkpoint, with which this goes on
        )
        self.answers: SimpleQueue[str | None] = SimpleQueue()
        self.complaints: deque[str] = deque(maxlen=LAST_LINES)
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        # These hold no reference to self, so that the finaliser also runs for a tool that is forgotten.
        readers = [
            Thread(target=_take, args=(self.popen.stdout, self.answers), daemon=True),
            Thread(target=_listen, args=(self.popen.stderr, name, self.complaints), daemon=True),
        ]
        for reader in readers:
            reader.start()
        self.end = weakref.finalize(self, _end, self.popen, self.owner, readers)

    def ask(self, lines: Sequence[str], answers: int, timeout: float, read: Callable[[str], Answer]) -> list[Answer]:
        assert self.popen.stdin is not None
        # In a thread of its own, so that a program that does not listen is noticed.
        Thread(target=_tell, args=(self.popen.stdin, lines), daemon=True).start()
        taken: list[Answer] = []
        while len(taken) < answers:
            try:
                line = self.answers.get(timeout=timeout)
            except Empty:
                raise ComponentError(
                    f"{self.name}: no answer for {timeout:g} s, so its process {self.popen.pid} was ended; it had "
                    f"answered {len(taken)} of {answers}{self._last_lines()}; set a longer 'timeout'"
                ) from None
            if line is None:
                self.end()
                raise _DiedError(f"its process ended with status {self.popen.returncode}{self._last_lines()}")
            try:
                taken.append(read(line))
            except ValueError:
                raise ComponentError(f"{self.name}: answers '{line.strip()[:200]}'{self._last_lines()}") from None
        return taken

    def _last_lines(self) -> str:
        return f" (stderr: {' | '.join(self.complaints)})" if self.complaints else ""


def _take(stdout: IO[str], answers: "SimpleQueue[str | None]") -> None:
    with stdout:
        for line in stdout:
            answers.put(line)
    answers.put(None)


def _listen(stderr: IO[str], name: str, complaints: deque[str]) -> None:
    with stderr:
        for line in stderr:
            if not line.startswith("\tat "):  # where in the program, which fills a trace
                complaints.append(line.strip())
            _show(f"{name}: {line.rstrip()}")


def _tell(stdin: IO[str], lines: Sequence[str]) -> None:
    with suppress(OSError, ValueError):  # it died or was ended: that is noticed where its answers are read
        for line in lines:
            stdin.write(f"{line}\n")
        stdin.flush()


def _end(popen: "subprocess.Popen[str]", owner: int, readers: Sequence[Thread]) -> None:
    """Kills the process with all that it started, and nothing else."""
    if os.getpid() != owner:  # a forked child closes nothing: what it holds is a copy
        return
    if popen.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)
    popen.wait()
    for reader in readers:  # they end with the pipes; what they have read is the reason of a death
        reader.join(timeout=1)
    if popen.stdin is not None:
        with suppress(OSError):
            popen.stdin.close()


def _said(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PREFLIGHT,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stderr + done.stdout


def _show(line: str) -> None:
    if not progress.QUIET:
        print(line, file=sys.stderr, flush=True)


class Remembered(Generic[Answer]):
    """A judge of pairs that is asked once for each; the `most` used last are kept. For any thread."""

    def __init__(self, judge: Callable[[Sequence[Pair], float], Sequence[Answer]], most: int = REMEMBERED) -> None:
        self._judge = judge
        self._most = most
        self._known: OrderedDict[Pair, Answer] = OrderedDict()
        self._lock = RLock()

    def __call__(self, pairs: Sequence[Pair], timeout: float) -> list[Answer]:
        with self._lock:
            distinct = list(dict.fromkeys(pairs))
            fresh = [pair for pair in distinct if pair not in self._known]
            answers = {pair: self._known[pair] for pair in distinct if pair in self._known}
            if fresh:
                answers |= zip(fresh, self._judge(fresh, timeout), strict=True)
            for pair, answer in answers.items():
                self._known[pair] = answer
                self._known.move_to_end(pair)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
            return [answers[pair] for pair in pairs]
