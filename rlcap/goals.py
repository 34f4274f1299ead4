"""Do goals and gazes turn together? What LeakGAN as a captioner should show: a new goal where the gaze moves on.

The change of a goal is 1 - its cosine with the one before; that of a gaze, the total variation from the one before.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from rlcap.contracts import Features, Policy
from rlcap.data.batches import FeatureSource, feature_batches, pad
from rlcap.decoding.decode import Hypothesis
from rlcap.errors import ConfigError
from rlcap.metrics.pointing import movement

SHUFFLES = 1000
DIMENSIONS = 8  # of the goals that a figure shows: those in which they differ most
AT_ONCE = 50  # captions

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Steered:
    """A caption, the goal and the gaze behind each of its words."""

    words: tuple[str, ...]
    goals: Floats  # (T, F)
    gazes: Floats  # (T, R), distributions

    @property
    def changes(self) -> Floats:
        """(T - 1, 2): of the goal, of the gaze."""
        unit = self.goals / np.linalg.norm(self.goals, axis=-1, keepdims=True).clip(1e-12)
        of_goals = 1 - (unit[1:] * unit[:-1]).sum(-1)
        return np.stack((of_goals, movement(self.gazes)), -1)


@dataclass(frozen=True)
class Together:
    """The correlation of both changes within captions, and what it would be by chance."""

    changes: int
    correlation: float
    low: float  # 95% of the shuffles lie between these
    high: float

    def __str__(self) -> str:
        return (
            f"goals and gazes change together: correlation {self.correlation:.3f} over {self.changes} changes "
            f"(shuffled within captions: {self.low:.3f} to {self.high:.3f} in 95% of {SHUFFLES} trials)"
        )


def together(captions: Sequence[Steered], seed: int = 0) -> Together:
    """Changes are taken relative to their caption's mean: long or restless captions prove nothing.

    The first one does not count: before the first word the gaze is even by rule.
    """
    parts = [caption.changes[1:] for caption in captions if len(caption.words) > 3]
    if not parts:
        raise ConfigError("goals: no caption has four words, so that there are no changes to compare; train longer")
    of_goals, of_gazes = np.concatenate([part - part.mean(0) for part in parts]).T
    caption = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    generator = np.random.default_rng(seed)
    shuffles = (np.argsort(caption + generator.random(len(caption))) for _ in range(SHUFFLES))
    low, high = np.quantile([_correlation(of_goals, of_gazes[order]) for order in shuffles], (0.025, 0.975))
    return Together(len(caption), _correlation(of_goals, of_gazes), float(low), float(high))


@torch.inference_mode()
def steer(
    policy: Policy,
    source: FeatureSource,
    rows: NDArray[np.int64],
    hypotheses: Sequence[Hypothesis],
    device: torch.device,
) -> list[Steered]:
    """Captions (one a row of `source`) through the policy once more, to see its goals and gazes."""
    policy.eval()
    found, first = [], 0
    for features in feature_batches(source, rows, AT_ONCE):
        some = hypotheses[first : first + features.images]
        found += _steered(policy, features.to(device), some, device)
        first += features.images
    return found


def goals_picture(captions: Sequence[Steered]) -> Image.Image:
    """For each caption: the goal in the directions in which goals differ most, the gaze, and both changes, by word."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    every = np.concatenate([caption.goals for caption in captions])
    mean = every.mean(0)
    directions = np.linalg.svd(every - mean, full_matrices=False)[2][:DIMENSIONS]
    longest = max(len(caption.words) for caption in captions)
    figure, axes = plt.subplots(
        3 * len(captions),
        1,
        figsize=(3.5 + 0.75 * longest, 4.2 * len(captions)),
        height_ratios=[2, 2, 1.2] * len(captions),
        squeeze=False,
        layout="constrained",
    )
    for caption, (goal, gaze, change) in zip(captions, axes.reshape(-1, 3), strict=True):
        shown = (caption.goals - mean) @ directions.T
        size = max(float(np.abs(shown).max()), 1e-12)
        goal.imshow(shown.T, aspect="auto", cmap="RdBu", vmin=-size, vmax=size, interpolation="nearest")
        goal.set_ylabel("goal")
        goal.set_title(" ".join(caption.words), fontsize=11, loc="left")
        gaze.imshow(caption.gazes.T, aspect="auto", cmap="viridis", interpolation="nearest")
        gaze.set_ylabel("region")
        at = np.arange(1, len(caption.words))
        of_goals, of_gazes = caption.changes.T
        change.plot(at, of_goals / max(of_goals.max(), 1e-12), marker="o", label="change of the goal")
        change.plot(at, of_gazes / max(of_gazes.max(), 1e-12), marker="s", label="change of the gaze")
        change.set_xlim(-0.5, len(caption.words) - 0.5)
        change.set_ylim(0, 1.1)
        change.set_xticks(range(len(caption.words)), caption.words, rotation=30)
        change.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
        for axis in (goal, gaze):
            axis.set_xticks([])
            axis.set_yticks([])
        change.set_yticks([])
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110)
    plt.close(figure)
    return Image.open(drawn).convert("RGB")


def _steered(policy: Policy, features: Features, some: Sequence[Hypothesis], device: torch.device) -> list[Steered]:
    ids = [[policy.codec.encode(hypothesis.words)] for hypothesis in some]
    words = pad(ids, policy.codec.pad).to(device)
    scores = policy(features, words, want=["extras", "attention"])
    if "goals" not in scores.extras or scores.attention is None:
        raise ConfigError("goals: this policy sets none, or does not look at regions; train policy leakgan on images")
    goals, gazes = (each[:, 0].double().cpu().numpy() for each in (scores.extras["goals"], scores.attention))
    return [
        Steered(hypothesis.words, goal[: len(hypothesis.words)], gaze[: len(hypothesis.words)])
        for hypothesis, goal, gaze in zip(some, goals, gazes, strict=True)
    ]


def _correlation(a: Floats, b: Floats) -> float:
    """Of values whose mean is 0."""
    return float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12)
