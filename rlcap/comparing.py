"""Runs side by side on the same images: which of their differences are more than noise."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase as LETTERS

import numpy as np
from numpy.typing import NDArray

from rlcap.config import Data
from rlcap.data.annotations import shown
from rlcap.data.dataset import DataSet
from rlcap.data.readers import Source, read
from rlcap.data.records import Record
from rlcap.data.tokens import tokenise
from rlcap.errors import CheckpointError, ConfigError, DataError, did_you_mean
from rlcap.metrics import evaluate_captions
from rlcap.metrics.bleu import bleu_counts, bleu_of
from rlcap.metrics.bootstrap import Draws, Floats, resampled_sums
from rlcap.metrics.ngrams import ORDERS, Words
from rlcap.progress import say, track
from rlcap.recipe import load_recipe
from rlcap.scoring import TITLES, read_results
from rlcap.seeds import best_evaluation, seed_folders
from rlcap.weights import run_folder

METRICS, MORE = ("bleu_4", "rouge_l", "cider_d"), ("meteor", "spice")  # shown unasked; if all captions have them
BLEU = {f"bleu_{n}": n - 1 for n in range(1, ORDERS + 1)}
RESAMPLES, FEWEST, MOST = 10_000, 100, 100_000
COMPONENTS = ("encoder", "policy", "scorer", "trainer", "rewards")  # of recipes whose plug-ins need not be there
HEAD = ("x100", "", "", "95% interval", "seeds ±", "minus A", "95% interval", "better in", "by seeds", "")


@dataclass(frozen=True)
class Contender:
    """A RUN as it was named, with its file of captions; of several seeds, one of each."""

    name: str
    files: list[Path]


@dataclass(frozen=True)
class Difference:
    """To the first contender: above 0 is better."""

    value: float
    low: float
    high: float
    better: float  # share of the draws
    by_seeds: float | None  # share of the variance, the rest is due to the images; None: there is one seed of each
    verdict: str  # "difference" if the interval leaves out 0, else "noise"


@dataclass(frozen=True)
class Figure:
    """A metric of one contender: of several seeds, their mean."""

    value: float
    low: float
    high: float
    deviation: float | None  # standard, between its seeds
    difference: Difference | None


@dataclass(frozen=True)
class Comparison:
    """Figures between 0 and 1 (CIDEr: 0 and 10), with 95% intervals."""

    contenders: list[Contender]
    images: int
    resamples: int
    figures: dict[str, list[Figure]]  # metric -> of each contender

    def table(self) -> str:
        """For people, x100."""
        lines = [f"{self.images} images, {self.resamples} paired resamples of them"]
        for letter, contender in zip(LETTERS, self.contenders, strict=False):
            seeds = len(contender.files)
            lines.append(
                f"{letter}  {contender.files[0]}" if seeds == 1 else f"{letter}  {contender.name}, {seeds} seeds"
            )
        rows = [list(HEAD)]
        for key, figures in self.figures.items():
            for letter, figure in zip(LETTERS, figures, strict=False):
                rows.append([TITLES[key] if letter == "A" else "", letter, *_cells(figure)])
        columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
        widths = [max(map(len, column)) for column in columns]
        sides = ["<", "<", *">" * (len(columns) - 3), "<"]  # metric, letter and verdict are words
        for row in zip(*columns, strict=True):
            cells = [f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, *self._notes()])

    def _notes(self) -> list[str]:
        notes = []
        if len(self.contenders) > 1:
            notes.append("difference: the interval leaves out 0; noise: it holds 0")
        single = [letter for letter, each in zip(LETTERS, self.contenders, strict=False) if len(each.files) == 1]
        if single:
            notes.append(
                f"of one run ({', '.join(single)}) intervals tell what other images do, not what other seeds do"
            )
        if "meteor" in self.figures:
            notes.append("METEOR is the mean of the images' scores, not that of the split as a whole")
        return notes


def compare(
    names: Sequence[str],
    *,
    split: str | None = None,
    way: str = "",  # of decoding, as `rlcap evaluate` names it: "beam5"
    references: Source | None = None,  # a file or a prepared data set; else that of the first run
    metrics: Sequence[str] = (),
    resamples: int = RESAMPLES,
) -> Comparison:
    """Runs, folders of several seeds, or results files, against the first of them."""
    for name in metrics:
        if name not in TITLES:
            raise ConfigError(f"there is no metric '{name}'{did_you_mean(name, TITLES)}")
    if not FEWEST <= resamples <= MOST:
        raise ConfigError(f"--resamples {resamples}: should be between {FEWEST} and {MOST}")
    if len(names) > len(LETTERS):
        raise ConfigError(f"{len(names)} runs: {len(LETTERS)} at most can be told apart; compare fewer at once")
    contenders = [Contender(name, _files(Path(name), split, way)) for name in names]
    files = [file for contender in contenders for file in contender.files]
    known = References(_references_of(files) if references is None else references)
    captions = [Captions(file, known) for file in track(files, "reading captions", len(files))]
    for other in captions[1:]:
        captions[0].check_same_images(other)
    keys = list(dict.fromkeys(metrics)) or [*METRICS, *(key for key in MORE if all(key in c.saved for c in captions))]
    values = _values(captions, keys, resamples)
    figures = {key: _figures(contenders, values[key]) for key in keys}
    return Comparison(contenders, len(captions[0].rows), resamples, figures)


class References:
    """The references of images, which captions know by their ids or by their names."""

    def __init__(self, source: Source) -> None:
        self.source = source
        data = DataSet.load(source) if Path(source).is_dir() else None
        if data is not None and not data.has_images:
            raise ConfigError(f"{source}: is text; captions of images are compared, by references of theirs")
        self.records = read(source).records if data is None else data.records
        self._tokens = None if data is None else data.tokens
        ids = {str(_id(record)): row for row, record in enumerate(self.records)}
        names = {record.image: row for row, record in enumerate(self.records)}
        self._known = (ids, names) if len(ids) == len(self.records) else (names,)

    def rows(self, images: Sequence[str], file: Path) -> list[int]:
        """All of a file's images are known by their ids, or all by their names."""
        for known in self._known:
            if known.keys() >= set(images):
                return [known[image] for image in images]
        unknown = next(image for image in images if all(image not in known for known in self._known))
        raise DataError(
            f"{file}: the image {shown(unknown)} is not in {self.source}, where one is {shown(_id(self.records[0]))}; "
            "name the right references with --references"
        )

    def tokens(self, row: int) -> list[list[str]]:
        if self._tokens is not None:
            return self._tokens[row]
        return [tokenise(caption) for caption in self.records[row].captions]


