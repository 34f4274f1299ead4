"""Which images the page shows: those that gained and lost most between two runs, the best, the worst, the first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlcap.metrics import LOWER_IS_BETTER
from rlcap.report.reading import Column, Scored


@dataclass(frozen=True)
class Group:
    """Some images and why they are shown."""

    title: str
    images: list[str]


def common_images(scored: Sequence[Scored]) -> list[str]:
    """Those that all evaluations captioned, in the order of the first."""
    if not scored:
        return []
    return [image for image in scored[0].images if all(image in other.place for other in scored[1:])]


def key_metric(columns: Sequence[Column], scored: Sequence[Scored]) -> str | None:
    """The score of a caption: what chose the checkpoint if it says something of single images, or else CIDEr-D."""
    shared = [key for key in scored[0].per_image if all(key in other.per_image for other in scored)] if scored else []
    wanted = [columns[-1].metric, "cider_d", *shared]
    return next((key for key in wanted if key in shared), None)


def groups(
    columns: Sequence[Column],
    scored: Sequence[Scored],
    images: Sequence[str],
    metric: str | None,
    name: str,
    each: int,
) -> list[Group]:
    """Of these images up to `each` a group, and no more than half of all; `name` is the metric's for people."""
    ranked: list[tuple[str, Sequence[int]]] = []
    if metric is not None and images:
        sign = -1 if metric in LOWER_IS_BETTER else 1
        tables = [sign * other.per_image[metric][[other.place[image] for image in images]] for other in scored]
        if len(tables) > 1:
            rise = tables[-1] - tables[0]
            first, last = columns[0].label, columns[-1].label
            order = np.argsort(-rise, kind="stable").tolist()
            ranked.append((f"Gained most in {name}, from {first} to {last}", [at for at in order if rise[at] > 0]))
            ranked.append((f"Lost most in {name}, from {first} to {last}", [at for at in order[::-1] if rise[at] < 0]))
        by = f" of {columns[-1].label}" if len(columns) > 1 else ""
        order = np.argsort(-tables[-1], kind="stable").tolist()
        ranked += [(f"Best{by}, by {name}", order), (f"Worst{by}, by {name}", order[::-1])]
    ranked.append(("Not chosen: the first of the split", range(len(images))))
    most = min(each, -(-len(images) // 2))
    return [Group(title, [images[at] for at in order[:most]]) for title, order in ranked if len(order)]
