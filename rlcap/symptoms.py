"""Signs of sick training, told in plain words: what was seen, and what to do about it.

An observer is fed with everything that is logged. It tells a symptom when it begins, and not again before it has
been gone for a while. docs/curves.md explains each of them.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from rlcap.config import Experiment

GONE = 3  # checks without a symptom before it may be told again: figures that waver at a limit would nag
ROUNDING = 1e-9


@dataclass(frozen=True)
class Symptom:
    name: str
    update: int
    text: str  # what was seen; what to do

    def __str__(self) -> str:
        return f"update {self.update}: {self.text}"


@dataclass(frozen=True)
class Level:
    """A logged figure whose mean over the last `loggings` is beyond a limit."""

    tag: str
    limit: float
    loggings: int
    seen: str  # with {value}
    remedy: str
    above: bool = True  # False: below the limit is sick


@dataclass(frozen=True)
class Drift:
    """A figure of the evaluation that has become `times` what it was, in two evaluations running."""

    figure: str
    times: float  # below 1: it shrinks
    least: float  # smaller changes are noise, whatever their ratio
    seen: str  # with {before} and {now}
    remedy: str


EQUAL, CLIPPED = "equal rewards", "clipped gradients"  # figures that are worked out here: 1 yes, 0 no

# Five loggings are 50 updates by default: long enough for a mean, short enough to save a night.
LEVELS = {
    # All of the last loggings: a batch whose captions are all alike happens, five in a row do not.
    "no_gradient": Level(
        EQUAL,
        0.99,
        5,
        "the rewards of all samples are equal: no gradient",
        "try the reward on different captions (rlcap check-reward), or draw with a higher temperature",
    ),
    # A healthy norm crosses its bound now and then; nine times in ten the bound, not the rate, sets the step.
    "clipped_gradient": Level(
        CLIPPED,
        0.9,
        20,
        "the gradient's norm is above its bound in {value:.0%} of the updates",
        "lower trainer.optimiser.lr, or raise trainer.optimiser.clip",
    ),
    # At 0.05 nats a word about one word in a hundred differs from the likeliest: nothing new is drawn.
    "low_entropy": Level(
        "policy/entropy",
        0.05,
        5,
        "the policy's entropy is {value:.3f} nats a word: its samples are all alike",
        "lower the learning rate, or give the trainer an entropy bonus",
        above=False,
    ),
    # One nat a word makes the start's own words e times less likely each: little is left of what it knew.
    "far_from_start": Level(
        "policy/kl_to_start",
        1.0,
        5,
        "the policy has moved {value:.2f} nats a word (KL) away from its start",
        "lower the learning rate, or anchor it to the start",
    ),
    # Schulman et al. 2017 see 0.1 to 0.2 in sound training; beyond 0.4 most of a batch's later steps are void.
    "clipped_ratio": Level(
        "policy/clipped",
        0.4,
        5,
        "{value:.0%} of the words are clipped by the objective",
        "lower the learning rate, or take fewer steps on a batch",
    ),
    # A third of the time is worth a minute of care; below that the shares waver with the machine's other work.
    "waiting_for_data": Level(
        "time/share_waiting_for_data",
        0.33,
        5,
        "training waits for data {value:.0%} of the time",
        "raise training.workers, or put the feature file on a faster disk",
    ),
}

DRIFTS = {
    # The classic loophole of rewards by n-grams: 5 points are more than a split of 1,000 images wavers.
    "bad_endings": Drift(
        "bad_ending",
        2,
        0.05,
        "captions that end in the middle: {before:.0%} -> {now:.0%}",
        "let the reward count the end token (end_token: true), or raise trainer.length and decoding.length",
    ),
    "repetition": Drift(
        "repetition",
        2,
        0.02,
        "word pairs said again in a caption: {before:.1%} -> {now:.1%}",
        "add a reward that punishes repetition, or lower the learning rate",
    ),
    # SCST shortens or lengthens captions by about a tenth; 30% pays for length itself.
    "longer": Drift(
        "length",
        1.3,
        1.0,
        "captions grow: {before:.1f} -> {now:.1f} words",
        "look whether a reward pays for length, and add one that does not",
    ),
    "shorter": Drift(
        "length",
        0.7,
        1.0,
        "captions shrink: {before:.1f} -> {now:.1f} words",
        "look whether a reward pays for brevity, and add one that does not",
    ),
    # Rewards narrow the vocabulary somewhat, always; half of it gone are templates.
    "fewer_words": Drift(
        "vocabulary_use",
        0.5,
        0.02,
        "words of the vocabulary that are said: {before:.1%} -> {now:.1%}",
        "add a reward for diversity, an entropy bonus, or lower the learning rate",
    ),
}
DRIFTING = 2  # evaluations

BELOW_START, BELOW_START_FOR = 0.99, 3  # of the start: within a hundredth is noise; RL may dip, and recovers
FALLEN, FALLEN_FOR = 0.8, 2  # of the best: over-fitting loses less, and slowly
GAMED, GAMED_FOR = 0.9, 2  # of what it was: metrics that are not optimised may lose a little to one that is
FLAT_FOR = 5  # evaluations: where rewards rise at all, they do so sooner
RISEN_LOSS, RISEN_LOSS_FOR = 1.2, 2  # times its lowest: batches differ by less, over an evaluation's interval
SURE = 2.0  # standard errors between two means that differ for certain
FEW = 3  # loggings that a standard error needs at least

NAMES = {"bleu_4": "BLEU-4", "rouge_l": "ROUGE-L", "cider_d": "CIDEr-D"}  # one a family of metrics
SLOWER = "lower trainer.optimiser.lr"


@dataclass
class Mean:
    """Of the values since the last evaluation."""

    count: int = 0
    sum: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.count, self.sum, self.squares = self.count + 1, self.sum + value, self.squares + value * value

    @property
    def value(self) -> float:
        return self.sum / self.count

    def surely_above(self, other: "Mean") -> bool:
        if min(self.count, other.count) < FEW:
            return False
        return self.value - other.value > SURE * math.hypot(self._error(), other._error()) + ROUNDING

    def _error(self) -> float:
        spread = max(0.0, self.squares - self.sum * self.value) / (self.count - 1)
        return math.sqrt(spread / self.count)


@dataclass
class _Memory:
    """Plain values only: a checkpoint keeps them."""

    start: dict[str, float] = field(default_factory=dict)  # figures of the evaluation before the first update
    best: dict[str, float] = field(default_factory=dict)  # and of the best one
    best_update: int = 0
    last: dict[str, list[float]] = field(default_factory=dict)  # by tag, the last loggings
    means: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by tag, a Mean an evaluation
    running: dict[str, int] = field(default_factory=dict)  # by symptom, evaluations in a row that show it
    told: dict[str, int] = field(default_factory=dict)  # by symptom, checks without it since


class Observer:
    """Looks for all symptoms. `rewards`: the names of those that are optimised; `clip`: of the gradient, 0 none."""

    def __init__(self, metric: str = "cider_d", rewards: Collection[str] = (), clip: float = 0.0) -> None:
        self.metric, self.rewards, self.clip = metric, tuple(rewards), clip
        self.memory = _Memory()

    @classmethod
    def of(cls, experiment: Experiment) -> Self:
        optimiser = experiment.trainer.settings.get("optimiser")
        rewards = [term.name for term in experiment.rewards.values() if term.weight != 0 and isinstance(term.name, str)]
        return cls(experiment.training.metric, rewards, getattr(optimiser, "clip", 0.0))

    def observe(self, update: int, figures: Mapping[str, float]) -> list[Symptom]:
        """What begins to be wrong with these logged figures; those of one evaluation come together."""
        evaluated = {tag.split("/", 2)[2]: value for tag, value in figures.items() if tag.startswith(("eval/", "health/"))}
        found = self._evaluation(update, evaluated) if self.metric in evaluated else self._training(figures)
        return [Symptom(name, update, text) for name, text in found.items() if text and self._begins(name, True)]