class Captions:
    """One file's captions, in the order of the references, and what they were worth to `rlcap evaluate`."""

    def __init__(self, file: Path, known: References) -> None:
        said = read_results(file)
        rows = known.rows(list(said), file)
        order = np.argsort(rows)
        captions = [tokenise(caption) for caption in said.values()]
        self.file, self._known = file, known
        self.rows = [rows[i] for i in order]
        self.words: list[Words] = [captions[i] for i in order]
        self.references = [known.tokens(row) for row in self.rows]
        self.counts = bleu_counts(self.words, self.references)
        self.saved = self._saved(order)

    def scores(self, key: str) -> Floats:
        """Of each image, as they were saved, or else scored now."""
        if key in self.saved:
            return self.saved[key]
        return evaluate_captions(self.words, self.references, [key])[key].per_image

    def check_same_images(self, other: "Captions") -> None:
        mine, theirs = set(self.rows), set(other.rows)
        if apart := sorted(mine ^ theirs):
            has, lacks = (self, other) if apart[0] in mine else (other, self)
            raise DataError(
                f"{has.file}: captions {len(has.rows)} images, {lacks.file} {len(lacks.rows)}, and "
                f"{shown(_id(self._known.records[apart[0]]))} is not among these; compare captions of the same images"
            )

    def _saved(self, order: NDArray[np.int64]) -> dict[str, Floats]:
        """Nothing if they are of other captions or references, which their BLEU tells."""
        path = self.file.with_name(f"{self.file.stem}_scores.json")
        if not path.exists():
            return {}
        try:
            per_image = json.loads(path.read_text("utf-8"))["per_image"]
            found = {key: np.array(values, dtype=np.float64)[order] for key, values in per_image.items()}
            if np.allclose(found["bleu_4"], bleu_of(self.counts)[:, BLEU["bleu_4"]], atol=1e-6):
                return found
        except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            pass
        say(f"{path}: does not fit the captions and these references; they are scored anew")
        return {}


