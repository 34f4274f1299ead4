"""Discriminators: they tell people's captions from a policy's, and leak what they see of every prefix.

A discriminator reads word by word, the start token first. What it has seen after each word is the *leaked feature*
(Guo et al. 2018, https://arxiv.org/abs/1709.08624, section 3.1); its judgement is a linear map of the last one. Read at
once (`leak`) or a word at a time (`extend`), the features are the same: a prefix does not know what follows it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlcap.config import Positive, Rate
from rlcap.contracts import Codec, Features, FeatureShape, Memory, State
from rlcap.errors import ConfigError
from rlcap.models.attention import mean_region
from rlcap.models.sru import SRU


@dataclass(frozen=True)
class Discriminating:
    """A recipe's `discriminator` section.

    "sru": the captioner's, a stack of recurrent layers. "cnn": LeakGAN's, of windows of several lengths, pooled over
    what was read so far, and a highway. `sees_image`: it judges whether a caption is of its image, too, as the
    projection discriminator does (Miyato & Koyama 2018, https://arxiv.org/abs/1802.05637).
    """

    name: Literal["sru", "cnn"] = "sru"
    embedding: Positive = 64
    hidden: Positive = 256  # of the SRU; of the CNN, its windows' feature maps in all
    layers: Positive = 3  # of the SRU
    dropout: Rate = 0.2
    sees_image: bool = False


class Discriminator(nn.Module, ABC):
    width: int  # F, of the leaked feature

    def __init__(self, codec: Codec, shape: FeatureShape, settings: Discriminating, width: int) -> None:
        super().__init__()
        self.start_word, self.width = codec.start, width
        self.embed = nn.Embedding(codec.size, settings.embedding)
        nn.init.normal_(self.embed.weight, std=settings.embedding**-0.5)
        self.dropout = nn.Dropout(settings.dropout)
        self.judgement = nn.Linear(width, 1)
        self.of_image = nn.Linear(shape.width, width, bias=False) if settings.sees_image else None

    @abstractmethod
    def start(self, rows: int) -> State:
        """Before anything is read."""

    @abstractmethod
    def extend(self, words: Tensor, state: State) -> tuple[Tensor, State]:
        """One more word of each row: (rows,) -> the leaked features (rows, F) and the state behind it."""

    @abstractmethod
    def leak(self, words: Tensor) -> Tensor:
        """(rows, T) -> (rows, T + 1, F): the leaked feature of every prefix, that of no word first."""

    def remember(self, features: Features) -> Memory:
        """What the judgement needs of the images (B, F); nothing if it does not see them."""
        return None if self.of_image is None else self.of_image(mean_region(features.values, features.mask))

    def judge(self, leaked: Tensor, memory: Memory) -> Tensor:
        """(B, …, F) -> (B, …) logits: above 0, a person's caption."""
        leaked = self.dropout(leaked)
        logits: Tensor = self.judgement(leaked)[..., 0]
        if memory is None:
            return logits
        image = memory.view(len(memory), *[1] * (leaked.ndim - 2), -1)
        fit: Tensor = (leaked * image).sum(-1) / self.width**0.5
        return logits + fit

    def judge_captions(self, words: Tensor, lengths: Tensor, memory: Memory) -> Tensor:
        """Whole captions (B, N, T) with lengths (B, N) -> (B, N) logits.

        Not in half precision: too many captions would be equally good.
        """
        with torch.autocast(words.device.type, enabled=False):
            at_end = self.last_leak(words.flatten(0, 1), lengths.flatten()).unflatten(0, words.shape[:2])
            return self.judge(at_end, None if memory is None else memory.to(at_end.dtype))

    def last_leak(self, words: Tensor, lengths: Tensor) -> Tensor:
        """(rows, T) -> (rows, F): what `leak` has behind so many words (rows,)."""
        return self.leak(words)[torch.arange(len(words), device=words.device), lengths]

    def from_start(self, words: Tensor) -> Tensor:
        """(rows, T) -> (rows, T + 1)"""
        return F.pad(words, (1, 0), value=self.start_word)


class SRUDiscriminator(Discriminator):
    def __init__(self, codec: Codec, shape: FeatureShape, settings: Discriminating) -> None:
        super().__init__(codec, shape, settings, settings.hidden)
        self.read = SRU(settings.embedding, settings.hidden, settings.layers, dropout=settings.dropout)

    def start(self, rows: int) -> State:
        return self.read.start(rows)

    def extend(self, words: Tensor, state: State) -> tuple[Tensor, State]:
        return self.read.step(self.embed(words), state)

    def leak(self, words: Tensor) -> Tensor:
        leaked: Tensor = self.read(self.embed(self.from_start(words)))[0]
        return leaked


# Words of a window, and its share of the feature maps: LeakGAN's for short sequences (100 to 200 maps each).
WINDOWS = {1: 1, 2: 2, 3: 2, 4: 2, 5: 2, 6: 1, 7: 1, 8: 1, 9: 1, 10: 1, 15: 1.6, 20: 1.6}


class CNNDiscriminator(Discriminator):
    """Windows end at a word here and have blanks before the first one: LeakGAN's, centred or padded at the end, would
    have to be read again for every prefix. The largest value so far stands for all places.
    """

    def __init__(self, codec: Codec, shape: FeatureShape, settings: Discriminating) -> None:
        total = sum(WINDOWS.values())
        maps = {size: max(1, round(settings.hidden * share / total)) for size, share in WINDOWS.items()}
        width = sum(maps.values())
        super().__init__(codec, shape, settings, width)
        self.windows = nn.ModuleList(nn.Conv1d(settings.embedding, count, size) for size, count in maps.items())
        self.highway = nn.Linear(width, 2 * width)
        with torch.no_grad():
            self.highway.bias[width:] = -2.0  # it starts mostly open
        self.longest = max(maps)

    def start(self, rows: int) -> State:
        weight = self.embed.weight
        return weight.new_zeros(rows, weight.shape[1], self.longest - 1), weight.new_zeros(rows, self.width)

    def extend(self, words: Tensor, state: State) -> tuple[Tensor, State]:
        recent, largest = state
        recent = torch.cat((recent, self.embed(words)[..., None]), -1)
        found = [
            F.linear(recent[..., -window.kernel_size[0] :].flatten(1), window.weight.flatten(1), window.bias)
            for window in self._windows()
        ]
        largest = torch.maximum(largest, torch.cat(found, -1).relu())
        return self._mix(largest), (recent[..., 1:], largest)

    def leak(self, words: Tensor) -> Tensor:
        return self._mix(self._found(words).cummax(-1).values.transpose(1, 2))

    def last_leak(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Without the features on the way there."""
        found = self._found(words)
        behind = torch.arange(found.shape[-1], device=words.device) > lengths[:, None]
        return self._mix(found.masked_fill(behind[:, None], 0).amax(-1))

    def _found(self, words: Tensor) -> Tensor:
        """(rows, T) -> (rows, maps, T + 1): how well each window fits at each word, at least 0."""
        embedded = self.embed(self.from_start(words)).transpose(1, 2)
        fits = [window(F.pad(embedded, (window.kernel_size[0] - 1, 0))) for window in self._windows()]
        return torch.cat(fits, 1).relu()

    def _windows(self) -> list[nn.Conv1d]:
        return [window for window in self.windows if isinstance(window, nn.Conv1d)]

    def _mix(self, pooled: Tensor) -> Tensor:
        """The highway (Srivastava et al. 2015)."""
        candidate, gate = self.highway(pooled).to(pooled.dtype).chunk(2, -1)
        return torch.lerp(pooled, candidate.relu(), gate.sigmoid())


DISCRIMINATORS = {"sru": SRUDiscriminator, "cnn": CNNDiscriminator}


def make_discriminator(codec: Codec, shape: FeatureShape, settings: Discriminating) -> Discriminator:
    if settings.sees_image and not shape.width:
        raise ConfigError("policy.discriminator.sees_image=true: text has no images; set it false")
    return DISCRIMINATORS[settings.name](codec, shape, settings)
