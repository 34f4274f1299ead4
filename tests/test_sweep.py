"""Sweeps: what is searched, how a trial fares, that an interrupted one goes on, and what is shown of them.

The trials of the fast tests are trained in this process; `pytest -m slow` runs whole sweeps and kills them.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from textwrap import dedent

import pytest
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from rlcap.cli import main
from rlcap.errors import ConfigError, DataError
from rlcap.materials import Materials
from rlcap.recipe import load_recipe

optuna = pytest.importorskip("optuna", reason="sweeps need optuna: pip install 'rlcap[sweep]'")

from optuna.distributions import CategoricalDistribution, FloatDistribution  # noqa: E402
from optuna.trial import TrialState, create_trial  # noqa: E402

from rlcap.sweep.plan import Plan  # noqa: E402
from rlcap.sweep.results import as_csv, best_row, rows_of, table  # noqa: E402
from rlcap.sweep.search import search  # noqa: E402
from rlcap.sweep.space import Choices, Range, Space, as_overrides  # noqa: E402
from rlcap.sweep.study import COMMAND, UPDATES, Place, asked, check_same  # noqa: E402
from rlcap.sweep.trial import Job, perform  # noqa: E402

RECIPE = """
    name: tiny
    data: {path: DATA}
    encoder: {name: small_cnn, width: 32}
    policy: {name: soft_attention, hidden: 16, embedding: 8, attention: 8, dropout: 0.1}
    trainer: {name: cross_entropy, optimiser: {lr: 4e-3}}
    training: {updates: 6, images: 4, captions: 1, log_every: 1, device: cpu, evaluate_every: 2 updates, threads: 1}
    decoding: {length: 6}
"""
SPACE = """
    trainer.optimiser.lr: {low: 5e-3, high: 5e-2, log: true}
    policy.hidden: {choices: [16, 24]}
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    assert main(["--quiet", "prepare", "scenes", "--out", str(folder), "--count", "40", "--min-count", "1"]) == 0
    return folder


@pytest.fixture
def recipe(tmp_path, scenes) -> Path:
    return written(tmp_path / "tiny.yaml", RECIPE.replace("DATA", str(scenes)))


@pytest.fixture
def space(tmp_path) -> Path:
    return written(tmp_path / "space.yaml", SPACE)


@pytest.fixture
def plan(recipe, space, tmp_path) -> Plan:
    return Plan.checked(str(recipe), [], None, str(space), str(tmp_path / "out"))


@pytest.fixture
def place(plan) -> Place:
    plan.folder.mkdir()
    return Place.of(plan.folder, None, "sweep", "median")


def written(path: Path, text: str) -> Path:
    path.write_text(dedent(text))
    return path


def begun(plan: Plan, place: Place) -> optuna.Study:
    return place.create(plan.last.training.metric, plan.command, plan.began_with())


def job_of(plan: Plan, place: Place, study: optuna.Study, *more: str) -> Job:
    trial = asked(study, 1)
    values = plan.space.suggested(trial)
    own = list(as_overrides(values).values())
    trial.set_user_attr(COMMAND, own)
    folder = str(plan.folder / f"trial{trial.number:04d}")
    return Job(place, trial.number, folder, plan.recipe, [*plan.overrides, *own, *more], plan.stage, values, [])


def evaluations(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["update"]: line["eval/val/cider_d"] for line in lines if "eval/val/cider_d" in line}


def good(value: float, steps: int = 3):
    """A trial that was complete before."""
    return create_trial(
        params={"trainer.optimiser.lr": 1e-2, "policy.hidden": "16"},
        distributions={
            "trainer.optimiser.lr": FloatDistribution(5e-3, 5e-2, log=True),
            "policy.hidden": CategoricalDistribution(["16", "24"]),
        },
        value=value,
        intermediate_values=dict.fromkeys(range(1, steps + 1), value),
        user_attrs={UPDATES: [2 * step for step in range(1, steps + 1)]},
    )


# The space


def test_ranges_of_whole_numbers_stay_whole_and_others_do_not(tmp_path):
    text = """
        training.images: {low: 1, high: 9, step: 2}
        training.seed: {low: 1, high: 64, log: true}
        x.y: {low: 0, high: 1.0}
    """
    space = Space.load(written(tmp_path / "s.yaml", text))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.suggested(study.ask()) for _ in range(40)]
    assert {values["training.images"] for values in drawn} == {1, 3, 5, 7, 9}
    assert all(isinstance(values["training.seed"], int) for values in drawn)
    assert all(isinstance(values["x.y"], float) for values in drawn)
    assert {values["training.seed"] for values in drawn} <= set(range(1, 65))


