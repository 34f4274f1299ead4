"""What a policy sees, as its run keeps it in features.json: the kind, shape and maker of its features."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from rlcap.components import STRICT, checked
from rlcap.contracts import FeatureShape
from rlcap.data.features import EncoderCard, FeatureStore
from rlcap.data.no_features import NONE
from rlcap.errors import CheckpointError
from rlcap.files import write_text

FILE = "features.json"


@dataclass(frozen=True)
class Sight:
    """Of the features that a policy was trained on."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    kind: str
    shape: FeatureShape
    encoder: EncoderCard | None

    @staticmethod
    def of(store: FeatureStore) -> "Sight":
        return Sight(store.kind, store.shape, store.encoder)

    def save(self, folder: Path) -> None:
        write_text(folder / FILE, json.dumps(asdict(self), indent=2))

    @staticmethod
    def load(folder: Path) -> "Sight":
        path, remedy = folder / FILE, "copy the whole folder of the run"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: is damaged or cut short ({error}); {remedy}") from error
        sight, problems = checked(Sight, values if isinstance(values, dict) else {})
        if sight is None:
            raise CheckpointError(f"{path}: {problems[0]}; {remedy}")
        return sight

    def check(self, store: FeatureStore, run: Path) -> None:
        """Refuses features that another encoder made, as far as the two files tell."""
        here = Sight.of(store)
        if (here.kind, here.shape.width, here.shape.grid) != (self.kind, self.shape.width, self.shape.grid) or not (
            here.encoder is None or self.encoder is None or _alike(here.encoder, self.encoder)
        ):
            raise CheckpointError(
                f"{store.path}: holds {here}; {run} was trained on {self}: use features of the same encoder"
            )

    def __str__(self) -> str:
        card = self.encoder
        if self.kind == NONE:
            return "text without images"
        if self.kind == "pixels":
            return f"pictures of {card.size}x{card.size} pixels" if card else "pictures"
        words = [self.kind]
        if self.shape.grid:
            words.append(f"{self.shape.grid[0]}x{self.shape.grid[1]}")
        if self.shape.width:
            words.append(f"of width {self.shape.width}")
        if card:
            words.append(f"by {card.spec} at {card.size} pixels, weights {card.weights or 'unknown'}")
        return " ".join(words)


def _alike(one: EncoderCard, other: EncoderCard) -> bool:
    same = one.weights == other.weights if one.weights and other.weights else one.spec == other.spec
    return same and (one.size, one.resize) == (other.size, other.resize)
