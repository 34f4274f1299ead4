"""The one record type that every annotation format is read into."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SceneObject:
    """Something in the picture whose place is known: box = left, top, right, bottom as shares of the image."""

    name: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Record:
    """One image and what people said of it.

    `image` is the name by which features and results know it, unique in its data set (a file name, as a rule).
    """

    image: str
    split: str | None  # None: the file names no splits
    captions: tuple[str, ...]  # as written, case and all
    image_id: int | str | None = None  # the number that the annotation gives it, for the coco results format
    file: str | None = None  # the picture, relative to the folder of pictures; None: same as `image`
    objects: tuple[SceneObject, ...] = ()
    mentions: tuple[tuple[tuple[int, int], ...], ...] = ()  # a caption's (word, object) pairs; a tuple a caption

    def to_json(self) -> dict[str, Any]:
        """As one line of our JSON Lines form; what is empty is left out."""
        line: dict[str, Any] = {"image": self.image}
        if self.split is not None:
            line["split"] = self.split
        line["captions"] = list(self.captions)
        if self.image_id is not None:
            line["image_id"] = self.image_id
        if self.file is not None:
            line["file"] = self.file
        if self.objects:
            line["objects"] = [{"name": thing.name, "box": list(thing.box)} for thing in self.objects]
            line["mentions"] = [[list(pair) for pair in pairs] for pairs in self.mentions]
        return line

    @staticmethod
    def from_json(line: Mapping[str, Any]) -> "Record":
        """The inverse of `to_json`, for a line that has been validated (readers do)."""
        return Record(
            image=line["image"],
            split=line.get("split"),
            captions=tuple(line["captions"]),
            image_id=line.get("image_id"),
            file=line.get("file"),
            objects=tuple(SceneObject(thing["name"], tuple(thing["box"])) for thing in line.get("objects", ())),
            mentions=tuple(tuple((word, thing) for word, thing in pairs) for pairs in line.get("mentions", ())),
        )
