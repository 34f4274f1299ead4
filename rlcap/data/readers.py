"""Annotations of any known format, recognised by content, as one list of records."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rlcap.data.annotations import Annotations, check_unique, read_text, shown, without_cycle_collection
from rlcap.data.readers_json import read_json
from rlcap.data.readers_text import read_text_form
from rlcap.data.records import Record
from rlcap.data.splits import apply_lists, given_lists, named_source, official_lists, split_of_file_name
from rlcap.errors import DataError

Source = str | Path  # a file, or "SPLIT=FILE"


def read(
    sources: Source | Sequence[Source], *, splits: Sequence[Source] = (), images: Path | None = None
) -> Annotations:
    """One annotation file, or several that make one data set (such as COCO's train and val).

    A file that names no splits takes its own from "SPLIT=FILE", from the lists in `splits` (one image name a
    line), from the official Flickr8k lists beside it, or from its file name (captions_train2017.json); else
    it is one unnamed split. `images` is the folder of pictures: that of each record must be there.
    """
    files = [sources] if isinstance(sources, str | Path) else list(sources)
    if not files:
        raise DataError("no annotation file is named; name one or more")
    with without_cycle_collection():
        parts = [_read_one(source, listed=bool(splits)) for source in files]
    paths = [named_source(source)[1] for source in files]
    records = [record for part in parts for record in part.records]
    notes = [note for part in parts for note in part.notes]
    if len(parts) > 1:
        check_unique(records, [str(path) for path, part in zip(paths, parts, strict=True) for _ in part.records])
    if splits:
        own = next((record.split for record in records if record.split is not None), None)
        if own is not None:
            raise DataError(f"{paths[0]}: names splits of its own ('{own}'); leave --splits out")
        records, more = apply_lists(records, given_lists(splits))
        notes += more
    elif len({record.split is None for record in records}) > 1:
        path, part = next((path, part) for path, part in zip(paths, parts, strict=True) if None in part.splits)
        if len(part.splits) == 1:
            raise DataError(f"{path}: names no split while others do; write it as SPLIT={path}")
        bare = next(record.image for record in part.records if record.split is None)
        raise DataError(f"{path}: the image {shown(bare)} has no split while others do; name one for each")
    if images is not None:
        records = _with_pictures(records, images)
    return Annotations(" + ".join(dict.fromkeys(part.format for part in parts)), tuple(records), tuple(notes))


def _read_one(source: Source, *, listed: bool) -> Annotations:
    split, path = named_source(source)
    text = read_text(path)
    part = read_json(text, path) if text.lstrip()[0] in "{[" else read_text_form(text, path)
    own = next((record.split for record in part.records if record.split is not None), None)
    if split is not None and own is not None:
        raise DataError(f"{path}: names splits of its own ('{own}'); leave '{split}=' out")
    if own is not None or (listed and split is None):
        return part
    if split is None and (lists := official_lists(path)):
        records, notes = apply_lists(part.records, lists, found=True)
        if records[0].split is not None:
            return replace(part, records=tuple(records), notes=(*part.notes, *notes))
    split = split or split_of_file_name(path)
    return replace(part, records=tuple(replace(record, split=split) for record in part.records))


def _with_pictures(records: list[Record], folder: Path) -> list[Record]:
    """The records with `file` set to where the picture lies in `folder`, at its path or elsewhere."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder of images; check the path")
    by_name: dict[str, list[str]] = defaultdict(list)
    for where, _, names in os.walk(folder):
        for name in names:
            by_name[name].append((Path(where) / name).relative_to(folder).as_posix())
    found, missing = [], []
    for record in records:
        wanted = record.file or record.image
        places = by_name.get(Path(wanted).name, [])
        place = wanted if wanted in places else places[0] if places else None
        if place is None:
            missing.append(record.image)
        elif place != wanted and len(places) > 1:
            raise DataError(
                f"{folder}: holds {len(places)} files for {shown(record.image)} ({places[0]}, {places[1]}); keep one"
            )
        else:
            found.append(replace(record, file=None if place == record.image else place))
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(records)} pictures are not there, such as {shown(missing[0])};"
            " put them there or delete their captions"
        )
    return found