def test_a_choice_may_be_any_value_of_a_recipe(tmp_path):
    choices = "[cider_d, {cider_d: 1.0, bleu_4: 0.5}, null, [1, 2], true]"
    space = Space.load(written(tmp_path / "s.yaml", f"rewards: {{choices: {choices}}}\n"))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = {as_overrides(space.suggested(study.ask()))["rewards"] for _ in range(60)}
    assert drawn == {
        'rewards="cider_d"',
        'rewards={"cider_d": 1.0, "bleu_4": 0.5}',
        "rewards=null",
        "rewards=[1, 2]",
        "rewards=true",
    }


def test_all_that_is_wrong_with_a_space_is_told_at_once(tmp_path):
    path = written(
        tmp_path / "s.yaml",
        """
        a.a: {low: 1, hihg: 2}
        a.b: {low: x, high: 2}
        a.c: {low: 2, high: 2}
        a.d: {low: 0, high: 1.0, log: true}
        a.e: {low: 0, high: 1, step: 0.3}
        a.f: {choices: [1]}
        a.g: {choices: [1, 1]}
        a.h: 3
        a.i: {low: 1, high: 2}
        """,
    )
    with pytest.raises(ConfigError) as caught:
        Space.load(path)
    told = [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]
    assert told == [
        "2: a.a.high: is missing",
        "2: a.a.hihg: unknown key (did you mean 'high'?)",
        '3: a.b.low: should be a number, not "x"',
        "4: a.c: 'low' (2) should be less than 'high' (2)",
        "5: a.d: 'log' needs a 'low' above 0, and goes without 'step'",
        "6: a.e: no number of steps of 0.3 leads from 0 to 1",
        "7: a.f: 'choices' should be two or more different values",
        "8: a.g: 'choices' should be two or more different values",
        "9: a.h: should be {low: 1, high: 4} or {choices: [a, b]}; a fixed value is an override",
    ]
    with pytest.raises(ConfigError, match="names nothing to search"):
        Space.load(written(path, ""))


def test_every_end_and_choice_is_tried_on_the_recipe_before_training(recipe, tmp_path):
    path = written(
        tmp_path / "s.yaml",
        """
        policy.hiden: {choices: [16, 24]}
        policy.dropout: {low: 0.5, high: 1.5}
        training.images: {low: 0, high: 4}
        policy.name: {choices: [soft_attention, soft_atention]}
        training.seed: {low: 1, high: 3}
        """,
    )
    with pytest.raises(ConfigError) as caught:
        Plan.checked(str(recipe), ["training.seed=3", "training.log_every=0"], None, str(path))
    told = str(caught.value).splitlines()
    assert f"{path}:2: policy.hiden: unknown key (did you mean 'hidden'?)" in told
    assert f"{path}:3: policy.dropout: should be at least 0 and less than 1, not 1.5" in told
    assert f"{path}:4: training.images: should be at least 1, not 0" in told
    assert f"{path}:6: training.seed: is searched, and fixed by the override 'training.seed=3'; drop one" in told
    assert "override 'training.log_every=0': training.log_every: should be at least 1, not 0" in told
    assert any(line.startswith(f"{path}:5: policy.name: ") and "soft_attention" in line for line in told)
    assert len(told) == len(set(told)) == 6


def test_trials_are_judged_by_one_metric(recipe, tmp_path):
    path = written(tmp_path / "s.yaml", "training.metric: {choices: [cider_d, bleu_4]}\n")
    with pytest.raises(ConfigError, match="would be judged by bleu_4 of val and cider_d of val; give all of them one"):
        Plan.checked(str(recipe), [], None, str(path))


def test_values_follow_from_seed_number_and_earlier_trials_alone(plan):
    def tried(seed, numbers):
        study = optuna.create_study()
        return [plan.space.suggested(asked(study, seed)) for _ in range(numbers)]

    first = tried(1, 6)
    assert tried(1, 6) == first
    assert tried(2, 6) != first
    assert len({values["trainer.optimiser.lr"] for values in first}) == 6


def test_threads_and_accelerators_are_divided_unless_the_recipe_says_how(plan):
    assert plan.shares(workers=2, slot=1, threads=8, accelerators=4) == []
    training = replace(plan.last.training, threads=None, device="auto")
    free = replace(plan, lowest={"": replace(plan.last, training=training)})
    assert free.shares(2, 1, 8, 1) == ["training.threads=4"]
    assert free.shares(3, 2, 2, 2) == ["training.threads=1", "training.device=cuda:0"]
    assert free.shares(1, 0, 8, 1) == []


