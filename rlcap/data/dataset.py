"""A prepared data set: a folder with captions, their words, the vocabulary and the document frequencies.

    dataset.json      what it is: format, splits, settings, and the fingerprints that tie the parts together
    captions.jsonl    one `Record.to_json` an image, with "tokens": a line of words for each caption
    vocabulary.json   the words of the training captions
    frequencies.npz   in how many training images each n-gram occurs, for CIDEr-D
    oracle.npz        of sentences that an oracle drew: its weights

Feature files (*.h5) may lie beside them; preparing again leaves those alone.
"""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlcap.data.annotations import without_cycle_collection
from rlcap.data.frequencies import DocumentFrequencies
from rlcap.data.records import Record
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import DataError, did_you_mean

FORMAT = "rlcap data set 1"
META, CAPTIONS = "dataset.json", "captions.jsonl"
VOCABULARY, FREQUENCIES, ORACLE = "vocabulary.json", "frequencies.npz", "oracle.npz"
Tokens = list[list[list[str]]]  # words of each caption of each image


@dataclass(frozen=True)
class Split:
    """The images of one split, in the data set's order."""

    name: str
    records: list[Record]
    tokens: Tokens

    @property
    def images(self) -> list[str]:
        return [record.image for record in self.records]

    def __len__(self) -> int:
        return len(self.records)


class DataSet:
    """What `rlcap prepare` wrote."""

    def __init__(
        self,
        path: Path,
        records: list[Record],
        tokens: Tokens,
        vocabulary: Vocabulary,
        frequencies: DocumentFrequencies,
        meta: dict[str, Any],
    ) -> None:
        self.path = path
        self.records = records
        self.tokens = tokens
        self.vocabulary = vocabulary
        self.frequencies = frequencies
        self.meta = meta
        self.splits: dict[str, list[int]] = {}
        for row, record in enumerate(records):
            self.splits.setdefault(str(record.split), []).append(row)

    @property
    def has_images(self) -> bool:
        """False for text: then each record is a sentence of its own, and there are no features."""
        return bool(self.meta.get("images", True))

    @property
    def oracle(self) -> Path | None:
        """The weights of the oracle that drew the sentences."""
        return self.path / ORACLE if "oracle" in self.meta["fingerprints"] else None

    def split(self, name: str) -> Split:
        if name not in self.splits:
            raise DataError(
                f"{self.path}: has no split '{name}'{did_you_mean(name, self.splits)}; "
                "name another by data.train, data.evaluate or --split"
            )
        rows = self.splits[name]
        return Split(name, [self.records[row] for row in rows], [self.tokens[row] for row in rows])

    @staticmethod
    def load(path: str | Path) -> "DataSet":
        """Reads a prepared folder; its parts must belong together and be as they were written."""
        path = Path(path)
        meta = _read_meta(path)
        vocabulary = Vocabulary.load(path / VOCABULARY)
        if vocabulary.fingerprint != meta["fingerprints"]["vocabulary"]:
            raise DataError(f"{path / VOCABULARY}: belongs to another data set; run `rlcap prepare` again")
        frequencies = DocumentFrequencies.load(path / FREQUENCIES)
        frequencies.check(meta["fingerprints"]["frequencies"], str(path))
        raw = _unchanged(path / CAPTIONS, meta["fingerprints"]["captions"])
        if "oracle" in meta["fingerprints"]:
            _unchanged(path / ORACLE, meta["fingerprints"]["oracle"])
        records, tokens = [], []
        with without_cycle_collection():
            for text in raw.decode().split("\n")[:-1]:
                line = json.loads(text)
                records.append(Record.from_json(line))
                tokens.append([list(map(sys.intern, words.split(" "))) for words in line["tokens"]])
        return DataSet(path, records, tokens, vocabulary, frequencies, meta)


def digest(raw: bytes) -> str:
    """The fingerprint of a file."""
    return hashlib.sha256(raw).hexdigest()[:16]


def _unchanged(path: Path, fingerprint: str) -> bytes:
    """The file as it was written."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); run `rlcap prepare` again") from None
    if digest(raw) != fingerprint:
        raise DataError(f"{path}: was damaged or changed since it was written; run `rlcap prepare` again")
    return raw


def _read_meta(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        if path.exists():
            raise DataError(f"{path}: is a file; name the folder of a data set")
        raise DataError(f"{path}: there is no such data set folder; make one with `rlcap prepare FILE --out {path}`")
    try:
        meta = json.loads((path / META).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: is no data set (it has no {META}); make one with `rlcap prepare`") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path / META}: cannot be read ({error}); run `rlcap prepare` again") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise DataError(f"{path / META}: is not of this version ('{FORMAT}'); run `rlcap prepare` again")
    prints = meta.get("fingerprints")
    if not isinstance(prints, dict) or not {"vocabulary", "frequencies", "captions"} <= prints.keys():
        raise DataError(f"{path / META}: lacks its fingerprints; run `rlcap prepare` again")
    return meta
