"""Losses as pure functions of tensors. Each returns a scalar whose mean does not depend on padding."""

from collections.abc import Sequence

import torch
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


def info_nce(logits: Tensor) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748; CLIP, arXiv:2103.00020), nats.

    logits (B, B, N): of image b with caption n of image c. A caption looks for its image among the B. An image looks
    for each of its captions among those of the other images: its own are never negatives of one another.
    """
    logits = at_least_float32(logits)
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    right = logits.diagonal().T  # (B, N)
    to_image = logits.logsumexp(0) - right
    others = logits.masked_fill(own[..., None], -torch.inf).flatten(1).logsumexp(1)  # (B,)
    to_caption = F.softplus(others[:, None] - right)
    return (to_image.mean() + to_caption.mean()) / 2


def policy_gradient(log_prob: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
    """REINFORCE (Williams 1992): -advantage · log p, the mean over the words that count.

    log_prob and mask (B, N, T); advantage (B, N), or (B, N, T) where each word has its own.
    """
    if advantage.dim() == 2:
        advantage = advantage[..., None]
    return -masked_mean(advantage.detach() * log_prob, mask)


def word_log_prob(logits: Tensor, words: Tensor, banned: Sequence[int], temperature: float = 1.0) -> Tensor:
    """(B, N, T): log p(word) under the distribution that captions are drawn from: tempered, without banned ids."""
    scores = at_least_float32(logits)
    if banned:
        scores = scores.index_fill(-1, torch.tensor(banned, device=scores.device), -torch.inf)
    return (scores / temperature).log_softmax(-1).gather(-1, words[..., None])[..., 0]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the values whose mask is True; the others may be anything, NaN too."""
    return values.masked_fill(~mask, 0).sum() / mask.sum()
