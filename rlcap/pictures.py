"""Pictures of what a captioner does: where it looks at each word, and sheets of images with their captions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from rlcap.decoding.decode import Hypothesis
from rlcap.errors import ConfigError
from rlcap.files import atomic_path
from rlcap.sheets import ACCENT, FAINT, INK, TITLE_SIZE, Line, even, sheet, stacked

FRAME = (255, 176, 0)  # around what is looked at
HALF = 0.5  # of a word's largest weight: what has more is framed
THICK, THIN = 4, 1  # pixels of the heaviest region's frame and of the others'
DOT = 4  # pixels, the radius of what marks the heaviest cell
EVEN = 0.01  # of the largest weight: cells that differ by less have no heaviest
UNSEEN = 0.22  # the brightness of what gets no attention
GLOW = 0.4  # the white that the light adds to a black picture
TILE = 208  # pixels, the longer side
ROW_OF_TILES = 6
EXTENSIONS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".pdf": "PDF"}


@dataclass(frozen=True)
class Picture:
    """An image on its way through a run: as a person sees it, and its captions."""

    image: Image.Image
    captions: list[Hypothesis]  # best first
    grid: tuple[int, int] | None  # of the attention, if it lies on one
    boxes: NDArray[Any] | None  # (R, 4) of the regions, if they have boxes
    resize: str  # how the encoder saw the image


def has_places(picture: Picture) -> bool:
    """Whether what the policy looked at lies anywhere in the image."""
    look = picture.captions[0].attention
    if look is None:
        return False
    cells = 0 if picture.grid is None else picture.grid[0] * picture.grid[1]
    regions: int = look.shape[1]
    return regions == (cells if picture.boxes is None else len(picture.boxes))


def illustrated(picture: Picture, *, name: str = "", tile: int = TILE, columns: int | None = None) -> Image.Image:
    """The best caption word by word; only the image and the caption where the policy looks at no place."""
    best = picture.captions[0]
    if columns is None and not has_places(picture):
        return contact_sheet([picture.image], [best.text], tile=tile, columns=1)
    return attention_picture(
        picture.image,
        best.words,
        best.attention if has_places(picture) else None,
        grid=picture.grid,
        boxes=picture.boxes,
        resize=picture.resize,
        name=name,
        tile=tile,
        columns=columns,
    )


def side_by_side(pictures: Mapping[str, Picture], *, tile: int = TILE, most: int = ROW_OF_TILES) -> Image.Image:
    """One image through several runs, by their names: the same column is the same word of each caption."""
    longest = max(len(picture.captions[0].words) for picture in pictures.values())
    columns = even(1 + longest, most)
    parts = [illustrated(picture, name=name, tile=tile, columns=columns) for name, picture in pictures.items()]
    return stacked(parts)


def attention_picture(
    image: Image.Image | NDArray[np.uint8],
    words: Sequence[str],
    attention: ArrayLike | None,  # (T, R) weights; rows beyond the words, such as the end token's, are left out
    *,
    grid: tuple[int, int] | None = None,  # (h, w), with h·w = R
    boxes: ArrayLike | None = None,  # (R, 4): left, top, right, bottom as shares of the image
    resize: str = "squash",  # how the encoder saw the image: "crop" shows the centre square only
    title: str | None = None,  # None: the caption
    name: str = "",  # of the run
    tile: int = TILE,
    columns: int | None = None,  # None: six at most, in even rows
) -> Image.Image:
    """The image, and once more for each word: bright where the captioner looks (as in Xu et al. 2015).

    Brightness is the weight as a share of the word's largest, so a tile that is bright all over has no focus. What
    has more than half of that weight is framed: light alone is hard to tell on a photo that is itself dark in places.
    """
    tiles = [_tile(image, tile, centre=resize == "crop")]
    if attention is not None:
        weights = np.asarray(attention, dtype=np.float32)
        _check(weights, len(words), grid, boxes)
        for row in weights[: len(words)]:
            row = row / max(float(row.max()), 1e-12)
            if boxes is not None:
                tiles.append(_boxes_lit(tiles[0], row, np.asarray(boxes, dtype=np.float32)))
            else:
                tiles.append(_cells_lit(tiles[0], row.reshape(grid)))
    labels = [[Line(word, centred=True)] for word in ("", *words)][: len(tiles)]
    heading = [Line(name, ACCENT)] if name else []
    if title != "":
        heading.append(Line(title or " ".join(words) or "(nothing)", size=TITLE_SIZE))
    return sheet(tiles, labels, heading, columns or even(len(tiles), ROW_OF_TILES), text_above=True)


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
        lines += [Line(reference.removesuffix(" ."), FAINT, bold=False) for reference in heard]
        texts.append(lines)
    tiles = [_on_square(_tile(image, tile), tile) for image in images]
    heading = [Line(title, size=TITLE_SIZE)] if title else []
    return sheet(tiles, texts, heading, even(len(tiles), columns), text_above=False)


def check_format(target: str | Path) -> str:
    """The format that a picture's name asks for."""
    kind = EXTENSIONS.get(Path(target).suffix.lower())
    if kind is None:
        raise ConfigError(f"{target}: pictures are written as .png, .jpg, .webp or .pdf; choose one of these")
    return kind


