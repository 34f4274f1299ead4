"""Additive attention (Bahdanau et al. 2015), for many captions of an image at once."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def mean_region(values: Tensor, mask: Tensor) -> Tensor:
    """values (B, R, D), mask (B, R) -> (B, D): the mean of the regions that are there."""
    share = mask.to(values.dtype) / mask.sum(-1, keepdim=True)
    return torch.bmm(share[:, None], values)[:, 0]


def narrowing(width: int, project: int, dropout: float) -> nn.Sequential:
    """Of the regions' `width` to `project`, once an image; 0 leaves them as they are."""
    return nn.Sequential(*((nn.Linear(width, project), nn.ReLU(), nn.Dropout(dropout)) if project else ()))


class AdditiveAttention(nn.Module):
    """e = v · tanh(W_values a + W_query h); weights = softmax(e); context = Σ weights · a.

    The regions of an image stand once in memory, however many captions look at them. `bend` may be another than tanh.
    """

    def __init__(self, values: int, query: int, width: int, bend: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        self.bend = bend
        self.of_values = nn.Linear(values, width)
        self.of_query = nn.Linear(query, width, bias=False)
        self.energy = nn.Linear(width, 1, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        """(B, R, D) -> (B, R, A), once an image."""
        keys: Tensor = self.of_values(values)
        return keys

    def energies(self, query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        """query (B, N, H), keys (B, R, A), mask (B, R) -> (B, N, R), -inf where there is no region."""
        energy: Tensor = self.energy(self.bend(keys[:, None] + self.of_query(query)[:, :, None])).squeeze(-1)
        return energy.masked_fill(~mask[:, None], -torch.inf)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and values (B, R, D) -> context (B, N, D), weights (B, N, R)."""
        weights = self.energies(query, keys, mask).softmax(-1)
        return torch.bmm(weights, values), weights
