"""Rewards that were learned: a frozen network looks at the image and says how well each caption fits.

They need no references, so they can teach on images that nobody described. A policy also learns what such a
network likes without reason: watch a metric over references beside it.
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from rlcap.contracts import Candidates, Reward
from rlcap.data.references import References
from rlcap.errors import ComponentError, ConfigError
from rlcap.models.scorers import load_scorer


class ScorerReward(Reward):
    """What a module says of `(features, words)`: (B, N) scores. Made in Python: `ScorerReward(references, module)`.

    It gets no gradient here, and dropout rests. Words behind a caption's length are padding when it sees them.
    """

    def __init__(self, references: References, scorer: nn.Module) -> None:
        self.references, self.scorer = references, scorer

    @torch.no_grad()
    def __call__(self, candidates: Candidates) -> Tensor:
        name = type(self.scorer).__name__
        if candidates.features is None:
            raise ComponentError(f"{name}: this reward looks at the image, and candidates came without features")
        words = candidates.words
        behind = torch.arange(words.shape[-1], device=words.device) >= candidates.lengths[..., None]
        self.scorer.eval()
        scores = self.scorer(candidates.features, words.masked_fill(behind, self.references.vocabulary.pad))
        if not isinstance(scores, Tensor) or scores.shape not in (words.shape[:2], words.shape):
            what = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
            raise ComponentError(f"{name}: its scores must be {tuple(words.shape[:2])}, a number a caption, not {what}")
        return scores.to(self.references.dtype)


class Learned(ScorerReward):
    """The scorer of a trained run (`rlcap train contrastive_scenes`): of contrastive ones the cosine, in [-1, 1]."""

    def __init__(self, references: References, *, run: str, checkpoint: Literal["best", "last"] = "best") -> None:
        scorer, self.sight = load_scorer(Path(run), checkpoint)
        mine, theirs = scorer.codec.fingerprint, references.vocabulary.fingerprint
        if mine != theirs:
            raise ConfigError(
                f"{run}: its scorer was trained with vocabulary {mine}, the captions are written with {theirs}; "
                "train a scorer on this data set"
            )
        super().__init__(references, scorer.to(references.device))
        self.run = run

    def __call__(self, candidates: Candidates) -> Tensor:
        features, sight = candidates.features, self.sight
        if features is not None:
            pixels, width = features.pixels is not None, features.values.shape[-1]
            if pixels != (sight.kind == "pixels") or width != sight.shape.width:
                here = "pictures" if pixels else f"features of width {width}"
                raise ConfigError(f"{self.run}: its scorer looks at {sight}, not at {here}; give both the same")
        return super().__call__(candidates)
