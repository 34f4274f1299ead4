"""Do the fast rewards say what the evaluation's own code says of the same captions?

It is asked once, of greedy captions, when training with rewards begins: another vocabulary, other frequencies or
another view of the end token would otherwise be noticed after days, if at all.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from rlcap.contracts import Candidates
from rlcap.data.references import References
from rlcap.errors import DataError
from rlcap.metrics.ngrams import Words
from rlcap.rewards.combination import Combination

TOLERANCE = 1e-5  # times the score, or 1: what float32 leaves of sums over some dozen n-grams


@runtime_checkable
class Checkable(Protocol):
    """A reward that has a plain form over words, which evaluation uses."""

    def plain(self, captions: Sequence[Words], ended: Sequence[bool], images: Sequence[int]) -> list[float]: ...


def check_agreement(judge: Combination, candidates: Candidates, references: References) -> dict[str, float]:
    """The largest difference of each reward that has two forms; raises where it is more than rounding."""
    vocabulary, candidates = references.vocabulary, judge.spelt(candidates)
    rows = zip(candidates.words.flatten(0, 1).tolist(), candidates.lengths.flatten().tolist(), strict=True)
    said = [ids[:length] for ids, length in rows]
    captions = [vocabulary.words(ids) for ids in said]
    ended = [vocabulary.end in ids for ids in said]
    images = candidates.images.repeat_interleave(candidates.words.shape[1]).tolist()
    differences = {}
    for label, reward in judge.rewards.items():
        if not isinstance(reward, Checkable):
            continue
        fast = reward(candidates).flatten().double().cpu().numpy()
        plain = np.array(reward.plain(captions, ended, images))
        difference = np.abs(fast - plain)
        worst = int((difference / np.maximum(1, plain)).argmax())
        if not difference[worst] <= TOLERANCE * max(1.0, plain[worst]):
            raise DataError(
                f"reward '{label}': gives {fast[worst]:.6f} where the evaluation's code gives {plain[worst]:.6f}, for "
                f"'{' '.join(captions[worst])}' of image {references.images[images[worst]]}; run `rlcap prepare` "
                "again, and report it if that does not help"
            )
        differences[label] = float(difference.max())
    return differences
