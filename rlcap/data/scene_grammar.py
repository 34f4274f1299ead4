"""What people might say of a made-up scene: a small grammar with synonyms, orders, relations and counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Option = TypeVar("Option")
Word = tuple[str, tuple[int, ...]]  # a word, perhaps with a comma, and the things that it names
Phrase = list[Word]
Weighted = Sequence[tuple[str, float]]  # options and their shares, which sum to 1

SHORTEST, LONGEST = 4, 14  # words of a caption

NOUNS: dict[str, Weighted] = {
    "circle": (("circle", 0.7), ("ball", 0.2), ("disc", 0.1)),
    "square": (("square", 0.75), ("box", 0.25)),
    "triangle": (("triangle", 1.0),),
    "star": (("star", 1.0),),
    "cross": (("cross", 1.0),),
    "ring": (("ring", 0.85), ("hoop", 0.15)),
    "heart": (("heart", 1.0),),
    "diamond": (("diamond", 0.85), ("rhombus", 0.15)),
}
PLURALS = {"box": "boxes", "cross": "crosses", "rhombus": "rhombuses"}
SIZES: dict[str, Weighted] = {
    "small": (("small", 0.65), ("little", 0.2), ("tiny", 0.15)),
    "big": (("big", 0.65), ("large", 0.35)),
}
HUES: dict[str, Weighted] = {
    "purple": (("purple", 0.85), ("violet", 0.15)),
    "gray": (("gray", 0.8), ("grey", 0.2)),
}
COUNTS = {2: "two", 3: "three", 4: "four"}
OPPOSITES = {"left": "right", "right": "left", "above": "below", "below": "above"}
RELATIONS: dict[str, Weighted] = {
    "left": (("left of", 0.35), ("to the left of", 0.5), ("on the left of", 0.15)),
    "right": (("right of", 0.15), ("to the right of", 0.7), ("on the right of", 0.15)),
    "above": (("above", 0.8), ("over", 0.2)),
    "below": (("below", 0.65), ("under", 0.25), ("beneath", 0.1)),
}
VERBS: Weighted = (("is", 0.7), ("sits", 0.2), ("lies", 0.1))
MANY_VERBS = {"is": "are", "sits": "sit", "lies": "lie"}
BESIDE: Weighted = (("next to", 0.5), ("beside", 0.2), ("near", 0.2), ("close to", 0.1))
PLACES: dict[tuple[int, int], Weighted] = {  # (row, column) of a 3x3 division of the picture
    (0, 0): (("in the top left corner", 0.6), ("at the top left", 0.4)),
    (0, 1): (("at the top", 1.0),),
    (0, 2): (("in the top right corner", 0.6), ("at the top right", 0.4)),
    (1, 0): (("on the left", 0.6), ("on the left side", 0.4)),
    (1, 1): (("in the middle", 0.7), ("in the center", 0.3)),
    (1, 2): (("on the right", 0.6), ("on the right side", 0.4)),
    (2, 0): (("in the bottom left corner", 0.6), ("at the bottom left", 0.4)),
    (2, 1): (("at the bottom", 1.0),),
    (2, 2): (("in the bottom right corner", 0.6), ("at the bottom right", 0.4)),
}
FRAMES: Weighted = (
    ("", 0.5),
    ("there is", 0.2),
    ("a picture of", 0.12),
    ("an image of", 0.06),
    ("a drawing of", 0.04),
    ("the picture shows", 0.04),
    ("we can see", 0.04),
)


class Dice:
    """Quick small decisions out of one numpy generator, which is slow when asked for one number at a time."""

    def __init__(self, generator: np.random.Generator):
        self.generator = generator
        self._numbers: list[float] = []

    def number(self) -> float:
        """In [0, 1)."""
        if not self._numbers:
            self._numbers = self.generator.random(128).tolist()
        return self._numbers.pop()

    def chance(self, share: float) -> bool:
        return self.number() < share

    def whole(self, low: int, high: int) -> int:
        """Between `low` and `high`, both included."""
        return low + int(self.number() * (high - low + 1))

    def pick(self, options: Sequence[Option]) -> Option:
        return options[int(self.number() * len(options))]

    def say(self, options: Weighted) -> str:
        left = self.number()
        for option, share in options:
            left -= share
            if left < 0:
                return option
        return options[-1][0]


@dataclass(frozen=True, slots=True, eq=False)  # two groups are never the same, however alike
class Group:
    """Things of one kind: `size` is "small", "" or "big"; `members` are their numbers in the scene."""

    shape: str
    colour: str
    size: str
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plot:
    """What there is to say. Groups stand in the order in which they catch the eye."""

    groups: tuple[Group, ...]
    relation: str = ""  # of the groups of `first` to all others: "left" or "above", or "" where nothing is clear
    first: tuple[int, ...] = ()
    place: tuple[int, int] | None = None  # of a single thing: row and column of a 3x3 division


def captions(plot: Plot, dice: Dice, count: int = 5) -> list[tuple[str, tuple[tuple[int, int], ...]]]:
    """`count` different captions, each with its mentions: (word, thing) pairs."""
    said: dict[str, tuple[tuple[int, int], ...]] = {}
    while len(said) < count:
        words = _sentence(plot, dice)
        if SHORTEST <= len(words) <= LONGEST:
            text = " ".join(word for word, _ in words)
            mentions = tuple((at, thing) for at, (_, things) in enumerate(words) for thing in things)
            said.setdefault(f"{text[0].upper()}{text[1:]}.", mentions)
    return list(said.items())


def _sentence(plot: Plot, dice: Dice) -> Phrase:
    groups = list(plot.groups)
    if len(groups) == 1:
        return _single(plot, dice)
    if plot.relation and dice.chance(0.8):
        return _related(plot, dice)
    if dice.chance(0.25):
        groups.reverse()
    phrases = [_noun_phrase(group, dice) for group in groups]
    if len(groups) == 2 and dice.chance(0.35):
        body = phrases[0] + _words(dice.say(BESIDE)) + phrases[1]
    elif dice.chance(0.15):
        body = phrases[0] + _words("with") + _listed(phrases[1:])
    else:
        body = _listed(phrases)
        single = all(len(group.members) == 1 for group in groups)
        if plot.relation == "left" and len(groups) == 2 and single and dice.chance(0.25):
            body += _words("side by side")
    return _framed(body, dice)


def _single(plot: Plot, dice: Dice) -> Phrase:
    group = plot.groups[0]
    body = _noun_phrase(group, dice)
    if plot.place is None or dice.chance(0.2):
        return _framed(body, dice)
    place = _words(dice.say(PLACES[plot.place]))
    if dice.chance(0.2):
        return [*body, (dice.say(VERBS), ()), *place]
    if dice.chance(0.1):
        return [*place, *_words("there is"), *body]
    return _framed(body + place, dice)


def _related(plot: Plot, dice: Dice) -> Phrase:
    """The left or upper side first, as people read; sometimes the other way round."""
    front = [group for at, group in enumerate(plot.groups) if at in plot.first]
    back = [group for at, group in enumerate(plot.groups) if at not in plot.first]
    relation = plot.relation
    if dice.chance(0.25):
        front, back, relation = back, front, OPPOSITES[relation]
    subject = _listed([_noun_phrase(group, dice) for group in front])
    target = _listed([_noun_phrase(group, dice) for group in back])
    link = _words(dice.say(RELATIONS[relation])) + target
    if dice.chance(0.3):
        verb = dice.say(VERBS)
        many = len(front) > 1 or len(front[0].members) > 1
        return [*subject, (MANY_VERBS[verb] if many else verb, ()), *link]
    return _framed(subject + link, dice)


def _framed(body: Phrase, dice: Dice) -> Phrase:
    frame = dice.say(FRAMES)
    if frame == "there is" and body[0][0] in COUNTS.values():
        frame = "there are"
    return _words(frame) + body


def _noun_phrase(group: Group, dice: Dice) -> Phrase:
    """ "a small red ball", "three boxes": the noun names the things."""
    many = len(group.members)
    words = [dice.say(HUES[group.colour]) if group.colour in HUES else group.colour]
    if group.size and dice.chance(0.75):
        words.insert(0, dice.say(SIZES[group.size]))
    noun = dice.say(NOUNS[group.shape])
    if many == 1:
        words.insert(0, "an" if words[0][0] in "aeiou" else "a")
    else:
        noun = PLURALS.get(noun, noun + "s")
        words[:0] = ["a", "pair", "of"] if many == 2 and dice.chance(0.15) else [COUNTS[many]]
    return [*((word, ()) for word in words), (noun, group.members)]


def _listed(phrases: list[Phrase]) -> Phrase:
    """ "A", "A and B", "A, B and C"."""
    *others, last = phrases
    if not others:
        return last
    listed: Phrase = []
    for at, phrase in enumerate(others):
        listed += phrase
        if at < len(others) - 1:
            noun, things = listed[-1]
            listed[-1] = (f"{noun},", things)
    return [*listed, ("and", ()), *last]


def _words(text: str) -> Phrase:
    return [(word, ()) for word in text.split()]
