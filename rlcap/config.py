"""What an experiment is: the sections of a recipe as dataclasses, and the types of their values."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BeforeValidator, ConfigDict

from rlcap.components import STRICT

INTERVAL = re.compile(r"(\d+|\d*\.\d+) (update|epoch)s?")


def _interval(value: Any) -> Any:
    match = INTERVAL.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) == 0 or (match[2] == "update" and "." in match[1]):
        raise ValueError(f"should be like '1 epoch', '0.5 epochs' or '500 updates', not {value!r}")
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError(f"should be auto, cpu, cuda, cuda:0 (or another number) or mps, not {value!r}")
    return value


Positive = Annotated[int, Ge(1)]
NotNegative = Annotated[int, Ge(0)]
Weight = Annotated[float, Ge(0)]
AboveZero = Annotated[float, Gt(0)]
Share = Annotated[float, Gt(0), Le(1)]
Portion = Annotated[float, Ge(0), Le(1)]
Rate = Annotated[float, Ge(0), Lt(1)]  # of dropout, of smoothing
Interval = Annotated[str, BeforeValidator(_interval)]
Device = Annotated[str, AfterValidator(_device)]


def in_updates(interval: str, updates_an_epoch: int) -> int:
    """An Interval as a number of updates."""
    count, unit = interval.split(" ")
    return int(count) if unit.startswith("update") else max(1, round(float(count) * updates_an_epoch))


COMPONENTS = ("encoder", "policy", "scorer", "trainer")  # sections of a recipe, each named as its kind


@dataclass(frozen=True)
class Component:
    """A plug-in and the arguments of its constructor, checked: `find(kind, name)(…, **settings)` makes it.

    In YAML they stand side by side (`policy: {name: soft_attention, hidden: 512}`); the name alone will do.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Term:
    """One reward among the recipe's `rewards`. In YAML all of it stands side by side, under a label.

    The label names its curves, and the reward too unless `name` does; `cider_d: 0.5` is short for a weight alone.
    Of what the reward says, the running mean and deviation are taken out if `normalise` asks, then it is clipped,
    then weighed. All are added up, but for one that multiplies another (`times`). With weight 0 a reward is computed
    and logged, and earns nothing.
    """

    name: str
    weight: float | tuple[tuple[NotNegative, float], ...] = 1.0  # or points (update, weight), joined by lines
    normalise: bool = False
    clip: tuple[float, float] | None = None  # lowest, highest
    times: str | None = None  # the label of a reward that this one multiplies, instead of being added
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError(f"'clip' should be [lowest, highest], not {list(self.clip)}")
        if isinstance(self.weight, tuple):
            updates = [update for update, _ in self.weight]
            if not updates or updates != sorted(set(updates)):
                raise ValueError("'weight' as points needs (update, weight) pairs, the updates growing")


@dataclass(frozen=True)
class Data:
    path: str = "data/scenes"  # a prepared folder
    features: str | None = None  # an HDF5 file; None: the one in the prepared folder
    pictures: str | None = None  # the folder of pictures that features were made of: a few are shown at evaluations
    train: str = "train"  # names of splits
    evaluate: str = "val"
    max_words: Positive = 20  # longer captions are cut for training, without an end token
    blind: bool = False  # a control that cannot see: each image gets the features of another one


@dataclass(frozen=True)
class Training:
    updates: Positive | None = None  # exactly one of these two says how long
    epochs: AboveZero | None = None
    images: Positive = 32  # a batch
    captions: Positive = 5  # an image
    evaluate_every: Interval = "1 epoch"
    save_every: Interval | None = None  # a checkpoint besides those of evaluations
    keep: Positive = 2  # checkpoints, besides the best; where the last is damaged, training goes on from the one before
    patience: Positive | None = None  # evaluations without a better metric before training stops; None: never
    metric: str = "cider_d"  # which of the evaluation's figures chooses the best checkpoint
    seed: NotNegative = 1
    device: Device = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: NotNegative = 0  # processes that load batches
    log_every: Positive = 10  # updates
    not_finite: Literal["stop", "skip"] = "stop"  # at an update whose loss, reward or gradient is not a finite number
    threads: Positive | None = None  # of torch on the CPU; None: torch decides
    start: str | None = None  # a run whose best weights are the first ones here, as RL needs them
    word_vectors: str | None = None  # a text file (GloVe, word2vec) that fills the word embedding, unless `start` does

    def __post_init__(self) -> None:
        if (self.updates is None) == (self.epochs is None):
            raise ValueError("give exactly one of 'updates' and 'epochs'")


@dataclass(frozen=True)
class Decoding:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    beam: Positive = 1  # 1: greedy
    length: Positive = 20  # words at most, the end token among them
    length_normalisation: Annotated[float, Ge(0), Le(10)] = 0.0  # exponent of the length that divides a beam's score
    min_words: NotNegative = 0
    no_repeat_ngram: NotNegative = 0  # 0: n-grams may repeat
    groups: Positive = 1  # of diverse beams
    diversity: Weight = 0.0  # penalty on a word that another group has just said
    temperature: AboveZero = 1.0
    top_k: NotNegative = 0  # 0: all words
    top_p: Share = 1.0  # 1: all words
    sample: bool = False  # draw words instead of taking the likeliest

    def __post_init__(self) -> None:
        if self.beam % self.groups:
            raise ValueError(f"'groups' ({self.groups}) must divide 'beam' ({self.beam})")
        if self.sample and self.beam > 1:
            raise ValueError(f"'sample' goes with 'beam' 1, not {self.beam}")
        if not self.sample and (self.temperature, self.top_k, self.top_p) != (1.0, 0, 1.0):
            raise ValueError("'temperature', 'top_k' and 'top_p' bend samples: set 'sample' too")
        if self.min_words > self.length:
            raise ValueError(f"'min_words' ({self.min_words}) is more than 'length' ({self.length})")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: str
    data: Data = field(default_factory=Data)
    encoder: Component | None = None  # trained along, fed with pixels; None: the features are frozen
    policy: Component | None = None  # writes captions
    scorer: Component | None = None  # judges them: trained instead of a policy, to be a reward later
    trainer: Component
    rewards: dict[str, Term] = field(default_factory=dict)  # by label
    training: Training
    decoding: Decoding = field(default_factory=Decoding)

    def __post_init__(self) -> None:
        if self.policy is not None and self.scorer is not None:
            raise ValueError("give 'policy' or 'scorer', not both")
