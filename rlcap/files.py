"""Writes that are whole or not there: a temporary neighbour, then one rename."""

import ctypes
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlcap.errors import DataError


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Gives a path beside `target` to write a file to, and renames it to `target` when all went well.

    A full disk or a folder that cannot be written is reported as one line; the old file stays as it was.
    """
    target = Path(target)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    with _named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            _flush_to_disk(part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """The same for a folder: it takes the place of `target` as a whole, or not at all."""
    target = Path(target)
    with _named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        try:
            as_umask(part)
            try:
                yield part
            except DataError as error:  # of a file within: told as of the whole, by the name that a person knows
                if str(part) in str(error) and isinstance(error.__cause__, OSError):
                    raise error.__cause__ from error
                raise
            for file in part.rglob("*"):
                if file.is_file():
                    _flush_to_disk(file)
            _put_in_place(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def write_text(target: str | Path, text: str) -> None:
    """`text` as UTF-8, whole or not at all."""
    with atomic_path(target) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Makes `folder` and keeps all other processes that ask for it out, as far as the file system knows locks."""
    if folder.is_file():
        raise DataError(f"{folder}: is a file; name a folder")
    with _named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{folder}: another process is writing into it; wait, or name another folder") from error
        except OSError:  # some network file systems know none
            pass
        yield
    finally:
        os.close(lock)


def as_umask(path: Path) -> None:
    """The rights that a new file or folder has by default: some libraries let nobody else read what they write."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


@contextmanager
def _named(target: Path) -> Iterator[None]:
    """What the system says against writing `target`, as one line with a remedy."""
    try:
        yield
    except OSError as error:
        blocking = next((folder for folder in target.parents if folder.is_file()), None)
        reason = f"{blocking} is a file, not a folder" if blocking else error.strerror or str(error)
        raise DataError(
            f"{target}: cannot be written ({reason}) and was left as it was; make room or name another place"
        ) from error


def _put_in_place(part: Path, target: Path) -> None:
    """`part` becomes `target`. What stood there before becomes `part` where the system can swap two names."""
    if not target.exists():
        part.rename(target)
    elif not _swapped(part, target):
        old = target.with_name(f".{target.name}.{os.getpid()}.old")
        target.rename(old)
        part.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def _swapped(one: Path, other: Path) -> bool:
    """In one step, so that a process killed at any time leaves both: Linux's renameat2, where there is one."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), swap) == 0)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
