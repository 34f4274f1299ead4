"""A recipe of stages: what each stage sees, where it starts, and that it goes on where it stopped."""

import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

import pytest
from safetensors.torch import load_file

import rlcap
from rlcap.cli import main
from rlcap.errors import CheckpointError, ConfigError, RlcapError
from rlcap.materials import Materials
from rlcap.recipe import load_recipe, load_stages
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


def fake(folder: Path, stages: Sequence[str], begun: Sequence[str]) -> Path:
    """What a run of stages leaves, as far as it is looked at before training."""
    folder.mkdir()
    (folder / "stages.json").write_text(json.dumps(stages))
    for name in begun:
        (folder / name / "checkpoints" / "last").mkdir(parents=True)
    return folder


def test_a_stage_sees_its_own_values_in_the_place_of_the_recipe(recipe):
    overrides = ["training.threads=2", "stages.second.training.updates=7", "stages.first.trainer.label_smoothing=0.1"]
    first, second = load_stages(recipe, overrides).values()
    assert (first.training.updates, first.training.captions, first.training.threads) == (4, 2, 2)
    assert (second.training.updates, second.training.captions, second.training.threads) == (7, 1, 2)
    assert (first.trainer.name, first.trainer.settings["label_smoothing"]) == ("cross_entropy", 0.1)
    assert second.trainer.settings["baseline"] == "leave_one_out"
    assert list(second.rewards) == ["cider_d"]
    assert not first.rewards


@pytest.mark.parametrize(
    ("overrides", "updates"),
    [
        (["training.updates=5"], (5, 5)),
        (["stages.second.training.updates=7", "training.updates=5"], (5, 7)),
        (["training.updates=5", "stages.second.training={updates: 8}"], (5, 8)),
        (["stages.second={trainer: scst, rewards: bleu_4, training: {updates: 9}}"], (4, 9)),
    ],
)
def test_an_override_wins_over_a_stage_unless_it_names_one(recipe, overrides, updates):
    assert tuple(stage.training.updates for stage in load_stages(recipe, overrides).values()) == updates


def test_how_long_a_stage_lasts_takes_the_place_of_what_the_recipe_says(recipe):
    recipe.write_text(recipe.read_text().replace("training: {images: 8", "training: {epochs: 3, images: 8"))
    assert [(stage.training.updates, stage.training.epochs) for stage in load_stages(recipe).values()] == [
        (4, None)
    ] * 2
    by_updates = load_stages(recipe, ["training.epochs=2"]).values()
    assert [(stage.training.updates, stage.training.epochs) for stage in by_updates] == [(None, 2.0)] * 2


def test_an_override_of_what_only_some_stages_have_holds_for_those(recipe):
    first, second = load_stages(recipe, ["rewards={cider_d: 0.5, bleu_4: 1.0}"]).values()
    assert not first.rewards
    assert list(second.rewards) == ["cider_d", "bleu_4"]


def test_settings_that_differ_are_joined_at_every_depth(recipe):
    text = recipe.read_text().replace("stages:", "trainer: {name: scst, optimiser: {lr: 1e-3, warmup: 7}}\nstages:")
    recipe.write_text(
        text.replace("trainer: {name: scst, baseline: leave", "trainer: {optimiser: {lr: 1e-5}, baseline: leave")
    )
    optimiser = load_stages(recipe)["second"].trainer.settings["optimiser"]
    assert (optimiser.lr, optimiser.warmup) == (1e-5, 7)


def test_the_start_of_a_run_is_that_of_its_first_stage(recipe):
    def starts(overrides, stage=None):
        return [made.training.start for made in load_stages(recipe, overrides, stage).values()]

    assert starts(["training.start=runs/x"]) == ["runs/x", None]
    assert starts(["training.start=runs/x", "stages.second.training.start=runs/y"]) == ["runs/x", "runs/y"]
    assert starts(["training.start=runs/x"], "second") == [None, "runs/x"]
    recipe.write_text(recipe.read_text().replace("training: {images", "training: {start: runs/z, images"))
    assert starts([]) == ["runs/z", None]
    assert load_recipe(recipe, ["training.start=runs/x"]).training.start == "runs/x", "the last stage alone"
    assert load_recipe(recipe, stage="first").trainer.name == "cross_entropy"


def test_an_override_that_does_not_fit_a_stage_names_the_stage_and_the_remedy(recipe):
    with pytest.raises(ConfigError) as caught:
        load_stages(recipe, ["trainer.baseline=greedy", "training.images=0", "stages.second.training.updates=0"])
    of_some, of_one, of_all = sorted(str(caught.value).splitlines(), key=lambda line: "images" in line)
    if "stages.second" in of_some:
        of_some, of_one = of_one, of_some
    assert of_some.startswith("override 'trainer.baseline=greedy': trainer.baseline: unknown key")
    assert of_some.endswith("(in stage first; stages.NAME.trainer.baseline holds for one stage alone)")
    assert of_one == "override 'stages.second.training.updates=0': training.updates: should be at least 1, not 0"
    assert of_all == "override 'training.images=0': training.images: should be at least 1, not 0"
    assert load_stages(recipe, ["trainer.baseline=greedy"], "second")["second"].trainer.settings["baseline"] == "greedy"


