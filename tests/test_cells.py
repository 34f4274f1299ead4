"""Our cells against torch's own, given the same weights."""

import pytest
import torch
from torch import nn

from rlcap.models.cells import CELLS

THEIRS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}
ORDER = {"lstm": [0, 1, 3, 2], "gru": [0, 1, 2], "rnn": [0]}  # of torch's gates in ours


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_moves_as_torchs(name: str) -> None:
    torch.manual_seed(1)
    hidden, rows = 5, 3
    cell, theirs = CELLS[name](hidden).double(), THEIRS[name](hidden, hidden).double()
    order = [gate * hidden + place for gate in ORDER[name] for place in range(hidden)]
    with torch.no_grad():
        cell.of_state.weight.copy_(theirs.weight_hh[order])
        cell.of_state.bias.copy_(theirs.bias_hh[order])
    given, state = (
        torch.randn(rows, hidden).double(),
        tuple(torch.randn(rows, hidden).double() for _ in range(cell.tensors)),
    )
    ours = cell((given @ theirs.weight_ih.T + theirs.bias_ih)[:, order], state)
    expected = theirs(given, state if name == "lstm" else state[0])
    for mine, other in zip(ours, expected if name == "lstm" else (expected,), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)  # float64: rounding alone


def test_an_lstm_begins_by_keeping_its_memory() -> None:
    bias = CELLS["lstm"](4).of_state.bias
    assert bias.view(4, 4).tolist() == [[0.0] * 4, [1.0] * 4, [0.0] * 4, [0.0] * 4]
