"""The same image in one row: its picture, what people say of it, and what each run says, with score and attention."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from rlcap.report import gazes
from rlcap.report.charts import colour
from rlcap.report.choice import Group
from rlcap.report.figures import LOWER, shown
from rlcap.report.html import Html, join, tag
from rlcap.report.looking import Look, Looks
from rlcap.report.reading import Column, Scored
from rlcap.report.summary import named, signed

REFERENCES = 5  # at most, of an image


def gallery(
    columns: Sequence[Column],
    scored: Sequence[Scored],
    chosen: Sequence[Group],
    references: Mapping[str, Sequence[Sequence[str]]],
    pictures: Mapping[str, Image.Image],
    looks: Sequence[Looks],
    metric: str | None,
    name: str,
) -> Html:
    """By the ids of images; `name` is the metric's for people."""
    symbols = {image: f"p{at}" for at, image in enumerate(pictures)}
    bases = [gazes.directions(list(of_run.by_image.values())) for of_run in looks]
    parts = [gazes.definitions(pictures, symbols)]
    for number, (column, of_run) in enumerate(zip(columns, looks, strict=True), 1):
        if of_run.together is not None:
            parts.append(tag("p", named(number, column, len(columns) > 1), f": {of_run.together}.", class_="note"))
    for group in chosen:
        rows = []
        for image in group.images:
            heard, picture = references.get(image), pictures.get(image)
            values = [float(found.per_image[metric][found.place[image]]) for found in scored] if metric else []
            said = []
            for at, (column, found) in enumerate(zip(columns, scored, strict=True)):
                inside = [
                    tag("h4", named(at + 1, column, True)) if len(columns) > 1 else None,
                    _caption(found.captions[found.place[image]], heard),
                    _score(metric, name, values[at], values[0] if at else None) if metric else None,
                ]
                if look := looks[at].by_image.get(image):
                    inside.append(_attention(look, symbols.get(image), picture))
                    inside.append(_goals(look, bases[at]))
                said.append(tag("section", *inside, class_=f"said {colour(at + 1)}"))
            people = tag("div", _picture(image, picture, heard, symbols), _references(heard), class_="people")
            rows.append(tag("article", people, tag("div", *said, class_="runs"), class_="card row"))
        parts.append(tag("section", tag("h3", group.title), *rows))
    return join(*parts)


def sentences(columns: Sequence[Column], scored: Sequence[Scored], metric: str | None, name: str, each: int) -> Html:
    """Drawn sentences, which belong to no image: the best, the worst and the first of each run."""
    lists = []
    for number, (column, found) in enumerate(zip(columns, scored, strict=True), 1):
        parts: list[Html] = [tag("h3", named(number, column, len(columns) > 1))]
        orders = [("The first", np.arange(len(found.captions)))]
        if metric is not None:
            order = np.argsort(found.per_image[metric] * (1 if metric in LOWER else -1), kind="stable")
            orders = [(f"Best by {name}", order), (f"Worst by {name}", order[::-1]), *orders]
        for title, order in orders:
            items = []
            for at in order[:each]:
                value = None if metric is None else _score(metric, name, float(found.per_image[metric][at]), None)
                items.append(tag("li", _caption(found.captions[at], None), value))
            parts.append(join(tag("h4", title), tag("ol", *items, class_="sentences")))
        lists.append(tag("section", *parts, class_=f"card said {colour(number)}"))
    return tag("div", *lists, class_="runs")


def _caption(caption: str, references: Sequence[Sequence[str]] | None) -> Html:
    """Words that stand in no reference are marked."""
    known = {word for reference in references or () for word in reference}
    words: list[object] = []
    for word in caption.split():
        words += [" ", word if not known or word in known else tag("span", word, class_="unheard")]
    return tag("p", tag("bdi", *words[1:]) if words else tag("i", "(nothing)"), class_="caption")


def _score(metric: str, name: str, value: float, base: float | None) -> Html:
    """With the change from the first run."""
    change: object = None
    if base is not None:
        rise = shown(metric, value - base)
        good = rise < 0 if metric in LOWER else rise > 0
        change = tag("b", " ", signed(rise), class_="good" if good else "bad") if abs(rise) >= 0.05 else " ±0"
    return tag("p", f"{name} {shown(metric, value):.1f}", change, class_="score")


def _picture(
    image: str, picture: Image.Image | None, references: Sequence[Sequence[str]] | None, symbols: Mapping[str, str]
) -> Html:
    if picture is None:
        return tag("p", "image ", tag("bdi", image), class_="faint name")
    told = f"{image}: {' '.join(references[0])}" if references else image
    box = f"0 0 {picture.width} {picture.height}"
    drawn = tag("svg", tag("use", href=f"#{symbols[image]}"), viewBox=box, role="img", aria_label=told)
    return tag("figure", drawn, tag("figcaption", tag("bdi", image), class_="faint name"), class_="photo")


def _references(references: Sequence[Sequence[str]] | None) -> Html | None:
    if not references:
        return None
    some = [tag("li", tag("bdi", " ".join(words))) for words in references[:REFERENCES]]
    return tag("div", tag("p", "People say", class_="over"), tag("ul", *some, class_="references"))


def _attention(look: Look, symbol: str | None, picture: Image.Image | None) -> Html | None:
    if look.attention is None or not look.words or symbol is None or picture is None:
        return None
    return gazes.gazes(look, symbol, picture.size)


def _goals(look: Look, basis: gazes.Basis | None) -> Html | None:
    if look.goals is None or not look.words or basis is None:
        return None
    return gazes.goals(look, basis)
