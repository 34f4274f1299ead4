"""Sick training is told once, in plain words; healthy training is left alone."""

import json
import re
from pathlib import Path

import pytest

from rlcap import progress
from rlcap.cli import main
from rlcap.loggers import METRICS, WARNINGS
from rlcap.observer import GONE_LOGGINGS, Observer
from rlcap.recipe import load_recipe
from rlcap.symptoms import DRIFTS, LEVELS
from rlcap.training import train

HERE = Path(__file__).parent
TINY = {
    "encoder": {"name": "small_cnn", "width": 32},
    "policy": {"name": "soft_attention", "hidden": 32, "embedding": 16, "attention": 16, "dropout": 0.0},
    "training.images": 8,
    "training.threads": 1,
    "training.device": "cpu",
}
PAY = """
def words(captions):
    return [len(caption.split()) for caption in captions]

def the_same(captions):
    return [0.3] * len(captions)
"""


def names(found) -> list[str]:
    return [symptom.name for symptom in found]


def feed(observer: Observer, updates: int, **figures) -> list[str]:
    """Logs the same figures again and again; what was told of them."""
    tags = {tag.replace("__", "/"): value for tag, value in figures.items()}
    return [name for update in range(1, updates + 1) for name in names(observer.observe(update, tags))]


def evaluated(cider_d: float = 1.0, bleu_4: float = 0.3, rouge_l: float = 0.5, **health: float) -> dict[str, float]:
    sound = {"length": 10.0, "bad_ending": 0.02, "repetition": 0.02, "vocabulary_use": 0.5}
    return {
        **{"eval/val/cider_d": cider_d, "eval/val/bleu_4": bleu_4, "eval/val/rouge_l": rouge_l},
        **{f"health/val/{name}": value for name, value in (sound | health).items()},
    }


# Figures of the real runs that docs/curves.md shows, and their commands.
def replayed(name: str, rewards: list[str]) -> dict[str, int]:
    observer, told = Observer(rewards=rewards, clip=1.0), {}
    for line in (HERE / "runs" / f"{name}.jsonl").read_text().splitlines():
        figures = json.loads(line)
        for symptom in observer.observe(figures.pop("update"), figures):
            assert symptom.name not in told
            told[symptom.name] = symptom.update
    return told


def test_a_healthy_run_is_left_alone():
    assert replayed("healthy", ["cider_d"]) == {}


def test_a_reward_that_pays_for_length_is_found_out():
    told = replayed("pays_for_length", ["cider_d", "words"])
    assert {"longer", "repetition", "bad_endings", "fallen", "below_start"} == told.keys()
    assert told["longer"] == 80, "the second evaluation of longer captions"


def test_a_reward_that_is_easy_to_game_is_found_out():
    assert replayed("games", ["red"]) == {"gamed": 40, "no_gradient": 54, "below_start": 60, "fallen": 60}


@pytest.mark.parametrize(
    ("name", "figures", "sound"),
    [
        ("no_gradient", {"advantage__deviation": 1e-9, "reward__total": 0.3}, {"advantage__deviation": 0.05}),
        ("no_gradient", {"advantage__deviation": 0.0, "reward__total": 0.0}, {"advantage__deviation": 0.01}),
        ("no_gradient", {"advantage__deviation": 0.0, "reward__total": 0.3}, {"advantage__mean": 0.2}),  # one sample
        ("clipped_gradient", {"optimiser__gradient_norm": 1.1}, {"optimiser__gradient_norm": 0.9}),
        ("low_entropy", {"policy__entropy": 0.04}, {"policy__entropy": 0.06}),
        ("far_from_start", {"policy__kl_to_start": 1.1}, {"policy__kl_to_start": 0.9}),
        ("clipped_ratio", {"policy__clipped": 0.5}, {"policy__clipped": 0.3}),
        ("one_candidate", {"risk__candidates": 1.05}, {"risk__candidates": 2.0}),
        ("discriminator_won", {"discriminator__accuracy": 1.0}, {"discriminator__accuracy": 0.9}),
        ("even_rewards", {"reward__spread": 0.001}, {"reward__spread": 0.1}),
        ("collapsed_goals", {"goals__cosine": 0.99}, {"goals__cosine": 0.5}),
        ("waiting_for_data", {"time__share_waiting_for_data": 0.5}, {"time__share_waiting_for_data": 0.2}),
    ],
)
def test_levels(name, figures, sound):
    needed = LEVELS[name].loggings
    assert feed(Observer(clip=1.0), needed - 1, **figures) == []
    assert feed(Observer(clip=1.0), 3 * needed, **figures) == [name], "once"
    assert feed(Observer(clip=1.0), 3 * needed, **{**figures, **sound}) == []


