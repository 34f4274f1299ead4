"""A recipe of stages: what each stage sees, where it starts, and that it goes on where it stopped."""

import os
import shutil
import signal
from pathlib import Path
from textwrap import dedent

import pytest
from safetensors.torch import load_file

import rlcap
from rlcap.cli import main
from rlcap.errors import CheckpointError, ConfigError
from rlcap.materials import Materials
from rlcap.recipe import load_stages
from rlcap.stages import train_stages

RECIPE = """
    name: two
    data: {path: DATA}
    encoder: {name: small_cnn, width: 32}
    policy: {name: soft_attention, hidden: 24, embedding: 16, attention: 16, dropout: 0.0}
    training: {images: 8, captions: 2, log_every: 1, threads: 1, device: cpu, evaluate_every: 2 updates}
    stages:
      first:
        trainer: {name: cross_entropy, optimiser: {lr: 4e-3}}
        training: {updates: 4}
      second:
        trainer: {name: scst, baseline: leave_one_out}
        rewards: cider_d
        training: {updates: 4, captions: 1}
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    assert main(["--quiet", "prepare", "scenes", "--out", str(folder), "--count", "80", "--min-count", "2"]) == 0
    return folder


@pytest.fixture
def recipe(tmp_path, scenes) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(dedent(RECIPE).replace("DATA", str(scenes)))
    return path


def weights(run: Path, which: str) -> dict:
    return load_file(run / "checkpoints" / which / "weights.safetensors")


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def test_a_stage_sees_its_own_values_in_the_place_of_the_recipe(recipe):
    overrides = ["training.threads=2", "stages.second.training.updates=7", "stages.first.trainer.label_smoothing=0.1"]
    first, second = load_stages(recipe, overrides).values()
    assert (first.training.updates, first.training.captions, first.training.threads) == (4, 2, 2)
    assert (second.training.updates, second.training.captions, second.training.threads) == (7, 1, 2)
    assert (first.trainer.name, first.trainer.settings["label_smoothing"]) == ("cross_entropy", 0.1)
    assert second.trainer.settings["baseline"] == "leave_one_out"
    assert list(second.rewards) == ["cider_d"]
    assert not first.rewards


def test_all_that_is_wrong_is_told_once_and_where_it_stands(recipe):
    text = recipe.read_text().replace("log_every: 1", "log_every: 0").replace("baseline:", "basline:")
    recipe.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_stages(recipe)
    lines = [line.removeprefix(str(recipe)) for line in str(caught.value).splitlines()]
    assert lines == [
        ":6: training.log_every: should be at least 1, not 0",
        ":12: trainer.basline: unknown key (did you mean 'baseline'?)",
    ]


def test_a_recipe_without_stages_is_one(scenes):
    (only,) = load_stages("scenes").items()
    assert only[0] == ""
    assert only[1].name == "scenes"


@pytest.mark.parametrize("stages", ["stages=[1]", "stages={first: 3}"])
def test_stages_of_another_form_are_refused(recipe, stages):
    with pytest.raises(ConfigError, match="stages: should be sections by the names of the stages"):
        load_stages(recipe, [stages])


def test_each_stage_starts_from_the_best_of_the_one_before(recipe, tmp_path):
    frozen = ["stages.second.trainer.optimiser={lr: 1e-30}"]
    folder = train_stages(load_stages(recipe, frozen), tmp_path / "run")
    assert same(weights(folder / "second", "last"), weights(folder / "first", "best"))
    run = rlcap.load(folder)
    assert run.experiment.trainer.name == "scst"
    with pytest.raises(ConfigError, match="holds a run already"):
        train_stages(load_stages(recipe), folder)


def test_stopped_in_the_second_stage_and_resumed_it_ends_the_same(recipe, tmp_path):
    whole = train_stages(load_stages(recipe), tmp_path / "whole")
    cut = train_stages(load_stages(recipe, ["stages.second.training.updates=2"]), tmp_path / "cut")
    assert not same(weights(cut / "second", "last"), weights(whole / "second", "last"))
    train_stages(load_stages(recipe), cut, resume=True)
    assert same(weights(cut / "second", "last"), weights(whole / "second", "last"))


def test_a_run_whose_stages_have_not_begun_is_no_run_yet(tmp_path):
    (tmp_path / "stages.json").write_text('["first", "second"]')
    with pytest.raises(CheckpointError, match=r"none of its stages \(first, second\) has a checkpoint yet"):
        rlcap.load(tmp_path)


def test_a_stop_in_the_last_update_of_a_stage_begins_no_other(recipe, tmp_path, monkeypatch):
    evaluate = Materials.evaluate

    def interrupted(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(self)

    monkeypatch.setattr(Materials, "evaluate", interrupted)
    stages = load_stages(recipe, ["training.evaluate_every=9 updates"])
    with pytest.raises(KeyboardInterrupt, match=r"stopped by SIGTERM when .*first was complete"):
        train_stages(stages, tmp_path / "run")
    assert not (tmp_path / "run" / "second").exists()


def test_a_run_killed_before_its_first_checkpoint_was_whole_begins_anew(recipe, tmp_path):
    folder = train_stages(load_stages(recipe), tmp_path / "run")
    whole = weights(folder / "second", "last")
    shutil.rmtree(folder / "second" / "checkpoints" / "last")  # `best` is written first
    train_stages(load_stages(recipe), folder, resume=True)
    assert same(weights(folder / "second", "last"), whole)
