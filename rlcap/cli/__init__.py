"""The command line: one file a command, imported only when it is called, so that `--help` answers at once.

A command's file has `configure(parser)` and `run(arguments) -> int`, its exit status. Once imported, its name
is an attribute of this module: the builtin `list` cannot be used here.
"""

import argparse
import importlib
import io
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, ModuleType

from rlcap import progress
from rlcap.errors import RlcapError, did_you_mean
from rlcap.version import __version__

COMMANDS = {
    "demo": "the whole story on made-up scenes: data, training, evaluation, pictures",
    "prepare": "annotations -> a prepared data set; --check only says what a file holds",
    "features": "extract, import or check image features",
    "train": "train a recipe",
    "sweep": "train a recipe many times, and search for its best values",
    "evaluate": "caption a split and score the captions",
    "score": "score any tool's captions against references, without a model",
    "compare": "runs side by side: which differences are more than noise",
    "correlate": "how well metrics agree with human judgements",
    "caption": "caption images",
    "report": "one HTML page about one run or several: results, curves, captions",
    "replay": "an update whose loss, reward or gradient was not finite, once more",
    "goals": "where a LeakGAN captioner's goals and gazes turn, and whether together",
    "check-reward": "try a reward on made-up scenes: problems, time, range",
    "check-env": "try an environment: gymnasium's contract, masks, both forms",
    "check-policy": "try a policy on tiny features: shapes, score against step, gradients",
    "bench": "how fast it is here, next to what others use",
    "export": "put a run into one folder that works anywhere",
    "list": "policies, encoders, trainers, recipes: what there is by name",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command. 0: done, 2: something that the user can mend, 130: interrupted."""
    given = sys.argv[1:] if argv is None else argv
    debug = "--debug" in given
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what no encoding can say
    try:
        with _interruptible():
            status = perform(given)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as stop:
        return _report(f"interrupted{f': {stop}' if str(stop) else ''}", 130, debug)
    except BrokenPipeError:  # whoever read our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more
        return 141
    except RlcapError as error:
        return _report(str(error), 2, debug)
    except OSError as error:
        return _report(_told(error), 2, debug)


def perform(given: Sequence[str]) -> int:
    """The same for a caller that handles the errors."""
    try:
        arguments = _parsed(given)
    except SystemExit as stop:  # argparse has said all
        return int(stop.code or 0)
    progress.QUIET = arguments.quiet
    if arguments.allow:
        from rlcap.components import allow

        for module in arguments.allow:
            allow(module)
    status: int = _module(arguments.command).run(arguments)
    return status


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"rlcap.cli.{command.replace('-', '_')}")


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM, by which schedulers end a job, clears away what is half-written, as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        importing = (getattr(sys.modules.get(name), "__spec__", None) for name in ("torch", "torchvision"))
        if any(getattr(spec, "_initializing", False) for spec in importing):  # would abort: ask again later
            threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
            return
        raise KeyboardInterrupt("ended by SIGTERM" if number == signal.SIGTERM else "")

    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    listening = threading.current_thread() is threading.main_thread()  # signals reach no other thread
    ours = {number: was for number, was in usual.items() if listening and signal.getsignal(number) is was}
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, was in ours.items():
            signal.signal(number, was)


def _parsed(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="rlcap",
        description="Train image captioners with sequence-level objectives.",
        epilog="rlcap COMMAND --help says more of a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rlcap {__version__}")
    _add_switches(parser)
    commands = parser.add_subparsers(metavar="COMMAND")
    parsers = {
        name: commands.add_parser(name, help=meaning, description=meaning, allow_abbrev=False)
        for name, meaning in COMMANDS.items()
    }
    if any(not word or re.fullmatch("--[a-z-]+=", word) for word in given):
        parser.error("an argument is empty: name something (is a variable of the shell not set?)")
    called = next((word for word in given if not word.startswith("-")), None)
    if called is None:
        parser.parse_args(given)
        parser.error("name a command, such as rlcap demo (rlcap --help shows all)")
    if called not in COMMANDS:
        parser.error(f"there is no command '{called}'{did_you_mean(called, COMMANDS)}")
    start = given.index(called)
    arguments = parser.parse_args(given[:start], argparse.Namespace(command=called))
    command = parsers[called]
    _add_switches(command)  # what was given before the command stands
    _module(called).configure(command)
    try:
        return command.parse_intermixed_args(given[start + 1 :], arguments)  # overrides may follow options
    except TypeError:  # not for commands that have commands of their own
        return command.parse_args(given[start + 1 :], arguments)


def _add_switches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--quiet", action="store_true", help="no progress, only results")
    parser.add_argument(
        "--allow", metavar="MODULE", action="append", default=[], help="a run may import it from the current folder"
    )


def _report(message: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    for line in message.splitlines():
        print(f"rlcap: {line}", file=sys.stderr)
    return status


def _told(error: OSError) -> str:
    """One line with the file, if the system names one: it does not when a disk is full."""
    file = f"{error.filename}: " if error.filename is not None else ""
    return f"{file}{' '.join((error.strerror or str(error)).split())}; --debug shows where"
