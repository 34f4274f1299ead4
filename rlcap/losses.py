"""Losses as pure functions of tensors. Each returns a scalar whose mean does not depend on padding."""

from torch import Tensor
from torch.nn import functional as F

from rlcap.contracts import at_least_float32


def cross_entropy(logits: Tensor, words: Tensor, mask: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean over the words that count of -log p(word), nats; smoothed as in Szegedy et al. 2016 (section 7).

    logits (B, N, T, V), words and mask (B, N, T).
    """
    per_word = F.cross_entropy(
        at_least_float32(logits).flatten(0, 2), words.flatten(), reduction="none", label_smoothing=smoothing
    )
    return masked_mean(per_word.view_as(words), mask)


def doubly_stochastic(attention: Tensor, mask: Tensor) -> Tensor:
    """Σ over regions of (1 - Σ over words of attention)², mean over captions (Xu et al. 2015, eq. 14).

    attention (B, N, T, R), mask (B, N, T). It asks a caption to look everywhere once: with fewer
    words than regions it cannot reach 0, and a region that is absent adds a constant 1.
    """
    looked = at_least_float32(attention).masked_fill(~mask[..., None], 0).sum(-2)
    return (1 - looked).square().sum(-1).mean()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the values whose mask is True; the others may be anything, NaN too."""
    return values.masked_fill(~mask, 0).sum() / mask.sum()
