"""The part of a feature file that is still being written: a log, from which the HDF5 file is made at the end.

HDF5 cannot be its own log. When its writer is killed, damage may stay hidden until names are read or added; a
full disk makes HDF5 2.0 crash the interpreter. A log is cut after its last whole record and goes on from
there. The price is that there must be room for the features twice, until the log is deleted.

The file: a line of JSON with the settings, then for each image a line of JSON, [name, bytes, regions, check
sum], followed by that many bytes.
"""

import fcntl
import json
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from rlcap.errors import DataError

SYNC_EVERY = 10.0  # seconds of work that a power cut may cost; a killed process loses nothing that was appended


@dataclass(frozen=True, slots=True)
class Record:
    """Where the bytes of one image lie in the log."""

    offset: int
    size: int
    count: int  # regions that are real
    check: int


class Part:
    """An open log. Only one process may hold it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings: dict[str, Any] | None = None
        self.records: dict[str, Record] = {}
        self._file = FileIO(path, "a+")  # unbuffered: after a failure no rest is waiting to be written
        self._synced = time.monotonic()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._recover()
        except BlockingIOError as error:
            self._file.close()
            raise DataError(f"{path}: another process is writing it; wait for its end") from error
        except BaseException:
            self._file.close()
            raise

    def begin(self, settings: dict[str, Any]) -> None:
        self._write(json.dumps(settings).encode() + b"\n")
        self.settings = settings

    def append(self, names: Sequence[str], blobs: Sequence[bytes], counts: Sequence[int]) -> None:
        """Hands the images to the system in one piece; what an interrupt leaves of it is cut off later."""
        end, new, pieces = self._file.seek(0, os.SEEK_END), {}, []
        for name, blob, count in zip(names, blobs, counts, strict=True):
            check = zlib.crc32(blob)
            pieces += [json.dumps([name, len(blob), count, check]).encode() + b"\n", blob]
            new[name] = Record(end + len(pieces[-2]), len(blob), count, check)
            end = new[name].offset + len(blob)
        self._write(b"".join(pieces))
        self.records |= new
        if time.monotonic() - self._synced > SYNC_EVERY:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def blobs(self) -> Iterator[tuple[str, Record, bytes]]:
        """All images in their order, each compared with its check sum."""
        for name, record in self.records.items():
            self._file.seek(record.offset)
            blob = self._file.read(record.size)
            if len(blob) != record.size or zlib.crc32(blob) != record.check:
                raise DataError(f"{self.path}: '{name}' was damaged on the disk; delete the file and begin anew")
            yield name, record, blob

    @property
    def size(self) -> int:
        """Bytes of all images."""
        return sum(record.size for record in self.records.values())

    def close(self) -> None:
        self._file.close()

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
        self.close()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _recover(self) -> None:
        """Reads what an earlier run left, up to the last whole record, and cuts off the rest."""
        whole = 0
        with self.path.open("rb") as log:
            length = os.fstat(log.fileno()).st_size
            while (line := _json_line(log.readline())) is not None:
                if self.settings is None and isinstance(line, dict):
                    self.settings = line
                elif self.settings is not None and isinstance(line, list) and len(line) == 4:
                    name, *numbers = line
                    record = Record(log.tell(), *numbers)
                    if record.offset + record.size > length:
                        break
                    self.records[name] = record
                    log.seek(record.size, os.SEEK_CUR)
                else:
                    break
                whole = log.tell()
        self._file.truncate(whole)


def _json_line(line: bytes) -> Any:
    """None at the end, and for what is no whole line."""
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
