"""What soft and hard attention share: the network of "Show, Attend and Tell" (Xu et al. 2015, arXiv 1502.03044)."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlcap.contracts import Codec, Features, FeatureShape, Memory, Scores
from rlcap.models.attention import AdditiveAttention, mean_region, narrowing
from rlcap.models.cells import CELLS, CellName, CellState

# Turns the log-probabilities of regions (rows, R) into the weights of what is seen. A number says at which word.
Gaze = Callable[[int, Tensor], Tensor]


class Attending(nn.Module):
    """At each word: look (a weight for each region), gate what was seen, move the cell, say a word.

    The numbers in the comments are the paper's equations. The deep output has a tanh, as in the authors' own code.
    `project` narrows wide features first, once an image: what each word costs falls with it. 0 is the paper's way.
    """

    def __init__(
        self,
        codec: Codec,
        shape: FeatureShape,
        *,
        cell: CellName,
        hidden: int,
        embedding: int,
        attention: int,
        project: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.start_word = codec.start
        self.project = narrowing(shape.width, project, dropout)
        width = project or shape.width
        self.cell = CELLS[cell](hidden)
        self.attend = AdditiveAttention(width, hidden, attention)
        self.first_state = nn.Linear(width, self.cell.tensors * hidden)
        self.gate = nn.Linear(hidden, 1)  # beta, section 4.2.1
        self.embed = nn.Embedding(codec.size, embedding)
        self.word_to_cell = nn.Linear(embedding, self.cell.width)
        self.seen_to_cell = nn.Linear(width, self.cell.width, bias=False)
        self.state_to_output = nn.Linear(hidden, embedding)
        self.seen_to_output = nn.Linear(width, embedding, bias=False)
        self.output = nn.Linear(embedding, codec.size)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embed.weight, std=embedding**-0.5)

    def remember(self, features: Features) -> Memory:
        values, mask = self.project(features.values), features.mask
        return {
            "values": values,
            "keys": self.attend.keys(values),
            "mask": mask,
            "first": torch.tanh(self.first_state(mean_region(values, mask))),
        }

    def start(self, memory: Memory, n: int) -> CellState:
        state: CellState = memory["first"].repeat_interleave(n, 0).chunk(self.cell.tensors, -1)
        return state

    def step(self, words: Tensor, state: CellState, memory: Memory, gaze: Gaze) -> tuple[Tensor, CellState]:
        """One word of all rows: the logits of the next one (rows, V), and the state behind it."""
        embedded = self.dropout(self.embed(words))
        state, seen = self._move(0, self.word_to_cell(embedded), state, memory, gaze)
        return self._say(embedded, state[0], seen), state

    def score(self, memory: Memory, words: Tensor, gaze: Gaze, want: Collection[str]) -> Scores:
        """As the loop over `step`, with all that does not depend on the state done for every word at once."""
        _, n, length = words.shape
        before = F.pad(words[..., :-1], (1, 0), value=self.start_word).flatten(0, 1)  # (rows, T)
        embedded = self.dropout(self.embed(before))
        given = self.word_to_cell(embedded)
        state = self.start(memory, n)
        hiddens, seens = [], []
        for t in range(length):
            state, seen = self._move(t, given[:, t], state, memory, gaze)
            hiddens.append(state[0])
            seens.append(seen)
        logits = self._say(embedded, torch.stack(hiddens, 1), torch.stack(seens, 1))
        return Scores.of_logits(logits, words, want)

    def _move(self, t: int, given: Tensor, state: CellState, memory: Memory, gaze: Gaze) -> tuple[CellState, Tensor]:
        """Look with the old state, then the cell (eq. 1-3): the new state, and what was seen, all (rows, …)."""
        hidden, images = state[0], memory["values"].shape[0]
        energies = self.attend.energies(hidden.unflatten(0, (images, -1)), memory["keys"], memory["mask"])  # eq. 4
        weights = gaze(t, energies.flatten(0, 1).log_softmax(-1)).unflatten(0, (images, -1))  # eq. 5
        seen = torch.bmm(weights, memory["values"]).flatten(0, 1)  # eq. 6, 13
        seen = torch.sigmoid(self.gate(hidden)) * seen
        return self.cell(given + self.seen_to_cell(seen), state), seen

    def _say(self, embedded: Tensor, hidden: Tensor, seen: Tensor) -> Tensor:
        """The deep output (eq. 7), for (…, H)."""
        mixed = torch.tanh(embedded + self.state_to_output(hidden) + self.seen_to_output(seen))
        logits: Tensor = self.output(self.dropout(mixed))
        return logits
