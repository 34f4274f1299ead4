"""`rlcap check-reward`: what it says of good and bad rewards."""

import sys
from itertools import count
from textwrap import dedent

import pytest

from rlcap import progress
from rlcap.cli import main

NUMBER = count()


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Checks `judge` of a module in the current folder: status, standard output, standard error."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(progress, "QUIET", False)
    monkeypatch.chdir(tmp_path)

    def check(text, *settings):
        name = f"checked_{next(NUMBER)}"
        (tmp_path / f"{name}.py").write_text(dedent(text))
        status = main(["check-reward", f"{name}:judge", *settings])
        return status, *(said.replace(name, "mine") for said in capsys.readouterr())

    return check


def figures(said, label):
    """The numbers behind a label."""
    line = next(line for line in said.splitlines() if label in line)
    return [float(word) for word in line.partition(label)[2].split()]


OVERLAP = """
    def judge(captions, references, *, power: float = 1.0):
        scores = []
        for caption, several in zip(captions, references):
            words = set(caption.split())
            shares = [len(words & set(each.split())) / max(1, len(words | set(each.split()))) for each in several]
            scores.append(max(shares) ** power)
        return scores
"""


def test_a_good_reward(check):
    status, said, wrong = check(OVERLAP)
    assert (status, wrong) == (0, "")
    lines = said.splitlines()
    assert lines[:2] == ["reward:   mine:judge", "judged:   60 made-up scenes x 5 captions"]
    assert lines[-1] == "ok: no problem was found"
    assert figures(said, " what people say ") == [1, 1, 1]
    mean, least, most = figures(said, " captions of other scenes ")
    assert 0 < least < mean < most < 1
    assert figures(said, "an empty caption") == [0]
    assert figures(said, "cut: no end token") == [1]
    assert "prefers:  what people say to captions of other scenes 100% of the time (50%: chance)" in lines
    assert "prefers:  what people say to its words shuffled 50% of the time (50%: chance)" in lines
    assert any(line.startswith("time:     ") and " a caption, " in line and line.endswith(" for 300") for line in lines)
    assert "note:" not in said
    power, *_ = figures(check(OVERLAP, "power=2")[1], " captions of other scenes ")
    assert power < mean


def test_a_reward_of_rlcaps_own(capsys):
    assert main(["check-reward", "rouge_l"]) == 0
    assert capsys.readouterr().out.startswith("reward:   rouge_l\n")


def test_wrong_settings_and_names_are_errors(check, capsys):
    assert check(OVERLAP, "powr=2")[::2] == (
        2,
        "rlcap: reward 'mine:judge': powr: unknown key (did you mean 'power'?)\n",
    )
    assert check(OVERLAP, "power=x")[::2] == (2, "rlcap: reward 'mine:judge': power: should be a number, not 'x'\n")
    status, said, wrong = check(OVERLAP, "power")
    assert (status, said) == (2, "")
    assert wrong.endswith("argument setting=value: 'power' is no setting=value\n")
    assert main(["check-reward", "nowhere:judge"]) == 2
    assert "no module is called 'nowhere'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "def judge(captions): return [1.0] * 3",
            "problem:  reward 'mine:judge': gave 3 numbers; give a list, array or tensor of 10 numbers, one a caption",
        ),
        (
            "def judge(captions): return [float('nan') if len(c) > 200 else len(c) for c in captions]",
            " words: reward 'mine:judge': answer[0] is nan, not a finite number of float32, for caption 'a ",
        ),
        (
            "def judge(captions): return [1 / len(c) for c in captions]",
            "problem:  an empty caption: reward 'mine:judge': ZeroDivisionError: division by zero at ",
        ),
        (
            "def judge(captions): return [len(set(captions)) / (len(captions) - 1)] * len(captions)",
            "problem:  one caption alone: reward 'mine:judge': ZeroDivisionError: ",
        ),
        (
            "def judge(captions): return [len(c.replace('<unk>', '').split()[0]) if c else 0 for c in captions]",
            "problem:  unknown words alone: ",
        ),
        (
            "def judge(captions, ended): return [1 if e else None for e in ended]",
            "problem:  cut: no end token: reward 'mine:judge': answer[0] is None, not a number",
        ),
        (
            "import random\ndef judge(captions): return [random.random() for c in captions]",
            "problem:  two equal calls differ, by up to ",
        ),
        (
            "CALLS = []\ndef judge(captions): CALLS.append(1); return [len(CALLS)] * len(captions)",
            "problem:  two equal calls differ, by up to 1: draw nothing at random, and keep nothing between calls",
        ),
    ],
)
def test_problems(check, text, problem):
    status, said, wrong = check(text)
    assert (status, wrong) == (2, "")
    assert problem in said
    assert said.splitlines()[-1].startswith("not ok: ")
    assert len([line for line in said.splitlines() if line.startswith("problem:")]) == int(said.split()[-4])


