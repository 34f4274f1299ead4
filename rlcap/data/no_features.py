"""What text without images has in place of a feature file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from rlcap.contracts import Features
from rlcap.data.features import FeatureStore, Layout

NONE = "none"  # the kind of such features


class NoFeatures(FeatureStore):
    """Rows without regions, as many as are asked for. `path` is the data set that has no images."""

    def __init__(self, path: Path) -> None:
        self.path, self.names, self.encoder = path, [], None
        self.layout = Layout(NONE, (0, 0))

    def rows(self, names: Sequence[str]) -> np.ndarray:
        return np.arange(len(names))

    def read(self, rows: np.ndarray) -> Features:
        return Features(torch.zeros(len(rows), 0, 0), torch.zeros(len(rows), 0, dtype=torch.bool))
