"""One page about runs: it holds what their folders say, and whatever they say stays text."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from rlcap.album import Album
from rlcap.cli import main
from rlcap.data.dataset import DataSet
from rlcap.errors import RlcapError
from rlcap.materials import features_of
from rlcap.report.looking import look
from rlcap.report.page import report
from rlcap.report.reading import columns
from rlcap.report.sources import Missing, Where, sources
from rlcap.run import load

CPU = Where(device="cpu")
HOSTILE = '<script>alert(1)</script> "quoted" & \u202eback\u0000wards \ud800 <img src=x onerror=alert(1)>'
STAGES = """
name: two_stages
data: {path: scenes}
encoder: {name: small_cnn, width: 32}
policy: {name: soft_attention, hidden: 16, embedding: 16, attention: 16}
trainer: {name: cross_entropy, optimiser: {warmup: 0}}
training: {updates: 4, images: 8, captions: 2, evaluate_every: 4 updates, log_every: 1, threads: 1, device: cpu}
decoding: {length: 6}
stages:
  likelihood: {}
  reward:
    trainer: {name: scst, rollout: {samples: 2, length: 6}}
    rewards: {cider_d: 1.0}
    training: {captions: 1}
"""
MANAGED = """
name: managed
data: {path: scenes}
encoder: {name: small_cnn, width: 32}
policy: {name: leakgan, embedding: 8, hidden: 16, manager: 8, goal: 4, attention: 8, discriminator: {hidden: 8}}
trainer:
  name: adversarial
  rollout: {samples: 1, length: 6, graph: scored}
  playouts: {every: 4, count: 1}
  turns: {pretraining: 2, adversarial: 1, likelihood: 1}
