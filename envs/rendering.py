"""What an environment shows of itself: a line of text, or the picture with the words below it."""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from rlcap.errors import ConfigError

SIDE, BAND = 256, 64  # pixels: the square of the picture, and the strip of words below
UNSEEN = 0.25  # the brightness of what gets no attention
PAPER, INK, NOTHING = (255, 255, 255), (32, 33, 36), (225, 227, 229)
TYPE = 15  # pixels


def line_of(name: int | str, step: int, length: int, text: str) -> str:
    return f"{name} [{step}/{length}] {text}".rstrip()


def frame_of(
    picture: Image.Image | None,
    text: str,
    attention: ArrayLike | None = None,  # (R,) weights
    grid: tuple[int, int] | None = None,  # (h, w), with h·w = R
) -> NDArray[np.uint8]:
    """(320, 256, 3): the picture as a square, bright where the attention is; the words so far."""
    frame = Image.new("RGB", (SIDE, SIDE + BAND), PAPER)
    shown = Image.new("RGB", (SIDE, SIDE), NOTHING) if picture is None else picture.convert("RGB").resize((SIDE, SIDE))
    if attention is not None:
        shown = _lit(shown, np.asarray(attention, np.float32), grid)
    frame.paste(shown, (0, 0))
    pen, font = ImageDraw.Draw(frame), _font()
    for at, line in enumerate(_lines(text, font)[-3:]):  # the latest words, where they do not all fit
        pen.text((6, SIDE + 4 + at * round(TYPE * 1.25)), line, INK, font)
    return np.array(frame)


def _lit(picture: Image.Image, weights: NDArray[np.float32], grid: tuple[int, int] | None) -> Image.Image:
    if grid is None or weights.size != grid[0] * grid[1]:
        raise ConfigError(f"attention of {weights.size} weights: the features' grid is {grid}; give a weight a cell")
    share = weights.reshape(grid) / max(float(weights.max()), 1e-12)
    light = np.asarray(Image.fromarray(share).resize(picture.size, Image.Resampling.BOX))[..., None]
    return Image.fromarray((np.asarray(picture) * (UNSEEN + (1 - UNSEEN) * light)).astype(np.uint8))


def _lines(text: str, font: ImageFont.FreeTypeFont) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= SIDE - 12:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


@cache
def _font() -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), TYPE)
