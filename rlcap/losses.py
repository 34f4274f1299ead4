"""Losses, and the credit that they are made of, as functions of tensors. Padding never counts.

Where several processes share a batch, a mean is this one's part of it: theirs average to the mean of the whole batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rlcap import distributed
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
    return mean_of((1 - looked).square().sum(-1))


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


def policy_gradient(log_prob: Tensor, advantage: Tensor, mask: Tensor, length: int) -> Tensor:
    """REINFORCE (Williams 1992): -advantage · log p, as `caption_mean`.

    log_prob and mask (B, N, T); advantage (B, N, 1), or (B, N, T) where each word has its own.
    """
    return -caption_mean(advantage.detach() * log_prob, mask, length)


def clipped_policy_gradient(
    log_prob: Tensor, before: Tensor, advantage: Tensor, mask: Tensor, length: int, clip: float
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate (Schulman et al. 2017, arXiv:1707.06347, eq. 7) word by word, as `caption_mean`.

    `before` (B, N, T): log p of the policy that the captions were drawn from. Also the share of words without
    gradient, since their ratio has moved further than `clip` where the advantage sends it.
    """
    ratio, advantage = (log_prob - before.detach()).exp(), advantage.detach()
    free, clipped = ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage
    stopped = masked_mean((clipped < free).detach().to(ratio.dtype), mask)
    return -caption_mean(torch.minimum(free, clipped), mask, length), stopped


def minimum_risk(log_prob: Tensor, rewards: Tensor, alpha: float) -> Tensor:
    """The expected -reward among an image's candidates (Shen et al. 2016, https://aclanthology.org/P16-1159).

    log_prob (B, N): of whole captions, -inf for one that is no candidate; rewards (B, N). Candidates share the
    probability p^alpha, normalised among them.
    """
    shares = (alpha * log_prob).softmax(-1)
    return -mean_of((shares * rewards.detach()).sum(-1))


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """(…, V) log-probabilities, both -inf in the same places if anywhere -> (…) KL(p ‖ q), nats."""
    least = torch.finfo(log_p.dtype).min
    return (log_p.exp() * (log_p.clamp_min(least) - log_q.clamp_min(least))).sum(-1)


def discrimination(real: Tensor, counts: Tensor, others: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Binary cross-entropy of a discriminator's logits: people's captions against each kind of others, half and half.

    Goodfellow et al. 2014 (https://arxiv.org/abs/1406.2661); with mismatching captions among the others, Reed et al.
    2016 (arXiv 1605.05396). With each logits (B, N) the captions that count, bool.
    """
    people = masked_mean(F.softplus(-at_least_float32(real)), counts)
    against = [masked_mean(F.softplus(at_least_float32(logits)), counted) for logits, counted in others]
    return (people + torch.stack(against).mean()) / 2


def ranked(scores: Tensor, sharpness: float = 12.0) -> Tensor:
    """LeakGAN's bootstrapped rescaled activation (arXiv 1709.08624, eq. 11): σ(sharpness · (1/2 - rank / n)).

    scores (n, …) -> the same shape, in (0, 1): rank 1 is the highest of a column, and equal ones share their mean rank.
    """
    return torch.sigmoid(sharpness * (0.5 - ranks(scores) / len(scores)))


def ranks(scores: Tensor) -> Tensor:
    """scores (n, …) -> of each its place in its column, from 1 for the highest; equal ones share their mean place."""
    above = (scores[None] > scores[:, None]).sum(1)
    equal = (scores[None] == scores[:, None]).sum(1)  # with itself
    return above + (equal + 1) / 2


def goal_alignment(goals: Tensor, leaked: Tensor, lengths: Tensor, horizon: int) -> Tensor:
    """cos(f_{t+c} - f_t, g_t): does the feature move as the goal said?

    goals (B, N, T, F), leaked (B, N, T + 1, F), lengths (B, N), horizon c -> (B, N, T). A caption ends where it ends:
    t + c goes no further.
    """
    goals, leaked = at_least_float32(goals), at_least_float32(leaked)
    at = torch.arange(goals.shape[2], device=goals.device) + horizon
    behind = torch.minimum(at.expand(*lengths.shape, -1), lengths[..., None])
    later = leaked.gather(2, behind[..., None].expand_as(goals))
    return F.cosine_similarity(later - leaked[:, :, :-1], goals, dim=-1)


def manager(alignment: Tensor, reward: Tensor, mask: Tensor) -> Tensor:
    """-Q · cos(f_{t+c} - f_t, g_t), mean over the goals that count (LeakGAN, eq. 7, and with Q = 1 eq. 10).

    alignment, reward, mask (B, N, T); the reward is that of the prefix of t + c words.
    """
    return -masked_mean(reward.detach() * alignment, mask)


def intrinsic_reward(goals: Tensor, leaked: Tensor, horizon: int) -> Tensor:
    """What the Worker earns with each word: mean over i = 1..c of cos(f_t - f_{t-i}, g_{t-i}) (LeakGAN, eq. 9).

    goals (B, N, T, F), leaked (B, N, T + 1, F), horizon c -> (B, N, T): of word t, counted from 1. Goals from before
    the caption began do not count.
    """
    goals, leaked, length = at_least_float32(goals), at_least_float32(leaked), goals.shape[2]
    total, count = goals.new_zeros(goals.shape[:3]), goals.new_zeros(length)
    for back in range(1, min(horizon, length) + 1):
        moved = leaked[:, :, back:] - leaked[:, :, :-back]
        alike = F.cosine_similarity(moved, goals[:, :, : length + 1 - back], dim=-1)
        total[:, :, back - 1 :] += alike
        count[back - 1 :] += 1
    return total / count


def caption_mean(values: Tensor, mask: Tensor, length: int) -> Tensor:
    """(B, N, T): summed over the words that count, mean over the captions, over `length`, the most words of a caption.

    A mean over the words that count would divide by what was drawn: not the gradient of the mean reward any more
    (Liu et al. 2025, arXiv:2503.20783). The constant `length` keeps the size of such a mean.
    """
    captions = distributed.mean_count(mask.shape[0] * mask.shape[1], values)
    return values.masked_fill(~mask, 0).sum() / (captions * length)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the values whose mask is True, 0 if there are none; the others may be anything, NaN too."""
    return values.masked_fill(~mask, 0).sum() / distributed.mean(mask.sum()).clamp_min(1 / distributed.size())


def mean_of(values: Tensor) -> Tensor:
    """The mean of all of them."""
    return values.sum() / distributed.mean_count(values.numel(), values)