SET = "def judge(captions): return [captions.count(each) / len(captions) for each in captions]"


def test_a_reward_of_sets_is_noted_and_is_no_constant(check):
    status, said, _ = check(SET)
    assert status == 0
    assert "note:     a caption scores otherwise without others of its image (by up to " in said
    status, said, _ = check(SET, "constant=true")
    assert status == 2
    assert "problem:  is no constant: a caption scores otherwise without others of its image (by up to " in said
    status, said, _ = check("def judge(captions): return list(range(len(captions)))")
    assert "note:     a caption scores otherwise in another order (by up to 299), " in said


def test_what_a_policy_would_find_out_is_noted(check):
    status, said, _ = check("def judge(captions): return [-len(each) for each in captions]")
    assert status == 0
    assert "note:     scores higher than what people say (-" in said
    assert "an empty caption (0), a single word (-1)" in said
    status, said, _ = check("def judge(captions, features): return [float(f.sum() * 0) + 2 for f in features]")
    assert status == 0
    assert "note:     every caption scores 2: there is nothing to learn from it" in said
    assert "note:     its features are 64 mean colours of the picture here, of shape (64, 3)" in said


def test_a_slow_reward_is_tried_on_fewer_scenes(check, monkeypatch):
    monkeypatch.setattr("rlcap.reward_check.PATIENCE", 1.0)
    slow = "import time\ndef judge(captions): time.sleep(0.011 * len(captions)); return [1] * len(captions)"
    status, said, _ = check(slow)
    assert status == 0
    assert "judged:   4 made-up scenes x 5 captions" in said
    assert "note:     slow: workers=2 shares the captions of a batch between processes" in said


CLASS = """
    import torch
    from rlcap.contracts import Reward

    class judge(Reward):
        def __init__(self, references, *, way: str = "good"):
            self.way, self.calls = way, 0
            if way == "unmade":
                raise RuntimeError("no")

        def __call__(self, candidates):
            self.calls += 1
            shape = candidates.words.shape
            behind = torch.arange(shape[2]) >= candidates.lengths[..., None]
            match self.way:
                case "good": return torch.full(shape, 99.0).masked_fill(~behind, 0.5)  # by word: half its length
                case "learning": return torch.full(shape[:2], float(self.calls))
                case "shape": return torch.zeros(3)
                case "list": return [1.0]
                case "nan": return torch.full(shape[:2], torch.nan)
                case _: raise RuntimeError("of the\\nclass")

        def state_dict(self):
            return {"calls": self.calls}

        def load_state_dict(self, state):
            self.calls = state["calls"]
"""


@pytest.mark.parametrize(
    ("way", "status", "said"),
    [
        ("good", 0, "a single word                     1\n"),
        ("learning", 0, "ok"),
        ("shape", 2, "problem:  reward 'mine:judge': gave the shape (3,), not (2, 5) (or (2, 5, "),
        ("list", 2, "problem:  reward 'mine:judge': gave a list, not a tensor"),
        ("nan", 2, "problem:  reward 'mine:judge': gave numbers that are not finite reals"),
        ("error", 2, "problem:  reward 'mine:judge': RuntimeError: of the class"),
        ("unmade", 2, "rlcap: reward 'mine:judge': cannot be made: RuntimeError: no\n"),
    ],
)
def test_a_class(check, way, status, said):
    given, *told = check(CLASS, f"way={way}")
    assert given == status
    assert said in "".join(told)


def test_credit_by_word_is_added_up_over_the_captions_words(check):
    _, said, _ = check(CLASS)
    assert figures(said, " what people say ")[2] == 7.5  # of the longest: 14 words and the end token


def test_a_reward_that_prefers_the_wrong_captions_is_noted(check):
    status, said, _ = check(OVERLAP.replace("max(shares) ** power", "-max(shares)"))
    assert status == 0
    assert "note:     prefers captions of other scenes to what people say: if it is a penalty, give it" in said
    assert "prefers" not in [line[10:17] for line in check(OVERLAP)[1].splitlines() if line.startswith("note:")]
