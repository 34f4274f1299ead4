"""Annotations -> a prepared data set (see rlcap/data/dataset.py): words, vocabulary, document frequencies."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlcap.data.annotations import Annotations
from rlcap.data.dataset import CAPTIONS, FORMAT, FREQUENCIES, META, ORACLE, VOCABULARY, DataSet, Tokens, digest
from rlcap.data.frequencies import DocumentFrequencies, frequencies_fingerprint
from rlcap.data.records import Record
from rlcap.data.splits import hold_out as hold_out_of
from rlcap.data.tokens import tokenise
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import DataError, did_you_mean
from rlcap.files import atomic_folder, write_text
from rlcap.progress import track

TRAIN = "train"


def prepare(
    annotations: Annotations,
    out: str | Path,
    *,
    min_count: int = 5,
    train_split: str = TRAIN,
    hold_out: int = 0,
    hold_out_name: str = "held-out",
    seed: int = 0,
) -> DataSet:
    """Writes the data set folder `out` as a whole. Feature files that lie there already stay."""
    out = Path(out)
    check_source(out, annotations.format)
    with data_folder(out) as part:
        write_parts(
            annotations,
            part,
            min_count=min_count,
            train_split=train_split,
            hold_out=hold_out,
            hold_out_name=hold_out_name,
            seed=seed,
        )
    return DataSet.load(out)


def check_source(out: Path, source: str) -> None:
    """Preparing the same again is fine, other settings included; a data set of another source is not replaced."""
    try:
        held = json.loads((out / META).read_text(encoding="utf-8"))["source"]
    except (OSError, ValueError, TypeError, KeyError):  # there is none, or none that could be used
        return
    if held != source:
        raise DataError(
            f"{out}: holds a data set of {held}, and this would be one of {source}; name another folder for --out, "
            f"or delete {out / META} to have it replaced"
        )


@contextmanager
def data_folder(out: Path) -> Iterator[Path]:
    """A folder to write a data set to, which then takes the place of `out`; feature files of `out` stay.

    Refuses to replace a folder that holds anything else.
    """
    ours = {META, CAPTIONS, VOCABULARY, FREQUENCIES, ORACLE}
    if out.is_file():
        raise DataError(f"{out}: is a file; name a folder for --out")
    kept = [entry for entry in sorted(out.iterdir()) if entry.name not in ours] if out.exists() else []
    for entry in kept:
        if entry.suffix != ".h5" or not entry.is_file():
            raise DataError(f"{out}: holds {entry.name}, which is no part of a data set; name a new folder for --out")
    with atomic_folder(out) as part:
        yield part
        for entry in kept:
            if not (part / entry.name).exists():
                _link(entry, part / entry.name)


def write_parts(
    annotations: Annotations,
    folder: Path,
    *,
    min_count: int,
    train_split: str = TRAIN,
    hold_out: int = 0,
    hold_out_name: str = "held-out",
    seed: int = 0,
) -> None:
    """The four files of a data set, into a folder that is made by `data_folder`."""
    records, notes = _settled(annotations, train_split)
    if hold_out:
        records = hold_out_of(records, train_split, hold_out, hold_out_name, seed)
        notes.append(f"{hold_out} images of '{train_split}' are held out as '{hold_out_name}' (seed {seed})")
    records, tokens, more = _tokenised(records)
    training = [row for row, record in enumerate(records) if record.split == train_split]
    if not training:
        raise DataError(f"no caption of the split '{train_split}' holds a word; look at the annotations")
    vocabulary = Vocabulary.build((words for row in training for words in tokens[row]), min_count)
    if vocabulary.size == Vocabulary([]).size:
        raise DataError(f"no word occurs {min_count} times in '{train_split}'; choose a smaller --min-count")
    notes = [*annotations.notes, *notes, *more]
    write_tokens(folder, records, tokens, vocabulary, train_split=train_split, source=annotations.format, notes=notes)


def write_tokens(
    folder: Path,
    records: Sequence[Record],
    tokens: Tokens,
    vocabulary: Vocabulary,
    *,
    train_split: str = TRAIN,
    source: str,
    notes: Sequence[str],
    images: bool = True,
) -> None:
    """The four files, of captions whose words are settled. `images`: there are some, with features of their own."""
    training = [row for row, record in enumerate(records) if record.split == train_split]
    names = [records[row].image for row in training]
    frequencies = DocumentFrequencies.build(
        [tokens[row] for row in training],
        frequencies_fingerprint(vocabulary.fingerprint, vocabulary.tokeniser, train_split, names),
    )
    lines = "".join(_line(record, words) for record, words in zip(records, tokens, strict=True))
    prints = {
        "vocabulary": vocabulary.fingerprint,
        "frequencies": frequencies.fingerprint,
        "captions": digest(lines.encode()),
    }
    if (folder / ORACLE).exists():
        prints["oracle"] = digest((folder / ORACLE).read_bytes())
    meta = {
        "format": FORMAT,
        "source": source,
        "tokeniser": vocabulary.tokeniser,
        "min_count": vocabulary.min_count,
        "train_split": train_split,
        "splits": _counts(records),
        "words": vocabulary.size,
        "fingerprints": prints,
        "notes": list(notes),
        **({} if images else {"images": False}),
    }
    vocabulary.save(folder / VOCABULARY)
    frequencies.save(folder / FREQUENCIES)
    write_text(folder / CAPTIONS, lines)
    write_text(folder / META, json.dumps(meta, ensure_ascii=False, indent=2) + "\n")


def _settled(annotations: Annotations, train_split: str) -> tuple[list[Record], list[str]]:
    """The records with a split each: one unnamed split is there to train on."""
    splits = annotations.splits
    if set(splits) == {None}:
        note = f"the annotations name no splits: all {len(annotations.records)} images are '{train_split}'"
        return [replace(record, split=train_split) for record in annotations.records], [note]
    if train_split not in splits:
        named = [str(split) for split in splits]
        raise DataError(
            f"the annotations have no split '{train_split}'{did_you_mean(train_split, named)}; "
            "name the one to train on with --train-split"
        )
    return list(annotations.records), []


def _tokenised(records: Sequence[Record]) -> tuple[list[Record], Tokens, list[str]]:
    """Captions without a word ("...") are dropped, and images that are then left without any."""
    kept, tokens, silent, bare = [], [], 0, 0
    for record in track(records, "tokenising", len(records)):
        lists = [tokenise(caption) for caption in record.captions]
        some = [k for k, words in enumerate(lists) if words]
        _check_mentions(record, lists)
        silent += len(lists) - len(some)
        if not some:
            bare += 1
            continue
        if len(some) < len(lists):
            captions = tuple(record.captions[k] for k in some)
            mentions = tuple(record.mentions[k] for k in some) if record.mentions else ()
            record = replace(record, captions=captions, mentions=mentions)
        kept.append(record)
        tokens.append([lists[k] for k in some])
    notes = [f"captions without a word, dropped: {silent}"] if silent else []
    if bare:
        notes.append(f"images left without captions, dropped: {bare}")
    return kept, tokens, notes


def _check_mentions(record: Record, lists: list[list[str]]) -> None:
    for k, (pairs, words) in enumerate(zip(record.mentions, lists, strict=False)):
        for word, _ in pairs:
            if word >= len(words):
                raise DataError(
                    f"image {record.image}, mentions[{k}]: word {word} of a caption of {len(words)} words "
                    f"({' '.join(words)}); count the words from 0, without punctuation"
                )


def _counts(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    images = Counter(str(record.split) for record in records)
    captions: Counter[str] = Counter()
    for record in records:
        captions[str(record.split)] += len(record.captions)
    return {split: {"images": images[split], "captions": captions[split]} for split in images}


def json_line(line: dict[str, Any]) -> str:
    """One line of JSON Lines, without the characters that some programs take for the end of a line."""
    text = json.dumps(line, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029]", lambda match: f"\\u{ord(match.group()):04x}", text) + "\n"


def _line(record: Record, tokens: list[list[str]]) -> str:
    return json_line({**record.to_json(), "tokens": [" ".join(words) for words in tokens]})


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, without a copy where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
