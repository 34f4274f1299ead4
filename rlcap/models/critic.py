"""A critic: what reward to expect for an image, before any caption of it is drawn."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlcap.contracts import Memory, tree_map


class Critic(nn.Module):
    """From what a policy keeps of its images (`Policy.remember`) to a value each, 0 at first.

    Policies keep tensors of any width. Their means over the regions are brought to `seen` numbers by a fixed random
    projection, which keeps distances (Johnson & Lindenstrauss 1984).
    """

    def __init__(self, hidden: int, seen: int = 256) -> None:
        super().__init__()
        self.seen = seen
        self.inner, self.outer = nn.Linear(seen, hidden), nn.Linear(hidden, 1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)
        self._projections: dict[int, Tensor] = {}

    def forward(self, memory: Memory) -> Tensor:
        """-> (B,)"""
        parts: list[Tensor] = []

        def note(tensor: Tensor) -> Tensor:
            if tensor.is_floating_point():
                flat = tensor.reshape(len(tensor), -1, tensor.shape[-1] if tensor.dim() > 1 else 1)
                parts.append(flat.mean(1).to(self.inner.weight.dtype))
            return tensor

        tree_map(note, memory)
        summary = torch.cat(parts, -1)
        seen = F.layer_norm(summary @ self._projection(summary), (self.seen,))
        values: Tensor = self.outer(self.inner(seen).relu())
        return values[:, 0]

    def _projection(self, summary: Tensor) -> Tensor:
        width = summary.shape[-1]
        if width not in self._projections:  # on the CPU, so that it is the same everywhere
            drawn = torch.randn(width, self.seen, generator=torch.Generator().manual_seed(width))
            self._projections[width] = drawn.to(summary) / width**0.5
        return self._projections[width]
