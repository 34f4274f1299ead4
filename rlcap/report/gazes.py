"""Where a policy looks, word by word: the picture once on the page, and over it for each word what it leaves dark.

The dark is a small picture of its own, a pixel a cell, which the browser smooths: the edges of the cells mean nothing.
A dot stands where the policy looks most.
"""

import io
from base64 import b64encode
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rlcap.goals import Steered
from rlcap.report.html import Html, join, tag
from rlcap.report.looking import Look

DARKEST = 0.75  # of black, over what gets no attention
EVEN = 0.01  # of the largest weight: cells that differ by less have no heaviest
OF_BOXES = 48  # cells a side, for regions that lie anywhere
DIRECTIONS = 8  # of goals: those in which they differ most
CELL, HIGH = 26, 7  # of the figure of goals, in pixels: a word's width, a direction's height
SIDE, BELOW = 62, 62  # room for its labels and for its words

Floats = NDArray[np.float64]
Basis = tuple[Floats, Floats]  # of goals: their mean (F,), and directions (K, F)


def data_uri(picture: Image.Image, kind: str = "JPEG") -> str:
    """A picture that needs no file."""
    written = io.BytesIO()
    picture.save(written, format=kind, quality=82, optimize=True)
    return f"data:image/{kind.lower()};base64,{b64encode(written.getvalue()).decode()}"


def definition(picture: Image.Image, name: str) -> Html:
    """The picture in SVG, to be used by its name."""
    kind = "PNG" if max(picture.size) <= 96 else "JPEG"
    return tag("image", id=name, href=data_uri(picture, kind), width=picture.width, height=picture.height)


def gazes(look: Look, name: str, size: tuple[int, int]) -> Html:
    """A tile for each word; `name` and `size` are of the picture's definition."""
    assert look.attention is not None
    width, height = size
    left = top = 0
    if look.centre:
        side = min(size)
        left, top, width, height = (size[0] - side) // 2, (size[1] - side) // 2, side, side
    tiles = []
    for word, weights in zip(look.words, look.attention, strict=True):
        light = light_of(weights, look)
        dark = np.zeros((*light.shape, 2), np.uint8)
        dark[..., 1] = np.rint(255 * DARKEST * (1 - light))
        place = {"x": left, "y": top, "width": width, "height": height}
        shade = tag("image", href=data_uri(Image.fromarray(dark, "LA"), "PNG"), preserveAspectRatio="none", **place)
        dot = None
        if np.ptp(light) > EVEN:
            down, across = (np.argwhere(light == light.max()).mean(0) + 0.5) / light.shape
            at = {"cx": f"{left + across * width:.1f}", "cy": f"{top + down * height:.1f}"}
            dot = tag("circle", **at, r=f"{min(width, height) / 22:.1f}", class_="dot")
        view = f"{left} {top} {width} {height}"
        told = f"{word}: looks {where_in_words(light)}"
        tile = tag("svg", tag("use", href=f"#{name}"), shade, dot, viewBox=view, role="img", aria_label=told)
        tiles.append(tag("li", tile, tag("span", word)))
    return tag("ol", *tiles, class_="gazes")


def light_of(weights: Floats, look: Look) -> Floats:
    """The weights as a share of the largest, (h, w) cells over what the policy sees."""
    shares: Floats = weights / max(float(weights.max()), 1e-12)
    if look.boxes is None:
        assert look.grid is not None
        return shares.reshape(look.grid)
    light = np.zeros((OF_BOXES, OF_BOXES))
    for share, box in zip(shares, np.rint(look.boxes * OF_BOXES).astype(int), strict=True):
        window = light[box[1] : max(box[3], box[1] + 1), box[0] : max(box[2], box[0] + 1)]
        np.maximum(window, share, out=window)
    return light


def where_in_words(light: Floats) -> str:
    """For those who do not see the picture."""
    if np.ptp(light) <= EVEN:
        return "everywhere alike"
    down, across = (np.argwhere(light == light.max()).mean(0) + 0.5) / light.shape
    rows = ("at the top", "in the middle", "at the bottom")[min(2, int(down * 3))]
    side = ("on the left", "", "on the right")[min(2, int(across * 3))]
    return f"{rows} {side}".rstrip() if side or rows != "in the middle" else "at the centre"


def directions(looks: list[Look]) -> Basis | None:
    """The mean of all goals, and the few directions in which they differ most."""
    every = [look.goals for look in looks if look.goals is not None and len(look.goals)]
    if not every:
        return None
    goals = np.concatenate(every)
    mean = goals.mean(0)
    return mean, np.linalg.svd(goals - mean, full_matrices=False)[2][:DIRECTIONS]


def goals(look: Look, basis: Basis) -> Html:
    """A caption's goals, a column a word, and how much goal and gaze change from word to word."""
    assert look.goals is not None
    mean, ways = basis
    shown = (look.goals - mean) @ ways.T
    size = max(float(np.abs(shown).max()), 1e-12)
    parts = [tag("text", "goal", x=0, y=HIGH * len(ways) / 2 + 4)]
    for at, column in enumerate(shown / size):
        for way, value in enumerate(column):
            place = {"x": SIDE + at * CELL, "y": way * HIGH, "width": CELL - 1, "height": HIGH - 1}
            kind = "more" if value > 0 else "less"
            parts.append(tag("rect", class_=kind, fill_opacity=f"{abs(value):.2f}", **place))
    low = HIGH * len(ways) + 44
    if look.attention is not None and len(look.words) > 1:
        changes = Steered(look.words, look.goals, look.attention).changes
        for kind, change, y in zip(("goal", "gaze"), changes.T, (low - 26, low - 12), strict=True):
            heights = low - 34 * change / max(float(change.max()), 1e-12)
            places = [f"{SIDE + (at + 1.5) * CELL - 0.5:.1f} {down:.1f}" for at, down in enumerate(heights)]
            parts.append(tag("path", d="M" + "L".join(places), class_=f"turn {kind}"))
            parts.append(tag("text", f"turn of {kind}", x=0, y=y, class_=kind))
    for at, word in enumerate(look.words):
        x, y = SIDE + (at + 0.5) * CELL, low + 14
        parts.append(tag("text", word, x=x, y=y, text_anchor="end", transform=f"rotate(-45 {x} {y})"))
    box = f"0 0 {SIDE + CELL * len(look.words) + 8} {low + BELOW}"
    told = f"Goals and their changes while saying: {' '.join(look.words)}"
    width = f"max-width:{SIDE + CELL * len(look.words) + 8}px"
    return tag("svg", *parts, viewBox=box, role="img", aria_label=told, class_="goals", style=width)


def definitions(pictures: Mapping[str, Image.Image], names: Mapping[str, str]) -> Html:
    """All pictures of the page, in SVG that is itself not shown."""
    inside = join(*(definition(picture, names[image]) for image, picture in pictures.items()))
    return tag("svg", tag("defs", inside), width=0, height=0, aria_hidden="true", class_="hidden")
