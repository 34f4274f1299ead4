"""Choosing the next word of each row from its scores: the likeliest, or one drawn by inverse CDF."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How the distribution of the next word is bent before a word is drawn from it.

    top_k and top_p (nucleus, Holtzman et al. 2020) cut its tail. The log-probability of what is drawn is that of
    the bent distribution.
    """

    temperature: float = 1.0
    top_k: int = 0  # 0: all words
    top_p: float = 1.0

    def log_probabilities(self, scores: Tensor) -> Tensor:
        """(rows, V) scores, -inf where forbidden -> (rows, V) normalised log-probabilities."""
        scores = scores if self.temperature == 1 else scores / self.temperature
        if 0 < self.top_k < scores.shape[-1]:
            least = scores.topk(self.top_k).values[:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        if self.top_p < 1:
            ordered, order = scores.sort(descending=True)
            p = ordered.softmax(-1)
            beyond = p.cumsum(-1) - p >= self.top_p  # the words before it hold top_p already
            scores = scores.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
        return scores.log_softmax(-1)


def likeliest(scores: Tensor) -> Tensor:
    """(rows, V) -> (rows,)."""
    return scores.argmax(-1)


def drawn(log_p: Tensor, uniforms: Tensor) -> Tensor:
    """(rows, V) log-probabilities, (rows,) uniforms in (0, 1) -> (rows,) words. A word of probability 0 never comes.

    The first word whose cumulative probability exceeds the uniform; a row whose uniform is NaN takes the likeliest.
    Sums are scaled by their total, which rounding leaves beside 1.
    """
    cumulative = log_p.exp().cumsum(-1)
    total = cumulative[:, -1]
    point = torch.minimum(uniforms.to(total.dtype) * total, torch.nextafter(total, torch.zeros_like(total)))
    # Where the scores hold NaN the search runs off the end: a legal index, so that a loss can report the NaN.
    words = torch.searchsorted(cumulative, point[:, None], right=True)[:, 0].clamp_max(log_p.shape[-1] - 1)
    return torch.where(uniforms.isnan(), likeliest(log_p), words)
