"""A transformer that writes captions (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762) of the regions it sees.

Norms stand before each part (Xiong et al. 2020, arXiv:2002.04745). Keys and values of the regions are computed once
an image, those of the words once a word: a step never goes over its past again.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlcap.config import NotNegative, Positive, Rate
from rlcap.contracts import (
    Codec,
    Features,
    FeatureShape,
    Memory,
    Policy,
    Scores,
    State,
    Step,
    at_least_float32,
)
from rlcap.errors import ConfigError

Pair = tuple[Tensor, Tensor]  # keys and values, each (G, heads, places, width / heads)


class Transformer(Policy):
    """Regions, `encoder_layers` over them, `layers` over the words so far and the regions, a word.

    Words know their places by sinusoids, so that captions may be of any length; regions know theirs only by what the
    encoder tells. `tied`: the output layer is the word embedding. Attention is the mean of all heads of all layers.
    """

    def __init__(
        self,
        codec: Codec,
        shape: FeatureShape,
        *,
        width: Positive = 256,
        heads: Positive = 4,
        layers: Positive = 3,
        encoder_layers: NotNegative = 1,
        inner: Positive = 1024,
        dropout: Rate = 0.1,
        tied: bool = True,
    ) -> None:
        super().__init__()
        if width % (2 * heads):
            raise ConfigError(f"width={width}, heads={heads}: the width must be a multiple of twice the heads")
        self.codec = codec
        self.project = nn.Sequential(nn.Linear(shape.width, width), nn.ReLU(), nn.Dropout(dropout), nn.LayerNorm(width))
        self.region_layers = nn.ModuleList(_Layer(width, heads, inner, dropout) for _ in range(encoder_layers))
        self.region_norm = nn.LayerNorm(width) if encoder_layers else nn.Identity()
        self.embed = nn.Embedding(codec.size, width)
        self.word_layers = nn.ModuleList(_DecoderLayer(width, heads, inner, dropout) for _ in range(layers))
        self.word_norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, codec.size)
        self.dropout = nn.Dropout(dropout)
        self.waves: Tensor
        self.register_buffer("waves", 10000.0 ** -(torch.arange(0, width, 2) / width), persistent=False)
        nn.init.normal_(self.embed.weight, std=width**-0.5)
        if tied:
            self.output.weight = self.embed.weight

    def remember(self, features: Features) -> Memory:
        x, mask = self.project(features.values), features.mask
        for layer in self._over_regions:
            x, _ = layer.hear(x, mask[:, None, None])
            x = layer.think(x)
        x = self.region_norm(x)
        return {"regions": tuple(layer.regions.keys_values(x) for layer in self._over_words), "mask": mask}

    def start(self, memory: Memory, n: int, length: int) -> State:
        rows = n * len(memory["mask"])

        def empty(keys: Tensor) -> Tensor:
            return keys.new_zeros(rows, keys.shape[1], length, keys.shape[3])

        said = tuple((empty(keys), empty(values)) for keys, values in memory["regions"])
        return {"said": said, "position": torch.zeros(rows, dtype=torch.long, device=memory["mask"].device)}

    def step(
        self,
        words: Tensor,
        state: State,
        memory: Memory,
        *,
        uniforms: Tensor | None = None,
        choices: Tensor | None = None,
        want: Collection[str] = (),
    ) -> Step:
        position, looks = state["position"][:, None], []
        places = torch.arange(state["said"][0][0].shape[2], device=words.device)
        past, here = (places <= position)[:, None, None], (places == position)[:, None, :, None]
        x, said = self._embedded(words[:, None], position), []
        for layer, seen, kept in zip(self._over_words, memory["regions"], state["said"], strict=True):
            x, pair = layer.hear(x, past, kept, here)
            x, look = layer.look(x, seen, memory["mask"], "attention" in want)
            x = layer.think(x)
            said.append(pair)
            looks.append(look)
        logits, attention = self.output(self.word_norm(x[:, 0])), _mean(looks)
        state = {"said": tuple(said), "position": position[:, 0] + 1}
        return Step(logits, state, attention=None if attention is None else attention[:, 0])

    def score(
        self,
        memory: Memory,
        words: Tensor,
        *,
        choices: Tensor | None = None,
        uniforms: Tensor | None = None,
        want: Collection[str] = (),
    ) -> Scores:
        """All words of a caption at once, each from those before it."""
        length = words.shape[-1]
        before = F.pad(words[..., :-1], (1, 0), value=self.codec.start).flatten(0, 1)  # (rows, T)
        x, looks = self._embedded(before, torch.arange(length, device=words.device)), []
        for layer, seen in zip(self._over_words, memory["regions"], strict=True):
            x, _ = layer.hear(x)
            x, look = layer.look(x, seen, memory["mask"], "attention" in want)
            x = layer.think(x)
            looks.append(look)
        return Scores.of_logits(self.output(self.word_norm(x)), words, want, _mean(looks))

    @property
    def _over_regions(self) -> "list[_Layer]":
        return list(self.region_layers)  # type: ignore[arg-type]  # a ModuleList forgets what it holds

    @property
    def _over_words(self) -> "list[_DecoderLayer]":
        return list(self.word_layers)  # type: ignore[arg-type]

    def _embedded(self, words: Tensor, position: Tensor) -> Tensor:
        """Words (rows, T) at their places, (T,) or (rows, T) -> (rows, T, width)."""
        turns = position[..., None] * self.waves
        at = torch.cat((turns.sin(), turns.cos()), -1)
        embedded: Tensor = self.dropout(self.embed(words) * self.embed.embedding_dim**0.5 + at)
        return embedded


class _Layer(nn.Module):
    """Hear the others, think: the layer over regions."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.before_others, self.others = nn.LayerNorm(width), _Heads(width, heads)
        self.think_over = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, inner), nn.ReLU(), nn.Dropout(dropout), nn.Linear(inner, width)
        )
        self.dropout = nn.Dropout(dropout)

    def hear(
        self, x: Tensor, mask: Tensor | None = None, kept: Pair | None = None, here: Tensor | None = None
    ) -> tuple[Tensor, Pair]:
        """x (G, Q, width) hears what `mask` (G, 1, 1, places) allows; None: those before it.

        `kept` are keys and values of the places of earlier calls, `here` (G, 1, places, 1) is where x belongs among
        them. They come back with x's own: a copy, so that the state before stays what it was.
        """
        normed = self.before_others(x)
        keys, values = self.others.keys_values(normed)
        if kept is not None and here is not None:
            keys, values = torch.where(here, keys, kept[0]), torch.where(here, values, kept[1])
        return x + self.dropout(self.others(normed, (keys, values), mask)), (keys, values)

    def think(self, x: Tensor) -> Tensor:
        thought: Tensor = x + self.dropout(self.think_over(x))
        return thought


