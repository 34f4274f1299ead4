"""Channel-wise and spatial attention over convolutional maps (SCA-CNN, Chen et al. 2017, arXiv 1611.05594)."""

from collections.abc import Collection
from typing import Literal

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
)
from rlcap.models.attention import AdditiveAttention, mean_region, narrowing
from rlcap.models.cells import CELLS, CellName, CellState

Order = Literal["channel_first", "spatial_first"]


class SCACNN(Policy):
    """At each word, the state weighs the channels ("what") and the regions ("where") of each layer's map.

    Layers are those that the encoder gives (`encoder.layers`), or the one map of a feature file. In the paper the
    weighed map of a layer goes through the convolutions that follow, which make the next layer's map of it, for every
    word anew. Here each layer's map is computed once an image and weighed on its own; what is seen in all of
    them goes to the cell together. Then features can be frozen, and a word costs no convolution.
    `project` narrows each map first, to that many channels.
    """

    def __init__(
        self,
        codec: Codec,
        shape: FeatureShape,
        *,
        order: Order = "channel_first",
        cell: CellName = "lstm",
        hidden: Positive = 512,
        embedding: Positive = 512,
        attention: Positive = 512,
        channel_attention: Positive = 64,
        project: NotNegative = 0,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.codec = codec
        self.cell = CELLS[cell](hidden)
        self.project = nn.ModuleList(narrowing(layer.width, project, dropout) for layer in shape.layers)
        widths = [project or layer.width for layer in shape.layers]
        self.look = nn.ModuleList(_Look(width, hidden, attention, channel_attention, order) for width in widths)
        self.first_state = nn.Linear(widths[-1], self.cell.tensors * hidden)
        self.embed = nn.Embedding(codec.size, embedding)
        self.word_to_cell = nn.Linear(embedding, self.cell.width)
        self.seen_to_cell = nn.Linear(sum(widths), self.cell.width, bias=False)
        self.state_to_output = nn.Linear(hidden, embedding)
        self.output = nn.Linear(embedding, codec.size)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embed.weight, std=embedding**-0.5)

    def remember(self, features: Features) -> Memory:
        parts = zip(self._looks, self.project, features.layers, strict=True)
        maps = [look.remember(project(layer.values), layer.mask) for look, project, layer in parts]
        return {"maps": maps, "first": torch.tanh(self.first_state(maps[-1]["mean"]))}

    def start(self, memory: Memory, n: int, length: int) -> State:
        return memory["first"].repeat_interleave(n, 0).chunk(self.cell.tensors, -1)

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
        embedded = self.dropout(self.embed(words))
        state, weights = self._move(self.word_to_cell(embedded), state, memory)
        return Step(self._say(embedded, state[0]), state, attention=weights if "attention" in want else None)

    def score(
        self,
        memory: Memory,
        words: Tensor,
        *,
        choices: Tensor | None = None,
        uniforms: Tensor | None = None,
        want: Collection[str] = (),
    ) -> Scores:
        """As the loop over `step`, with all that does not depend on the state done for every word at once."""
        _, n, length = words.shape
        before = F.pad(words[..., :-1], (1, 0), value=self.codec.start).flatten(0, 1)  # (rows, T)
        embedded = self.dropout(self.embed(before))
        given, state = self.word_to_cell(embedded), self.start(memory, n, length)
        hiddens, attentions = [], []
        for t in range(length):
            state, weights = self._move(given[:, t], state, memory)
            hiddens.append(state[0])
            attentions.append(weights)
        logits = self._say(embedded, torch.stack(hiddens, 1))
        return Scores.of_logits(logits, words, want, torch.stack(attentions, 1))

    @property
    def _looks(self) -> list["_Look"]:
        return list(self.look)  # type: ignore[arg-type]  # a ModuleList forgets what it holds

    def _move(self, given: Tensor, state: CellState, memory: Memory) -> tuple[CellState, Tensor]:
        """Look at every layer with the old state, then the cell: its state, and where the last layer was looked at."""
        query = state[0].unflatten(0, (len(memory["first"]), -1))
        looks = zip(self._looks, memory["maps"], strict=True)
        seen, weights = zip(*(look(query, kept) for look, kept in looks), strict=True)
        together = torch.cat(seen, -1).flatten(0, 1)
        return self.cell(given + self.seen_to_cell(together), state), weights[-1].flatten(0, 1)

    def _say(self, embedded: Tensor, hidden: Tensor) -> Tensor:
        """(…, E) the words before and (…, H) the states behind them -> (…, V)"""
        logits: Tensor = self.output(self.dropout(torch.tanh(embedded + self.state_to_output(hidden))))
        return logits


class _Look(nn.Module):
    """Both attentions over the map of one layer: the paper's C-S (channel_first) or S-C.

    The weights of C channels are multiplied by C: even ones leave the map as it is, in the size that the cell can use.
    """

    def __init__(self, width: int, hidden: int, attention: int, channel_attention: int, order: Order) -> None:
        super().__init__()
        self.order = order
        self.where = AdditiveAttention(width, hidden, attention)
        self.what = AdditiveAttention(1, hidden, channel_attention)  # a channel is known by its mean over the regions

    def remember(self, values: Tensor, mask: Tensor) -> Memory:
        """Of maps (B, R, C)."""
        memory = {"values": values, "mask": mask, "mean": mean_region(values, mask)}
        return memory if self.order == "channel_first" else {**memory, "keys": self.where.keys(values)}

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """(B, N, H) -> the weighed map summed over its regions (B, N, C), and the regions' weights (B, N, R)."""
        values, mask, n = memory["values"], memory["mask"], query.shape[1]
        by_row = query.flatten(0, 1)[:, None]
        if self.order == "spatial_first":
            seen, where = self.where(query, memory["keys"], values, mask)
            return self._channels(by_row, seen.flatten(0, 1)).view_as(seen) * seen, where
        channels = self._channels(query, memory["mean"])
        weighed = (channels[:, :, None] * values[:, None]).flatten(0, 1)  # (rows, R, C): so each row has its own keys
        seen, where = self.where(by_row, self.where.keys(weighed), weighed, mask.repeat_interleave(n, 0))
        return seen.view(-1, n, seen.shape[-1]), where.view(-1, n, where.shape[-1])

    def _channels(self, query: Tensor, means: Tensor) -> Tensor:
        """(X, N, H) and the channels' means (X, C) -> (X, N, C) weights, 1 on average."""
        every = torch.ones_like(means, dtype=torch.bool)
        weights = self.what.energies(query, self.what.keys(means[..., None]), every).softmax(-1)
        return weights * means.shape[-1]
