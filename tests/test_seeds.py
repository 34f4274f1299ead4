"""`rlcap train --seeds`: each seed is a run of its own, and together they say how far they spread."""

import json
import shutil
from pathlib import Path
from statistics import mean, stdev
from textwrap import dedent

import pytest
from safetensors.torch import load_file

import rlcap
from rlcap.cli import main
from rlcap.errors import CheckpointError, ConfigError, RlcapError
from rlcap.recipe import load_recipe, load_stages
from rlcap.seeds import Spread, Summary, seed_folders, train_seeds
from rlcap.stages import train_stages

RECIPE = """
    name: tiny
    data: {path: DATA}
    encoder: {name: small_cnn, width: 32}
    policy: {name: soft_attention, hidden: 16, embedding: 8, attention: 8, dropout: 0.0}
    trainer: {name: cross_entropy, optimiser: {lr: 4e-3, decay: none}}
    training: {images: 8, captions: 1, updates: 2, log_every: 1, threads: 1, device: cpu, evaluate_every: 1 update}
"""
STAGES = """
    stages:
      first: {training: {updates: 1}}
      second: {training: {updates: 1, seed: 7}}
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    assert main(["--quiet", "prepare", "scenes", "--out", str(folder), "--count", "40", "--min-count", "2"]) == 0
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, scenes) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(dedent(RECIPE).replace("DATA", str(scenes)))
    return path


@pytest.fixture(scope="module")
def three(tmp_path_factory, recipe) -> Path:
    """Two seeds, and then a third, from training.seed=4 on. Not to be written into."""
    folder = tmp_path_factory.mktemp("seeds") / "three"
    stages = load_stages(recipe, ["training.seed=4"])
    train_seeds(stages, folder, 2)
    before = contents(folder / "seed4")
    train_seeds(stages, folder, 3, resume=True)
    assert contents(folder / "seed4") == before  # a complete run is left as it is
    return folder


def contents(run: Path) -> dict[str, bytes]:
    """All but TensorBoard's files, of which each call begins another."""
    files = (path for path in sorted(run.rglob("*")) if path.is_file() and "tfevents" not in path.name)
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def weights(run: Path) -> dict:
    return load_file(run / "checkpoints" / "last" / "weights.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def told(*arguments: object) -> str:
    with pytest.raises(RlcapError) as error:
        train_seeds(*arguments)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_the_summary_is_of_the_best_checkpoints(three):
    found = json.loads((three / "summary.json").read_text())
    assert (found["split"], found["seeds"]) == ("val", ["seed4", "seed5", "seed6"])
    best = []
    for name in found["seeds"]:
        log = [json.loads(line) for line in (three / name / "metrics.jsonl").read_text().splitlines()]
        best.append(
            max((line for line in log if "eval/val/cider_d" in line), key=lambda line: line["eval/val/cider_d"])
        )
    for key, spread in found["figures"].items():
        values = [line[f"eval/val/{key}"] for line in best]
        assert spread["values"] == values
        assert spread["mean"] == pytest.approx(mean(values))
        assert spread["deviation"] == pytest.approx(stdev(values))
    assert {"bleu_4", "cider_d"} <= found["figures"].keys()


def test_each_seed_is_the_run_that_it_would_be_alone_also_when_it_is_resumed(three, recipe, tmp_path):
    folder = tmp_path / "stopped"
    shutil.copytree(three, folder)
    for name in ("seed5", "seed6"):
        shutil.rmtree(folder / name)
    (folder / "summary.json").unlink()
    train_stages(load_stages(recipe, ["training.seed=5", "training.updates=1"]), folder / "seed5")
    stages = load_stages(recipe, ["training.seed=4"])
    before = contents(folder / "seed4")
    assert "holds a run already" in told(stages, folder, 3)
    assert "holds seed4, seed5, seed6" in told(stages, folder, 2, True)
    train_seeds(stages, folder, 3, resume=True)
    assert contents(folder / "seed4") == before
    assert same(folder / "seed5", three / "seed5")
    assert same(folder / "seed6", three / "seed6")
    assert not same(folder / "seed5", folder / "seed6")
    assert json.loads((folder / "summary.json").read_text()) == json.loads((three / "summary.json").read_text())


def test_the_command_trains_all_stages_of_each_seed_and_tells_the_spread(recipe, tmp_path, capsys):
    path, out = tmp_path / "staged.yaml", tmp_path / "out"
    path.write_text(recipe.read_text() + dedent(STAGES))
    assert main(["--quiet", "train", str(path), "--seeds", "2", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("mean ± standard deviation of 2 seeds on val")
    assert any(line.startswith("CIDEr-D ") and "±" in line for line in lines)
    for number in (1, 2):
        run = out / f"seed{number}"
        assert json.loads((run / "stages.json").read_text()) == ["first", "second"]
        seeds = [load_recipe(run / stage / "config.yaml").training.seed for stage in ("first", "second")]
        assert seeds == [number, 6 + number]


def test_a_failure_names_the_seed_and_leaves_no_empty_folder(recipe, three, tmp_path):
    stages = load_stages(recipe, ["data.path=nowhere"])
    assert told(stages, tmp_path / "new", 2).startswith("seed1: nowhere: ")
    assert not (tmp_path / "new").exists()
    folder = tmp_path / "broken"
    shutil.copytree(three, folder)
    for path in (folder / "seed5" / "checkpoints").rglob("state.pt"):
        path.write_bytes(b"")
    assert told(load_stages(recipe, ["training.seed=4"]), folder, 3, True).startswith("seed5: ")


def test_folders_that_hold_something_else_are_refused(recipe, three, tmp_path, capsys):
    stages = load_stages(recipe)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("")
    assert "holds something else (todo.txt)" in told(stages, tmp_path / "notes", 2)
    assert "holds something else" in told(stages, three / "seed4", 2)
    assert "these would be seed1, seed2, seed3" in told(stages, three, 3, True)
    assert "has no checkpoint to resume from" in told(stages, tmp_path / "new", 2, True)
    assert "needs two at least" in told(stages, tmp_path / "new", 1)
    assert not (tmp_path / "new").exists()
    train = ["--quiet", "train", str(recipe), "--out", str(three)]
    assert main(train) == 2
    assert "holds a run of 3 seeds" in capsys.readouterr().err
    assert main([*train, "--seeds", "3", "--stage", "first"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_who_needs_one_run_is_told_to_name_one(three, recipe, capsys):
    assert main(["--quiet", "evaluate", str(three)]) == 2
    assert f"{three}: holds runs of several seeds; name one of them, such as {three}/seed4" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="holds a run of 3 seeds"):
        rlcap.train(recipe, three)


@pytest.mark.parametrize("text", ["", "[]", "{}", '["../elsewhere"]', "[1]", '["seed1", null]', "[" * 10_000])
def test_a_list_of_seeds_that_is_none_is_told(tmp_path, text):
    (tmp_path / "seeds.json").write_text(text)
    with pytest.raises(CheckpointError, match="does not name folders of seeds"):
        seed_folders(tmp_path)
    assert seed_folders(tmp_path / "none") == []


def test_the_table_names_figures_as_evaluations_do():
    image = Summary("val", ["seed1", "seed2"], {"bleu_4": Spread.of([0.2, 0.3])})
    assert image.table().splitlines()[-1] == "BLEU-4    25.00 ± 7.07  (20.00  30.00)"
    text = Summary("dev", ["seed1", "seed2"], {"nll": Spread.of([2.0, 3.0])})
    assert text.table().splitlines()[-1].endswith("   2.50 ± 0.71  (2.00  3.00)")
    scorer = Summary("val", ["seed1", "seed2"], {"recall_at_1": Spread.of([0.5, 0.5])})
    assert "50.00 ± 0.00" in scorer.table()
    assert "2 seeds on val" in scorer.table()
