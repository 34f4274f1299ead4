"""`rlcap compare`: whose captions it reads, what it says of them, and what it refuses."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from rlcap.cli import main
from rlcap.comparing import compare
from rlcap.data.dataset import DataSet
from rlcap.errors import ConfigError, RlcapError
from rlcap.evaluation import Evaluation
from rlcap.metrics import evaluate_captions
from rlcap.recipe import load_recipe, to_yaml

KEYS = ("bleu_4", "rouge_l", "cider_d")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    assert main(["--quiet", "prepare", "scenes", "--out", str(folder), "--count", "90", "--min-count", "2"]) == 0
    return folder


@pytest.fixture(scope="module")
def written(scenes) -> Callable[[str, float, int], Evaluation]:
    """A split's first references as captions, some of their words lost, and their scores."""

    @cache
    def made(split: str, lost: float, seed: int) -> Evaluation:
        data, rng = DataSet.load(scenes).split(split), random.Random(seed)
        words = [[word for word in image[0] if rng.random() > lost] for image in data.tokens]
        found = evaluate_captions(words, data.tokens)
        ids = [record.image if record.image_id is None else record.image_id for record in data.records]
        corpus = {key: result.corpus for key, result in found.items()}
        per_image = {key: result.per_image.tolist() for key, result in found.items()}
        return Evaluation(split, ids, [" ".join(caption) for caption in words], corpus, {}, per_image)

    return made


@pytest.fixture(scope="module")
def recipe(scenes) -> str:
    return to_yaml(load_recipe("scenes", {"data.path": str(scenes), "data.evaluate": "val"}))


