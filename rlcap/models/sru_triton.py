# mypy: disable-error-code="import-untyped, no-untyped-call, no-untyped-def, untyped-decorator"
# (of Triton, which takes annotations of a kernel for its own)
"""The scan of sru_scan as two Triton kernels, for CUDA: a thread keeps one channel's cell of one row in a register.

Nothing but what the gradient needs twice is written: the gates are computed again on the way back. Sums are in
float32 at least, whatever the tensors are.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlcap.models.sru_scan import Activation

BLOCK = 128  # channels of a program: one a thread, so that few rows are enough for all of a GPU


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _shown(cell, activation: tl.constexpr):
    if activation == "tanh":
        cell = 2 * _sigmoid(2 * cell) - 1
    elif activation == "relu":
        cell = tl.maximum(cell, 0.0)
    return cell


@triton.jit(do_not_specialize=["pairs", "words"])
def _forward(
    given,
    highway,
    bias,
    recurrent,
    first,
    output,
    cells,  # (rows, T + 1, W)
    last,
    pairs,  # rows · W
    words,
    width,
    parts: tl.constexpr,
    has_recurrent: tl.constexpr,
    activation: tl.constexpr,
    exact: tl.constexpr,
    block: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    here = place < pairs
    row, channel = place // width, place % width
    forget_bias = tl.load(bias + channel, mask=here).to(exact)
    reset_bias = tl.load(bias + width + channel, mask=here).to(exact)
    if has_recurrent:
        forget_weight = tl.load(recurrent + channel, mask=here).to(exact)
        reset_weight = tl.load(recurrent + width + channel, mask=here).to(exact)
    cell = tl.load(first + place, mask=here).to(exact)

    part = row * words * parts * width + channel  # the place in `given`
    word = row * words * width + channel  # the place in what has T words
    following = row * (words + 1) * width + channel  # the place in `cells`
    tl.store(cells + following, cell, mask=here)
    for _ in range(words):
        candidate = tl.load(given + part, mask=here).to(exact)
        forget = tl.load(given + part + width, mask=here).to(exact) + forget_bias
        reset = tl.load(given + part + 2 * width, mask=here).to(exact) + reset_bias
        if parts == 4:
            passed = tl.load(given + part + 3 * width, mask=here).to(exact)
        else:
            passed = tl.load(highway + word, mask=here).to(exact)
        if has_recurrent:
            forget += forget_weight * cell
            reset += reset_weight * cell
        forget, reset = _sigmoid(forget), _sigmoid(reset)
        cell = forget * cell + (1 - forget) * candidate
        part += parts * width
        following += width
        tl.store(output + word, reset * _shown(cell, activation) + (1 - reset) * passed, mask=here)
        tl.store(cells + following, cell, mask=here)
        word += width
    tl.store(last + place, cell, mask=here)


@triton.jit(do_not_specialize=["pairs", "words"])
def _backward(
    given,
    highway,
    bias,
    recurrent,
    cells,
    d_output,
    d_last,
    d_given,
    d_highway,
    d_weights,  # (rows, 4, W): of the biases of forget and reset, of the recurrent weights of both
    d_first,
    pairs,
    words,
    width,
    parts: tl.constexpr,
    has_recurrent: tl.constexpr,
    activation: tl.constexpr,
    exact: tl.constexpr,
    block: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    here = place < pairs
    row, channel = place // width, place % width
    forget_bias = tl.load(bias + channel, mask=here).to(exact)
    reset_bias = tl.load(bias + width + channel, mask=here).to(exact)
    if has_recurrent:
        forget_weight = tl.load(recurrent + channel, mask=here).to(exact)
        reset_weight = tl.load(recurrent + width + channel, mask=here).to(exact)

    final = row * words + words - 1
    part, word = final * parts * width + channel, final * width + channel
    following = (row * (words + 1) + words) * width + channel
    cell = tl.load(cells + following, mask=here).to(exact)
    d_cell = tl.load(d_last + place, mask=here).to(exact)
    d_forget_bias = tl.full((block,), 0.0, exact)
    d_reset_bias = tl.full((block,), 0.0, exact)
    d_forget_weight = tl.full((block,), 0.0, exact)
    d_reset_weight = tl.full((block,), 0.0, exact)
    for _ in range(words):
        following -= width
        before = tl.load(cells + following, mask=here).to(exact)
        candidate = tl.load(given + part, mask=here).to(exact)
        forget = tl.load(given + part + width, mask=here).to(exact) + forget_bias
        reset = tl.load(given + part + 2 * width, mask=here).to(exact) + reset_bias
        if parts == 4:
            passed = tl.load(given + part + 3 * width, mask=here).to(exact)
        else:
            passed = tl.load(highway + word, mask=here).to(exact)
        if has_recurrent:
            forget += forget_weight * before
            reset += reset_weight * before
        forget, reset = _sigmoid(forget), _sigmoid(reset)
        shown = _shown(cell, activation)

        d_h = tl.load(d_output + word, mask=here).to(exact)
        d_passed = d_h * (1 - reset)
        d_reset = d_passed * reset * (shown - passed)
        d_shown = d_h * reset
        if activation == "tanh":
            d_shown *= 1 - shown * shown
        elif activation == "relu":
            d_shown = tl.where(shown > 0, d_shown, 0.0)
        d_cell += d_shown
        d_candidate = d_cell * (1 - forget)
        d_forget = d_candidate * forget * (before - candidate)
        d_cell *= forget
        if has_recurrent:
            d_cell += d_forget * forget_weight + d_reset * reset_weight
            d_forget_weight += d_forget * before
            d_reset_weight += d_reset * before
        d_forget_bias += d_forget
        d_reset_bias += d_reset

        tl.store(d_given + part, d_candidate, mask=here)
        tl.store(d_given + part + width, d_forget, mask=here)
        tl.store(d_given + part + 2 * width, d_reset, mask=here)
        if parts == 4:
            tl.store(d_given + part + 3 * width, d_passed, mask=here)
        else:
            tl.store(d_highway + word, d_passed, mask=here)
        cell = before
        part -= parts * width
        word -= width
    tl.store(d_first + place, d_cell, mask=here)
    weights = row * 4 * width + channel
    tl.store(d_weights + weights, d_forget_bias, mask=here)
    tl.store(d_weights + weights + width, d_reset_bias, mask=here)
    if has_recurrent:
        tl.store(d_weights + weights + 2 * width, d_forget_weight, mask=here)
        tl.store(d_weights + weights + 3 * width, d_reset_weight, mask=here)


def triton_scan(
    given: Tensor,
    highway: Tensor | None,
    bias: Tensor,
    recurrent: Tensor | None,
    first: Tensor,
    activation: Activation,
) -> tuple[Tensor, Tensor]:
    output, last = _TritonScan.apply(given, highway, bias, recurrent, first, activation)
    return output, last


class _TritonScan(torch.autograd.Function):
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
        given, bias, first = given.contiguous(), bias.contiguous(), first.contiguous()
        highway = None if highway is None else highway.contiguous()
        recurrent = None if recurrent is None else recurrent.contiguous()
        output, last = given.new_empty(rows, words, width), given.new_empty(rows, width)
        cells = given.new_empty(rows, words + 1, width)
        ctx.activation = activation
        _launch(_forward, activation, given, highway, bias, recurrent, first, output, cells, last)
        ctx.save_for_backward(given, highway, bias, recurrent, cells)
        return output, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_output: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        given, highway, bias, recurrent, cells = ctx.saved_tensors
        rows, _, _, width = given.shape
        d_given, d_first = torch.empty_like(given), torch.empty_like(d_last)
        d_highway = None if highway is None else torch.empty_like(highway)
        d_weights = torch.empty(rows, 4, width, device=given.device, dtype=_exact(given.dtype))
        moving = d_output.contiguous(), d_last.contiguous(), d_given, d_highway, d_weights, d_first
        _launch(_backward, ctx.activation, given, highway, bias, recurrent, cells, *moving)
        d_bias, d_recurrent = d_weights.sum(0).to(bias.dtype).chunk(2)
        return d_given, d_highway, d_bias, None if recurrent is None else d_recurrent, d_first, None


def _launch(kernel: Any, activation: Activation, given: Tensor, *others: Tensor | None) -> None:
    """A program for each BLOCK of pairs (row, channel). Nothing reads what is None: any tensor stands for it."""
    rows, words, parts, width = given.shape
    _, _, recurrent, *_ = others
    with torch.cuda.device_of(given):
        kernel[(triton.cdiv(rows * width, BLOCK),)](
            given,
            *(given if other is None else other for other in others),
            rows * width,
            words,
            width,
            parts=parts,
            has_recurrent=recurrent is not None,
            activation=activation,
            exact=tl.float64 if given.dtype == torch.float64 else tl.float32,
            block=BLOCK,
        )


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
