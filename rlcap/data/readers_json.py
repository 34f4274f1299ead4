"""Annotations written as JSON: Karpathy's data sets, COCO captions, and our own JSON Lines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlcap.data.annotations import (
    Annotations,
    check_caption,
    check_id,
    check_name,
    check_share,
    check_unique,
    expect,
    item,
    parse_json,
    shown,
)
from rlcap.data.records import Record
from rlcap.errors import DataError, did_you_mean

# "tokens" stands in the captions.jsonl of a prepared data set; words are made anew from the captions.
LINE_KEYS = ("image", "split", "captions", "image_id", "file", "objects", "mentions", "tokens")


def read_json(text: str, path: Path) -> Annotations:
    """Tells the three JSON forms apart by their first value."""
    start = len(text) - len(text.lstrip())
    first_line = text.find("\n", start)
    value, end = parse_json(text, path, start=start)
    if isinstance(value, dict) and ("image" in value or "captions" in value):
        return read_json_lines(text, path)
    if text[end:].strip():
        if 0 <= first_line <= end:  # the first value fills its line, and more follow
            return read_json_lines(text, path)
        raise DataError(f"{path}, character {end}: something follows the end of the JSON; fetch the file again")
    if not isinstance(value, dict) or "images" not in value:
        raise DataError(
            f"{path}: this JSON is no annotation file that rlcap knows (Karpathy's and COCO's have 'images', "
            "our JSON Lines have 'image' and 'captions' in each line)"
        )
    images = [
        expect(entry, dict, f"{path}, images[{i}]") for i, entry in enumerate(item(value, "images", list, str(path)))
    ]
    if not images:
        raise DataError(f"{path}: 'images' is an empty list; fetch or export the file again")
    if "annotations" in value:
        return _coco(images, item(value, "annotations", list, str(path)), path)
    if "sentences" in images[0] or "dataset" in value:
        return _karpathy(images, value.get("dataset"), path)
    raise DataError(f"{path}: lists images, but no captions (no 'annotations'); use a captions_*.json of COCO")


def _karpathy(images: list[dict[str, Any]], dataset: object, path: Path) -> Annotations:
    records, places, joined = [], [], 0
    for i, entry in enumerate(images):
        place = f"{path}, images[{i}]"
        name = check_name(item(entry, "filename", str, place), f"{place}, 'filename'")
        split = check_name(item(entry, "split", str, place), f"{place}, 'split'")
        joined += split == "restval"
        captions = []
        for k, sentence in enumerate(item(entry, "sentences", list, place)):
            inner = f"{place}, sentences[{k}]"
            captions.append(check_caption(item(expect(sentence, dict, inner), "raw", str, inner), inner))
        number = entry.get("cocoid", entry.get("imgid"))
        folder = item(entry, "filepath", str, place) if "filepath" in entry else ""
        records.append(
            Record(
                image=name,
                split="train" if split == "restval" else split,
                captions=_some(captions, name, place),
                image_id=None if number is None else check_id(number, f"{place}, 'cocoid' or 'imgid'"),
                file=f"{folder}/{name}" if folder else None,
            )
        )
        places.append(place)
    check_unique(records, places)
    notes = (f"'restval' joined 'train': {joined} images",) if joined else ()
    label = (
        f"Karpathy's dataset JSON ({dataset})"
        if isinstance(dataset, str) and dataset.isprintable()
        else "Karpathy's dataset JSON"
    )
    return Annotations(label, tuple(records), notes)


def _coco(images: list[dict[str, Any]], annotations: list[Any], path: Path) -> Annotations:
    rows: dict[int | str, int] = {}
    captions: list[list[str]] = []
    places = []
    for i, entry in enumerate(images):
        place = f"{path}, images[{i}]"
        number = check_id(entry.get("id"), f"{place}, 'id'")
        if number in rows:
            raise DataError(f"{place}: the id {number} stands already at images[{rows[number]}]; give each image one")
        rows[number] = i
        captions.append([])
        places.append(place)
    for i, annotation in enumerate(annotations):
        place = f"{path}, annotations[{i}]"
        entry = expect(annotation, dict, place)
        if "caption" not in entry and "category_id" in entry:
            raise DataError(f"{place}: is an object's outline, not a caption; use COCO's captions_*.json")
        number = check_id(entry.get("image_id"), f"{place}, 'image_id'")
        if number not in rows:
            raise DataError(f"{place}: no entry of 'images' has the image_id {shown(number)}; the file is incomplete")
        captions[rows[number]].append(check_caption(item(entry, "caption", str, place), place))
    records, nameless = [], 0
    for (number, i), place in zip(rows.items(), places, strict=True):
        if "file_name" in images[i]:
            name = check_name(item(images[i], "file_name", str, place), f"{place}, 'file_name'")
        else:
            name = check_name(str(number), f"{place}, 'id'")
            nameless += 1
        records.append(Record(name, None, _some(captions[i], name, place), image_id=number))
    check_unique(records, places)
    notes = (f"images without a 'file_name', known by their ids: {nameless}",) if nameless else ()
    return Annotations("COCO captions JSON", tuple(records), notes)


def read_json_lines(text: str, path: Path) -> Annotations:
    """Our own form: one `Record.to_json` a line."""
    records, places = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        value, end = parse_json(line, path, number, start=len(line) - len(line.lstrip()))
        if line[end:].strip():
            raise DataError(f"{place}, column {end + 1}: something follows the record; write one record a line")
        records.append(check_line(expect(value, dict, place), place))
        places.append(place)
    check_unique(records, places)
    return Annotations("rlcap JSON Lines", tuple(records))


def check_line(line: Mapping[str, Any], place: str) -> Record:
    """One line of JSON Lines, every value checked."""
    for key in line:
        if key not in LINE_KEYS:
            raise DataError(f"{place}: unknown key {shown(key)}{did_you_mean(key, LINE_KEYS)}")
    name = check_name(item(line, "image", str, place), f"{place}, 'image'")
    captions = [
        check_caption(expect(caption, str, f"{place}, captions[{k}]"), f"{place}, captions[{k}]")
        for k, caption in enumerate(item(line, "captions", list, place))
    ]
    _some(captions, name, place)
    for key in ("split", "file"):
        if line.get(key) is not None:
            check_name(expect(line[key], str, f"{place}, '{key}'"), f"{place}, '{key}'")
    if line.get("image_id") is not None:
        check_id(line["image_id"], f"{place}, 'image_id'")
    objects = item(line, "objects", list, place) if "objects" in line else []
    for k, thing in enumerate(objects):
        _check_object(expect(thing, dict, f"{place}, objects[{k}]"), f"{place}, objects[{k}]")
    if "mentions" in line:
        _check_mentions(item(line, "mentions", list, place), len(captions), len(objects), place)
    return Record.from_json(line)


def _check_object(thing: Mapping[str, Any], place: str) -> None:
    check_name(item(thing, "name", str, place), f"{place}, 'name'")
    box = [check_share(side, f"{place}, 'box'") for side in item(thing, "box", list, place)]
    if len(box) != 4 or box[0] > box[2] or box[1] > box[3]:
        raise DataError(f"{place}: 'box' must be left, top, right, bottom in this order, not {shown(box)}")


def _check_mentions(mentions: list[Any], captions: int, objects: int, place: str) -> None:
    if mentions and len(mentions) != captions:
        raise DataError(f"{place}: {len(mentions)} entries in 'mentions' for {captions} captions; write one for each")
    for k, pairs in enumerate(mentions):
        inner = f"{place}, mentions[{k}]"
        for pair in expect(pairs, list, inner):
            word, thing = expect(pair, list, inner) if isinstance(pair, list) and len(pair) == 2 else (-1, -1)
            if expect(word, int, inner) < 0 or not 0 <= expect(thing, int, inner) < objects:
                raise DataError(
                    f"{inner}: {shown(pair)} must be a word's place and an object's, both counted from 0 "
                    f"(objects: {objects})"
                )


def _some(captions: list[str], name: str, place: str) -> tuple[str, ...]:
    if not captions:
        raise DataError(f"{place}: the image {shown(name)} has no captions; add some or delete the image")
    return tuple(captions)
