"""Invents scenes: which things there are, where they stand, and what there is to say of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count as counting
from itertools import islice

import numpy as np

from rlcap.data.scene_drawing import COLOURS, PLAIN_COLOURS, SHAPES, SIMILAR, SIZE, Thing
from rlcap.data.scene_grammar import Dice, Group, Plot

RADII = {
    1: {"": (9, 14)},
    2: {"small": (6, 7), "": (9, 10), "big": (13, 14)},
    3: {"small": (5, 6), "": (7, 8)},
}
SPECK = 3  # the radius of what nobody mentions
GAP = 2  # pixels at least between things
CLEAR = 8  # pixels at least between the centres of what stands left and what stands right
CLEARER = 1.4  # times as far apart as along the other axis

Kind = tuple[str, str]  # shape and colour
Point = tuple[int, int]  # x and y, in pixels


@dataclass(frozen=True, slots=True)
class Sketch:
    """A scene before it is drawn and told."""

    things: tuple[Thing, ...]
    plot: Plot
    dice: Dice

    @property
    def content(self) -> str:
        """All that a caption could tell: two scenes of the same content are the same to a captioner."""
        kinds = [(group.size, group.colour, group.shape, len(group.members)) for group in self.plot.groups]
        first = sorted(kinds[at] for at in self.plot.first)
        return repr((sorted(kinds), self.plot.relation, first, self.plot.place))


def sketch(seed: int, index: int, difficulty: int) -> Sketch:
    dice = Dice(np.random.default_rng((seed, index)))
    groups = _cast(dice, difficulty)
    looks = [(group.shape, group.colour) for group in groups for _ in group.members]
    radii = [dice.whole(*RADII[difficulty][group.size]) for group in groups for _ in group.members]
    if difficulty == 3:
        specks = dice.whole(0, 2)
        looks += [_new_kind(dice, looks, tuple(COLOURS)) for _ in range(specks)]
        radii += [SPECK] * specks
    related = len(groups) > 1 and (difficulty == 2 or (difficulty == 3 and dice.chance(0.6)))
    centres, (relation, first) = _arranged(groups, radii, dice, related)
    if difficulty == 1:
        relation, first = "", frozenset()
    groups.sort(key=lambda group: (-radii[group.members[0]], centres[group.members[0]]))
    place = (centres[0][1] * 3 // SIZE, centres[0][0] * 3 // SIZE) if len(radii) == 1 else None
    plot = Plot(tuple(groups), relation, tuple(at for at, group in enumerate(groups) if group in first), place)
    tilts = (0,) if difficulty == 1 else (-10, -5, 0, 5, 10)
    things = tuple(
        Thing(shape, colour, x, y, radius, dice.pick(tilts))
        for (shape, colour), (x, y), radius in zip(looks, centres, radii, strict=True)
    )
    return Sketch(things, plot, dice)


def _cast(dice: Dice, difficulty: int) -> list[Group]:
    """Who plays: the kinds of things, their sizes and numbers."""
    if difficulty < 3:
        counts = [1] * dice.whole(difficulty, difficulty + 1)
        kinds = [_new_kind(dice, (), PLAIN_COLOURS)]
        while len(kinds) < len(counts):
            kinds.append(_new_kind(dice, kinds, PLAIN_COLOURS))
    else:
        shape, colour = _new_kind(dice, (), tuple(COLOURS))
        kinds = [(shape, colour)]
        alike = (shape, dice.pick(SIMILAR[colour]))
        kinds.append(alike if dice.chance(0.6) else _new_kind(dice, kinds, tuple(COLOURS)))
        if dice.chance(0.25):
            kinds.append(_new_kind(dice, kinds, tuple(COLOURS)))
        counts = [dice.whole(2, 4), *(dice.whole(1, 2) for _ in kinds[1:])]
    sizes = tuple(RADII[difficulty])
    groups, members = [], counting()
    for (shape, colour), many in zip(kinds, counts, strict=True):
        groups.append(Group(shape, colour, dice.pick(sizes), tuple(islice(members, many))))
    return groups


def _new_kind(dice: Dice, taken: Sequence[Kind], colours: Sequence[str]) -> Kind:
    while True:
        kind = (dice.pick(SHAPES), dice.pick(colours))
        if kind not in taken:
            return kind


def _arranged(
    groups: Sequence[Group], radii: Sequence[int], dice: Dice, related: bool
) -> tuple[list[Point], tuple[str, frozenset[Group]]]:
    """Centres, and the relation that they make; there is one for certain if the groups must be `related`."""
    while True:
        centres = _scattered(groups, radii, dice, related)
        if centres:
            relation = _relation(groups, centres)
            if relation[0] or not related:
                return centres, relation


def _scattered(groups: Sequence[Group], radii: Sequence[int], dice: Dice, apart: bool) -> list[Point]:
    """Centres of things that do not touch; with `apart`, one group on a side. Empty: no room."""
    axis, cut, low_side = dice.whole(0, 1), dice.whole(SIZE * 3 // 8, SIZE * 5 // 8), dice.chance(0.5)
    loner, crowd = dice.pick(groups).members, sum(len(group.members) for group in groups)
    centres: list[Point] = []
    for at, radius in enumerate(radii):
        low, high = [radius, radius], [SIZE - 1 - radius, SIZE - 1 - radius]
        if apart and at < crowd:
            if (at in loner) == low_side:
                high[axis] = max(low[axis], cut - CLEAR // 2)
            else:
                low[axis] = min(high[axis], cut + CLEAR // 2)
        for _ in range(20):
            x, y = dice.whole(low[0], high[0]), dice.whole(low[1], high[1])
            before = zip(centres, radii, strict=False)
            if all((x - u) ** 2 + (y - v) ** 2 > (radius + other + GAP) ** 2 for (u, v), other in before):
                centres.append((x, y))
                break
        else:
            return []
    return centres


def _relation(groups: Sequence[Group], centres: Sequence[Point]) -> tuple[str, frozenset[Group]]:
    """Which groups stand left of, or above, all others; ("", none) where no such thing is plain to see."""
    everyone = frozenset(groups)
    found: list[tuple[int, str, frozenset[Group]]] = []
    for axis, name in enumerate(("left", "above")):
        spans = {
            group: (
                min(centres[at][axis] for at in group.members),
                max(centres[at][axis] for at in group.members),
            )
            for group in groups
        }
        for one in groups if len(groups) > 1 else ():
            rest = everyone - {one}
            found.append((min(spans[group][0] for group in rest) - spans[one][1], name, frozenset({one})))
            found.append((spans[one][0] - max(spans[group][1] for group in rest), name, rest))
    if not found:
        return "", frozenset()
    gap, name, first = max(found, key=lambda split: split[0])
    across = max(other for other, other_name, _ in found if other_name != name)
    return (name, first) if gap >= CLEAR and gap >= CLEARER * across else ("", frozenset())
