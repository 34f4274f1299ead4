"""The whole page: nothing in it comes from elsewhere, and it forbids the browser to ask for anything."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlcap.report import choice, curves, gallery, summary
from rlcap.report.figures import is_text, name_of
from rlcap.report.html import Html, join, tag
from rlcap.report.looking import look
from rlcap.report.reading import Column, Scored, columns
from rlcap.report.sources import Missing, Where, pictures, sources
from rlcap.report.style import STYLE
from rlcap.version import __version__

# No script runs and nothing is fetched, also if a text should ever become markup by a fault of ours.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Report:
    """A page and what is on it."""

    html: str
    columns: list[Column]
    images: int


def report(paths: Sequence[str | Path], where: Where, captions: str | None = None, each: int = 4) -> Report:
    """Of these runs. `captions`: the name of an evaluation; `each`: images a group."""
    found = columns(paths)
    scored = [column.scored(captions) for column in found]
    sections, images = {}, 0
    cards, main_curves = summary.results(found, scored), curves.headline(found)
    sections["results"] = (
        "Results",
        tag("div", cards, *main_curves[:1], class_="results many" if len(found) > 3 else "results"),
    )
    warned = summary.warnings(found)
    sections["warnings"] = ("Warnings", warned or tag("p", "None: nothing looked like sick training.", class_="note"))
    if table := summary.metric_table(found, scored):
        sections["metrics"] = ("Metrics", join(table, tag("p", *_of_intervals(found, scored), class_="note")))
    drawn = join(*main_curves[1:], curves.curves(found))
    sections["curves"] = ("Curves", drawn or tag("p", "No log (metrics.jsonl) in these folders.", class_="note"))
    if any(one and one.captions for one in scored):
        shown, images = _captions(found, scored, where, each)
        sections["captions"] = ("Captions", shown)
    sections["settings"] = ("What was run", summary.settings(found))
    return Report(_page(found, sections), found, images)


def _of_intervals(found: Sequence[Column], scored: Sequence[Scored | None]) -> list[object]:
    notes: list[object] = []
    if any(one and one.intervals for one in scored):
        notes.append(
            "Small: 95% of the means of images drawn anew (bootstrap). A figure without an interval, such as BLEU, is "
            "one of the whole split and no mean over its images. "
        )
    if len(found) > 1:
        notes += ["Whether two runs differ is told by the same images of both: ", tag("code", "rlcap compare"), ". "]
    splits = {one.split for one in scored if one}
    if len(splits) > 1:
        notes.append(f"The runs were evaluated on different splits ({', '.join(sorted(splits))}): do not compare them.")
    return notes


def _captions(found: list[Column], scored: list[Scored | None], where: Where, each: int) -> tuple[Html, int]:
    """Of the runs that have some."""
    pairs = [(column, one) for column, one in zip(found, scored, strict=True) if one and one.captions]
    some, given = [column for column, _ in pairs], [one for _, one in pairs]
    metric = choice.key_metric(some, given)
    if any(map(is_text, given)):
        name = name_of(metric, text=True) if metric else ""
        return gallery.sentences(some, given, metric, name, each), 0
    name, common = name_of(metric) if metric else "", choice.common_images(given)
    if len({one.split for one in given}) > 1 or not common:
        told = "The runs captioned no images in common: name an evaluation of all with --captions."
        return tag("p", told, class_="note"), 0
    missing = Missing()
    beside = sources(some, given, where, missing)
    there = set[str]().union(*(source.pictured() for source in beside if source))
    pictured = [image for image in common if image in there]
    chosen = choice.groups(some, given, pictured or common, metric, name, each)
    images = list(dict.fromkeys(image for group in chosen for image in group.images))
    references = {image: source.references(image) for source in beside if source for image in images}
    shown = pictures(beside, some, images, missing)
    looks = [look(*of_run, images, where, missing) for of_run in zip(some, given, beside, strict=True)]
    notes = [
        tag("p", what, f" ({', '.join(labels)})" if len(some) > 1 else None, class_="note")
        for what, labels in missing.lines.items()
    ]
    if pictured and len(pictured) < len(common):
        notes.append(
            tag("p", f"Of {len(common):,} images, the {len(pictured):,} whose picture is there.", class_="note")
        )
    if references:
        notes.append(tag("p", tag("span", "Marked", class_="unheard"), " words stand in no reference.", class_="note"))
    if shown and any(each.attention is not None for of_run in looks for each in of_run.by_image.values()):
        told = "Bright: where the policy looks at each word; the dot: where it looks most."
        notes.append(tag("p", told, class_="note"))
    rows = gallery.gallery(some, given, chosen, references, shown, looks, metric, name)
    return join(*notes, rows), len(images)


def _page(found: Sequence[Column], sections: dict[str, tuple[str, Html]]) -> str:
    several = len(found) > 1
    title = ", ".join(dict.fromkeys(str(column.setting("name") or column.label) for column in found))
    links = [tag("a", name, href=f"#{key}") for key, (name, _) in sections.items()]
    key = None
    if several:
        runs = [tag("li", summary.named(number, column, True)) for number, column in enumerate(found, 1)]
        key = tag("ul", *runs, class_="key", aria_label="Runs")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{title} – rlcap report"),
        tag("style", Html(STYLE)),
    )
    header = tag("header", tag("h1", tag("bdi", title)), tag("nav", *links, aria_label="Parts of this page"))
    body = [tag("section", tag("h2", name), inside, id=key) for key, (name, inside) in sections.items()]
    footer = tag("footer", f"Written by rlcap {__version__} on {summary.now()}.", class_="faint")
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', header, key, tag('main', *body), footer), lang='en')}\n"
