"""People's judgements of captions: Flickr8k's two files of them (Hodosh et al. 2013, https://doi.org/10.1613/jair.3994).

A line is an image, the id of a caption (`image.jpg#2`, of this image or another), and, all separated by tabs,
- ExpertAnnotations.txt: three scores, from 1 (says nothing of the image) to 4 (describes it);
- CrowdFlowerAnnotations.txt: the share of Yes (it describes the image), the number of Yes, the number of No.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from rlcap.data.annotations import check_caption, read_text, shown
from rlcap.data.readers_text import BAD_NAME, TOKEN_LINE, lines_of
from rlcap.errors import DataError

EXPERT, CROWD = "Flickr8k-Expert", "CrowdFlower"
_CAPTION_OF_IMAGE = r"([^\t]+)\t([^\t]+)#(\d+)"
_LINES = {  # a line of CrowdFlower holds a 0 or a fraction, so none is of both forms
    EXPERT: re.compile(rf"{_CAPTION_OF_IMAGE}\t([1-4])\t([1-4])\t([1-4])\s*"),
    CROWD: re.compile(rf"{_CAPTION_OF_IMAGE}\t([01]|[01]?\.\d+)\t(\d+)\t(\d+)\s*"),
}
_ROUNDED = 0.01  # how far a share may be from its counts


@dataclass(frozen=True, slots=True)
class Judged:
    """A caption beside an image."""

    image: str
    caption: str
    scores: tuple[float, ...]  # each is a data point
    own: bool  # the caption is one of the image's references, word for word


@dataclass(frozen=True)
class Judgements:
    form: str  # EXPERT or CROWD
    pairs: tuple[Judged, ...]
    references: dict[str, tuple[str, ...]]  # of all images of the captions file, judged or not


def read_judgements(path: Path, captions: Path) -> Judgements:
    """`captions` is the token file, all splits in one, that the caption ids point into (Flickr8k.token.txt)."""
    numbered = _numbered_captions(captions)
    references = {image: tuple(of_image.values()) for image, of_image in numbered.items()}
    lines = list(lines_of(read_text(path)))
    form = next((form for form, pattern in _LINES.items() if pattern.fullmatch(lines[0][1])), None)
    if form is None:
        raise DataError(
            f"{path}, line {lines[0][0]}: {shown(lines[0][1])} begins neither ExpertAnnotations.txt nor "
            "CrowdFlowerAnnotations.txt (image, caption's id, three judgements, tabs between); name one of them"
        )
    pairs = []
    for number, line in lines:
        place = f"{path}, line {number}"
        match = _LINES[form].fullmatch(line)
        if match is None:
            raise DataError(f"{place}: {shown(line)} is no line of {form} judgements; mend it or fetch the file again")
        image, source, which = _mended(match[1]), _mended(match[2]), int(match[3])
        for name in (image, source):
            if name not in numbered:
                raise DataError(f"{place}: {captions} has no captions of {shown(name)}; name the whole token file")
        if which not in numbered[source]:
            raise DataError(f"{place}: {captions} has no caption {which} of {shown(source)}; name the whole token file")
        caption = numbered[source][which]
        scores = tuple(map(float, match.groups()[3:])) if form == EXPERT else (_share(match, place),)
        pairs.append(Judged(image, caption, scores, own=caption in references[image]))
    return Judgements(form, tuple(pairs), references)


def _share(match: re.Match[str], place: str) -> float:
    share, yes, no = float(match[4]), int(match[5]), int(match[6])
    if abs(share * (yes + no) - yes) > _ROUNDED * (yes + no) or yes + no == 0:
        raise DataError(f"{place}: {match[4]} is not the share of {yes} Yes and {no} No; fetch the file again")
    return share


def _numbered_captions(path: Path) -> dict[str, dict[int, str]]:
    """Image -> number -> caption, whatever the split."""
    captions: dict[str, dict[int, str]] = {}
    for number, line in lines_of(read_text(path)):
        place = f"{path}, line {number}"
        match = TOKEN_LINE.fullmatch(line)
        if match is None:
            raise DataError(
                f"{place}: {shown(line)} is not 'image#number', a tab, a caption; name Flickr8k.token.txt itself"
            )
        of_image = captions.setdefault(_mended(match[1]), {})
        if int(match[2]) in of_image:
            raise DataError(f"{place}: caption {match[2]} of {match[1]} stands above already; delete one of them")
        of_image[int(match[2])] = check_caption(match[3], place).strip()
    return captions


def _mended(image: str) -> str:
    bad = BAD_NAME.fullmatch(image)
    return bad[1] if bad else image