class _DecoderLayer(_Layer):
    """Hear the words before, look at the regions, think."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__(width, heads, inner, dropout)
        self.before_regions, self.regions = nn.LayerNorm(width), _Heads(width, heads)

    def look(self, x: Tensor, seen: Pair, mask: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
        """x (rows, Q, width) looks at its image's regions, `seen` with `mask` (B, R); weights (rows, Q, R) if wanted.

        All words of all captions of an image ask in one go, so that its keys and values need no copies.
        """
        rows, queries, _ = x.shape
        normed = self.before_regions(x).view(len(mask), -1, x.shape[-1])
        found = self.regions(normed, seen, mask[:, None, None]).view_as(x)
        weights = self.regions.weights(normed, seen[0], mask[:, None, None]).view(rows, queries, -1) if wanted else None
        return x + self.dropout(found), weights


class _Heads(nn.Module):
    """Scaled dot-product attention of several heads; its keys and values may be kept for later."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self.key_and_value = nn.Linear(width, 2 * width)

    def keys_values(self, x: Tensor) -> Pair:
        keys, values = self.key_and_value(x).chunk(2, -1)
        return self._apart(keys), self._apart(values)

    def forward(self, x: Tensor, pair: Pair, mask: Tensor | None) -> Tensor:
        """x (G, Q, width); mask (G, 1, 1, places) says where to look, None: up to one's own place."""
        found = F.scaled_dot_product_attention(self._apart(self.query(x)), *pair, mask, is_causal=mask is None)
        together: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return together

    def weights(self, x: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """(G, Q, places): the mean of the heads."""
        query = self._apart(self.query(x)) * keys.shape[-1] ** -0.5
        energy: Tensor = at_least_float32(query @ keys.transpose(2, 3))
        return energy.masked_fill(~mask, -torch.inf).softmax(-1).mean(1)

    def _apart(self, x: Tensor) -> Tensor:
        """(G, places, width) -> (G, heads, places, width / heads)"""
        apart: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return apart


def _mean(looks: list[Tensor | None]) -> Tensor | None:
    wanted = [look for look in looks if look is not None]
    return torch.stack(wanted).mean(0) if wanted else None
