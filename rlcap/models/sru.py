"""The Simple Recurrent Unit (Lei et al. 2018, https://arxiv.org/abs/1709.02755): its gates need no matrix product
with the state, so that those of all words are done at once and what is left is elementwise (see sru_scan).

Rows come first, as everywhere here: (rows, T, D). The weights go from and to the `sru` package: see sru_package.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlcap.errors import ComponentError
from rlcap.models.sru_scan import SCANS, Activation

ScanName = Literal["fused", "plain"]


class SRU(nn.Module):
    """A stack of layers. W, the width of its output, is `hidden_size`, twice that if `bidirectional`.

    `v1` leaves out the recurrent weights of the gates, as the first version of the paper. `layer_norm` normalises what
    the matrices of a layer see, not its highway. `rescale` multiplies a highway without a matrix by √3, so that the
    layers of a deep stack start with outputs of the same variance. `dropout`, between layers, has one mask for all
    words of a row (in `step` one for each word). These are the package's; ours alone are the activation "relu", and
    `project_highway`: (1 - r)∘W_h x instead of (1 - r)∘x also where input and output have the same width.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        dropout: float = 0.0,
        bidirectional: bool = False,
        layer_norm: bool = False,
        rescale: bool = False,
        v1: bool = False,
        activation: Activation = "identity",
        project_highway: bool = False,
        scan: ScanName = "fused",
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.bidirectional = input_size, hidden_size, bidirectional
        self.width = hidden_size * (2 if bidirectional else 1)
        self.dropout, self.layer_norm, self.rescale = dropout, layer_norm, rescale
        self.v1, self.activation, self.project_highway = v1, activation, project_highway
        self.layers = nn.ModuleList(
            SRULayer(
                self.width if number else input_size,
                self.width,
                dropout=dropout if number + 1 < num_layers else 0.0,
                bidirectional=bidirectional,
                layer_norm=layer_norm,
                rescale=rescale,
                v1=v1,
                activation=activation,
                project_highway=project_highway,
                scan=scan,
            )
            for number in range(num_layers)
        )

    def start(self, rows: int) -> Tensor:
        """The cells (rows, layers, W) before the first word."""
        return next(self.parameters()).new_zeros(rows, len(self.layers), self.width)

    def forward(self, x: Tensor, state: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(rows, T, D), and the cells before, to the outputs (rows, T, W) and the cells behind, (rows, layers, W).

        Words where `mask` (rows, T) is False leave the cells as they are, and their output is 0.
        """
        cells = (self.start(len(x)) if state is None else state).unbind(1)
        last = []
        for layer, cell in zip(self.layers, cells, strict=True):
            x, cell = layer(x, cell, mask)
            last.append(cell)
        return x, torch.stack(last, 1)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One word of each row: (rows, D) and the cells before, to (rows, W) and the cells behind."""
        if self.bidirectional:
            raise ComponentError("SRU: a bidirectional one needs whole sequences, it has no `step`")
        output, state = self(x.unsqueeze(1), state)
        return output.squeeze(1), state


class SRULayer(nn.Module):
    """One layer, or two in one that read in both directions: their channels stand side by side."""

    def __init__(
        self,
        input_size: int,
        width: int,
        *,
        dropout: float,
        bidirectional: bool,
        layer_norm: bool,
        rescale: bool,
        v1: bool,
        activation: Activation,
        project_highway: bool,
        scan: ScanName,
    ) -> None:
        super().__init__()
        self.width, self.dropout, self.bidirectional = width, dropout, bidirectional
        self.rescale, self.activation, self.scan = rescale, activation, SCANS[scan]
        self.projects = project_highway or input_size != width
        self.matrices = 4 if self.projects else 3  # candidate, forget, reset, and perhaps highway
        self.weight = nn.Parameter(torch.empty(self.matrices * width, input_size))
        self.bias = nn.Parameter(torch.empty(2 * width))  # of forget and reset
        self.weight_c = None if v1 else nn.Parameter(torch.empty(2 * width))
        self.layer_norm = nn.LayerNorm(input_size) if layer_norm else None
        self.register_buffer("scale_x", torch.ones(1))
        self.scale_x: Tensor
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As the package does it (section 3.2 of the paper), uniformly. Callers may prefer another way."""
        self.bias.zero_()
        self.scale_x.fill_(3**0.5 if self.rescale else 1.0)
        bound = (3 / self.weight.shape[1]) ** 0.5
        candidate, *gates = self.weight.uniform_(-bound, bound).chunk(self.matrices)
        candidate.mul_((1 - self.dropout) ** 0.5)
        if self.projects:
            gates.pop().mul_(self.scale_x)
        if self.layer_norm is not None:
            self.weight.mul_(0.1)
        if self.weight_c is not None:
            self.weight_c.uniform_(-(1.5**0.5), 1.5**0.5)
            for gate in gates:
                gate.mul_(0.5**0.5)

    def forward(self, x: Tensor, first: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        # Under autocast the products are in half precision; sums over many words are not.
        exact = self.bias.dtype
        products = F.linear(x if self.layer_norm is None else self.layer_norm(x), self.weight).to(exact)
        given = products.unflatten(-1, (self.matrices, self.width))
        highway = None if self.projects else x.to(exact) * self.scale_x if self.rescale else x.to(exact)
        if mask is not None:  # a forget gate of exactly 1 keeps the cell
            forget = torch.arange(self.matrices, device=x.device).unsqueeze(-1) == 1
            given = given.masked_fill(~mask[..., None, None] & forget, torch.inf)
        if self.bidirectional:
            given = self._turned(given)
            highway = highway if highway is None else self._turned(highway)
        recurrent = None if self.weight_c is None else self.weight_c.view(2, -1)
        h, last = self.scan(given, highway, self.bias.view(2, -1), recurrent, first.to(exact), self.activation)
        if self.training and self.dropout:
            kept = torch.empty_like(first, dtype=exact).bernoulli_(1 - self.dropout).div_(1 - self.dropout)
            h = torch.lerp(given[:, :, 3] if highway is None else highway, h, kept.unsqueeze(1))
        h = self._turned(h) if self.bidirectional else h
        return h if mask is None else h.masked_fill(~mask.unsqueeze(-1), 0), last

    def _turned(self, values: Tensor) -> Tensor:
        """(rows, T, …, W) with the second half of the channels from the last word to the first."""
        forward, backward = values.chunk(2, -1)
        return torch.cat([forward, backward.flip(1)], -1)
