"""Pictures of what a captioner does: where it looks at each word, and sheets of images with their captions.

Drawn with Pillow alone, in the type that matplotlib brings along (it covers Latin, Greek and Cyrillic).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from rlcap.errors import ConfigError
from rlcap.files import atomic_path

PAPER, INK, FAINT, ACCENT = (255, 255, 255), (32, 33, 36), (105, 109, 115), (0, 112, 96)
FRAME = (255, 176, 0)  # of the boxes
MARGIN, GAP = 24, 14  # pixels, around everything and between tiles
UNSEEN = 0.22  # the brightness of what gets no attention
GLOW = 0.4  # the white that the light adds to a black picture
ROW_OF_TILES = 6

WORD_SIZE, TITLE_SIZE = 17, 24  # pixels of type
AIR = 5  # pixels below a paragraph


@dataclass(frozen=True, slots=True)
class Line:
    """Something to be written beside a tile, on as many lines as it takes."""

    text: str
    colour: tuple[int, int, int] = INK
    bold: bool = True
    size: int = WORD_SIZE
    centred: bool = False


def attention_picture(
    image: Image.Image | NDArray[np.uint8],
    words: Sequence[str],
    attention: ArrayLike,  # (T, R) weights; rows beyond the words, such as the end token's, are left out
    *,
    grid: tuple[int, int] | None = None,  # (h, w), with h·w = R
    boxes: ArrayLike | None = None,  # (R, 4): left, top, right, bottom as shares of the image
    resize: str = "squash",  # how the encoder saw the image: "crop" shows the centre square only
    title: str | None = None,  # None: the caption
    tile: int = 208,  # pixels, the longer side
    columns: int = ROW_OF_TILES,
) -> Image.Image:
    """The image, and once more for each word: bright where the captioner looks (as in Xu et al. 2015).

    Brightness is the weight as a share of the word's largest, so a tile that is bright all over has no focus.
    """
    weights = np.asarray(attention, dtype=np.float32)
    _check(weights, len(words), grid, boxes)
    picture = _tile(image, tile, centre=resize == "crop")
    tiles = [picture]
    for row in weights[: len(words)]:
        row = row / max(float(row.max()), 1e-12)
        if boxes is not None:
            tiles.append(_boxes_lit(picture, row, np.asarray(boxes, dtype=np.float32)))
        else:
            tiles.append(_lit(picture, _smooth(row.reshape(grid), picture.size)))
    labels = [[Line(word, centred=True)] for word in ("", *words)]
    return _sheet(tiles, labels, " ".join(words) if title is None else title, columns, text_above=True)


def contact_sheet(
    images: Sequence[Image.Image | NDArray[np.uint8]],
    captions: Sequence[str],
    references: Sequence[Sequence[str]] | None = None,
    scores: Sequence[float] | None = None,
    *,
    score_name: str = "CIDEr-D",
    title: str = "",
    shown: int = 2,  # references an image
    tile: int = 260,
    columns: int = 4,
) -> Image.Image:
    """Images with what was said of them: the caption, its score, and a few references in gray."""
    given = [images, captions, *(part for part in (references, scores) if part is not None)]
    if not images or len({len(part) for part in given}) > 1:
        raise ValueError("a contact sheet needs images, and for each a caption, its references, its score")
    texts = []
    for at, caption in enumerate(captions):
        lines = [Line(caption or "(nothing)")]
        if scores is not None:
            lines.append(Line(f"{score_name} {scores[at]:.2f}", ACCENT))
        heard = references[at][:shown] if references is not None else ()
        lines += [Line(reference, FAINT, bold=False) for reference in heard]
        texts.append(lines)
    tiles = [_on_square(_tile(image, tile), tile) for image in images]
    return _sheet(tiles, texts, title, columns, text_above=False)


def save_picture(picture: Image.Image, target: str | Path) -> None:
    """In the format that the name asks for, whole or not at all."""
    kind = Image.registered_extensions().get(Path(target).suffix.lower())
    if kind not in ("PNG", "JPEG", "WEBP", "PDF"):
        raise ConfigError(f"{target}: pictures are written as .png, .jpg, .webp or .pdf; choose one of these")
    with atomic_path(target) as part:
        picture.save(part, format=kind)


def _check(weights: NDArray[Any], words: int, grid: tuple[int, int] | None, boxes: ArrayLike | None) -> None:
    if weights.ndim != 2 or len(weights) < words:
        raise ValueError(f"attention of shape {weights.shape} does not go with {words} words")
    regions = weights.shape[1]
    if boxes is not None:
        if np.shape(boxes) != (regions, 4):
            raise ValueError(f"boxes of shape {np.shape(boxes)} do not go with {regions} regions")
    elif grid is None or grid[0] * grid[1] != regions:
        raise ValueError(f"{regions} regions need boxes, or a grid of as many cells, not {grid}")


def _tile(image: Image.Image | NDArray[np.uint8], longest: int, *, centre: bool = False) -> Image.Image:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
    picture = picture.convert("RGB")
    if centre:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
    share = longest / max(picture.size)
    size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
    return picture.resize(size, Image.Resampling.LANCZOS if share < 1 else Image.Resampling.BICUBIC)


def _on_square(picture: Image.Image, side: int) -> Image.Image:
    """On a pale square, so that wide and tall pictures make an even row."""
    square = Image.new("RGB", (side, side), (244, 245, 246))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def _smooth(cells: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """(h, w) in [0, 1] -> (height, width) in [0, 1] without the edges of the cells."""
    return np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)


def _lit(picture: Image.Image, light: NDArray[np.float32]) -> Image.Image:
    """Dark and nearly gray where `light` (height, width) is 0, in full colour where it is 1.

    On a photo that is itself dark, the light also glows: otherwise black would look the same everywhere.
    """
    colour = np.asarray(picture, dtype=np.float32)
    gray = np.asarray(picture.convert("L"), dtype=np.float32)[..., None]
    dark = UNSEEN * (0.7 * gray + 0.3 * colour)
    bright = colour + GLOW * (1 - gray.mean() / 255) ** 2 * (255 - colour)
    return Image.fromarray((dark + light[..., None] * (bright - dark)).astype(np.uint8))


def _boxes_lit(picture: Image.Image, row: NDArray[np.float32], boxes: NDArray[np.float32]) -> Image.Image:
    """Each region as bright as its weight, framed as strongly; the heaviest on top."""
    light = np.zeros((picture.height, picture.width), dtype=np.float32)
    corners = np.rint(boxes * np.tile(picture.size, 2)).astype(int)
    order = np.argsort(row)
    for at in order:
        left, top, right, bottom = corners[at]
        window = light[top:bottom, left:right]
        np.maximum(window, row[at], out=window)
    lit = _lit(picture, light).convert("RGBA")
    for at in order:
        if row[at] > 0.05:
            frames = Image.new("RGBA", lit.size)
            left, top, right, bottom = (int(edge) for edge in corners[at])
            ImageDraw.Draw(frames).rectangle(
                (left, top, max(left, right - 1), max(top, bottom - 1)),
                outline=(*FRAME, int(255 * row[at])),
                width=3,
            )
            lit.alpha_composite(frames)
    return lit.convert("RGB")


def _sheet(
    tiles: Sequence[Image.Image],
    texts: Sequence[Sequence[Line]],
    title: str,
    columns: int,
    *,
    text_above: bool,
) -> Image.Image:
    """Tiles of one size in even rows, each with its text, under a title."""
    rows = -(-len(tiles) // columns)
    columns = -(-len(tiles) // rows)
    wide, high = tiles[0].size
    width = 2 * MARGIN + columns * wide + (columns - 1) * GAP
    heading, top = _typeset([Line(title, size=TITLE_SIZE)] if title else [], width - 2 * MARGIN)
    top += MARGIN + (GAP if title else 0)
    typeset = [_typeset(lines, wide) for lines in texts]
    room = [max(height for _, height in typeset[row * columns : (row + 1) * columns]) for row in range(rows)]
    between = GAP if text_above else 2 * GAP
    sheet = Image.new("RGB", (width, top + sum(room) + rows * (high + between) - between + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    _write(pen, heading, MARGIN, MARGIN)
    for at, (tile, (lines, height)) in enumerate(zip(tiles, typeset, strict=True)):
        row, column = divmod(at, columns)
        x, y = MARGIN + column * (wide + GAP), top + sum(room[:row]) + row * (high + between)
        sheet.paste(tile, (x, y + room[row] if text_above else y))
        # Above, the text stands on its tile; below, it hangs from it.
        _write(pen, lines, x, y + (room[row] - height if text_above else high + AIR))
    return sheet


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
