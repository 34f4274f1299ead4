"""Small things that many tests share: a codec, features, and a policy made from a recipe's settings."""

import pytest
import torch

from rlcap import progress
from rlcap.contracts import Features, FeatureShape
from rlcap.data.vocabulary import Vocabulary


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether other tests ran a command with --quiet in this process makes no difference."""
    monkeypatch.setattr(progress, "QUIET", False)


@pytest.fixture
def codec() -> Vocabulary:
    return Vocabulary.build([["a", "red", "ball", "and", "blue", "box"]], min_count=1)


@pytest.fixture
def shape() -> FeatureShape:
    return FeatureShape(regions=6, width=5, grid=(2, 3))


@pytest.fixture
def features(shape: FeatureShape) -> Features:
    """Three images; the second has two regions fewer."""
    torch.manual_seed(0)
    mask = torch.ones(3, shape.regions, dtype=torch.bool)
    mask[1, -2:] = False
    return Features(torch.randn(3, shape.regions, shape.width), mask, grid=shape.grid)
