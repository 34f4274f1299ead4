"""What an environment shows of itself: a line of text, or the picture with the words below it."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rlcap.errors import ConfigError

MODES = ("ansi", "rgb_array")
SIDE, BAND = 256, 64  # pixels: the square of the picture, and the strip of words below
UNSEEN = 0.25  # the brightness of what gets no attention
PAPER, INK, NOTHING = (255, 255, 255), (32, 33, 36), (225, 227, 229)
TYPE = 15  # pixels


def check_mode(mode: str | None) -> str | None:
    if mode not in (None, *MODES):
        raise ConfigError(f"render_mode={mode!r}: captions are not shown so; give one of {', '.join(MODES)}, or None")
    return mode


def check_weights(attention: Any, shape: tuple[int, ...]) -> None:  # what numpy makes an array of, a tensor, or None
    if attention is not None and tuple(np.shape(attention)) != shape:
        raise ConfigError(f"attention of shape {tuple(np.shape(attention))}: give {shape}, a weight a region")


def line_of(name: int | str, step: int, length: int, text: str) -> str:
    return f"{name} [{step}/{length}] {text}".rstrip()


def frame_of(
    picture: Image.Image | None,
    text: str,
    attention: NDArray[np.float32] | None = None,  # (R,) weights
    grid: tuple[int, int] | None = None,  # (h, w), with h·w = R
    boxes: NDArray[np.float32] | None = None,  # (R, 4) left, top, right, bottom as shares of the picture
) -> NDArray[np.uint8]:
    """(320, 256, 3): the picture as a square, bright where the attention is; the words so far.

    Regions that are neither a grid nor boxes lie nowhere, and leave the picture as it is.
    """
    frame = Image.new("RGB", (SIDE, SIDE + BAND), PAPER)
    shown = Image.new("RGB", (SIDE, SIDE), NOTHING) if picture is None else picture.convert("RGB").resize((SIDE, SIDE))
    if attention is not None and (grid is not None or boxes is not None):
        light = _light(attention, grid, boxes)[..., None]
        shown = Image.fromarray((np.asarray(shown) * (UNSEEN + (1 - UNSEEN) * light)).astype(np.uint8))
    frame.paste(shown, (0, 0))
    pen, font = ImageDraw.Draw(frame), _font()
    for at, line in enumerate(_lines(text, font)[-3:]):  # the latest words, where they do not all fit
        pen.text((6, SIDE + 4 + at * round(TYPE * 1.25)), line, INK, font)
    return np.array(frame)


def _light(
    weights: NDArray[np.float32], grid: tuple[int, int] | None, boxes: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """(SIDE, SIDE), 1 where the attention is highest; where boxes overlap, the brighter one is seen."""
    if not (weights >= 0).all() or not np.isfinite(weights).all():
        raise ConfigError(f"attention from {weights.min()} to {weights.max()}: give finite weights, none below 0")
    share = weights / max(float(weights.max()), 1e-12)
    if grid is not None:
        return np.asarray(Image.fromarray(share.reshape(grid)).resize((SIDE, SIDE), Image.Resampling.BOX))
    light = np.zeros((SIDE, SIDE), np.float32)
    for part, box in zip(share, boxes if boxes is not None else (), strict=True):
        left, top, right, bottom = (box * SIDE).round().astype(int)
        light[top:bottom, left:right] = np.maximum(light[top:bottom, left:right], part)
    return light


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
