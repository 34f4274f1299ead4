"""The recurrence of the SRU, for all words of many rows: what is left when the matrix products are done.

Letters: `rows` sequences, T words, W channels. Everything is elementwise, so that a channel never sees another:

    f = σ(given_f + v_f∘c' + b_f)    r = σ(given_r + v_r∘c' + b_r)    c' is the cell before the word
    c = f∘c' + (1 - f)∘given_u       h = r∘g(c) + (1 - r)∘highway

The highway is a fourth part of `given`, or else the `highway` that is given beside it.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Activation = Literal["identity", "tanh", "relu"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda cell: cell,
    "tanh": torch.tanh,
    "relu": torch.relu,
}
# g'(c), said by g(c)
SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": torch.ones_like,
    "tanh": lambda shown: 1 - shown.square(),
    "relu": lambda shown: (shown > 0).to(shown.dtype),
}


class Scan(Protocol):
    def __call__(
        self,
        given: Tensor,  # (rows, T, 3 or 4, W): candidate u, forget, reset, perhaps highway
        highway: Tensor | None,  # (rows, T, W), where `given` has three parts
        bias: Tensor,  # (2, W): of forget and reset
        recurrent: Tensor | None,  # (2, W): v_f and v_r; None: zero
        first: Tensor,  # (rows, W): the cell before the first word
        activation: Activation,  # g
    ) -> tuple[Tensor, Tensor]: ...  # h (rows, T, W), the last cell (rows, W)


def plain_scan(
    given: Tensor,
    highway: Tensor | None,
    bias: Tensor,
    recurrent: Tensor | None,
    first: Tensor,
    activation: Activation,
) -> tuple[Tensor, Tensor]:
    """Word by word, as the equations stand: what the other forms are measured against."""
    cell, outputs = first, []
    for t in range(given.shape[1]):
        gates = given[:, t, 1:3] + bias
        if recurrent is not None:
            gates = gates + recurrent * cell.unsqueeze(1)
        forget, reset = gates.sigmoid().unbind(1)
        cell = forget * cell + (1 - forget) * given[:, t, 0]
        passed = given[:, t, 3] if highway is None else highway[:, t]
        outputs.append(reset * ACTIVATIONS[activation](cell) + (1 - reset) * passed)
    return torch.stack(outputs, 1), cell


def fused_scan(
    given: Tensor,
    highway: Tensor | None,
    bias: Tensor,
    recurrent: Tensor | None,
    first: Tensor,
    activation: Activation,
) -> tuple[Tensor, Tensor]:
    """The same numbers, fast, with a gradient derived by hand: by Triton on CUDA, elsewhere by torch."""
    if given.is_cuda and _has_triton():
        from rlcap.models.sru_triton import triton_scan

        return triton_scan(given, highway, bias, recurrent, first, activation)
    output, last = _FusedScan.apply(given, highway, bias, recurrent, first, activation)
    return output, last


SCANS: dict[str, Scan] = {"fused": fused_scan, "plain": plain_scan}


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


class _FusedScan(torch.autograd.Function):
    """Only the cell needs one word after the other; gates without recurrent weights, outputs and gradients do not."""

    @staticmethod
    def forward(
        ctx: Any,
        given: Tensor,
        highway: Tensor | None,
        bias: Tensor,
        recurrent: Tensor | None,
        first: Tensor,
        activation: Activation,
    ) -> tuple[Tensor, Tensor]:
        rows, words, _, width = given.shape
        gates = given[:, :, 1:3] + bias
        cells = given.new_empty(rows, words + 1, width)
        cells[:, 0] = first
        if recurrent is None:
            gates.sigmoid_()
        cell = cells[:, 0]
        for candidate, gate, following in zip(
            given[:, :, 0].unbind(1), gates.unbind(1), cells[:, 1:].unbind(1), strict=True
        ):
            if recurrent is not None:
                gate.addcmul_(recurrent, cell.unsqueeze(1)).sigmoid_()
            torch.lerp(candidate, cell, gate[:, 0], out=following)
            cell = following
        passed = given[:, :, 3] if highway is None else highway
        output = torch.lerp(passed, ACTIVATIONS[activation](cells[:, 1:]), gates[:, :, 1])
        ctx.save_for_backward(given, highway, recurrent, gates, cells)
        ctx.activation = activation
        return output, cell.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_output: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        """In place where it can be: each part of `d_given` is filled step by step."""
        given, highway, recurrent, gates, cells = ctx.saved_tensors
        (forget, reset), before = gates.unbind(2), cells[:, :-1]
        d_given = torch.empty_like(given)
        d_candidate, d_forget, d_reset = d_given[:, :, :3].unbind(2)
        if highway is None:
            passed, d_highway = given[:, :, 3], d_given[:, :, 3]
        else:
            passed, d_highway = highway, torch.empty_like(highway)

        shown = ACTIVATIONS[ctx.activation](cells[:, 1:])
        d_cell = d_output * reset
        torch.sub(d_output, d_cell, out=d_highway)  # d_output∘(1 - r)
        torch.sub(shown, passed, out=d_reset).mul_(reset).mul_(d_highway)
        if ctx.activation != "identity":
            d_cell.mul_(SLOPES[ctx.activation](shown))

        torch.sub(1, forget, out=d_candidate)  # ∂c/∂u
        torch.sub(before, given[:, :, 0], out=d_forget).mul_(forget).mul_(d_candidate)  # ∂c/∂f∘f∘(1 - f)
        carried = forget  # ∂c/∂c'
        if recurrent is not None:
            carried = torch.addcmul(forget, d_forget, recurrent[0])
            d_cell[:, :-1].addcmul_(d_reset[:, 1:], recurrent[1])
        d_cell[:, -1].add_(d_last)
        of_word, by_word = d_cell.unbind(1), carried.unbind(1)
        for t in range(len(of_word) - 1, 0, -1):
            of_word[t - 1].addcmul_(of_word[t], by_word[t])
        d_first = of_word[0] * by_word[0]
        d_forget.mul_(d_cell)
        d_candidate.mul_(d_cell)

        d_gates, d_recurrent = d_given[:, :, 1:3], None
        if recurrent is not None:
            d_first.addcmul_(d_reset[:, 0], recurrent[1])
            d_recurrent = (d_gates * before.unsqueeze(2)).sum((0, 1))
        return d_given, None if highway is None else d_highway, d_gates.sum((0, 1)), d_recurrent, d_first, None
