"""The images of a split as people see them, and what a policy says of them and where it looks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rlcap.config import Decoding
from rlcap.contracts import Policy
from rlcap.data.dataset import Split
from rlcap.data.features import FeatureStore
from rlcap.data.images import read_image
from rlcap.data.no_features import NONE
from rlcap.decoding.decode import decode
from rlcap.errors import DataError
from rlcap.models.seeing import Seeing
from rlcap.pictures import Picture, contact_sheet
from rlcap.sheets import stacked

AT_ONCE = 50  # images
EXTREMES = 8  # of the best captions, and of the worst


@dataclass(frozen=True)
class Album:
    """A place is that of an image in its split. A store of pixels holds pictures; others need a folder of them."""

    split: Split
    store: FeatureStore
    rows: np.ndarray  # of the store, one an image
    folder: Path | None = None

    @cached_property
    def files(self) -> list[Path]:
        """Of what stands in `rows`, which is another image for a blind control."""
        folder = self.folder or Path()
        of_images = {record.image: folder / (record.file or record.image) for record in self.split.records}
        return [of_images[self.store.names[row]] for row in self.rows]

    def there(self) -> list[int]:
        """The places whose picture there is."""
        if self.store.kind == NONE:
            raise DataError(f"{self.store.path}: is text, without images; there are no pictures to show")
        if self.folder is None:
            if self.store.kind != "pixels":
                raise DataError(
                    f"{self.store.path}: holds features, not pictures; name the folder of split {self.split.name}'s "
                    "(--pictures FOLDER, or data.pictures in the recipe)"
                )
            return list(range(len(self.rows)))
        found = [place for place, file in enumerate(self.files) if file.is_file()]
        if not found:
            raise DataError(
                f"{self.folder}: holds none of the {len(self.files)} pictures of split {self.split.name} "
                f"(the first would be {self.files[0]}); name their folder"
            )
        return found

    def image(self, place: int) -> Image.Image:
        """What the policy sees for the image at this place."""
        if self.folder is not None:
            return read_image(self.files[place])
        pixels = self.store.read(self.rows[place : place + 1]).pixels
        assert pixels is not None
        return Image.fromarray((pixels[0] * 255).round().byte().permute(1, 2, 0).numpy())

    def looks(
        self,
        policy: Policy,
        places: Sequence[int],
        settings: Decoding,
        device: torch.device,
        seed: int,
        n_best: int = 1,
    ) -> Iterator[Picture]:
        """The captions are those of the evaluation."""
        grid = policy.encoder.shape.grid if isinstance(policy, Seeing) else self.store.shape.grid
        resize = self.store.encoder.resize if self.store.encoder and self.folder else "squash"
        for first in range(0, len(places), AT_ONCE):
            some = list(places[first : first + AT_ONCE])
            features = self.store.read(self.rows[some]).to(device)
            keys = torch.tensor(some, device=device)
            found = decode(policy, features, settings, keys=keys, n_best=n_best, seed=seed, want=["attention"])
            boxes = [None] * len(some) if features.boxes is None else list(features.boxes.cpu().numpy())
            for place, captions, box in zip(some, found, boxes, strict=True):
                yield Picture(self.image(place), captions, grid, box, resize)

    def best_and_worst(self, captions: Sequence[str], scores: Sequence[float]) -> Image.Image:
        """A sheet of each, by the CIDEr-D of the whole split's captions, where their picture is there."""
        order = sorted(self.there(), key=lambda place: -scores[place])
        each = min(EXTREMES, -(-len(order) // 2))
        parts = {"Best": order[:each], "Worst": order[each:][-each:][::-1]}
        return stacked(
            [
                contact_sheet(
                    [self.image(place) for place in places],
                    [captions[place] for place in places],
                    [self.split.records[place].captions for place in places],
                    [scores[place] for place in places],
                    title=f"{title} of {len(order)} by CIDEr-D",
                )
                for title, places in parts.items()
                if places
            ]
        )
