"""METEOR and SPICE of each caption as rewards, on the CPU in Java: one process each, shared with evaluation.

They judge words, without the end token. What is missing is told when the reward is made; a process starts with
the first caption.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, tensor

from rlcap.config import AboveZero
from rlcap.contracts import Candidates, Reward
from rlcap.data.references import References
from rlcap.metrics.meteor import METEOR, meteor_scores
from rlcap.metrics.ngrams import Words
from rlcap.metrics.spice import SPICE, spice_scores

Judge = Callable[[Sequence[Words], Sequence[Sequence[Words]], float], list[float]]


class Meteor(Reward):
    """Between 0 and 1. `timeout`: seconds that Java may be silent."""

    def __init__(self, references: References, *, timeout: AboveZero = 120.0) -> None:
        METEOR.preflight()
        self.references = references
        self.timeout = timeout

    def __call__(self, candidates: Candidates) -> Tensor:
        return _judged(candidates, self.references, meteor_scores, self.timeout)


class Spice(Reward):
    """Between 0 and 1. `timeout`: seconds that Java may be silent."""

    def __init__(self, references: References, *, timeout: AboveZero = 300.0) -> None:
        SPICE.preflight()
        self.references = references
        self.timeout = timeout

    def __call__(self, candidates: Candidates) -> Tensor:
        return _judged(candidates, self.references, spice_scores, self.timeout)


def _judged(candidates: Candidates, references: References, judge: Judge, timeout: float) -> Tensor:
    """(B, N): all captions at once."""
    words, lengths = candidates.words.tolist(), candidates.lengths.tolist()
    captions, wanted = [], []
    for image, rows, ends in zip(candidates.images.tolist(), words, lengths, strict=True):
        for ids, length in zip(rows, ends, strict=True):
            captions.append(references.vocabulary.words(ids[:length]))
            wanted.append(references.tokens[image])
    scores = tensor(judge(captions, wanted, timeout), dtype=references.dtype, device=candidates.words.device)
    return scores.view(candidates.lengths.shape)
