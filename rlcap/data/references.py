"""What rewards know of the images that captions are written for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from rlcap.data.dataset import Split
from rlcap.data.frequencies import DocumentFrequencies
from rlcap.data.vocabulary import Vocabulary

Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class References:
    """The references of a split, by image: row i of each list is what `Candidates.images` calls i."""

    images: Sequence[int | str]  # as the annotations name them
    tokens: Sequence[Sequence[Sequence[str]]]  # the words of each reference, without the end token
    raw: Sequence[Sequence[str]]  # the references as written
    vocabulary: Vocabulary  # how candidates are spelt
    frequencies: DocumentFrequencies  # of the training split, whichever split this is
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32  # of the scores
    _shared: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @staticmethod
    def of(
        split: Split, vocabulary: Vocabulary, frequencies: DocumentFrequencies, device: torch.device
    ) -> "References":
        images = [record.image if record.image_id is None else record.image_id for record in split.records]
        raw = [record.captions for record in split.records]
        return References(images, split.tokens, raw, vocabulary, frequencies, device)

    def __len__(self) -> int:
        return len(self.tokens)

    def once(self, make: Callable[["References"], Made]) -> Made:
        """`make(self)`, made once for all rewards that need it: packed references, say."""
        if make not in self._shared:
            self._shared[make] = make(self)
        made: Made = self._shared[make]
        return made