# A trial


def test_a_trial_is_an_ordinary_run_whose_best_evaluation_counts(plan, place):
    study = begun(plan, place)
    job = job_of(plan, place, study)
    perform(job)
    run, (trial,) = Path(job.folder), study.get_trials()
    made, seen = load_recipe(run / "config.yaml"), evaluations(run)
    assert made.trainer.settings["optimiser"].lr == job.values["trainer.optimiser.lr"]
    assert made.policy.settings["hidden"] == job.values["policy.hidden"]
    assert list(seen) == trial.user_attrs[UPDATES] == [2, 4, 6]
    assert (trial.state, trial.value) == (TrialState.COMPLETE, max(seen.values()))
    assert trial.intermediate_values == dict(enumerate(seen.values(), 1))
    best = json.loads((run / "checkpoints" / "best" / "meta.json").read_text())
    (row,) = rows_of(study)
    assert (row.value, row.update) == (best["best"], best["update"])
    assert row.command.startswith(f"rlcap train {plan.recipe} trainer.optimiser.lr=")

    board = EventAccumulator(str(run)).Reload()
    (point,) = board.Scalars("best/cider_d")
    assert (point.step, point.value) == (best["update"], pytest.approx(best["best"], rel=1e-6))  # it keeps float32
    start = HParamsPluginData.FromString(board.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    shown = {name: value.number_value for name, value in start.session_start_info.hparams.items()}
    assert shown == job.values
    assert not [path for path in run.iterdir() if path.is_dir() and path.name not in ("captions", "checkpoints")]


def test_a_trial_that_fares_worse_than_most_is_pruned_and_stays_a_run(plan, place):
    study = begun(plan, place)
    for _ in range(5):  # the pruner waits for so many
        study.add_trial(good(9.0))
    job = job_of(plan, place, study)
    perform(job)
    trial = study.get_trials()[-1]
    assert (trial.state, trial.user_attrs[UPDATES]) == (TrialState.PRUNED, [2])
    assert json.loads((Path(job.folder) / "checkpoints" / "last" / "meta.json").read_text())["update"] == 2
    perform(unpruned := job_of(plan, replace(place, pruner="none"), study))
    assert list(evaluations(Path(unpruned.folder))) == [2, 4, 6]
    assert study.get_trials()[-1].state == TrialState.COMPLETE


def test_a_trial_that_is_worse_at_its_last_evaluation_only_is_complete(plan, place):
    study = begun(plan, place)
    for _ in range(5):
        late = good(9.0, steps=1)
        late.intermediate_values = {3: 9.0}
        study.add_trial(late)
    perform(job_of(plan, place, study))
    assert study.get_trials()[-1].state == TrialState.COMPLETE


def test_a_trial_that_fails_says_why_and_others_go_on(plan, place):
    study = begun(plan, place)
    perform(job_of(plan, place, study, "data.features=nowhere.h5"))
    (trial,) = study.get_trials()
    assert trial.state == TrialState.FAIL
    (row,) = rows_of(study)
    assert "nowhere.h5" in row.said
    assert f"trial 0 failed: {row.said}" in table([row], "cider_d")


def test_a_trial_that_is_stopped_goes_on_as_if_it_never_had_been(plan, place, monkeypatch):
    study = begun(plan, place)
    job, evaluate, left = job_of(plan, place, study), Materials.evaluate, [1]

    def interrupted(self):
        if left:
            left.pop()
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(self)

    whole = replace(job, folder=f"{job.folder}_whole", number=job_of(plan, place, study).number)
    perform(whole)
    with monkeypatch.context() as patch:
        patch.setattr(Materials, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt, match="stopped by SIGTERM after update 3"):
            perform(job)
    assert study.get_trials()[0].state == TrialState.RUNNING
    assert rows_of(study)[1].state == "unfinished"
    perform(job)
    trial, undisturbed = study.get_trials()
    assert trial.state == TrialState.COMPLETE
    assert trial.intermediate_values == undisturbed.intermediate_values
    assert trial.user_attrs[UPDATES] == [2, 4, 6]
    one, other = (load_file(Path(each.folder) / "checkpoints/last/weights.safetensors") for each in (job, whole))
    assert all(one[name].equal(other[name]) for name in other)


# The study and what is shown of it


def test_the_table_begins_with_the_best_and_ends_with_what_has_no_value(plan, place):
    study = begun(plan, place)
    for value in (1.0, 3.0, 2.0):
        study.add_trial(good(value))
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"said": "why, oh why"}))
    rows = rows_of(study)
    assert [row.trial for row in rows] == [1, 2, 0, 3]
    assert best_row(rows).trial == 1
    lines = table(rows, "cider_d").splitlines()
    assert lines[0].split() == ["trial", "state", "cider_d", "update", "time", "trainer.optimiser.lr", "policy.hidden"]
    assert lines[1].split() == ["1", "complete", "3.0000", "2", "0.01", "16"]
    read = list(csv.DictReader(as_csv(rows, "cider_d").splitlines()))
    assert [line["trial"] for line in read] == ["1", "2", "0", "3"]
    assert read[3]["failed_because"] == "why, oh why"