training: {updates: 2, images: 8, captions: 1, evaluate_every: 2 updates, threads: 1, device: cpu}
decoding: {length: 6, sample: true, min_words: 4}
"""


class Page(HTMLParser):
    """The elements of a page, each with its attributes, and the texts in it; complains about a missing end."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in ("meta", "img", "br"):
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)

    def of(self, name: str, kind: str = "") -> list[dict[str, str]]:
        return [
            given for called, given in self.elements if called == name and kind in given.get("class", "").split(" ")
        ]

    @property
    def text(self) -> str:
        return "".join(self.texts)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Scenes and a run of two stages."""
    home = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["--quiet", "prepare", "scenes", "--out", "scenes", "--count", "40", "--min-count", "2"]) == 0
        Path("two.yaml").write_text(STAGES)
        assert main(["--quiet", "train", "two.yaml", "--out", "run"]) == 0
        assert main(["--quiet", "report", "run", "--out", "page.html", "--images", "2", "--device", "cpu"]) == 0
    return home


@pytest.fixture
def place(home, monkeypatch) -> Path:
    monkeypatch.chdir(home)
    return home


def test_a_run_of_stages_stands_side_by_side(place):
    html = Path("page.html").read_text(encoding="utf-8")
    page = Page(html)
    one, two = (column.scored(None) for column in columns(["run"]))
    assert one.split == two.split == "val"
    rows = page.of("article", "row")
    assert len(page.of("section", "said")) == 2 * len(rows)
    drawn = page.of("image")
    assert 0 < len({given["id"] for given in drawn if "id" in given}) <= len(rows)
    assert len(page.of("ol", "gazes")) == sum(bool(said) for said in re.findall('class="caption"><bdi>(.*?)</p>', html))
    assert {given["href"] for given in page.of("use")} == {f"#{given['id']}" for given in drawn if "id" in given}
    records = DataSet.load("scenes").split("val")
    best = max(range(len(two.images)), key=lambda at: two.per_image["cider_d"][at])
    for words in records.tokens[best]:
        assert " ".join(words) in page.text
    assert two.captions[best] in page.text
    for told in (
        "two_stages",
        "cross_entropy",
        "scst",
        "cider_d × 1",
        "data/scenes"[5:],
        f"{100 * two.corpus['bleu_4']:.2f}",
    ):
        assert told in page.text
    titles = [text for text in page.texts if " by update. " in text]
    assert {title.partition(" by update")[0] for title in titles} >= {
        "CIDEr-D",
        "all rewards",
        "cross entropy",
        "words a caption",
    }


def test_nothing_comes_from_elsewhere(place):
    html = Path("page.html").read_text(encoding="utf-8")
    page = Page(html)
    assert not re.search("https?:|//[a-z]|@import|<link|<script|<iframe", re.sub('"data:[^"]*"', "", html))
    policy = next(given["content"] for given in page.of("meta") if given.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    for name, given in page.elements:
        for attribute in ("src", "href"):
            if attribute in given:
                assert given[attribute].startswith(("#", "data:image/")), (name, given)
        assert not any(attribute.startswith("on") for attribute in given)
        if name == "svg" and given.get("role") == "img":
            assert given.get("aria-label") or given["class"] == "chart"  # which has a title
    ids = [given["id"] for _, given in page.elements if "id" in given]
    assert len(ids) == len(set(ids))


def test_the_folder_alone_is_enough(place, tmp_path, monkeypatch):
    for name in ("config.yaml", "metrics.jsonl", "captions", "environment.json"):
        copy = shutil.copytree if name == "captions" else shutil.copy
        (tmp_path / "alone").mkdir(exist_ok=True)
        copy(place / "run" / "reward" / name, tmp_path / "alone" / name)
    monkeypatch.chdir(tmp_path)
    made = report(["alone"], CPU)
    page = Page(made.html)
    assert "No references, pictures or attention: scenes: there is no such data set folder" in page.text
    assert made.images > 0
    assert len(page.of("svg", "chart")) > 10
    assert page.of("image") == []
    assert "to" in next(text for text in page.texts if text.startswith("95% interval "))
    (tmp_path / "alone" / "metrics.jsonl").unlink()
    assert "No evaluation yet" in Page(report(["alone"], CPU).html).text


def test_without_weights_or_features_the_rest_is_shown(place, tmp_path):
    shutil.copytree(place / "run" / "reward", tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoints"))
    page = Page(report([tmp_path / "bare"], CPU).html)
    assert "No attention: " in page.text
    assert "has no checkpoint 'best' yet" in page.text
    assert page.of("use")
    assert not page.of("ol", "gazes")
    page = Page(report(["run/reward"], Where(features="nowhere.h5", device="cpu")).html)
    assert "No features, so no attention: nowhere.h5: " in page.text
    assert "People say" in page.text
    assert not Page(report(["run"], Where(device="cpu", models=False)).html).of("ol", "gazes")


def test_hostile_texts_stay_texts(place, tmp_path):
    folder = tmp_path / '<b onclick="x">run&amp;'
    shutil.copytree(place / "run" / "reward", folder)
    name = columns([folder])[0].scored(None).name
    results = folder / "captions" / f"{name}.json"
    said = json.loads(results.read_text())
    for result in said:
        result["caption"] = HOSTILE
    results.write_text(json.dumps(said))
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("name: two_stages", "name: '</title><script>alert(2)</script>'"))
    lines = [
        {"update": 3, "wall_time": 1e9, "warning/x": HOSTILE},
        {"update": 3, "wall_time": 1e9, '"><script>/x': 1.0},
        {"update": 4, "wall_time": 1e9, '"><script>/x': 2.0},
    ]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))
    html = report([folder, "run/reward"], CPU).html
    html.encode("utf-8")
    page = Page(html)
    assert not {"script", "img", "b onclick"} & {element for element, _ in page.elements}
    assert not page.of("b") or all("onclick" not in given for given in page.of("b"))
    assert "\u0000" not in html
    shown = HOSTILE.replace("\u0000", "\ufffd").replace("\ud800", "\ufffd")
    assert shown in page.text
    assert "</title><script>alert(2)</script>" in page.text
    assert '"><script>: x' in page.text


def test_attention_is_that_of_the_evaluation(place):
    """The captions said again look where they looked when they were made."""
    for column in columns(["run"]):
        scored, missing = column.scored(None), Missing()
        (source,) = sources([column], [scored], CPU, missing)
        looks = look(column, scored, source, scored.images, CPU, missing)
        assert missing.lines == {}
        run = load(column.folder, "cpu")
        data = DataSet.load("scenes")
        store, split = features_of(run.experiment, data), data.split("val")
        album = Album(split, store, store.rows(split.images))
        pictures = album.looks(run.policy, range(len(split)), run.experiment.decoding, torch.device("cpu"), 1)
        for image, picture in zip(scored.images, pictures, strict=True):
            again = looks.by_image[image]
            assert again.words == picture.captions[0].words
            np.testing.assert_allclose(again.attention, picture.captions[0].attention, atol=1e-5)  # float32
            assert again.grid == picture.grid


def test_goals_of_a_manager_are_drawn(place):
    Path("managed.yaml").write_text(MANAGED)
    assert main(["--quiet", "train", "managed.yaml", "--out", "managed"]) == 0
    page = Page(report(["managed"], CPU, each=1).html)
    assert "goals and gazes change together: correlation" in page.text
    drawn = page.of("svg", "goals")
    assert len(drawn) == len(page.of("article", "row")) == 3
    words = sum(len(given["aria-label"].partition(": ")[2].split()) for given in drawn)
    assert len(page.of("rect", "more")) + len(page.of("rect", "less")) == 8 * words  # directions of a goal


def test_only_images_with_a_picture_are_chosen_where_some_have_one(place, tmp_path):
    from rlcap.data.scenes import write_images

    split = DataSet.load("scenes").split("val")
    write_images(tmp_path, split.records, 2)
    made = report(["run/reward"], Where(pictures=str(tmp_path), device="cpu"))
    assert made.images == 2
    assert f"Of {len(split)} images, the 2 whose picture is there." in Page(made.html).text


def test_the_best_evaluation_is_that_of_the_checkpoint(place):
    for column in columns(["run"]):
        meta = json.loads((column.folder / "checkpoints" / "best" / "meta.json").read_text())
        assert column.best == (meta["update"], meta["best"])
        assert column.scored(None).name == f"val_{meta['update']:07d}"


def test_reading_a_log(tmp_path):
    (tmp_path / "config.yaml").write_text("training: {metric: nll}\ndata: {evaluate: dev}")
    lines = ['{"update": 1, "wall_time": 5, "eval/dev/nll": 3.0}', '{"update": 2, "wall_time": 7, "eval/dev/nll": 2.0}']
    lines += ['{"update": 3, "wall_time": 9, "eval/dev/nll": "nan", "warning/a": "b; c"}', "[1]", '{"update": 4, "wal']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    (column,) = columns([tmp_path])
    assert column.log.curves == {"eval/dev/nll": [(1, 3.0), (2, 2.0)]}
    assert column.best == (2, 2.0)  # lower is better
    assert (column.log.begun, column.log.ended, column.log.updates) == (5, 9, 3)
    assert [(told.update, told.text) for told in column.log.warnings] == [(3, "b; c")]
    page = Page(report([tmp_path], CPU).html)
    assert "B." in page.text
    assert "What to do: c." in page.text


def test_runs_are_told_apart(tmp_path):
    for name in ("a/run", "b/run"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("name: same")
    found = columns([tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "a" / "run"])
    assert [column.label for column in found] == ["a/run", "b/run"]


def test_stages_follow_one_another(place):
    first, second = columns(["run"])
    assert (first.label, second.label, first.before, second.before) == ("likelihood", "reward", 0, 4)
    assert [column.label for column in columns(["run", "run/reward"])] == ["run · likelihood", "run · reward", "reward"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("report nowhere", "nowhere: is no run (config.yaml is missing)"),
        ("report run --out page.pdf", "--out page.pdf: is to be a page; name it OUT.html"),
        ("report run --images 0", "--images 0: must be at least 1"),
        ("report run --captions val_000", "holds no val_000_scores.json (did you mean 'val_"),
        ("report run --out run", "--out run: is to be a page"),
    ],
)
def test_what_cannot_be_shown_is_told(place, capsys, argv, said):
    assert main(argv.split()) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.yaml", "a: &b [1]\nc: *b", "it holds an alias"),
        ("config.yaml", "[1, 2]", "is damaged"),
        ("config.yaml", "a: [", "cannot be read"),
        ("environment.json", "{", "cannot be read"),
        ("stages.json", '["../outside"]', "is no list of stages"),
    ],
)
def test_damaged_folders_are_refused(tmp_path, file, content, said):
    (tmp_path / "config.yaml").write_text("name: x")
    (tmp_path / file).write_text(content)
    with pytest.raises(RlcapError, match=re.escape(said)) as error:
        columns([tmp_path])
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_scores_that_do_not_fit_are_refused(place, tmp_path):
    shutil.copytree(place / "run" / "reward", tmp_path / "run")
    (column,) = columns([tmp_path / "run"])
    path = tmp_path / "run" / "captions" / f"{column.scored(None).name}_scores.json"
    scores = json.loads(path.read_text())
    scores["per_image"]["cider_d"].pop()
    path.write_text(json.dumps(scores))
    with pytest.raises(RlcapError, match="does not go with"):
        column.scored(None)
    path.write_text('{"split": 1}')
    with pytest.raises(RlcapError, match="is not what an evaluation writes"):
        column.scored(None)