@pytest.fixture
def run(tmp_path, written, recipe) -> Callable[..., Path]:
    """Makes a run's folder with captions of a split, as `rlcap evaluate` leaves it."""

    def made(
        name: str, lost: float = 0.2, seed: int = 1, split: str = "train", file: str | None = None, **more
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(recipe)
        evaluation = written(split, lost, seed)
        evaluation = replace(evaluation, per_image=evaluation.per_image | more)
        evaluation.save(folder / "captions", file or split)
        return folder

    return made


def figures(*runs: Path | str, **arguments):
    return compare([str(run) for run in runs], **{"split": "train", "resamples": 200, **arguments}).figures


def saved(run: Path, file: str = "train") -> dict:
    return json.loads((run / "captions" / f"{file}_scores.json").read_text())


def told(*words: str) -> str:
    """What a command says against its arguments: one line."""
    with pytest.raises(RlcapError) as error:
        compare(words[:1] if len(words) == 1 else words, split="train", resamples=200)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def seeds_of(folder: Path, runs: Sequence[str]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "seeds.json").write_text(json.dumps(runs))
    return folder


def test_figures_are_those_of_the_evaluation_each_within_its_interval(run):
    one = run("one")
    for key, (figure,) in figures(one).items():
        assert figure.value == pytest.approx(saved(one)["corpus"][key], abs=1e-9)  # the same sums in another order
        assert figure.low < figure.value < figure.high
        assert (figure.difference, figure.deviation) == (None, None)


def test_a_difference_and_noise_are_told_apart(run):
    one, like, worse = run("one"), run("like", seed=2), run("worse", lost=0.5)
    found = figures(one, like, worse)
    assert list(found) == list(KEYS)
    for mine, alike, apart in found.values():
        assert alike.difference.verdict == "noise"
        assert alike.difference.low < 0 < alike.difference.high
        assert apart.difference.verdict == "difference"
        assert apart.difference.high < 0
        assert (apart.difference.better, apart.difference.value) == (0, pytest.approx(apart.value - mine.value))
    swapped = figures(worse, one)["cider_d"][1].difference
    assert (swapped.verdict, swapped.better) == ("difference", 1)
    assert -swapped.value == pytest.approx(found["cider_d"][2].difference.value)


def test_what_all_runs_share_cancels_in_a_difference(run):
    one, near = run("one", lost=0.20), run("near", lost=0.22)
    first, second = figures(one, near)["cider_d"]
    apart = (first.high - first.low + second.high - second.low) / 2
    assert second.difference.high - second.difference.low < apart


def test_the_same_captions_are_noise(run):
    for _, figure in figures(run("one"), run("two")).values():
        by = figure.difference
        assert (by.value, by.low, by.high, by.better, by.verdict, by.by_seeds) == (0, 0, 0, 0.5, "noise", None)


def test_results_of_any_tool_are_matched_by_id_or_name_in_any_order(run, scenes, tmp_path):
    one = run("one")
    names = [record.image for record in DataSet.load(scenes).split("train").records]
    said = json.loads((one / "captions" / "train.json").read_text())
    pairs = list(zip(names, [entry["caption"] for entry in said], strict=True))
    random.Random(0).shuffle(pairs)
    theirs = tmp_path / "theirs.json"
    theirs.write_text(json.dumps(dict(pairs)))
    for mine, other in figures(one, theirs).values():
        assert other.value == pytest.approx(mine.value, abs=1e-9)
        assert other.difference.value == pytest.approx(0, abs=1e-9)
    alone = figures(theirs, references=scenes)
    assert alone["cider_d"][0].value == pytest.approx(saved(one)["corpus"]["cider_d"], abs=1e-9)
    assert "lies in no run" in told(str(theirs))


def test_scores_of_other_captions_are_not_trusted(run, capsys):
    one, other = run("one"), run("other", lost=0.4)
    right = figures(one)["cider_d"][0].value
    (one / "captions" / "train_scores.json").write_text((other / "captions" / "train_scores.json").read_text())
    assert figures(one)["cider_d"][0].value == pytest.approx(right)
    assert "scored anew" in capsys.readouterr().out
    for wrong in ("", "{}", '{"per_image": {"bleu_4": ["x"]}}', '{"per_image": {"bleu_4": [1.0]}}', "[1]"):
        (one / "captions" / "train_scores.json").write_text(wrong)
        assert figures(one)["cider_d"][0].value == pytest.approx(right)


def test_a_slow_metric_is_shown_where_all_were_scored_by_it(run, scenes):
    images = len(DataSet.load(scenes).split("train"))
    half, whole = {"meteor": [0.0, 0.5] * (images // 2) + [0.25] * (images % 2)}, {"meteor": [1.0] * images}
    one, two, three = run("one", **half), run("two", **whole), run("three")
    assert list(figures(one, two)) == [*KEYS, "meteor"]
    assert figures(one, two)["meteor"][1].difference.value == pytest.approx(0.75)
    assert list(figures(one, three)) == list(KEYS)
    assert list(figures(one, three, metrics=["bleu_1", "cider"])) == ["bleu_1", "cider"]


def test_seeds_that_disagree_make_noise_of_what_one_of_them_would_tell(run, tmp_path):
    for number, lost in enumerate((0.0, 0.15, 0.5), 1):
        run(f"wild/seed{number}", lost=lost, seed=number)
    for number in (1, 2, 3):
        run(f"tame/seed{number}", lost=0.1, seed=number + 10)
    wild, tame = (seeds_of(tmp_path / name, ["seed1", "seed2", "seed3"]) for name in ("wild", "tame"))
    one, several = figures(tame, tmp_path / "wild" / "seed3"), figures(tame, wild)
    for key in KEYS:
        values = [saved(wild / f"seed{number}")["corpus"][key] for number in (1, 2, 3)]
        mean = sum(values) / 3
        figure = several[key][1]
        assert figure.value == pytest.approx(mean)
        assert figure.deviation == pytest.approx((sum((value - mean) ** 2 for value in values) / 2) ** 0.5)
        assert (one[key][1].difference.verdict, figure.difference.verdict) == ("difference", "noise")
        assert figure.difference.by_seeds > 0.8
        assert one[key][1].difference.by_seeds < 0.5


def test_captions_are_found_by_what_evaluate_was_asked(run):
    one = run("one", file="train_beam5_length_normalisation0.7")
    assert figures(one, way="beam5_length_normalisation0.7")
    with pytest.raises(ConfigError, match=r"no captions 'train_beam5' \(known: train_beam5_length_normalisation0.7\)"):
        figures(one, way="beam5")


def test_without_rlcap_evaluate_the_best_evaluation_of_the_training_serves(run):
    one = run("one", split="val", file="val_0000020")
    run("one", split="val", file="val_0000030", lost=0.5)
    best = one / "checkpoints" / "best"
    best.mkdir(parents=True)
    (best / "meta.json").write_text('{"update": 20}')
    found = figures(one, split=None)["bleu_4"][0].value
    assert found == pytest.approx(saved(one, "val_0000020")["corpus"]["bleu_4"])
    run("one", split="val", lost=0.3)
    assert figures(one, split=None)["bleu_4"][0].value == pytest.approx(saved(one, "val")["corpus"]["bleu_4"])


def test_what_cannot_be_compared_is_refused_in_one_line(run, tmp_path, scenes):
    one, other = run("one"), run("other", split="val", file="train")
    assert "compare captions of the same images" in told(str(one), str(other))
    assert "config.yaml is missing" in told(str(one), str(tmp_path / "none"))
    assert "has no captions 'train'" in told(str(run("val", split="val")))
    foreign = tmp_path / "foreign.json"
    foreign.write_text('{"elsewhere.jpg": "a ball"}')
    assert '"elsewhere.jpg" is not in' in told(str(one), str(foreign))
    assert "does not name folders of seeds" in told(str(seeds_of(tmp_path / "bad", ["../one"])))
    moved = (one / "config.yaml").read_text().replace(str(scenes), "nowhere")
    (one / "config.yaml").write_text(moved)
    assert "name it with --references" in told(str(one))
    assert figures(one, references=scenes)
    with pytest.raises(ConfigError, match="did you mean 'cider_d'"):
        compare([str(one)], metrics=["ciderd"])
    with pytest.raises(ConfigError, match="between 100 and 100000"):
        compare([str(one)], resamples=10**9)


def test_text_without_images_is_not_compared(run, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("a dog runs\na cat sleeps\n")
    text = ["prepare", "text", str(lines), "--dev", str(lines), "--min-count", "1", "--out", str(tmp_path / "text")]
    assert main(["--quiet", *text]) == 0
    with pytest.raises(ConfigError, match="is text"):
        figures(run("one"), references=tmp_path / "text")


def test_the_command_prints_a_table_or_json(run, capsys):
    one, two = run("one"), run("two", lost=0.5)
    arguments = ["--quiet", "compare", str(one), str(two), "--split", "train", "--resamples", "200"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"A  {one}")
    assert [line.split()[0] for line in lines if line.endswith(" difference")] == ["B", "B", "B"]
    assert len({line.index("…") for line in lines if "…" in line and line.split()[0] == "B"}) <= 3
    assert main([*arguments, "--json", "--metrics", "rouge_l"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["figures"]["rouge_l"][1]["difference"]["verdict"] == "difference"
    assert [each["name"] for each in found["contenders"]] == [str(one), str(two)]
    assert main(["--quiet", "compare", str(one), str(two), "--split", "val", "--beam", "3"]) == 2
    assert "no captions 'val_beam3'" in capsys.readouterr().err