@pytest.mark.parametrize(
    ("name", "figures", "sound"),
    [
        ("bad_endings", {"bad_ending": 0.15}, {"bad_ending": 0.06}),
        ("repetition", {"repetition": 0.05}, {"repetition": 0.035}),
        ("longer", {"length": 13.5}, {"length": 12.5}),
        ("shorter", {"length": 6.5}, {"length": 7.5}),
        ("fewer_words", {"vocabulary_use": 0.2}, {"vocabulary_use": 0.3}),
        ("below_start", {"cider_d": 0.98}, {"cider_d": 0.995}),
        ("fallen", {"cider_d": 0.7}, {"cider_d": 0.81}),
    ],
)
def test_what_drifts_away_from_the_start(name, figures, sound):
    for now, expected in ((figures, True), (sound, False)):
        observer = Observer()
        assert observer.observe(0, evaluated()) == []
        told = [names(observer.observe(update, evaluated(**now))) for update in (1, 2, 3, 4)]
        assert told[0] == [], "one evaluation is no evidence"
        assert [name in some for some in told].count(True) == expected


def test_the_words_of_a_warning_say_what_when_and_what_to_do():
    observer = Observer(rewards=["cider_d"])
    observer.observe(0, evaluated(cider_d=0.476))
    told = [symptom for update in (50, 100, 150) for symptom in observer.observe(update, evaluated(cider_d=0.427))]
    assert [str(symptom) for symptom in told] == [
        "update 150: CIDEr-D on val has been below its start for 3 evaluations (0.427, start 0.476); "
        "lower trainer.optimiser.lr; if that does not help, try the reward (rlcap check-reward)"
    ]


def test_without_a_start_growing_captions_are_healthy_and_those_after_the_best_are_compared_with_it():
    observer = Observer()
    for update, length in ((1, 3.0), (2, 5.0), (3, 8.0), (4, 11.0)):
        assert observer.observe(update, evaluated(cider_d=update / 4, length=length)) == []
    later = [observer.observe(update, evaluated(cider_d=0.9, length=16.0)) for update in (5, 6)]
    assert [names(found) for found in later] == [[], ["longer"]]
    assert "since the best evaluation (update 4)" in later[1][0].text


def test_a_reward_that_rises_while_the_rest_falls_is_gamed():
    def told(rewards: list[str], bleu_4: float) -> list[str]:
        observer, found = Observer(rewards=rewards), []
        for evaluation in range(4):
            found += names(observer.observe(10 * evaluation, evaluated(bleu_4=0.3 if evaluation == 0 else bleu_4)))
            for step in range(5):
                observer.observe(10 * evaluation + step, {"reward/total": evaluation + 0.1 * step})
        return found

    assert told(["cider_d"], 0.2) == ["gamed"]
    assert told(["cider_d"], 0.29) == []
    assert told(["cider_d", "smooth_bleu"], 0.2) == told(["bleu_4"], 0.2) == [], "BLEU is optimised"
    assert told(["cider_d", "self_bleu"], 0.2) == ["gamed"], "diversity is not"
    assert Observer(rewards=["self_cider", "my_module:cider", "rouge_l_single"]).not_optimised == ["bleu_4", "cider_d"]