@pytest.mark.parametrize(
    ("overrides", "asked", "said"),
    [
        (["stages.secnd.training.updates=3"], None, "has no stage 'secnd' \\(did you mean 'second'\\?\\)"),
        ([], "third", "stage 'third': .* has no stage 'third' \\(known: first, second\\)"),
        (['stages={"a/b": {}}'], None, "'a/b' is to be a folder's name"),
        (["stages=[1]"], None, "stages: should be sections by the names of the stages"),
        (["stages={first: 3}"], None, "stages: should be sections by the names of the stages"),
        (["stages={}"], None, "stages: should be sections by the names of the stages"),
    ],
)
def test_stages_that_there_cannot_be_are_refused(recipe, overrides, asked, said):
    with pytest.raises(ConfigError, match=said):
        load_stages(recipe, overrides, asked)
    with pytest.raises(ConfigError, match="has no stages; leave the stage out"):
        load_stages("scenes", ["stages.first.training.updates=3"])


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


def test_each_stage_starts_from_the_best_of_the_one_before(recipe, tmp_path):
    frozen = ["stages.second.trainer.optimiser={lr: 1e-30}", "training.evaluate_every=9 updates"]
    folder = train_stages(load_stages(recipe, frozen), tmp_path / "run")
    assert same(weights(folder / "second", "last"), weights(folder / "first", "best"))
    run = rlcap.load(folder)
    assert run.experiment.trainer.name == "scst"
    with pytest.raises(ConfigError, match="holds a run already"):
        train_stages(load_stages(recipe), folder)


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


@pytest.mark.parametrize(
    ("stages", "begun", "said"),
    [
        (
            ["first", "2nd"],
            ["first", "2nd"],
            "holds a run of the stages first, 2nd, and the recipe's are first, second",
        ),
        (["first", "second", "third"], ["first"], "the recipe's are first, second"),
        (["first", "second"], ["second"], "holds stage second, and not first, which comes before it"),
        (["first", "second"], [], "has no checkpoint to resume from"),
    ],
)
def test_a_run_of_other_stages_is_not_resumed(recipe, tmp_path, stages, begun, said):
    folder = fake(tmp_path / "run", stages, begun)
    with pytest.raises(RlcapError, match=said):
        train_stages(load_stages(recipe), folder, resume=True)
    assert json.loads((folder / "stages.json").read_text()) == stages


def test_a_folder_holds_a_run_or_stages_not_both(recipe, tmp_path):
    folder = fake(tmp_path / "run", ["first"], ["first"])
    for resume in (False, True):
        with pytest.raises(ConfigError, match="stages first, and the recipe's are none"):
            train_stages({"": load_stages(recipe)["first"]}, folder, resume)
    (tmp_path / "plain" / "checkpoints" / "last").mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds a run without stages"):
        train_stages(load_stages(recipe), tmp_path / "plain")


def test_however_a_run_was_stopped_it_is_resumed_to_the_same_end(recipe, tmp_path):
    stages = load_stages(recipe)
    whole = train_stages(stages, tmp_path / "whole")
    cut = train_stages({"first": stages["first"]}, tmp_path / "cut")
    train_stages(load_stages(recipe, ["stages.second.training.updates=2"]), cut, resume=True)
    assert json.loads((cut / "stages.json").read_text()) == ["first", "second"], "one was added behind"
    assert not same(weights(cut / "second", "last"), weights(whole / "second", "last"))
    train_stages(stages, cut, resume=True)
    assert same(weights(cut / "second", "last"), weights(whole / "second", "last"))
    shutil.rmtree(cut / "second" / "checkpoints" / "last")  # killed before it: `best` is written first
    train_stages(stages, cut, resume=True)
    assert same(weights(cut / "second", "last"), weights(whole / "second", "last"))


def test_one_stage_alone_begins_with_the_one_before_which_then_stays_as_it_is(recipe, tmp_path, capsys):
    quick = ["training.evaluate_every=9 updates", "training.updates=2"]
    folder = tmp_path / "run"
    first, second = folder / "first", folder / "second"
    frozen = "stages.second.trainer.optimiser={lr: 1e-30}"
    alone = ["train", str(recipe), "--out", str(folder), *quick, frozen, "--stage"]
    assert main([*alone, "second"]) == 2
    assert "first: has no checkpoint for stage second to begin with" in capsys.readouterr().err
    assert not folder.exists()
    assert main([*alone, "first"]) == 0
    assert f"rlcap evaluate {first}" in capsys.readouterr().out
    assert main([*alone, "second"]) == 0
    assert same(weights(second, "last"), weights(first, "best"))
    assert main([*alone, "second"]) == 2
    assert "holds a run already" in capsys.readouterr().err

    before = weights(first, "last")
    longer = [*quick, frozen, "stages.first.training.updates=3"]
    for only in (None, "first"):
        with pytest.raises(ConfigError, match=r"first: was trained with training.updates=2, not 3, and stage second"):
            train_stages(load_stages(recipe, longer), folder, resume=True, only=only)
    with pytest.raises(CheckpointError, match=r"began with trainer.label_smoothing=0.0, not 0.1"):
        train_stages(load_stages(recipe, [*longer, "stages.first.trainer.label_smoothing=0.1"]), folder, resume=True)
    assert same(weights(first, "last"), before)
    shutil.rmtree(second)
    train_stages(load_stages(recipe, longer), folder, resume=True)
    assert not same(weights(first, "last"), before)
    assert same(weights(second, "last"), weights(first, "best"))


@pytest.mark.parametrize("kept", [False, True])
def test_a_run_whose_first_stage_cannot_begin_leaves_nothing(recipe, tmp_path, kept):
    out = tmp_path / "out"
    if kept:
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    with pytest.raises(RlcapError, match="nowhere"):
        train_stages(load_stages(recipe, ["data.features=nowhere.h5"]), out)
    assert [path.name for path in out.glob("*")] == (["notes.txt"] if kept else [])
    assert out.exists() == kept
