"""Which words may not come next: banned ids, an early end, an n-gram that was said before."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from rlcap.contracts import Codec
from rlcap.errors import ConfigError


@dataclass(frozen=True)
class Constraints:
    """What a caption must keep to, however its words are chosen. The codec's banned ids never come anyway."""

    min_words: int = 0  # the end token does not come before so many words
    no_repeat_ngram: int = 0  # no sequence of so many words comes twice in a caption; 0: repeat at will
    banned: tuple[int, ...] = ()  # ids that are never said, besides the codec's own

    def __post_init__(self) -> None:
        for name in ("min_words", "no_repeat_ngram"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give 0 (off) or more")


def constrain(scores: Tensor, said: Tensor, t: int, codec: Codec, constraints: Constraints) -> Tensor:
    """`scores`, log-probabilities or logits (rows, V), with -inf where a word may not come next.

    `said` (rows, T) holds the t words so far in its first columns; the rest is not read. The input is not
    changed; where nothing is forbidden it is returned itself. Constraints leave no row without a word: where
    they forbid all, the end token may come nevertheless, and where there is no end token words may repeat.
    """
    early = codec.end is not None and t < constraints.min_words
    repeats = 0 < constraints.no_repeat_ngram <= t
    ids = (*codec.banned, *constraints.banned)
    allowed = _forbid(scores, (*ids, codec.end) if early and codec.end is not None else ids)
    if not (early or repeats or constraints.banned):
        return allowed
    if repeats:
        repeated = _completes_ngram(said[:, :t], constraints.no_repeat_ngram, scores.shape[1])
        allowed = allowed.masked_fill(repeated, -torch.inf)
    stuck = allowed.detach().amax(-1) == -torch.inf
    if codec.end is None:
        return torch.where(stuck[:, None], _forbid(scores, ids), allowed)
    # Finite even where the policy itself rules the end out; otherwise a softmax of this row would be NaN.
    end = scores[:, codec.end].clamp_min(torch.finfo(scores.dtype).min)
    allowed[:, codec.end] = torch.where(stuck, end, allowed[:, codec.end])
    return allowed


def _forbid(scores: Tensor, words: tuple[int, ...]) -> Tensor:
    if not words:
        return scores
    return scores.index_fill(1, _on_device(words, scores.shape[1], scores.device), -torch.inf)


@lru_cache(maxsize=64)
def _on_device(words: tuple[int, ...], vocabulary: int, device: torch.device) -> Tensor:
    """Ids as a tensor, sent to the device once: a copy at every word would make the host wait for it."""
    for word in words:
        if not 0 <= word < vocabulary:
            raise ConfigError(f"banned id {word} is not in the vocabulary: give 0 to {vocabulary - 1}")
    if len(set(words)) == vocabulary:
        raise ConfigError(f"all {vocabulary} words of the vocabulary are banned: leave at least one")
    with torch.inference_mode(False):  # it may serve a later step that needs gradients
        return torch.tensor(sorted(set(words)), device=device)


def _completes_ngram(said: Tensor, n: int, vocabulary: int) -> Tensor:
    """(rows, t) words so far, t >= n -> (rows, V) bool: words that would complete an n-gram once more."""
    windows = said.unfold(1, n, 1)  # (rows, t - n + 1, n)
    latest = said[:, said.shape[1] - n + 1 :]  # the n - 1 words that the next one would complete
    again = (windows[..., : n - 1] == latest[:, None]).all(-1)
    column = torch.where(again, windows[..., n - 1], vocabulary)  # the rest goes to a column that is cut off
    marks = torch.zeros(said.shape[0], vocabulary + 1, dtype=torch.bool, device=said.device)
    return marks.scatter_(1, column, True)[:, :vocabulary]
