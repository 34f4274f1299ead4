"""How fast the rewards are, next to plain Python on the same captions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlcap.bench.captions import CaptionBatch, make_batch
from rlcap.bench.timing import Competitor, Timing, race
from rlcap.bench.yardsticks import PYCOCOEVALCAP, yardsticks
from rlcap.contracts import Candidates, Reward
from rlcap.data.references import References
from rlcap.rewards.bleu import Bleu4
from rlcap.rewards.cider import CiderD
from rlcap.rewards.rouge import RougeL

REWARDS: dict[str, Callable[[References], Reward]] = {"cider_d": CiderD, "bleu_4": Bleu4, "rouge_l": RougeL}
EACH = 6  # captions an image
BATCHES = 8  # different ones, taken in turn, so that no cache holds the answers
Setting = tuple[torch.device, int]  # where a reward works, and with how many threads


@dataclass(frozen=True)
class Row:
    """A reward against a yardstick. Times are medians over rounds, spreads their quartiles."""

    name: str
    device: str
    threads: int
    batch: int  # captions
    yardstick: str
    us_per_caption: float
    spread: tuple[float, float]
    yardstick_us_per_caption: float
    yardstick_spread: tuple[float, float]
    ratio: float
    rounds: int
    difference: float | None  # the largest between their scores; None: they mean different numbers


def measure_rewards(
    references: References, settings: Sequence[Setting], *, batches: Sequence[int] = (300, 3000), seconds: float = 10
) -> list[Row]:
    """`seconds`: of each reward at each batch, if that is enough for the fewest rounds."""
    homes = {device: replace(references, device=device) for device, _ in settings}
    rows = []
    for captions in batches:
        made = [make_batch(references, max(1, captions // EACH), EACH, seed) for seed in range(BATCHES)]
        for name in REWARDS:
            rows += _measure(name, homes, settings, made, seconds)
    return rows


def _measure(
    name: str,
    homes: dict[torch.device, References],
    settings: Sequence[Setting],
    batches: Sequence[CaptionBatch],
    seconds: float,
) -> list[Row]:
    rewards = {device: REWARDS[name](home) for device, home in homes.items()}
    candidates = {device: [_moved(batch.candidates, device) for batch in batches] for device in homes}
    images = {image for batch in batches for image in batch.images}
    others = yardsticks(name, next(iter(homes.values())), images)
    competitors: dict[Setting | str, Competitor] = {
        (device, threads): Competitor(_taking_turns(rewards[device], candidates[device]), device, threads)
        for device, threads in settings
    }
    competitors |= {other: Competitor(_taking_turns(score, batches)) for other, score in others.items()}
    size = len(batches[0].captions)
    times = race(competitors, seconds=seconds, what=f"{name}, {size} captions")

    rows = []
    for device, threads in settings:
        ours, spread = _microseconds(times[device, threads], size)
        scores = rewards[device](candidates[device][0]).flatten()
        for other, score in others.items():
            theirs, their_spread = _microseconds(times[other], size)
            same = (name, other) != ("cider_d", PYCOCOEVALCAP)
            rows.append(
                Row(
                    name=name,
                    device=str(device),
                    threads=threads,
                    batch=size,
                    yardstick=other,
                    us_per_caption=ours,
                    spread=spread,
                    yardstick_us_per_caption=theirs,
                    yardstick_spread=their_spread,
                    ratio=theirs / ours,
                    rounds=len(times[other].seconds),
                    difference=_difference(scores, score(batches[0])) if same else None,
                )
            )
    return rows


def _moved(candidates: Candidates, device: torch.device) -> Candidates:
    words, lengths, images = (part.to(device) for part in (candidates.words, candidates.lengths, candidates.images))
    return replace(candidates, words=words, lengths=lengths, images=images)


def _taking_turns(score: Callable[[Any], object], batches: Sequence[Any]) -> Callable[[int], object]:
    return lambda call: score(batches[call % len(batches)])


def _microseconds(timing: Timing, captions: int) -> tuple[float, tuple[float, float]]:
    low, high = timing.spread
    return timing.median / captions * 1e6, (low / captions * 1e6, high / captions * 1e6)


def _difference(ours: Tensor, theirs: Sequence[float]) -> float:
    return (ours.double().cpu() - torch.tensor(theirs, dtype=torch.float64)).abs().max().item()
