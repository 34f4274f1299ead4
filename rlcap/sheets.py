"""Tiles and text laid out on paper.

Drawn with Pillow alone, in the type that matplotlib brings along (it covers Latin, Greek and Cyrillic).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, FAINT, ACCENT = (255, 255, 255), (32, 33, 36), (105, 109, 115), (0, 112, 96)
MARGIN, GAP = 24, 14  # pixels, around everything and between tiles
WORD_SIZE, TITLE_SIZE = 17, 24  # pixels of type
AIR = 5  # pixels below a paragraph


@dataclass(frozen=True, slots=True)
class Line:
    """Something to be written, on as many lines as it takes."""

    text: str
    colour: tuple[int, int, int] = INK
    bold: bool = True
    size: int = WORD_SIZE
    centred: bool = False


def even(tiles: int, most: int) -> int:
    """Columns, `most` at most, that leave rows of about one length: 8 tiles make 4 + 4 rather than 6 + 2."""
    return -(-tiles // -(-tiles // most))


def sheet(
    tiles: Sequence[Image.Image],
    texts: Sequence[Sequence[Line]],
    heading: Sequence[Line],
    columns: int,
    *,
    text_above: bool,
) -> Image.Image:
    """Tiles of one size in rows, each with its text, under a heading."""
    rows = -(-len(tiles) // columns)
    wide, high = tiles[0].size
    width = 2 * MARGIN + columns * wide + (columns - 1) * GAP
    head, top = _typeset(heading, width - 2 * MARGIN)
    top += MARGIN + (GAP if heading else 0)
    typeset = [_typeset(lines, wide) for lines in texts]
    room = [max(height for _, height in typeset[row * columns : (row + 1) * columns]) for row in range(rows)]
    between = GAP if text_above else 2 * GAP
    paper = Image.new("RGB", (width, top + sum(room) + rows * (high + between) - between + MARGIN), PAPER)
    pen = ImageDraw.Draw(paper)
    _write(pen, head, MARGIN, MARGIN)
    for at, (tile, (lines, height)) in enumerate(zip(tiles, typeset, strict=True)):
        row, column = divmod(at, columns)
        x, y = MARGIN + column * (wide + GAP), top + sum(room[:row]) + row * (high + between)
        paper.paste(tile, (x, y + room[row] if text_above else y))
        # Above, the text stands on its tile; below, it hangs from it.
        _write(pen, lines, x, y + (room[row] - height if text_above else high + AIR))
    return paper


def stacked(sheets: Sequence[Image.Image]) -> Image.Image:
    """One below the other, with a single margin between."""
    width = max(part.width for part in sheets)
    height = sum(part.height - MARGIN for part in sheets) + MARGIN
    paper, down = Image.new("RGB", (width, height), PAPER), 0
    for part in sheets:
        paper.paste(part, (0, down))
        down += part.height - MARGIN
    return paper


def _typeset(lines: Sequence[Line], width: int) -> tuple[list[tuple[float, int, Line]], int]:
    """Broken to `width`: (x, y) of each piece, and the height of all."""
    pieces: list[tuple[float, int, Line]] = []
    down = 0
    for line in lines:
        font = _font(line.bold, line.size)
        for part in _wrapped(line.text, font, width):
            x = (width - font.getlength(part)) / 2 if line.centred else 0
            pieces.append((x, down, replace(line, text=part)))
            down += round(line.size * 1.35)
        down += AIR
    return pieces, down


def _write(pen: ImageDraw.ImageDraw, pieces: Sequence[tuple[float, int, Line]], left: int, top: int) -> None:
    for x, y, line in pieces:
        pen.text((left + x, top + y), line.text, line.colour, _font(line.bold, line.size))


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Lines no wider than `width`; a word that is wider by itself is broken."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        while len(word) > 1 and font.getlength(word) > width:
            fits = next(end for end in range(len(word) - 1, 0, -1) if end == 1 or font.getlength(word[:end]) <= width)
            lines.append(word[:fits])
            word = word[fits:]
        lines.append(word)
    return lines


@cache
def _font(bold: bool, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