def test_a_reward_that_never_rises():
    def told(rise: float) -> list[str]:
        observer, found = Observer(), []
        for evaluation in range(8):
            found += names(observer.observe(evaluation, evaluated()))
            for step in range(4):
                observer.observe(evaluation, {"reward/total": 1 + 0.1 * (step % 2) + rise * evaluation})
        return found

    assert told(0.0) == told(-0.1) == ["flat_reward"]
    assert told(0.1) == []


def test_a_cross_entropy_that_rises():
    def told(**rewards: float) -> list[tuple[str, int]]:
        observer, found = Observer(), []
        for evaluation, loss in enumerate((3.0, 2.0, 2.3, 2.5, 2.6)):
            observer.observe(evaluation, {"loss/cross_entropy": loss, **rewards})
            found += [(symptom.name, evaluation) for symptom in observer.observe(evaluation, evaluated())]
        return found

    assert told() == [("risen_loss", 4)]
    assert told(**{"reward/total": 1.0}) == [], "mixed with rewards it may"


def test_what_is_over_for_a_while_is_told_again():
    observer = Observer()
    sick, sound = {"policy/entropy": 0.0}, {"policy/entropy": 9.0}
    feed(observer, 5, policy__entropy=0.0)
    assert observer.observe(6, sound) == []
    assert feed(observer, 5, policy__entropy=0.0) == [], "it was gone for a moment only"
    for _ in range(GONE_LOGGINGS):
        observer.observe(7, sound)
    assert "low_entropy" not in observer.memory.told
    found = [name for _ in range(9) for name in names(observer.observe(8, sick))]
    assert found == ["low_entropy"]


