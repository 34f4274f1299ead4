"""What the readers share: the annotations they return, reading a file, checking names and captions."""

import gc
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from rlcap.data.records import Record
from rlcap.errors import DataError

Kind = TypeVar("Kind")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
SURROGATE = re.compile("[\ud800-\udfff]")
NO_TEXT = {
    b"PK": "a zip archive: unpack it first",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"\x89P": "a picture: name the annotations",
    b"\xff\xd8": "a picture: name the annotations",
    b"\x89H": "an HDF5 file: name the annotations",
}
TYPE_NAMES = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


@dataclass(frozen=True)
class Annotations:
    """What one file, or several read together, say. `notes` are remarks a person should see."""

    format: str
    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()

    @property
    def captions(self) -> int:
        return sum(len(record.captions) for record in self.records)

    @property
    def splits(self) -> dict[str | None, int]:
        """Split name -> number of images, in the order in which the file names them."""
        return dict(Counter(record.split for record in self.records))


def survey(records: Sequence[Record]) -> list[str]:
    """Remarks on captions that are allowed, but worth a look."""
    remarks = []
    sizes = Counter(len(record.captions) for record in records)
    if len(sizes) > 1:
        remarks.append(f"captions an image: {min(sizes)} to {max(sizes)}, mostly {sizes.most_common(1)[0][0]}")
    repeated = sum(len(record.captions) - len(set(record.captions)) for record in records)
    if repeated:
        remarks.append(f"captions that repeat another of the same image: {repeated}")
    odd = Counter(char for record in records for caption in record.captions for char in set(CONTROL.findall(caption)))
    if odd:
        listed = ", ".join(f"U+{ord(char):04X} in {count}" for char, count in sorted(odd.items()))
        remarks.append(f"control characters within captions (they only separate words): {listed}")
    longest = max(
        ((len(caption.split()), record.image) for record in records for caption in record.captions),
        key=lambda pair: pair[0],
    )
    remarks.append(f"longest caption: {longest[0]} words, of {longest[1]}")
    return remarks


@contextmanager
def without_cycle_collection() -> Iterator[None]:
    """For building millions of objects that live on: the collector would walk over them again and again."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


def read_text(path: Path) -> str:
    """The file as UTF-8, or one line that says why not and where."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; check the path") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder; name the annotation file itself") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        remedy = NO_TEXT.get(raw[:2], "save the file as UTF-8")
        raise DataError(f"{path}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8 text; {remedy}") from None
    if not text.strip():
        raise DataError(f"{path}: is empty; fetch or export it again")
    return text


def parse_json(text: str, path: Path, line: int | None = None, start: int = 0) -> tuple[Any, int]:
    """The JSON value at `start`, and where it ends. `line` is that of a JSON Lines file."""
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        place = f"line {line or error.lineno}, column {error.colno}"
        cut = error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated")
        reason = "the JSON breaks off" if cut else f"broken JSON ({error.msg})"
        raise DataError(f"{path}, {place}: {reason}; fetch or export the file again") from None
    except RecursionError:
        raise DataError(f"{path}, line {line or 1}: JSON nested too deeply for annotations") from None
    except ValueError as error:
        raise DataError(f"{path}, line {line or 1}: {error}") from None


def _not_a_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON value; write a number or leave the key out")


_DECODER = json.JSONDecoder(parse_constant=_not_a_number)


def expect(value: object, kind: type[Kind], place: str) -> Kind:
    """`value`, if it is a `kind` (a bool is no number)."""
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    raise DataError(f"{place}: must be {TYPE_NAMES[kind]}, not {shown(value)}")


def item(mapping: Mapping[str, Any], key: str, kind: type[Kind], place: str) -> Kind:
    """`mapping[key]`, if it is there and a `kind`."""
    if key not in mapping:
        raise DataError(f"{place}: has no '{key}'; each needs one")
    return expect(mapping[key], kind, f"{place}, '{key}'")


def shown(value: object) -> str:
    """A value as an error message quotes it: JSON's words, never longer than a line."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_name(name: str, place: str) -> str:
    """A name of an image or a split: one line of text."""
    if not name.strip():
        raise DataError(f"{place}: the name is empty; write one")
    if CONTROL.search(name) or SURROGATE.search(name):
        raise DataError(f"{place}: the name {shown(name)} holds a control character or half a character; rename it")
    return name


def check_caption(caption: str, place: str) -> str:
    """A caption: some text that UTF-8 can hold. Control characters within are the tokeniser's business."""
    if not caption.strip():
        raise DataError(f"{place}: the caption is empty; write it or delete the entry")
    if not caption.isascii() and SURROGATE.search(caption):
        raise DataError(f"{place}: the caption holds half a character (a lone surrogate); write it anew")
    return caption


def check_id(value: object, place: str) -> int | str:
    """An image's number in its data set; some data sets use texts."""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise DataError(f"{place}: must be a whole number or a text, not {shown(value)}")


def check_share(value: object, place: str) -> float:
    """A position in an image, from 0 (left, top) to 1."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1:
        return value
    raise DataError(f"{place}: must be a share of the image between 0 and 1, not {shown(value)}")


def check_unique(records: Sequence[Record], places: Sequence[str]) -> None:
    """No image twice. `places` say where each record stands, file and all."""
    first: dict[str, int] = {}
    for row, record in enumerate(records):
        if (before := first.setdefault(record.image, row)) != row:
            raise DataError(
                f"{places[row]}: the image {shown(record.image)} stands already at {places[before]}; "
                "give each image one entry"
            )
