"""Annotations written as text: Flickr's token files, Flickr30k's results.csv, and plain CSV."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rlcap.data.annotations import Annotations, check_caption, check_name, shown
from rlcap.data.records import Record
from rlcap.errors import DataError

IMAGE_COLUMNS = ("image", "image_name", "file_name", "filename", "file")
CAPTION_COLUMNS = ("caption", "comment", "text")
NUMBER_COLUMNS = ("comment_number", "caption_number")
TOKEN_LINE = re.compile(r"([^\t]+)#(\d+)\t(.*)", re.DOTALL)
BAD_NAME = re.compile(r"(.+\.jpg)\.\d+")  # 2258277193_586949ec62.jpg.1 in the Flickr8k file as published
UNSEPARATED = re.compile(r"\s*(\d+)\s+(\S.*)", re.DOTALL)  # 2199200615.jpg in the Flickr30k results.csv of Kaggle


@dataclass
class _Gathered:
    """Captions as they come, line by line, grouped by image in the order of first sight."""

    path: Path
    captions: dict[str, list[str]] = field(default_factory=dict)
    splits: dict[str, str | None] = field(default_factory=dict)
    numbers: dict[tuple[str, str], int] = field(default_factory=dict)  # (image, number of the caption) -> line

    def add(self, line: int, image: str, caption: str, number: str | None = None, split: str | None = None) -> None:
        place = f"{self.path}, line {line}"
        check_name(image, place)
        check_caption(caption, place)
        if number is not None and (before := self.numbers.setdefault((image, number), line)) != line:
            raise DataError(f"{place}: caption {number} of {image} stands already in line {before}; delete one of them")
        if self.splits.setdefault(image, split) != split:
            raise DataError(
                f"{place}: {image} is in split {shown(split)}, but above in {shown(self.splits[image])}; name one"
            )
        self.captions.setdefault(image, []).append(caption)

    def annotations(self, format: str, *notes: str) -> Annotations:
        if not self.captions:
            raise DataError(f"{self.path}: has a header, but no captions; fetch or export it again")
        records = (Record(name, self.splits[name], tuple(texts)) for name, texts in self.captions.items())
        return Annotations(format, tuple(records), notes)


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank. Only a newline ends a line: captions may hold U+2028 and others."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def read_text_form(text: str, path: Path) -> Annotations:
    """Tells the text forms apart by their first lines."""
    first = [line for _, line in zip(range(20), (line for _, line in lines_of(text)), strict=False)]
    header = first[0].lower()
    if header.count("|") >= 2 and any(name in header for name in IMAGE_COLUMNS):
        return _piped(text, path)
    if any(TOKEN_LINE.fullmatch(line) for line in first):
        return _tokens(text, path)
    if _column(_header(first[0]), IMAGE_COLUMNS) is not None:
        return _csv(text, path)
    if all(re.fullmatch(r"\S+\.(jpe?g|png)", line.strip(), re.IGNORECASE) for line in first):
        raise DataError(f"{path}: is a list of images without captions; name it behind --splits")
    raise DataError(
        f"{path}, line 1: {shown(first[0])} begins no format that rlcap knows (Karpathy's or COCO's JSON, "
        "Flickr token files, results.csv, a CSV with the header image,caption, or our JSON Lines)"
    )


def _tokens(text: str, path: Path) -> Annotations:
    gathered = _Gathered(path)
    mended: dict[str, str] = {}
    for number, line in lines_of(text):
        match = TOKEN_LINE.fullmatch(line)
        if match is None:
            raise DataError(
                f"{path}, line {number}: {shown(line)} is not 'image#number', a tab, a caption; mend the line"
            )
        image, which, caption = match.groups()
        if bad := BAD_NAME.fullmatch(image):
            image = mended.setdefault(image, bad.group(1))
        gathered.add(number, image, caption, which)
    notes = [f"the image {bad} is read as {good}" for bad, good in mended.items()]
    lemmas = " (lemmatised)" if "lemma" in path.name.lower() else ""
    return gathered.annotations(f"Flickr token file{lemmas}", *notes)


def _piped(text: str, path: Path) -> Annotations:
    """`image_name| comment_number| comment`, without any quoting."""
    gathered = _Gathered(path)
    notes = []
    for number, line in list(lines_of(text))[1:]:
        parts = line.split("|", 2)
        if len(parts) == 2 and (match := UNSEPARATED.fullmatch(parts[1])):
            parts = [parts[0], *match.groups()]
            notes.append(f"line {number}: a separator is missing; read as caption {parts[1]} of {parts[0]}")
        if len(parts) != 3 or not parts[1].strip().isdecimal():
            raise DataError(f"{path}, line {number}: {shown(line)} is not 'image| number| caption'; mend the line")
        gathered.add(number, parts[0].strip(), parts[2].strip(" "), parts[1].strip())
    return gathered.annotations("Flickr30k results.csv", *notes)


def _csv(text: str, path: Path) -> Annotations:
    """A CSV with a header. Newlines within quotes belong to the caption, and so do lone carriage returns."""
    stand_in = next(char for char in map(chr, range(0xE000, 0xF900)) if char not in text)
    text = re.sub("\r(?!\n)", stand_in, text)  # the csv module takes an unquoted one for the end of a row
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    gathered = _Gathered(path)
    line = 1
    try:
        header = [name.strip().lower() for name in next(row for row in rows if row)]
        image, caption = _column(header, IMAGE_COLUMNS), _column(header, CAPTION_COLUMNS)
        which, split = _column(header, NUMBER_COLUMNS), _column(header, ("split",))
        if image is None or caption is None:
            raise DataError(f"{path}, line 1: the header {shown(','.join(header))} needs the columns image and caption")
        line = rows.line_num + 1
        for row in rows:
            cells = [cell.replace(stand_in, "\r") for cell in row]
            if len(cells) not in (0, len(header)):
                raise DataError(
                    f"{path}, line {line}: {len(cells)} columns under a header of {len(header)}; "
                    "put a caption with commas in double quotes"
                )
            if cells and cells[caption].strip().lower() in ("nan", "null"):
                raise DataError(f"{path}, line {line}: the caption is missing ({cells[caption]}); write or delete it")
            if cells:
                gathered.add(
                    line,
                    cells[image].strip(),
                    cells[caption],
                    None if which is None else cells[which].strip(),
                    None if split is None else check_name(cells[split].strip(), f"{path}, line {line}, 'split'"),
                )
            line = rows.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {line}: broken CSV ({error}); close every double quote, double those within"
        ) from None
    return gathered.annotations("CSV")


def _header(line: str) -> list[str]:
    return [name.strip().strip('"').lower() for name in line.split(",")]


def _column(header: list[str], names: tuple[str, ...]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)
