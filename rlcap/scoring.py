"""Any tool's captions against references: read, matched by image, tokenised, scored. No model has a part in it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlcap.data.annotations import check_id, expect, item, parse_json, read_text, shown
from rlcap.data.dataset import DataSet
from rlcap.data.readers import Source, read
from rlcap.data.records import Record
from rlcap.data.tokens import tokenise
from rlcap.errors import ConfigError, DataError, did_you_mean
from rlcap.metrics import JAVA_NAMES, NAMES, evaluate_captions
from rlcap.metrics.ngrams import Result, Words
from rlcap.progress import track

METRICS = ("bleu", "rouge_l", "cider_d", "cider")
TITLES = NAMES | JAVA_NAMES
FORMS = 'the coco results format, [{"image_id": …, "caption": …}, …], or {image: caption, …}'


@dataclass(frozen=True)
class Score:
    """Captions, in the order of the references, and what they are worth."""

    splits: tuple[str, ...]  # those of the images; empty where the references name none
    images: list[int | str]  # as the coco results format names them
    captions: list[str]
    left_aside: int  # captions of images outside the chosen split
    corpus: dict[str, float]  # metric -> value, between 0 and 1 (CIDEr: 0 and 10)
    per_image: dict[str, list[float]] = field(repr=False)

    def table(self) -> str:
        """For people: a line a metric, x100 as papers print it."""
        width = max(len(TITLES[key]) for key in self.corpus)
        return "\n".join(f"{TITLES[key]:<{width}}  {100 * value:7.2f}" for key, value in self.corpus.items())

    def lines(self) -> str:
        """For spreadsheets: a header and a line an image, tab separated, x100, the worst by CIDEr-D first."""
        rows = [["image", *self.per_image, "caption"]]
        for row in sorted(range(len(self.images)), key=self.per_image["cider_d"].__getitem__):
            scores = [f"{100 * values[row]:.2f}" for values in self.per_image.values()]
            rows.append([_one_line(str(self.images[row])), *scores, _one_line(self.captions[row])])
        return "\n".join("\t".join(row) for row in rows)


def score_captions(
    results: Path,
    references: Source,  # or the folder of a prepared data set
    *,
    split: str | None = None,
    partial: bool = False,
    metrics: Sequence[str] = (),
) -> Score:
    """By METRICS, and `metrics` besides.

    The images are those of `split`; without one, all images of every split that the results touch. Each must have
    a caption, unless `partial`: then document frequencies are those of the captioned images alone.
    """
    captions = read_results(results)
    records = DataSet.load(references).records if Path(references).is_dir() else read(references).records
    said = _matched(captions, records, results, references)
    wanted = _wanted(records, said, split, references)
    missing = [row for row in wanted if row not in said]
    if len(missing) == len(wanted):
        raise DataError(f"{results}: holds no caption of an image of the split '{split}'; name another --split")
    if missing and not partial:
        raise DataError(
            f"{results}: {len(missing)} of {len(wanted)} images have no caption, such as "
            f"{shown(records[missing[0]].image)}; caption them too, or score the others alone with --partial"
        )
    rows = [row for row in wanted if row in said]
    scores = _evaluated(
        [tokenise(said[row]) for row in rows],
        [[tokenise(caption) for caption in records[row].captions] for row in rows],
        metrics,
    )
    return Score(
        splits=tuple(dict.fromkeys(split for row in rows if (split := records[row].split) is not None)),
        images=[_id(records[row]) for row in rows],
        captions=[said[row] for row in rows],
        left_aside=len(said) - len(rows),
        corpus={key: corpus for key, (corpus, _) in scores.items()},
        per_image={key: per_image for key, (_, per_image) in scores.items()},
    )


def read_results(path: Path) -> dict[str, str]:
    """Image -> caption. An image's number is written as text; a caption may be empty."""
    text = read_text(path)
    start = len(text) - len(text.lstrip())
    value, end = parse_json(text, path, start=start)
    if text[end:].strip():
        raise DataError(f"{path}, character {end}: something follows the end of the JSON; write {FORMS}")
    entries: list[tuple[str, str, str]] = []  # place, image, caption
    if isinstance(value, list):
        for i, given in enumerate(value):
            place = f"{path}, [{i}]"
            entry = expect(given, dict, place)
            image = check_id(entry.get("image_id"), f"{place}, 'image_id'")
            entries.append((place, str(image), item(entry, "caption", str, place)))
    elif isinstance(value, dict):
        pairs = json.loads(text[start:end], object_pairs_hook=list)  # a repeated key would hide
        for image, _ in pairs:
            place = f"{path}, {shown(image)}"
            entries.append((place, image, item(value, image, str, str(path))))
    else:
        raise DataError(f"{path}: holds {shown(value)}; write {FORMS}")
    if not entries:
        raise DataError(f"{path}: holds no captions; write {FORMS}")
    captions: dict[str, str] = {}
    for place, image, caption in entries:
        if image in captions:
            raise DataError(f"{place}: the image {shown(image)} has a caption already; keep one an image")
        captions[image] = caption
    return captions


def _matched(
    captions: Mapping[str, str], records: Sequence[Record], results: Path, references: Source
) -> dict[int, str]:
    """Row of the references -> caption. All images of a results file are known by their ids, or all by their names."""
    ids = [str(_id(record)) for record in records]
    names = [record.image for record in records]
    known = ids if sum(map(captions.__contains__, ids)) >= sum(map(captions.__contains__, names)) else names
    rows = {image: row for row, image in enumerate(known)}
    unknown = [image for image in captions if image not in rows]
    if unknown:
        more = f" (nor are {len(unknown) - 1} others)" if len(unknown) > 1 else ""
        raise DataError(
            f"{results}: the image {shown(unknown[0])} is not in {references}{more}; "
            f"images are known there by their ids or names, such as {shown(_id(records[0]))} or {shown(names[0])}"
        )
    if len(rows) < len(known):
        twice = next((image for image, count in Counter(known).items() if count > 1 and image in captions), None)
        if twice is not None:
            raise DataError(
                f"{references}: several images have the id {shown(twice)}; name images in {results} by their names"
            )
    return {rows[image]: caption for image, caption in captions.items()}


def _wanted(records: Sequence[Record], said: Mapping[int, str], split: str | None, references: Source) -> list[int]:
    """The rows that must have captions."""
    named = {record.split for record in records}
    if split is None:
        chosen = {records[row].split for row in said}
    elif named == {None}:
        raise ConfigError(f"--split {split}: {references} names no splits; leave --split out")
    elif split not in named:
        raise ConfigError(f"--split {split}: {references} has no such split{did_you_mean(split, map(str, named))}")
    else:
        chosen = {split}
    return [row for row, record in enumerate(records) if record.split in chosen]


def _evaluated(
    captions: Sequence[Words], references: Sequence[Sequence[Words]], more: Sequence[str]
) -> dict[str, tuple[float, list[float]]]:
    """In the order of TITLES. What was asked for by name comes first, so that a wrong name is told at once."""
    metrics = list(dict.fromkeys([*more, *METRICS]))
    results: dict[str, Result] = {}
    for metric in track(metrics, "scoring", len(metrics)):
        results |= evaluate_captions(captions, references, [metric])
    return {key: (float(results[key].corpus), results[key].per_image.tolist()) for key in TITLES if key in results}


def _id(record: Record) -> int | str:
    return record.image if record.image_id is None else record.image_id


def _one_line(text: str) -> str:
    return " ".join(text.split())
