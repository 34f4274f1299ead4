"""Training with rewards, from a file of one's own to the curve in TensorBoard, and what happens when one fails."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rlcap
from rlcap import progress
from rlcap.cli import main
from rlcap.errors import ComponentError, ConfigError
from rlcap.recipe import load_recipe, to_yaml
from rlcap.training import train

TINY = {
    "encoder": {"name": "small_cnn", "width": 32},
    "policy": {"name": "soft_attention", "hidden": 24, "embedding": 16, "attention": 16, "dropout": 0.0},
    "training.images": 8,
    "training.captions": 1,
    "training.updates": 6,
    "training.evaluate_every": "3 updates",
    "training.log_every": 1,
    "training.threads": 1,
    "training.device": "cpu",
}
SCST = {
    "training.start": None,
    "trainer.optimiser.decay": "none",
    "trainer.rollout.samples": 3,
    "trainer.rollout.length": 8,
}
BREVITY = """
CALLS = 0

def brevity(captions, references, *, limit: int = 5, fails_at: int = 0):
    global CALLS
    CALLS += 1
    if CALLS == fails_at:
        raise RuntimeError("out of words")
    return [min(1.0, limit / max(1, len(caption.split()))) for caption in captions]
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    assert main(["--quiet", "prepare", "scenes", "--out", str(folder), "--count", "80", "--min-count", "2"]) == 0
    return folder


@pytest.fixture
def own(tmp_path, monkeypatch) -> str:
    """A module of the user's own in the current folder."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(BREVITY)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.fixture
def recipe(scenes):
    def make(**changes):
        return load_recipe("scenes_scst", {**TINY, **SCST, "data.path": str(scenes), **changes})

    return make


def scalars(run: Path) -> dict[str, list[float]]:
    events = EventAccumulator(str(run)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def weights(run: Path) -> dict:
    return load_file(run / "checkpoints" / "last" / "weights.safetensors")


def test_a_reward_of_ones_own_from_file_to_curve(own, recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "QUIET", False)
    rewards = {"cider_d": 0.5, "brevity": {"name": f"{own}:brevity", "limit": 3, "weight": [[0, 0.0], [4, 2.0]]}}
    run = train(recipe(rewards=rewards), tmp_path / "run")
    assert "reward 'cider_d' agrees with the evaluation's code on 50 captions" in capsys.readouterr().out
    curves = scalars(run)
    raw, weighted = curves["reward/brevity/raw"], curves["reward/brevity/weighted"]
    assert len(raw) == 6
    assert all(0 < value <= 1 for value in raw)
    wanted = [weight * value for weight, value in zip((0, 0.5, 1, 1.5, 2, 2), raw, strict=True)]
    assert weighted == pytest.approx(wanted)
    assert curves["reward/total"] == pytest.approx(
        [a + b for a, b in zip(curves["reward/cider_d/weighted"], weighted, strict=True)]
    )
    saved = load_recipe(run / "config.yaml")
    assert saved.rewards["brevity"].settings["limit"] == 3
    rlcap.load(run)


def test_a_failing_reward_stops_the_run_with_a_checkpoint(own, recipe, tmp_path):
    def failing(fails_at):
        return recipe(rewards={"brevity": {"name": f"{own}:brevity", "fails_at": fails_at}, "rouge_l": 1.0})

    with pytest.raises(ComponentError) as caught:
        train(failing(3), tmp_path / "run")
    said = str(caught.value)
    assert f"reward '{own}:brevity'" in said
    assert "RuntimeError: out of words" in said
    assert f"{own}.py:" in said
    meta = json.loads((tmp_path / "run" / "checkpoints" / "last" / "meta.json").read_text())
    assert meta["update"] == 2
    train(failing(3), tmp_path / "run", resume=True)  # the calls have been counted on: it fails no more
    whole = train(failing(0), tmp_path / "whole")
    mine, theirs = weights(tmp_path / "run"), weights(whole)
    assert all(mine[name].equal(theirs[name]) for name in theirs)


def test_rewards_that_remember_go_on_where_they_stopped(recipe, tmp_path):
    rewards = {"cider_d": {"normalise": True}, "rouge_l": {"weight": [[0, 0.0], [6, 1.0]], "clip": [0.0, 0.4]}}
    whole = train(recipe(rewards=rewards), tmp_path / "whole")
    train(recipe(rewards=rewards, **{"training.updates": 4}), tmp_path / "cut")
    train(recipe(rewards=rewards), tmp_path / "cut", resume=True)
    mine, theirs = weights(tmp_path / "cut"), weights(whole)
    assert all(mine[name].equal(theirs[name]) for name in theirs)


def test_a_reward_given_as_an_object(scenes, tmp_path):
    def vowels(captions):
        return [sum(letter in "aeiou" for letter in caption) for caption in captions]

    run = rlcap.train(
        "scenes_scst",
        tmp_path / "run",
        rewards={"vowels": {"name": vowels, "weight": 0.1}, "bleu_1": 1.0},
        **{name.replace(".", "__"): value for name, value in {**TINY, **SCST, "data.path": str(scenes)}.items()},
    )
    assert len(scalars(run.folder)["reward/vowels/raw"]) == 6


def test_what_is_wrong_with_rewards_is_said_with_the_rest(recipe):
    with pytest.raises(ConfigError) as caught:
        recipe(rewards={"cider_x": 1.0, "rouge_l": {"weight": "much", "end_tokn": False}}, **{"training.images": 0})
    said = str(caught.value)
    assert "no reward is called 'cider_x' (did you mean 'cider_d'?)" in said
    assert 'rewards.rouge_l.weight: should be a number or a list, not "much"' in said.replace("'", '"')
    assert "rewards.rouge_l.end_tokn: unknown key (did you mean 'end_token'?)" in said
    assert "training.images" in said


def test_one_name_is_a_recipe_of_rewards(recipe):
    assert recipe(rewards="bleu_4").rewards["bleu_4"].weight == 1.0
    assert recipe(**{"rewards.cider_d": 2.0}).rewards["cider_d"].weight == 2.0
    assert recipe(**{"rewards.cider_d": {"end_token": False}}).rewards["cider_d"].settings == {"end_token": False}


def test_the_noise_of_each_baseline_is_measured_on_the_same_draws(recipe, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe()))
    command = [
        "--quiet",
        "bench",
        "variance",
        str(tmp_path / "recipe.yaml"),
        "--draws",
        "6",
        "--threads",
        "1",
        "--json",
    ]
    assert main([*command, "--baselines", "none", "leave_one_out", "mean"]) == 0
    noises = {row["baseline"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(noises) == ["none", "leave_one_out", "mean"]
    assert all(row["estimates"] == 6 for row in noises.values())
    shrunk = (3 - 1) / 3  # of three samples, the mean's advantages are so much of leave-one-out's
    assert noises["mean"]["variance"] == pytest.approx(shrunk**2 * noises["leave_one_out"]["variance"], rel=1e-3)
