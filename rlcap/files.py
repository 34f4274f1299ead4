"""Writes that are whole or not there: a temporary neighbour, then one rename."""

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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _flush_to_disk(part)
        part.replace(target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror or error}); nothing was changed") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """The same for a folder: it takes the place of `target` as a whole, or not at all."""
    target = Path(target)
    part: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        part.chmod(0o777 & ~_umask())
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                _flush_to_disk(file)
        if target.exists():
            old = target.with_name(f".{target.name}.{os.getpid()}.old")
            target.rename(old)
            part.rename(target)
            shutil.rmtree(old)
        else:
            part.rename(target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror or error}); nothing was changed") from error
    finally:
        if part is not None and part.exists():
            shutil.rmtree(part, ignore_errors=True)


def write_text(target: str | Path, text: str) -> None:
    """`text` as UTF-8, whole or not at all."""
    with atomic_path(target) as part:
        part.write_text(text, encoding="utf-8")


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
