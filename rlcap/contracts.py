"""What a plug-in must be. One page: read it before you write a policy, encoder, reward or trainer of your own.

Shapes: B images, N captions an image (samples or beams), T words, R regions, D feature width, H hidden,
V vocabulary. A *row* is one caption: row b·N + n is caption n of image b.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlcap.errors import ComponentError

Memory = Any  # a tree of tensors, images first: what a policy keeps of the images
State = Any  # a tree of fixed-shape tensors, rows first: where each caption stands


def tree_map(change: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """`change` applied to every tensor of a tree of dicts, tuples and lists."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {key: tree_map(change, value) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        return type(tree)(tree_map(change, value) for value in tree)
    raise TypeError(f"a tree holds tensors, dicts, tuples and lists, not {type(tree).__name__}")


class Travelling:
    """A dataclass that goes to another device, or to pinned memory, with every tensor in it."""

    def to(self, device: torch.device | str) -> Self:
        moved: Self = _in_fields(self, lambda tensor: tensor.to(device, non_blocking=True))
        return moved

    def pin_memory(self) -> Self:
        """For torch's DataLoader: what is pinned travels to a GPU while it computes."""
        pinned: Self = _in_fields(self, Tensor.pin_memory)
        return pinned


def _in_fields(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A copy with `change` applied to the tensors of a dataclass, those of dataclasses and tuples in it included."""
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{each.name: _in_fields(getattr(value, each.name), change) for each in fields(value)})
    return tuple(_in_fields(item, change) for item in value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class FeatureShape:
    """What a policy must know of the features before it sees any. `grid` is (h, w), with h·w = regions."""

    regions: int
    width: int
    grid: tuple[int, int] | None = None
    earlier: tuple["FeatureShape", ...] = ()  # as in Features

    @property
    def layers(self) -> tuple["FeatureShape", ...]:
        """All layers, the earliest first; the last of them is this one."""
        return (*self.earlier, self)


@dataclass(frozen=True)
class Features(Travelling):
    """The images of a batch. Text without images has no regions: values (B, 0, 0)."""

    values: Tensor  # (B, R, D) float
    mask: Tensor  # (B, R) bool: True where there is a region
    grid: tuple[int, int] | None = None
    boxes: Tensor | None = None  # (B, R, 4): left, top, right, bottom as shares of the image, in [0, 1]
    pixels: Tensor | None = None  # (B, 3, S, S) in [0, 1], for an encoder that is trained along
    earlier: tuple["Features", ...] = ()  # what earlier layers of the encoder say, the earliest first

    @staticmethod
    def of_pixels(pixels: Tensor) -> "Features":
        """Pictures that a policy's own encoder will see; there are no regions yet."""
        none = pixels.new_zeros(len(pixels), 0, 0)
        return Features(none, none.new_zeros(len(pixels), 0, dtype=torch.bool), pixels=pixels)

    @property
    def images(self) -> int:
        return self.values.shape[0]

    @property
    def layers(self) -> tuple["Features", ...]:
        """All layers, the earliest first; the last of them is this one, all that most policies look at."""
        return (*self.earlier, self)


class Encoder(nn.Module, ABC):
    """Images in [0, 1], float32, (B, 3, size, size) -> Features without pixels.

    `size` and `resize` say how a picture of any shape becomes such a square: "squash" ignores the aspect,
    "crop" takes the centre after scaling the short side. Batch norms of pretrained weights stay in evaluation mode.
    """

    size: int
    resize: str  # "squash" | "crop"
    shape: FeatureShape

    @abstractmethod
    def forward(self, images: Tensor) -> Features: ...


@runtime_checkable
class Codec(Protocol):
    """Token ids <-> words. The vocabulary of a data set is one; a subword tokeniser may be another."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def pad(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int | None: ...  # None: every caption has the full length
    @property
    def banned(self) -> tuple[int, ...]: ...  # never said: padding, start, unknown

    def encode(self, words: Sequence[str]) -> list[int]: ...  # without the end token
    def words(self, tokens: Sequence[int]) -> list[str]: ...  # up to the end token, without it


def caption_mask(words: Tensor, end: int | None) -> Tensor:
    """(…, T) ids -> (…, T) bool: True up to the first end token, that one included. Nothing after it counts."""
    if end is None:
        return torch.ones_like(words, dtype=torch.bool)
    ended = (words == end).long().cumsum(-1)
    return (ended - (words == end).long()) == 0


@dataclass(frozen=True)
class Step:
    """What a policy says at one word of each row."""

    logits: Tensor  # (rows, V), of the next word
    state: State
    choices: Tensor | None = None  # (rows, …): random decisions besides the word, such as a gaze
    attention: Tensor | None = None  # (rows, R), on request


@dataclass(frozen=True)
class Scores:
    """What a policy says of whole captions. Entries behind the end token mean nothing: mask them."""

    log_prob: Tensor  # (B, N, T), of each word given those before, and given the choices
    choices: Tensor | None = None  # (B, N, T, …): as they were replayed or drawn
    choice_log_prob: Tensor | None = None  # (B, N, T)
    choice_entropy: Tensor | None = None  # (B, N, T): what -choice_log_prob is in the mean, before the choice is made
    entropy: Tensor | None = None  # (B, N, T), on request, of the word distribution
    logits: Tensor | None = None  # (B, N, T, V), on request
    attention: Tensor | None = None  # (B, N, T, R), on request
    extras: Mapping[str, Tensor] = field(default_factory=dict)  # on request: what a loss of this kind of policy needs

    @staticmethod
    def of_logits(
        logits: Tensor, words: Tensor, want: Collection[str] = (), attention: Tensor | None = None
    ) -> "Scores":
        """Of words (B, N, T), all at once, from logits (rows, T, V) and attention (rows, T, R)."""
        exact, rows = at_least_float32(logits), words.shape[:2]
        log_prob = -F.cross_entropy(exact.flatten(0, 1), words.flatten(), reduction="none")
        return Scores(
            log_prob.view_as(words),
            entropy=entropy_of(exact.log_softmax(-1)).view_as(words) if "entropy" in want else None,
            logits=logits.unflatten(0, rows) if "logits" in want else None,
            attention=attention.unflatten(0, rows) if attention is not None and "attention" in want else None,
        )


class Policy(nn.Module, ABC):
    """Writes captions. A concrete policy gives `remember`, `start`, `step`; the rest has a default.

    It is made as `Class(codec, shape, **settings_of_the_recipe)`.
    A *choice* is every random decision besides the word. `step` draws it from `uniforms`, takes the likeliest when
    there are none, and replays `choices` when they are given: train() and eval() never decide this.
    """

    codec: Codec
    coins: int = 0  # uniforms that `step` needs for each row: its choices' randomness

    @abstractmethod
    def remember(self, features: Features) -> Memory:
        """What is computed once an image. Samples and beams share it."""

    @abstractmethod
    def start(self, memory: Memory, n: int, length: int) -> State:
        """The state of B·n rows before their first word; `length` words at most will follow."""

    @abstractmethod
    def step(
        self,
        words: Tensor,  # (rows,): the words just said
        state: State,
        memory: Memory,
        *,
        uniforms: Tensor | None = None,  # (rows, coins)
        choices: Tensor | None = None,
        want: Collection[str] = (),  # "attention"
    ) -> Step: ...

    def score(
        self,
        memory: Memory,
        words: Tensor,  # (B, N, T)
        *,
        choices: Tensor | None = None,  # (B, N, T, …)
        uniforms: Tensor | None = None,  # (B, N, T, coins)
        want: Collection[str] = (),  # "entropy", "logits", "attention", "extras"
    ) -> Scores:
        """Captions under this policy, word by word. Parallel policies override this plain loop."""
        if self.coins:
            raise ComponentError(
                f"{type(self).__name__}: makes choices (coins={self.coins}), so it must override score"
            )
        _, n, length = words.shape
        state = self.start(memory, n, length)
        said = torch.full_like(words[..., 0].reshape(-1), self.codec.start)
        logits, attentions = [], []
        for t in range(length):
            step = self.step(said, state, memory, want=want)
            state, said = step.state, words[..., t].reshape(-1)
            logits.append(step.logits)
            if step.attention is not None:
                attentions.append(step.attention)
        return Scores.of_logits(torch.stack(logits, 1), words, want, torch.stack(attentions, 1) if attentions else None)

    def forward(self, features: Features, words: Tensor, **arguments: Any) -> Scores:
        """remember + score, in one call for DistributedDataParallel."""
        return self.score(self.remember(features), words, **arguments)

    def select(self, state: State, rows: Tensor) -> State:
        """The state of other rows: `rows` (any number of them) reorders or repeats rows within their image."""
        return tree_map(lambda tensor: tensor.index_select(0, rows), state)


def at_least_float32(values: Tensor) -> Tensor:
    """Sums over a vocabulary are not left to half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def entropy_of(log_p: Tensor) -> Tensor:
    """(…, V) log-probabilities, perhaps with -inf -> (…) entropy in nats."""
    return -(log_p.exp() * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(-1)


@dataclass(frozen=True)
class Batch(Travelling):
    """What a trainer learns from: some images, N captions of each."""

    images: Tensor  # (B,) rows of the split
    features: Features
    words: Tensor  # (B, N, T): ids, the end token (unless the caption was cut), then padding
    mask: Tensor  # (B, N, T) bool: the words that count, the end token among them


@dataclass(frozen=True)
class Candidates:
    """What rewards judge: N captions of each image."""

    words: Tensor  # (B, N, T) ids; what stands behind a caption's length does not count
    lengths: Tensor  # (B, N): words that count, the end token among them
    images: Tensor  # (B,) rows of the split whose references the reward was made with
    drawn: int  # the first so many of the N were drawn from the policy; others (a greedy one) ride behind them
    features: Features | None = None


class Reward(ABC):
    """Judges whole captions. A concrete class is made as `Class(references, **settings_of_the_recipe)`.

    `references` is a rlcap.data.references.References. Only drawn captions teach a reward anything (a running
    mean) or make up a set (diversity); those that ride along are judged, no more. A plain function over texts is
    a reward too: see rlcap.rewards.functions.
    """

    @abstractmethod
    def __call__(self, candidates: Candidates) -> Tensor:
        """(B, N) scores, or (B, N, T) where the credit belongs to single words; on the candidates' device."""

    def state_dict(self) -> dict[str, Any]:  # what it has learned: tensors and plain values only
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state:
            raise ComponentError(f"{type(self).__name__}: learns nothing, and is to load {', '.join(state)}")


@dataclass(frozen=True)
class Judgement:
    """What the weighted rewards of a recipe say together."""

    total: Tensor  # (B, N)
    parts: Mapping[str, tuple[Tensor, Tensor]]  # of each reward, by its label: raw and weighted, (B, N)
    by_word: Tensor | None = None  # (B, N, T): the share of `total` that belongs to single words

    def curves(self, drawn: int) -> dict[str, Tensor]:
        """Means over the drawn captions, named as TensorBoard shows them."""
        curves = {"reward/total": self.total[:, :drawn].mean()}
        for label, (raw, weighted) in self.parts.items():
            curves[f"reward/{label}/raw"] = raw[:, :drawn].mean()
            curves[f"reward/{label}/weighted"] = weighted[:, :drawn].mean()
        return curves


class Judge(Protocol):
    """All rewards of a recipe as one: what a trainer is given."""

    def __call__(self, candidates: Candidates) -> Judgement: ...


@dataclass(frozen=True)
class Course:
    """What a trainer must know of the run that it is part of."""

    updates: int  # in all: the length of its schedules
    precision: torch.dtype = torch.float32  # of the forward pass on an accelerator
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 1
    judge: Judge | None = None  # the recipe's rewards; None: it has none

    def autocast(self) -> torch.autocast:
        """For the forward pass; weights, losses and the optimiser stay in float32."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)


class Trainer(Protocol):
    """Turns batches into a better policy. Made as `Class(policy, course, **settings_of_the_recipe)`.

    Trainers share functions and parts (losses, optimisers, rlcap.agents.practice), not a base class.
    """

    @property
    def networks(self) -> Mapping[str, nn.Module]: ...  # for devices, DDP and checkpoints

    def update(self, batch: Batch) -> dict[str, Tensor]: ...  # detached scalars, named as TensorBoard shows them

    def state_dict(
        self,
    ) -> dict[str, Any]: ...  # optimisers, schedules, baselines; tensors and plain values only

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
