"""Draws made-up scenes: eight shapes in eleven colours on a pale, slightly noisy ground."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIZE = 64  # pixels a side
FINE = 8  # stencils are drawn this many times larger, then averaged: smooth edges

COLOURS = {
    "red": (214, 40, 40),
    "green": (40, 160, 70),
    "blue": (35, 95, 220),
    "yellow": (250, 205, 20),
    "orange": (245, 125, 10),
    "purple": (125, 50, 190),
    "pink": (250, 130, 185),
    "black": (30, 30, 34),
    "brown": (120, 75, 45),
    "gray": (125, 128, 135),
    "turquoise": (40, 190, 190),
}
PLAIN_COLOURS = tuple(COLOURS)[:8]  # those that nobody confuses
SIMILAR = {
    "red": ("pink", "orange", "brown"),
    "green": ("turquoise", "yellow"),
    "blue": ("purple", "turquoise"),
    "yellow": ("orange", "green"),
    "orange": ("yellow", "red", "brown"),
    "purple": ("blue", "pink"),
    "pink": ("red", "purple"),
    "black": ("gray", "brown"),
    "brown": ("orange", "black", "red"),
    "gray": ("black", "brown"),
    "turquoise": ("blue", "green"),
}
GROUNDS = ((240, 238, 230), (228, 236, 244), (230, 241, 228), (245, 233, 228), (226, 226, 230))
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "diamond")


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape in the picture: centre and radius in pixels; no part of it is farther from the centre."""

    shape: str
    colour: str
    x: int
    y: int
    radius: int
    tilt: int = 0  # degrees


def draw(things: Sequence[Thing], generator: np.random.Generator, *, noise: int) -> NDArray[np.uint8]:
    """(3, 64, 64). Colours and ground vary a little between scenes; each pixel by up to `noise` levels."""
    shades = generator.integers(-8, 9, size=(len(things) + 1, 3))
    ground = GROUNDS[int(generator.integers(len(GROUNDS)))] + shades[-1]
    canvas = ground.astype(np.float32)[:, None, None] + noise * _light()
    for thing, shade in zip(things, shades, strict=False):
        cover = stencil(thing.shape, thing.radius, thing.tilt)
        top, left = thing.y - thing.radius, thing.x - thing.radius
        window = canvas[:, top : top + len(cover), left : left + len(cover)]
        window += cover * ((COLOURS[thing.colour] + shade).astype(np.float32)[:, None, None] - window)
    canvas += generator.integers(-noise, noise + 1, size=(SIZE, SIZE), dtype=np.int8)
    image: NDArray[np.uint8] = np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)
    return image


@cache
def _light() -> NDArray[np.float32]:
    """(64, 64): brighter at the top."""
    return np.broadcast_to(np.linspace(1.5, -1.5, SIZE, dtype=np.float32)[:, None], (SIZE, SIZE)).copy()


def box_of(thing: Thing) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what is drawn, as shares of the picture."""
    left, top, right, bottom = _extent(thing.shape, thing.radius, thing.tilt)
    x, y = thing.x - thing.radius, thing.y - thing.radius
    return ((x + left) / SIZE, (y + top) / SIZE, (x + right) / SIZE, (y + bottom) / SIZE)


@cache
def stencil(shape: str, radius: int, tilt: int) -> NDArray[np.float32]:
    """(2·radius + 1, 2·radius + 1): the share of each pixel that the shape covers."""
    side = 2 * radius + 1
    angle = np.deg2rad(tilt)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    fine = Image.new("L", (side * FINE, side * FINE))
    pen = ImageDraw.Draw(fine)
    for outline, ink in _outlines(shape):
        points = (outline @ turn * radius + side / 2) * FINE
        pen.polygon([(float(x), float(y)) for x, y in points], fill=ink)
    cover = np.asarray(fine.reduce(FINE), dtype=np.float32) / np.float32(255)
    cover.flags.writeable = False
    return cover


@cache
def _extent(shape: str, radius: int, tilt: int) -> tuple[int, int, int, int]:
    covered = stencil(shape, radius, tilt) > 0
    rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _outlines(shape: str) -> list[tuple[NDArray[np.float64], int]]:
    """Polygons within the unit circle (x to the right, y down), each with its ink: 255 paints, 0 cuts out."""
    match shape:
        case "circle":
            return [(_regular(64, 0.92), 255)]
        case "ring":
            return [(_regular(64, 0.97), 255), (_regular(64, 0.55), 0)]
        case "square":
            return [(_regular(4, 1.0, first=45), 255)]
        case "diamond":
            return [(_regular(4, 1.0) * (0.72, 1.0), 255)]
        case "triangle":
            return [(_regular(3, 1.0), 255)]
        case "star":
            points = _regular(10, 1.0)
            points[1::2] *= 0.42
            return [(points, 255)]
        case "cross":
            upright = np.array([(-0.3, -0.95), (0.3, -0.95), (0.3, 0.95), (-0.3, 0.95)])
            return [(upright, 255), (upright[:, ::-1], 255)]
        case "heart":
            t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
            y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
            return [(np.stack((16 * np.sin(t) ** 3, y - 2.5), -1) / 17, 255)]
    raise ValueError(f"no shape '{shape}'")


def _regular(corners: int, radius: float, first: float = 0) -> NDArray[np.float64]:
    """(corners, 2): a regular polygon; `first` degrees clockwise from the top stands its first corner."""
    angles = np.deg2rad(first) + np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return radius * np.stack((np.sin(angles), -np.cos(angles)), -1)
