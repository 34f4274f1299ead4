"""Where policies look while they say the captions that were scored, and what a Manager wants meanwhile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rlcap.building import rows_for
from rlcap.data.batches import pad
from rlcap.data.features import FeatureStore
from rlcap.errors import RlcapError
from rlcap.goals import Steered, Together, together
from rlcap.models.seeing import Seeing
from rlcap.progress import track
from rlcap.report.reading import Column, Scored
from rlcap.report.sources import Missing, Source, Where
from rlcap.run import Run, load

AT_ONCE = 50  # images
STEERED = 300  # images: enough to tell whether goals and gazes change together

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """A caption as its policy says it again."""

    words: tuple[str, ...]
    attention: Floats | None  # (T, R), if the regions have places
    goals: Floats | None  # (T, F), of a Manager
    grid: tuple[int, int] | None
    boxes: Floats | None  # (R, 4) as shares of the picture
    centre: bool  # whether the policy sees the centre square alone


@dataclass(frozen=True)
class Looks:
    """Of one column: by image, and whether its goals and gazes change together."""

    by_image: Mapping[str, Look]
    together: Together | None = None


NONE = Looks({})


def look(
    column: Column, scored: Scored, source: Source | None, images: Sequence[str], where: Where, missing: Missing
) -> Looks:
    """At these images; nothing without features or weights, and nothing of a control that sees other images."""
    if source is None or source.store is None or not where.models or source.experiment.data.blind:
        return NONE
    try:
        run = load(column.folder, where.device)
        run.check(source.data, source.store)
        looks = _at(run, column, scored, source, source.store, images)
    except RlcapError as error:
        missing.add(f"No attention: {error}", column)
        return NONE
    if not any(each.attention is not None for each in looks.by_image.values()):
        missing.add("No attention: the policy looks at nothing that has a place", column)
    return looks


def _at(run: Run, column: Column, scored: Scored, source: Source, store: FeatureStore, images: Sequence[str]) -> Looks:
    rows, wanted = rows_for(run.experiment, store, source.split), list(images)
    if column.setting("policy.name") == "leakgan":
        wanted = list(dict.fromkeys([*scored.images[:STEERED], *images]))
    parts = [wanted[first : first + AT_ONCE] for first in range(0, len(wanted), AT_ONCE)]
    found: dict[str, Look] = {}
    for some in track(parts, f"looking with {column.label}", len(parts)):
        places = [source.places[image] for image in some]
        captions = [scored.captions[place] for place in places]
        centre = source.folder is not None and store.encoder is not None and store.encoder.resize == "crop"
        found |= dict(zip(some, _looks(run, store, rows[places], captions, centre), strict=True))
    steered = [
        Steered(each.words, each.goals, each.attention)
        for each in found.values()
        if each.goals is not None and each.attention is not None
    ]
    told = together(steered) if any(len(each.words) > 3 for each in steered) else None
    return Looks({image: found[image] for image in images}, told)


@torch.inference_mode()
def _looks(run: Run, store: FeatureStore, rows: NDArray[np.int64], captions: Sequence[str], centre: bool) -> list[Look]:
    """Captions, one a row of `store`, through the policy once more."""
    policy = run.policy
    words = [tuple(caption.split()) for caption in captions]
    ids = [policy.codec.encode(some) for some in words]
    padded = pad([[some or [policy.codec.pad]] for some in ids], policy.codec.pad).to(run.device)
    features = store.read(rows).to(run.device)
    scores = policy(features, padded, want=["attention", "extras"])
    goals, attention = scores.extras.get("goals"), scores.attention
    grid = policy.encoder.shape.grid if isinstance(policy, Seeing) else store.shape.grid
    found = []
    for at, said in enumerate(words):
        boxes = None if features.boxes is None else features.boxes[at].double().cpu().numpy()
        cells = len(boxes) if boxes is not None else grid[0] * grid[1] if grid else 0
        has_places = attention is not None and attention.shape[-1] == cells > 0
        whole = len(ids[at]) == len(said)  # a codec of parts of words tells of those
        gaze = attention[at, 0, : len(said)] if attention is not None and has_places and whole else None
        aim = goals[at, 0, : len(said)] if goals is not None and whole else None
        gaze, aim = (None if each is None else each.double().cpu().numpy() for each in (gaze, aim))
        found.append(Look(said, gaze, aim, grid, boxes, centre))
    return found
