"""Watches everything that is logged for signs of sick training.

A symptom is told when it begins, and not again before it has been gone for a while.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from rlcap.config import Experiment
from rlcap.metrics import LOWER_IS_BETTER
from rlcap.symptoms import (
    BELOW_START,
    BELOW_START_FOR,
    CLIPPED,
    CUT_SHORT,
    CUT_SHORT_FOR,
    DRIFTING,
    DRIFTS,
    EQUAL,
    FALLEN,
    FALLEN_FOR,
    FEW,
    FIRST,
    FLAT_FOR,
    GAMED,
    GAMED_FOR,
    LEVELS,
    LOSS,
    NAMES,
    NOTHING,
    OPTIMISED_BY,
    REWARD,
    RISEN_LOSS,
    RISEN_LOSS_FOR,
    SURE,
    Drift,
    Symptom,
)

GONE_EVALUATIONS, GONE_LOGGINGS = 3, 50  # without a symptom before it may be told again: some waver at a limit
ROUNDING = 1e-9


@dataclass
class Mean:
    """Of some values, and how sure it is."""

    count: int = 0
    sum: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.count, self.sum, self.squares = self.count + 1, self.sum + value, self.squares + value * value

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.count + other.count, self.sum + other.sum, self.squares + other.squares)

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

    start: dict[str, float] = field(default_factory=dict)  # figures of an evaluation before the first update
    best: dict[str, float] = field(default_factory=dict)  # and of the best one
    best_update: int = 0
    last: dict[str, list[float]] = field(default_factory=dict)  # by tag, the last loggings
    means: dict[str, list[Mean]] = field(default_factory=dict)  # by tag, one an evaluation
    running: dict[str, int] = field(default_factory=dict)  # by symptom, evaluations in a row that show it
    told: dict[str, int] = field(default_factory=dict)  # by symptom, checks without it since


class Observer:
    """Looks for all symptoms. `rewards`: the names of those that are optimised; `clip`: of the gradient, 0: none."""

    def __init__(self, metric: str = "cider_d", rewards: Collection[str] = (), clip: float = 0.0) -> None:
        self.metric, self.clip = metric, clip
        self.not_optimised = [name for name in NAMES if OPTIMISED_BY[name].isdisjoint(rewards)]
        self.memory = _Memory()

    @classmethod
    def of(cls, experiment: Experiment) -> Self:
        optimiser = experiment.trainer.settings.get("optimiser")
        rewards = [str(term.name) for term in experiment.rewards.values() if term.weight != 0]
        return cls(experiment.training.metric, rewards, getattr(optimiser, "clip", 0.0))

    def observe(self, update: int, figures: Mapping[str, float]) -> list[Symptom]:
        """What begins to be wrong with these logged figures. Those of one evaluation come together."""
        evaluated = {tag: value for tag, value in figures.items() if tag.startswith(("eval/", "health/"))}
        found = self._of_evaluation(update, evaluated) if evaluated else self._of_training(figures)
        gone = GONE_EVALUATIONS if evaluated else GONE_LOGGINGS
        begun = {name: text for name, text in found.items() if self._begins(name, text is not None, gone)}
        return [Symptom(name, update, text) for name, text in begun.items() if text is not None]

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.memory)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        means = {tag: [Mean(**mean) for mean in some] for tag, some in state.get("means", {}).items()}
        self.memory = _Memory(**{**state, "means": means})

    def _begins(self, name: str, seen: bool, gone: int) -> bool:
        """Whether to tell it now."""
        told = self.memory.told
        if seen:
            begins = name not in told
            told[name] = 0
            return begins
        if name in told:
            told[name] += 1
            if told[name] == gone:
                del told[name]
        return False

    def _of_training(self, figures: Mapping[str, float]) -> dict[str, str | None]:
        for tag in (REWARD, LOSS):
            if tag in figures and (tag == REWARD or REWARD not in figures):  # mixed with rewards, the loss may rise
                means = self.memory.means.setdefault(tag, [Mean()])
                if len(means) == 1 and means[0].count == FIRST:
                    means.append(Mean())
                means[-1].add(figures[tag])
        figures = {**figures, **self._worked_out(figures)}
        found: dict[str, str | None] = {}
        for name, level in LEVELS.items():
            if level.tag not in figures:
                continue
            last = [*self.memory.last.get(level.tag, []), figures[level.tag]][-level.loggings :]
            self.memory.last[level.tag] = last
            value = sum(last) / len(last)
            sick = value > level.limit if level.above else value < level.limit
            full = len(last) == level.loggings
            found[name] = _advice(level.seen.format(value=value), level.remedy) if sick and full else None
        return found

    def _worked_out(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Equal: advantages differ by less than a hundredth of the reward, or of 1 where the reward is larger."""
        read: dict[str, float] = {}
        if {"advantage/deviation", REWARD} <= figures.keys():
            advantage = max(figures["advantage/deviation"], abs(figures.get("advantage/mean", 0.0)))
            read[EQUAL] = float(advantage <= 0.01 * min(1.0, abs(figures[REWARD])))
        if self.clip and "optimiser/gradient_norm" in figures:
            read[CLIPPED] = float(figures["optimiser/gradient_norm"] > self.clip)
        return read

    def _of_evaluation(self, update: int, figures: Mapping[str, float]) -> dict[str, str | None]:
        split = next(iter(figures)).split("/")[1]
        now = {tag.split("/", 2)[2]: value for tag, value in figures.items()}
        memory, value = self.memory, now[self.metric]
        if update == 0:
            memory.start = now
        best = not memory.best or self._worse(memory.best[self.metric], 1, value)
        since = "since the start" if memory.start else f"since the best evaluation (update {memory.best_update})"
        before = memory.start or ({} if best else memory.best)
        found = self._fallen(split, value) | self._gamed(split, before, now) | self._flat() | self._loss_risen()
        for name, drift in DRIFTS.items():
            found[name] = self._drifted(name, drift, before, now, f"{split}, {since}")
        found["cut_short"] = self._cut_short(split, now, value)
        if best:
            memory.best, memory.best_update = now, update
        for means in memory.means.values():
            if means[-1].count:
                means.append(Mean())
        return found

    def _means(self, tag: str) -> list[Mean]:
        """Of the first few loggings, of the rest before the first evaluation, then one an evaluation."""
        return [mean for mean in self.memory.means.get(tag, []) if mean.count]

    def _lasts(self, name: str, sick: bool, evaluations: int) -> bool:
        """Whether it was seen in so many evaluations running."""
        self.memory.running[name] = self.memory.running.get(name, 0) + 1 if sick else 0
        return self.memory.running[name] >= evaluations

    def _drifted(
        self, name: str, drift: Drift, before: Mapping[str, float], now: Mapping[str, float], where: str
    ) -> str | None:
        was, is_now = before.get(drift.figure), now.get(drift.figure)
        sick = False
        if was is not None and is_now is not None and abs(is_now - was) >= drift.least:
            sick = is_now > drift.times * was if drift.times > 1 else is_now < drift.times * was
        if not self._lasts(name, sick, DRIFTING):
            return None
        return _advice(f"{drift.seen.format(before=was, now=is_now)} ({where})", drift.remedy)

    def _cut_short(self, split: str, now: Mapping[str, float], value: float) -> str | None:
        """From the start on, so that nothing drifts. A model that knows nothing yet does not know when to end."""
        before, share = self.memory.start.get("bad_ending", 0.0), now.get("bad_ending", 0.0)
        if not self._lasts("cut_short", min(before, share) > CUT_SHORT, CUT_SHORT_FOR):
            return None
        remedy = "raise decoding.length"
        if max(value, self.memory.start.get(self.metric, 0.0)) <= NOTHING:
            remedy = "start from a model that has learned to write (training.start), or raise decoding.length"
        return _advice(f"{share:.0%} of the captions of {split} end in the middle", remedy)

    def _worse(self, value: float, share: float, than: float) -> bool:
        """By the metric, that is; `share`: even if the better one of the two were only so much of itself."""
        return than < share * value if self.metric in LOWER_IS_BETTER else value < share * than

    def _fallen(self, split: str, value: float) -> dict[str, str | None]:
        start, best = self.memory.start.get(self.metric), self.memory.best.get(self.metric)
        metric = f"{NAMES.get(self.metric, self.metric)} on {split}"
        below, fallen, learned = "below", "fallen far below", best is not None and best > NOTHING
        if self.metric in LOWER_IS_BETTER:
            below, fallen, learned = "above", "risen far above", True
        found: dict[str, str | None] = {"below_start": None, "fallen": None}
        if self._lasts("below_start", start is not None and self._worse(value, BELOW_START, start), BELOW_START_FOR):
            evaluations = self.memory.running["below_start"]
            found["below_start"] = _advice(
                f"{metric} has been {below} its start for {evaluations} evaluations ({value:.3f}, start {start:.3f})",
                "lower trainer.optimiser.lr; if that does not help, try the reward (rlcap check-reward)",
            )
        if self._lasts("fallen", best is not None and learned and self._worse(value, FALLEN, best), FALLEN_FOR):
            found["fallen"] = _advice(
                f"{metric} has {fallen} its best ({value:.3f}, {best:.3f} at update {self.memory.best_update})",
                "lower trainer.optimiser.lr; the best checkpoint is kept",
            )
        return found

    def _gamed(self, split: str, before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, str | None]:
        rewards = self._means(REWARD)
        lost = [name for name in self.not_optimised if name in before and now[name] < GAMED * before[name]]
        rises = len(rewards) > 1 and rewards[-1].surely_above(rewards[0])
        if not self._lasts("gamed", rises and bool(lost), GAMED_FOR):
            return {"gamed": None}
        falls = ", ".join(f"{NAMES[name]} {before[name]:.3f} -> {now[name]:.3f}" for name in lost)
        text = (
            f"the reward rises ({rewards[0].value:.3g} -> {rewards[-1].value:.3g}) while what is not optimised falls "
            f"on {split} ({falls}): the policy games the reward"
        )
        return {"gamed": _advice(text, "read the sample captions, and add a reward for what they have lost")}

    def _flat(self) -> dict[str, str | None]:
        rewards = self._means(REWARD)
        first, last = sum(rewards[:2], Mean()), sum(rewards[-FLAT_FOR:], Mean())
        flat = len(rewards) >= FLAT_FOR + 2 and last.value <= first.value
        if not flat or {"no_gradient", "fallen", "below_start"} & self.memory.told.keys():  # which say more
            return {"flat_reward": None}
        text = f"the reward has not risen for {FLAT_FOR} evaluations ({first.value:.3g} -> {last.value:.3g})"
        return {"flat_reward": _advice(text, "try a higher trainer.optimiser.lr, or more samples an image")}

    def _loss_risen(self) -> dict[str, str | None]:
        losses = [mean.value for mean in self._means(LOSS)]
        sick = len(losses) > 1 and losses[-1] > RISEN_LOSS * min(losses)
        if not self._lasts("risen_loss", sick, RISEN_LOSS_FOR):
            return {"risen_loss": None}
        text = f"the cross-entropy has risen ({losses[-1]:.2f} nats a word, {min(losses):.2f} at its lowest)"
        return {"risen_loss": _advice(text, "lower trainer.optimiser.lr, or give it a warm-up")}


def before_training(experiment: Experiment) -> list[Symptom]:
    """What a recipe alone shows."""
    drawn = getattr(experiment.trainer.settings.get("rollout"), "length", None)
    written = experiment.decoding.length
    if drawn in (None, written):
        return []
    seen = f"training draws captions of up to {drawn} words, and evaluation writes up to {written}"
    return [Symptom("lengths_differ", 0, _advice(seen, "set trainer.rollout.length and decoding.length alike"))]


def _advice(seen: str, remedy: str) -> str:
    return f"{seen}; {remedy}"