def save_picture(picture: Image.Image, target: str | Path) -> None:
    """In the format that the name asks for, whole or not at all."""
    kind = check_format(target)
    with atomic_path(target) as part:
        picture.save(part, format=kind, quality=90)


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


def _lit(picture: Image.Image, light: NDArray[np.float32]) -> NDArray[Any]:
    """Dark and nearly gray where `light` (height, width) is 0, in full colour where it is 1.

    On a photo that is itself dark, the light also glows: otherwise black would look the same everywhere.
    """
    colour = np.asarray(picture, dtype=np.float32)
    gray = np.asarray(picture.convert("L"), dtype=np.float32)[..., None]
    dark = UNSEEN * (0.7 * gray + 0.3 * colour)
    bright = colour + GLOW * (1 - gray.mean() / 255) ** 2 * (255 - colour)
    lit: NDArray[Any] = dark + light[..., None] * (bright - dark)
    return lit


def _cells_lit(picture: Image.Image, cells: NDArray[np.float32]) -> Image.Image:
    """(h, w) in [0, 1], smoothed: the edges of the cells mean nothing. A line runs where the light is half, a dot
    stands on the heaviest cell: it is all that hard attention sees.
    """
    light = np.asarray(Image.fromarray(cells).resize(picture.size, Image.Resampling.BICUBIC)).clip(0, 1)
    slope = np.hypot(*np.gradient(light)) if min(light.shape) > 1 else np.zeros_like(light)
    pixels_away = np.abs(light - HALF) / np.maximum(slope, 1e-6)
    line = (1.6 - pixels_away).clip(0, 1)[..., None]  # two pixels and a soft edge
    lit = _lit(picture, light)
    drawn = Image.fromarray((lit + line * (np.array(FRAME) - lit)).astype(np.uint8))
    if np.ptp(cells) > EVEN:
        middle = (np.argwhere(cells == cells.max())[0] + 0.5) / cells.shape * light.shape
        middle = middle.clip(DOT, np.maximum(DOT, np.array(light.shape) - 1 - DOT))  # whole, also in a cell at the edge
        (top, left), (bottom, right) = middle - DOT, middle + DOT
        ImageDraw.Draw(drawn).ellipse((left, top, right, bottom), fill=FRAME, outline=INK)
    return drawn


def _boxes_lit(picture: Image.Image, row: NDArray[np.float32], boxes: NDArray[np.float32]) -> Image.Image:
    """Each region as bright as its weight, the heavy ones framed, the heaviest thickly and on top."""
    light = np.zeros((picture.height, picture.width), dtype=np.float32)
    corners = np.rint(boxes * np.tile(picture.size, 2)).astype(int)
    order = np.argsort(row)
    for at in order:
        left, top, right, bottom = corners[at]
        window = light[top:bottom, left:right]
        np.maximum(window, row[at], out=window)
    lit = Image.fromarray(_lit(picture, light).astype(np.uint8))
    pen = ImageDraw.Draw(lit)
    for at in order:
        if row[at] > HALF:
            left, top, right, bottom = (int(edge) for edge in corners[at])
            outline = (left, top, max(left, right - 1), max(top, bottom - 1))
            pen.rectangle(outline, outline=FRAME, width=THICK if at == order[-1] else THIN)
    return lit
