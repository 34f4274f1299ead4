"""No attention: a recurrent decoder begun with the whole image, after "Show and Tell" (Vinyals et al. 2015)."""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlcap.config import Positive, Rate
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
from rlcap.models.attention import mean_region
from rlcap.models.cells import CELLS, CellName


class ShowTell(Policy):
    """The projected mean of the regions is the first state; from then on only words come in.

    The paper (https://arxiv.org/abs/1411.4555) gives the image to an LSTM as if it were a first word.
    """

    def __init__(
        self,
        codec: Codec,
        shape: FeatureShape,
        *,
        hidden: Positive = 512,
        embedding: Positive = 512,
        dropout: Rate = 0.5,
        cell: CellName = "lstm",
    ) -> None:
        super().__init__()
        self.codec = codec
        self.cell = CELLS[cell](hidden)
        self.first_state = nn.Linear(shape.width, self.cell.tensors * hidden)
        self.embed = nn.Embedding(codec.size, embedding)
        self.word_to_cell = nn.Linear(embedding, self.cell.width, bias=False)
        self.output = nn.Linear(hidden, codec.size)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embed.weight, std=embedding**-0.5)

    def remember(self, features: Features) -> Memory:
        return torch.tanh(self.first_state(mean_region(features.values, features.mask)))

    def start(self, memory: Memory, n: int, length: int) -> State:
        return memory.repeat_interleave(n, 0).chunk(self.cell.tensors, -1)

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
        state = self.cell(self._read(words), state)
        return Step(self._say(state[0]), state)

    def score(
        self,
        memory: Memory,
        words: Tensor,
        *,
        choices: Tensor | None = None,
        uniforms: Tensor | None = None,
        want: Collection[str] = (),
    ) -> Scores:
        """As the loop over `step`, with all words read, and all of them said, at once."""
        _, n, length = words.shape
        given = self._read(F.pad(words[..., :-1], (1, 0), value=self.codec.start).flatten(0, 1))  # (rows, T, …)
        state, hiddens = self.start(memory, n, length), []
        for t in range(length):
            state = self.cell(given[:, t], state)
            hiddens.append(state[0])
        return Scores.of_logits(self._say(torch.stack(hiddens, 1)), words, want)

    def _read(self, words: Tensor) -> Tensor:
        given: Tensor = self.word_to_cell(self.dropout(self.embed(words)))
        return given

    def _say(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.output(self.dropout(hidden))
        return logits