def test_of_a_metric_that_should_be_low_the_lowest_is_best(plan, place):
    study = place.create("nll", plan.command, plan.began_with())
    for value in (1.0, 3.0, 2.0):
        study.add_trial(good(value))
    assert [row.value for row in rows_of(study)] == [1.0, 2.0, 3.0]
    assert study.best_value == 1.0


def test_a_sweep_goes_on_with_what_it_began_with(plan, place, recipe, space):
    study = begun(plan, place)

    def planned(*overrides):
        return Plan.checked(str(recipe), overrides, None, str(space), str(plan.folder))

    check_same(place.load(), place, planned("training.device=auto", "training.threads=2").began_with())
    with pytest.raises(ConfigError, match=r"study 'sweep' in .*: began with recipe training.images=4, not 3; go"):
        check_same(study, place, planned("training.images=3").began_with())
    space.write_text(space.read_text().replace("24", "32"))
    with pytest.raises(ConfigError, match=r'began with space policy.hidden={"choices": \[16, 24\]}, not .*32'):
        search(planned(), place, 1, 1, resume=True)
    recipe.write_text(recipe.read_text().replace("length: 6", "length: 7"))
    with pytest.raises(ConfigError, match="was changed while its trials were trained"):
        plan.check_unchanged()


def test_a_folder_and_a_name_hold_one_sweep(plan, place):
    with pytest.raises(ConfigError, match="there is none; begin it without --resume"):
        search(plan, place, 1, 1, resume=True)
    assert not (plan.folder / "study.db").exists()
    begun(plan, place)
    with pytest.raises(ConfigError, match="there is one; go on with --resume, or name another"):
        search(plan, place, 1, 1)
    (plan.folder / "trial0000").mkdir()
    with pytest.raises(ConfigError, match="holds trial0000 of an earlier sweep"):
        search(plan, place, 1, 1)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "Could not parse"),
        ("postgresql://me:secret@127.0.0.1:1/x", r"me:\*\*\*@127"),  # no driver, or nobody there
        ("sqlite:////nowhere/at/all.db", "there is none|unable to open"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_in_a_line_without_its_password(plan, place, url, said):
    elsewhere = Place.of(plan.folder, url, "sweep")
    with pytest.raises((DataError, ConfigError), match=said) as caught:
        search(plan, elsewhere, 1, 1)
    told = str(caught.value)
    assert "secret" not in told
    assert "\n" not in told


def test_what_is_missing_or_wrong_on_the_command_line_is_told(monkeypatch, capsys, tmp_path):
    def said(*words):
        assert main(["sweep", *words]) == 2
        return capsys.readouterr().err

    assert "name a recipe and what is searched" in said()
    assert "--show: name the folder" in said("--show")
    assert "there is none" in said("--show", "--out", str(tmp_path))
    assert "should be a whole number above 0, not '0'" in said("scenes", "--trials", "0")
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "rlcap sweep needs the package optuna: pip install 'rlcap[sweep]'" in said("scenes")


def test_what_a_sweep_found_is_shown_later(plan, place, capsys):
    study = begun(plan, place)
    study.add_trial(good(1.5))
    assert main(["sweep", "--show", "--out", str(plan.folder)]) == 0
    assert f"the best: {plan.folder}/trial0000, as rlcap train {plan.recipe}" in capsys.readouterr().out
    assert main(["sweep", "--show", "--json", "--out", str(plan.folder)]) == 0
    assert json.loads(capsys.readouterr().out) == [asdict(row) for row in rows_of(study)]


def test_the_space_is_compared_by_value(tmp_path):
    assert Space({"a.b": Range(1, 2)}, {"a.b": "x:1"}) == Space({"a.b": Range(1, 2)}, {"a.b": "y:7"})
    assert Space({"a.b": Range(1, 2)}, {}).plain() != Space({"a.b": Range(1.0, 2.0)}, {}).plain()
    assert Choices((1, 2)) != Choices((2, 1))


# Whole sweeps, in processes


def state_of(run: Path) -> int:
    """The update of the last checkpoint."""
    return json.loads((run / "checkpoints" / "last" / "meta.json").read_text())["update"]


def children_of(process: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def gone(processes: list[int], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(Path(f"/proc/{each}").exists() for each in processes):
        time.sleep(0.1)
    return not any(Path(f"/proc/{each}").exists() for each in processes)


@pytest.fixture(scope="module")
def undisturbed(scenes, tmp_path_factory) -> tuple[Path, list[str]]:
    """A sweep that nothing ended, and the words for others like it. What one worker finds, two find."""
    folder = tmp_path_factory.mktemp("whole")
    text = RECIPE.replace("DATA", str(scenes)).replace("updates: 6", "updates: 120").replace("2 updates", "10 updates")
    recipe, space = written(folder / "long.yaml", text), written(folder / "space.yaml", SPACE)
    words = ["sweep", str(recipe), "--space", str(space), "--pruner", "none", "--trials", "3"]
    assert main([*words, "--out", str(folder / "out")]) == 0
    return folder / "out", words


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc to find the trials' processes")
@pytest.mark.parametrize("how", ["SIGTERM to the parent", "SIGKILL to the parent", "SIGKILL to all"])
def test_a_sweep_that_is_ended_goes_on_as_if_it_never_had_been(undisturbed, tmp_path, how):
    out, whole, words = tmp_path / "out", *undisturbed
    first = [sys.executable, "-m", "rlcap", *words, "--out", str(out), "--workers", "2"]
    parent = subprocess.Popen(first, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    runs, until = [out / "trial0000", out / "trial0001"], time.monotonic() + 300
    while not all((run / "checkpoints" / "last").exists() for run in runs) and time.monotonic() < until:
        time.sleep(0.05)
    trials = children_of(parent.pid)
    assert len(trials) == 2
    parent.send_signal(signal.SIGTERM if "TERM" in how else signal.SIGKILL)
    if "all" in how:
        for trial in trials:
            os.kill(trial, signal.SIGKILL)
    said = parent.communicate()[1]
    assert gone(trials, 60), "trials do not outlive their parent"
    place = Place.of(out, None, "sweep")
    assert [trial.state for trial in place.load().get_trials()] == [TrialState.RUNNING] * 2
    if "all" not in how:
        for run in runs:
            assert "interrupted: stopped by SIGTERM after update" in (run / "output.txt").read_text()
    if "TERM" in how:
        assert parent.returncode == 130
        assert "go on with --resume" in said
    assert all(state_of(run) < 120 for run in runs)

    assert main([*words, "--out", str(out), "--workers", "2", "--resume"]) == 0
    rows, expected = rows_of(place.load()), rows_of(Place.of(whole, None, "sweep").load())
    assert [row.state for row in rows] == ["complete"] * 3
    assert [replace(row, seconds=0.0) for row in rows] == [replace(row, seconds=0.0) for row in expected]
    for row in rows:
        run, other = out / row.folder, whole / row.folder
        assert evaluations(run) == evaluations(other)
        one, two = (load_file(each / "checkpoints/last/weights.safetensors") for each in (run, other))
        assert all(one[name].equal(two[name]) for name in two)


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_ends_nothing_else(recipe, space, tmp_path, capsys):
    text = recipe.read_text().replace("cross_entropy,", "scst, baseline: mean,").replace("captions: 1", "captions: 2")
    recipe.write_text(f"{text}rewards: {{brevity: {{name: 'own:brevity'}}}}\n")
    (tmp_path / "own.py").write_text(
        "import os\nfrom pathlib import Path\n\n"
        "def brevity(captions):\n"
        "    mark = Path(__file__).with_name('killed')\n"
        "    if not mark.exists():\n"
        "        mark.touch()\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return [1.0 / (1 + len(words)) for words in captions]\n"
    )
    words = ["sweep", str(recipe), "--space", str(space), "--trials", "2", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "trial 0: ended by SIGKILL before it was done" in said.err
    assert "unfinished" in said.out
    assert main([*words, "--resume", "--json"]) == 0
    assert sorted((row["trial"], row["state"]) for row in json.loads(capsys.readouterr().out)) == [
        (0, "complete"),
        (1, "complete"),
    ]


@pytest.mark.slow
def test_a_sweep_in_which_nothing_works_ends_soon(recipe, space, tmp_path, capsys):
    words = ["sweep", str(recipe), "data.path=nowhere", "--space", str(space), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "3 trials failed and none came to its end (trial 2: nowhere" in capsys.readouterr().err