def _values(captions: Sequence[Captions], keys: Sequence[str], resamples: int) -> dict[str, Floats]:
    """Metric -> (1 + resamples, files): as observed, and on each resample of the images."""
    means = [key for key in keys if key not in BLEU]
    scores = [[each.scores(key) for each in captions] for key in track(means, "scoring", len(means))]
    columns = np.stack([np.column_stack([each.counts, *of]) for each, *of in zip(captions, *scores, strict=True)], 1)
    images, files, width = columns.shape
    flat = columns.reshape(images, -1)
    sums = np.vstack([flat.sum(0), resampled_sums(flat, resamples)]).reshape(-1, files, width)
    bleu, others = bleu_of(sums[..., : width - len(means)]), sums[..., width - len(means) :] / images
    return {key: bleu[..., BLEU[key]] if key in BLEU else others[..., means.index(key)] for key in keys}


def _figures(contenders: Sequence[Contender], values: Floats) -> list[Figure]:
    """Of values (1 + resamples, files)."""
    rng = np.random.default_rng(0)
    ends = np.cumsum([len(contender.files) for contender in contenders])
    parts = np.split(values, ends[:-1], axis=1)
    draws = [Draws.of(part[0], part[1:], rng) for part in parts]
    figures = []
    for part, own in zip(parts, draws, strict=True):
        deviation = float(part[0].std(ddof=1)) if part.shape[1] > 1 else None
        against = None
        if own is not draws[0]:
            against = _difference(own - draws[0], of_seeds=max(part.shape[1], parts[0].shape[1]) > 1)
        figures.append(Figure(own.value, *own.interval(), deviation, against))
    return figures


def _difference(draws: Draws, of_seeds: bool) -> Difference:
    low, high = draws.interval()
    by_seeds = draws.share_of_seeds if of_seeds else None
    verdict = "difference" if low > 0 or high < 0 else "noise"
    return Difference(draws.value, low, high, draws.share_above_zero, by_seeds, verdict)


def _cells(figure: Figure) -> list[str]:
    """Behind the metric and the letter, as HEAD names them; empty where there is nothing to tell."""
    spread = "" if figure.deviation is None else f"{100 * figure.deviation:.2f}"
    cells = [f"{100 * figure.value:.2f}", f"{100 * figure.low:.2f} … {100 * figure.high:.2f}", spread]
    if figure.difference is None:
        return [*cells, "", "", "", "", ""]
    by = figure.difference
    interval = f"{100 * by.low:+.2f} … {100 * by.high:+.2f}"
    seeds = "" if by.by_seeds is None else f"{by.by_seeds:.0%}"
    return [*cells, f"{100 * by.value:+.2f}", interval, f"{by.better:.1%}", seeds, by.verdict]


def _files(path: Path, split: str | None, way: str) -> list[Path]:
    """Where the captions of a RUN are; of several seeds, those of each."""
    if path.is_file():
        return [path]
    return [_captions_of(run_folder(run), split, way) for run in seed_folders(path) or [path]]


def _captions_of(run: Path, split: str | None, way: str) -> Path:
    """What `rlcap evaluate` saved; for the split that training evaluates, failing that, its own best evaluation."""
    if not (run / "config.yaml").exists():
        raise CheckpointError(
            f"{run}: is no run (config.yaml is missing); name the folder that rlcap train made, or a file of captions"
        )
    wanted = split or _data(run).evaluate
    name = "_".join(part for part in (wanted, way) if part)
    file = run / "captions" / f"{name}.json"
    if file.exists():
        return file
    if name == _data(run).evaluate and (best := best_evaluation(run).with_suffix(".json")).exists():
        return best
    there = [path.stem for path in file.parent.glob("*.json") if not re.search(r"_(scores|\d{7})$", path.stem)]
    raise ConfigError(
        f"{run}: has no captions '{name}'{did_you_mean(name, there)}; "
        f"make them with `rlcap evaluate {run} --split {wanted}`, decoding as here"
    )


def _references_of(files: Sequence[Path]) -> str:
    """The data set of the first file that lies in a run's folder."""
    runs = [file.parent.parent for file in files]
    run = next((run for run in runs if (run / "config.yaml").exists()), None)
    if run is None:
        raise ConfigError(f"{files[0]}: lies in no run that tells its references; name them with --references")
    path = _data(run).path
    if not Path(path).is_dir():
        raise ConfigError(f"{path}: the data set of {run} is not here; name it with --references")
    return path


def _data(run: Path) -> Data:
    return load_recipe(run / "config.yaml", unused=COMPONENTS).data


def _id(record: Record) -> int | str:
    return record.image if record.image_id is None else record.image_id
