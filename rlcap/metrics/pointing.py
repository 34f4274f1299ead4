"""The pointing game: does attention look where the word is? (Zhang et al. 2016, arxiv.org/abs/1608.00507)

Attention lies on a grid of cells. A cell is part of an object if its centre is in the object's box; a box so
small that it holds no centre has the one cell under its own centre. A word that names several objects has the
cells of all. A uniform gaze hits, and spreads its mass, in proportion to their number: that is chance.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]  # left, top, right, bottom as shares of the image


@dataclass(frozen=True)
class Pointing:
    """Means over the words that name an object; all 0 if there is no such word."""

    words: int
    accuracy: float  # how often the cell that is looked at most is the object's
    mass: float  # the share of attention on the object's cells
    chance: float  # what both would be for a uniform gaze

    @staticmethod
    def total(parts: Iterable["Pointing"]) -> "Pointing":
        """Over the words of many captions."""
        sums = np.zeros(4)
        for part in parts:
            sums += (part.words, *(part.words * np.array([part.accuracy, part.mass, part.chance])))
        words = int(sums[0])
        accuracy, mass, chance = (sums[1:] / max(1, words)).tolist()
        return Pointing(words, accuracy, mass, chance)


def pointing(
    attention: NDArray[np.floating],  # (T, R), of each word; R = h·w cells, row by row
    mentions: Iterable[tuple[int, int]],  # (word, object): which word names which object
    boxes: Sequence[Box],  # of the objects
    grid: tuple[int, int],  # (h, w)
) -> Pointing:
    """One caption's words. Where several cells are looked at most, the hit is shared among them."""
    if attention.ndim != 2 or attention.shape[1] != grid[0] * grid[1]:
        raise ValueError(f"attention of shape {attention.shape} does not lie on a grid of {grid[0]} x {grid[1]} cells")
    cells: dict[int, NDArray[np.bool_]] = defaultdict(lambda: np.zeros(grid[0] * grid[1], bool))
    for word, thing in mentions:
        cells[word] = cells[word] | cells_of(boxes[thing], grid)
    parts = []
    for word, inside in cells.items():
        look = attention[word].astype(np.float64)
        most_looked_at = look == look.max()
        total = look.sum()
        parts.append(
            Pointing(
                words=1,
                accuracy=float(inside[most_looked_at].mean()),
                mass=float(look[inside].sum() / total) if total > 0 else 0.0,
                chance=float(inside.mean()),
            )
        )
    return Pointing.total(parts)


def movement(attention: NDArray[np.floating]) -> NDArray[np.float64]:
    """(T, R), distributions over regions -> (T - 1,): how much goes elsewhere with each word (total variation)."""
    moved: NDArray[np.float64] = np.abs(np.diff(attention.astype(np.float64), axis=0)).sum(-1) / 2
    return moved


def cells_of(box: Box, grid: tuple[int, int]) -> NDArray[np.bool_]:
    """(h·w,): the cells of a box, at least one."""
    height, width = grid
    left, top, right, bottom = box
    x = (np.arange(width) + 0.5) / width
    y = (np.arange(height) + 0.5) / height
    inside = ((top <= y) & (y <= bottom))[:, None] & ((left <= x) & (x <= right))[None]
    if not inside.any():
        row = min(int((top + bottom) / 2 * height), height - 1)
        column = min(int((left + right) / 2 * width), width - 1)
        inside[row, column] = True
    return inside.ravel()
