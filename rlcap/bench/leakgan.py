"""Where the time of an adversarial update goes, and what a Manager costs a captioner."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from rlcap.agents.adversarial import Adversarial, Turns
from rlcap.agents.cross_entropy import CrossEntropy
from rlcap.agents.playouts import Playouts, prefix_rewards
from rlcap.agents.rollout import Drawing
from rlcap.bench.timing import Competitor, race
from rlcap.contracts import Batch, Course, Features, FeatureShape, Policy, Trainer
from rlcap.data.vocabulary import Vocabulary
from rlcap.decoding.constraints import Constraints
from rlcap.decoding.loop import write
from rlcap.models.discriminators import Discriminating
from rlcap.models.leakgan import LeakGAN
from rlcap.models.soft_attention import SoftAttention

TEXT, MAP = FeatureShape(0, 0), FeatureShape(196, 1024, (14, 14))
ADVERSARIAL, DRAW, PLAYOUTS, JUDGE, LIKELIHOOD = (
    "an adversarial update",
    "  drawing",
    "  playouts",
    "  the discriminator's step",
    "an update of likelihood",
)
Setting = tuple[torch.device, int]


@dataclass(frozen=True)
class Size:
    """Of LeakGAN's on text: Guo et al. 2018 have a vocabulary of 5,000, 64 sentences of 20 words, 16 playouts."""

    words: int = 5000
    rows: int = 64
    length: int = 20
    playouts: int = 16
    hidden: int = 32
    maps: int = 1720  # of the discriminator


@dataclass(frozen=True)
class Row:
    """Medians over rounds, spreads their quartiles. `ratio`: of a captioner to soft attention of the same size."""

    name: str
    device: str
    threads: int
    ms: float
    spread: tuple[float, float]
    words_per_second: float | None = None
    ratio: float | None = None


def measure_leakgan(settings: Sequence[Setting], *, size: Size = Size(), seconds: float = 30) -> list[Row]:
    """`seconds`: of each of the two races, if that is enough for the fewest rounds."""
    rows = []
    for device, threads in settings:
        rows += _text(device, threads, size, seconds)
        rows += _captioners(device, threads, size, seconds)
    return rows


def _text(device: torch.device, threads: int, size: Size, seconds: float) -> list[Row]:
    trainer, batch = adversary(device, size)
    rollout = trainer._draw(batch, 0)
    drawn = size.rows * size.length
    playouts = trainer.playouts
    finished = sum(size.length - prefix for prefix in playouts.prefixes(size.length)[:-1])
    works: dict[str, tuple[Callable[[], object], int | None]] = {
        ADVERSARIAL: (lambda: trainer.update(batch), None),
        DRAW: (lambda: trainer._draw(batch, 0), drawn),
        PLAYOUTS: (
            lambda: prefix_rewards(
                trainer.policy, trainer.discriminator, rollout, batch.images, playouts, seed=1, update=0
            ),
            drawn + size.rows * playouts.count * finished,
        ),
        JUDGE: (lambda: trainer._discriminate(batch, rollout), None),
        LIKELIHOOD: (lambda: trainer._imitate(batch), None),
    }
    timed = _raced({name: work for name, (work, _) in works.items()}, device, threads, seconds, "LeakGAN on text")
    return [
        replace(row, words_per_second=None if words is None else words / row.ms * 1e3)
        for row, (_, words) in zip(timed, works.values(), strict=True)
    ]


def adversary(device: torch.device, size: Size) -> tuple[Adversarial, Batch]:
    """A trainer of text, every update of which is adversarial."""
    torch.manual_seed(1)
    codec = Vocabulary([f"word{number}" for number in range(size.words)], ends=False)
    judge = Discriminating("cnn", embedding=64, hidden=size.maps, dropout=0.25)
    policy = LeakGAN(codec, TEXT, embedding=32, hidden=size.hidden, manager=32, goal=16, discriminator=judge)
    trainer = Adversarial(
        policy.to(device),
        Course(10**6, device=device),
        rollout=Drawing(samples=1, length=size.length),
        playouts=Playouts(every=4, count=size.playouts),
        turns=Turns(pretraining=0, adversarial=1, likelihood=0),
    )
    return trainer, _batch(codec, TEXT, size, 1, device)


def _captioners(device: torch.device, threads: int, size: Size, seconds: float) -> list[Row]:
    """One update of likelihood (the discriminator's left out), and a greedy decode, of LeakGAN's and soft attention."""
    codec = Vocabulary([f"word{number}" for number in range(size.words)])
    hidden = 8 * size.hidden
    width: dict[str, Any] = {"embedding": hidden, "hidden": hidden, "attention": hidden}
    policies: dict[str, Policy] = {
        "soft attention": SoftAttention(codec, MAP, **width),
        "leakgan": LeakGAN(codec, MAP, manager=hidden, goal=6, discriminator=Discriminating(hidden=hidden), **width),
    }
    batch = _batch(codec, MAP, size, 1, device)
    works: dict[str, Callable[[], object]] = {}
    for name, policy in policies.items():
        policy.to(device)
        course = Course(10**6, device=device)
        goals = Turns(pretraining=course.updates)
        trainer: Trainer = (
            Adversarial(policy, course, turns=goals, discriminator_steps=0)
            if isinstance(policy, LeakGAN)
            else CrossEntropy(policy, course)
        )
        works[f"{name}: training"] = partial(trainer.update, batch)
        works[f"{name}: captioning"] = partial(_greedy, policy, batch, size)
    rows = {row.name: row for row in _raced(works, device, threads, seconds, "captioners")}
    said = size.rows * size.length / 1e-3
    found = []
    for name, row in rows.items():
        _, _, what = name.partition(": ")
        words = said / row.ms if what == "captioning" else None
        found.append(replace(row, words_per_second=words, ratio=row.ms / rows[f"soft attention: {what}"].ms))
    return found


def _greedy(policy: Policy, batch: Batch, size: Size) -> object:
    with torch.no_grad():
        policy.eval()
        memory = policy.remember(batch.features)
        endless = Constraints(min_words=size.length)
        return write(policy, memory, images=size.rows, length=size.length, constraints=endless)


def _raced(
    works: Mapping[str, Callable[[], object]], device: torch.device, threads: int, seconds: float, what: str
) -> list[Row]:
    def learning(work: Callable[[], object]) -> Callable[[int], object]:
        def call(number: int) -> object:
            with torch.inference_mode(False):
                return work()

        return call

    competitors = {name: Competitor(learning(work), device, threads) for name, work in works.items()}
    times = race(competitors, seconds=seconds, what=what)
    rows = []
    for name, timing in times.items():
        low, high = timing.spread
        rows.append(Row(name, str(device), threads, timing.median * 1e3, (low * 1e3, high * 1e3)))
    return rows


def _batch(codec: Vocabulary, shape: FeatureShape, size: Size, captions: int, device: torch.device) -> Batch:
    values = torch.randn(size.rows, shape.regions, shape.width).relu()
    features = Features(values, torch.ones(values.shape[:2], dtype=torch.bool), shape.grid)
    words = torch.randint(4, codec.size, (size.rows, captions, size.length))
    mask = torch.ones_like(words, dtype=torch.bool)
    return Batch(torch.arange(size.rows), features, words, mask).to(device)