def test_what_it_remembers_goes_on_in_another_process():
    figures = [json.loads(line) for line in (HERE / "runs" / "games.jsonl").read_text().splitlines()]
    whole, first = Observer(), Observer()
    expected = [str(symptom) for line in figures for symptom in whole.observe(line["update"], _tags(line))]
    assert expected
    for cut in (1, len(figures) // 4, len(figures) // 2):
        first, second = Observer(), Observer()
        told = [str(symptom) for line in figures[:cut] for symptom in first.observe(line["update"], _tags(line))]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        told += [str(symptom) for line in figures[cut:] for symptom in second.observe(line["update"], _tags(line))]
        assert told == expected


def test_the_page_about_curves_knows_every_warning_and_every_tag():
    page = (HERE.parent / "docs" / "curves.md").read_text(encoding="utf-8")
    sources = [*(HERE.parent / "agents").glob("*.py"), HERE.parent / "rlcap" / "training.py"]
    tags = {tag for path in sources for tag in re.findall(r'"([a-z]+/[a-z_0-9]+)"', path.read_text(encoding="utf-8"))}
    assert {"loss/cross_entropy", "reward/greedy", "time/updates_per_second"} <= tags
    unknown = {tag for tag in tags if f"`{tag}`" not in page}
    assert not unknown
    looked_for = Observer()._of_evaluation(0, evaluated())
    assert {"below_start", "gamed", *DRIFTS} <= looked_for.keys()
    assert not {name for name in (*LEVELS, *looked_for, "lengths_differ") if f"`{name}`" not in page}


def _tags(line: dict[str, float]) -> dict[str, float]:
    return {tag: value for tag, value in line.items() if tag != "update"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    options = {"--out": str(folder), "--count": "80", "--min-count": "2", "--difficulty": "1"}
    assert main(["--quiet", "prepare", "scenes", *(word for option in options.items() for word in option)]) == 0
    return folder


@pytest.fixture(scope="module")
def start(scenes, tmp_path_factory) -> Path:
    """A captioner that says things like "a green star", and the end token."""
    rate = {"trainer.optimiser.lr": 1e-2, "trainer.optimiser.warmup": 0, "trainer.optimiser.decay": "none"}
    changes = {"training.updates": 60, "training.evaluate_every": "60 updates", **rate}
    recipe = load_recipe("scenes", {**TINY, "data.path": str(scenes), "training.captions": 2, **changes})
    return train(recipe, tmp_path_factory.mktemp("runs") / "start")


@pytest.fixture
def sick(scenes, start, tmp_path, monkeypatch):
    """Trains with rewards from there; the names of what was told."""
    module = f"pay_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(PAY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "QUIET", False)

    def run(reward: str = "cider_d", updates: int = 10, resume: bool = False, **changes) -> list[str]:
        own = f"def {reward}(" in PAY
        rewards = {reward: {"name": f"{module}:{reward}"} if own else 1.0}
        quick = {"training.updates": updates, "training.evaluate_every": "2 updates", "training.log_every": 1}
        where = {"data.path": str(scenes), "training.start": str(start), "rewards": rewards}
        few = {"trainer.rollout": {"samples": 3, "length": 12}, "decoding.length": 12}
        recipe = load_recipe("scenes_scst", {**TINY, **quick, **where, **few, **changes})
        folder = train(recipe, tmp_path / "run", resume)
        lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
        return [tag.split("/")[1] for line in lines for tag in line if tag.startswith("warning/")]

    return run


def test_a_rate_that_is_far_too_high(sick, capsys, tmp_path):
    told = sick(updates=6, **{"trainer.optimiser.lr": 0.2})
    assert {"below_start", "fallen"} <= set(told)
    said = [line.removeprefix("warning: ") for line in capsys.readouterr().err.splitlines() if "warning: " in line]
    assert said == (tmp_path / "run" / WARNINGS).read_text().splitlines()
    assert len(said) == len(told)


def test_a_reward_that_pays_for_length(sick):
    told = sick("words", updates=10, **{"trainer.optimiser.lr": 0.04})
    assert {"longer", "bad_endings"} <= set(told), "captions run into the limit of 12 words"


def test_a_reward_that_is_constant_and_a_run_that_is_resumed(sick, tmp_path):
    assert sick("the_same", updates=6) == ["no_gradient"]
    lines = (tmp_path / "run" / WARNINGS).read_text()
    assert sick("the_same", updates=12, resume=True) == ["no_gradient"], "told once, before the stop"
    assert (tmp_path / "run" / WARNINGS).read_text() == lines


def test_captions_that_are_cut_short_and_drawn_longer_than_they_are_written(sick, tmp_path):
    assert {"lengths_differ", "cut_short"} == set(
        sick(updates=4, **{"decoding.length": 2, "trainer.optimiser.lr": 1e-6})
    )
    first, *_ = (tmp_path / "run" / WARNINGS).read_text().splitlines()
    assert first == (
        "update 0: training draws captions of up to 12 words, and evaluation writes up to 2; "
        "set trainer.rollout.length and decoding.length alike"
    )


@pytest.mark.parametrize(("cider_d", "remedy"), [(0.5, "raise decoding.length"), (0.01, "start from a model that has")])
def test_a_model_that_knows_nothing_yet_is_not_cut_short(cider_d, remedy):
    observer = Observer()
    told = [observer.observe(update, evaluated(cider_d=cider_d, bad_ending=0.9)) for update in (0, 10)]
    assert [names(found) for found in told] == [[], ["cut_short"]]
    assert told[1][0].text.startswith(f"90% of the captions of val end in the middle; {remedy}")


def test_training_from_a_run_is_evaluated_before_its_first_update(sick, tmp_path):
    sick(updates=2, **{"trainer.optimiser.lr": 1e-9})
    lines = [json.loads(line) for line in (tmp_path / "run" / METRICS).read_text().splitlines()]
    scores = [(line["update"], line["eval/val/cider_d"]) for line in lines if "eval/val/cider_d" in line]
    assert [update for update, _ in scores] == [0, 2]
    assert scores[0][1] == scores[1][1]
