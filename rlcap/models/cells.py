"""Recurrent cells whose inputs come ready: what does not depend on the state is computed for every word at once.

A cell is given the sum of all linear maps of its inputs, (rows, gates · hidden), and keeps its own map of the state.
The state is a tuple of (rows, hidden) tensors; the first is what the network sees.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

CellName = Literal["lstm", "gru", "rnn"]
CellState = tuple[Tensor, ...]


class Cell(nn.Module, ABC):
    gates: ClassVar[int]  # of its linear maps, in units of hidden
    tensors: ClassVar[int]  # of its state

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.of_state = nn.Linear(hidden, self.gates * hidden)
        nn.init.zeros_(self.of_state.bias)

    @property
    def width(self) -> int:
        """Of what it is given."""
        return self.gates * self.hidden

    @abstractmethod
    def forward(self, given: Tensor, state: CellState) -> CellState: ...


class LSTM(Cell):
    """Hochreiter and Schmidhuber 1997 with forget gates, which start open (bias 1). State: output, memory."""

    gates, tensors = 4, 2

    def __init__(self, hidden: int) -> None:
        super().__init__(hidden)
        with torch.no_grad():
            self.of_state.bias[hidden : 2 * hidden] = 1.0

    def forward(self, given: Tensor, state: CellState) -> CellState:
        hidden, cell = state
        into, forget, out, candidate = (given + self.of_state(hidden)).chunk(4, -1)
        cell = forget.sigmoid() * cell + into.sigmoid() * candidate.tanh()
        return out.sigmoid() * cell.tanh(), cell


class GRU(Cell):
    """Cho et al. 2014 (arXiv 1406.1078), with the reset gate behind the map of the state, as torch's."""

    gates, tensors = 3, 1

    def forward(self, given: Tensor, state: CellState) -> CellState:
        (hidden,) = state
        of_input, of_state = given.chunk(3, -1), self.of_state(hidden).chunk(3, -1)
        reset = (of_input[0] + of_state[0]).sigmoid()
        keep = (of_input[1] + of_state[1]).sigmoid()
        candidate = (of_input[2] + reset * of_state[2]).tanh()
        return (keep * hidden + (1 - keep) * candidate,)


class RNN(Cell):
    """Elman 1990: h = tanh(given + W h)."""

    gates, tensors = 1, 1

    def forward(self, given: Tensor, state: CellState) -> CellState:
        return ((given + self.of_state(state[0])).tanh(),)


CELLS: dict[str, type[Cell]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
