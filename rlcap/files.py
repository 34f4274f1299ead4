"""Writes that are whole or not there: a temporary neighbour, then one rename. Sums tell what was damaged later."""

import ctypes
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlcap.errors import DataError

SUMS = "SHA256SUMS"  # as sha256sum -c reads it


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
            flush_to_disk(part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: str | Path, before: Path | None = None) -> Iterator[Path]:
    """The same for a folder: it takes the place of `target` as a whole, or not at all.

    What stood there becomes `before`, a name that is free, or is removed. A process that is killed right between the
    two renames of the first leaves no `target`, but that.
    """
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
            for path in (*part.rglob("*"), part):
                flush_to_disk(path)
            _put_in_place(part, target, before)
            flush_to_disk(target.parent)
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


def flush_to_disk(path: Path) -> None:
    """A file's content, or a folder's names, as a loss of power leaves them."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_sums(folder: Path) -> None:
    """Of the files in `folder`, into SHA256SUMS beside them."""
    (folder / SUMS).write_text("".join(_sums(folder)), encoding="utf-8")


def damage(folder: Path) -> str | None:
    """What is wrong with the files in `folder`, by their sums; None if nothing is."""
    try:
        kept = (folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        found = _sums(folder)
    except OSError as error:
        return f"{error.filename or folder}: cannot be read ({error.strerror or error})"
    if kept == found:
        return None
    other = next((line for line in found if line not in kept), f"  {SUMS}")
    return f"{folder / other.partition('  ')[2].rstrip()}: is damaged or cut short"


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


def _sums(folder: Path) -> list[str]:
    lines = []
    for path in sorted(folder.iterdir()):
        if path.name != SUMS:
            with path.open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    return lines


def _put_in_place(part: Path, target: Path, before: Path | None) -> None:
    """`part` becomes `target`. What stood there becomes `before`, or else `part` where two names can be swapped."""
    if not target.exists():
        part.rename(target)
    elif before is not None:
        target.rename(before)
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
