"""Which image belongs to which split: names of files, lists of images, and images held out of training."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rlcap.data.annotations import check_name, read_text, shown
from rlcap.data.readers_text import lines_of
from rlcap.data.records import Record
from rlcap.errors import DataError

IN_FILE_NAME = re.compile(r"(?<![a-z])(train|val|dev|test)(?:ing|id|idation)?(?=images|[^a-z]|$)")
OFFICIAL_LISTS = {split: f"Flickr_8k.{split}Images.txt" for split in ("train", "dev", "test")}


def named_source(source: str | Path) -> tuple[str | None, Path]:
    """'FILE' or 'SPLIT=FILE' -> the split, if one is named, and the file."""
    name, equals, file = str(source).partition("=")
    if equals and not Path(source).exists() and re.fullmatch(r"[\w.-]+", name):
        return name, Path(file)
    return None, Path(source)


def split_of_file_name(path: Path) -> str | None:
    """captions_train2017.json -> train; Flickr_8k.devImages.txt -> dev; results.csv -> None."""
    match = IN_FILE_NAME.search(path.name.lower())
    return match.group(1) if match else None


def official_lists(annotations: Path) -> dict[str, Path]:
    """The lists of the Flickr8k splits, as far as they stand beside the captions."""
    beside = {split: annotations.parent / name for split, name in OFFICIAL_LISTS.items()}
    return {split: path for split, path in beside.items() if path.is_file()}


def given_lists(sources: Sequence[str | Path]) -> dict[str, Path]:
    """Lists named on the command line: 'SPLIT=FILE', or a FILE whose name tells the split."""
    lists: dict[str, Path] = {}
    for source in sources:
        name, path = named_source(source)
        name = name or split_of_file_name(path) or path.stem
        if name in lists:
            raise DataError(f"{path}: the split '{name}' has a list already, {lists[name]}; write NAME={path}")
        lists[name] = path
    return lists


def apply_lists(
    records: Sequence[Record], lists: Mapping[str, Path], *, found: bool = False
) -> tuple[list[Record], list[str]]:
    """The records that the lists name, each with its split, and remarks on the others.

    A list that was found beside the captions (not given) may be of images that are not in this file at all.
    """
    known = {record.image for record in records}
    split_of: dict[str, str] = {}
    notes = []
    for split, path in lists.items():
        listed = _read_list(path, known)
        missing = [(name, line) for name, line in listed.items() if name not in known]
        if found and len(missing) == len(listed):
            notes.append(f"{path.name}: none of its {len(listed)} images has captions in this file; left aside")
            continue
        if missing:
            name, line = missing[0]
            raise DataError(
                f"{path}, line {line}: no annotation is of the image {shown(name)} "
                f"(nor {len(missing) - 1} others of this list); give files that belong together or SPLIT=FILE"
            )
        for name, line in listed.items():
            if split_of.setdefault(name, split) != split:
                raise DataError(f"{path}, line {line}: {name} is in the split '{split_of[name]}' too; list it once")
    if not split_of:
        return list(records), []
    chosen = [replace(record, split=split_of[record.image]) for record in records if record.image in split_of]
    if len(chosen) < len(records):
        notes.append(f"images that no split list names, left out: {len(records) - len(chosen)}")
    return chosen, notes


def _read_list(path: Path, known: set[str]) -> dict[str, int]:
    """Image name -> line. Flickr30k's lists leave the '.jpg' out."""
    listed: dict[str, int] = {}
    for line, text in lines_of(read_text(path)):
        name = check_name(text.strip(), f"{path}, line {line}")
        if name not in known and f"{name}.jpg" in known:
            name = f"{name}.jpg"
        if name in listed:
            raise DataError(f"{path}, line {line}: {name} stands already in line {listed[name]}; list it once")
        listed[name] = line
    return listed


def hold_out(records: Sequence[Record], split: str, count: int, name: str, seed: int) -> list[Record]:
    """`count` images of a split moved to the new split `name`.

    Which ones depends on the seed and the image names alone, not on their order or number.
    """
    if any(record.split == name for record in records):
        raise DataError(f"the split '{name}' exists already; choose another --hold-out-name")
    candidates = [record.image for record in records if record.split == split]
    if not 0 < count < len(candidates):
        raise DataError(f"--hold-out {count}: must be between 1 and {len(candidates) - 1}, to leave some of '{split}'")
    chosen = set(sorted(candidates, key=lambda image: _lot(seed, image))[:count])
    return [replace(record, split=name) if record.image in chosen else record for record in records]


def _lot(seed: int, image: str) -> bytes:
    return hashlib.sha256(f"{seed}:{image}".encode()).digest()
