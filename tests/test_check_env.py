"""`rlcap check-env`: what it says of good and bad environments."""

import sys
from textwrap import dedent

import pytest

from rlcap import progress
from rlcap.cli import main

BASE = """
    import gymnasium, numpy as np
    from gymnasium import spaces

    class Env(gymnasium.Env):
        metadata = {"render_modes": []}
        observation_space = spaces.Box(0, 9, (1,), np.int64)
        action_space = spaces.Discrete(3)

        def __init__(self, render_mode=None, length=4):
            self.length = length

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.left, self.aim = self.length, int(self.np_random.integers(3))
            return self.seen(), self.told()

        def step(self, action):
            self.left -= 1
            return self.seen(), float(action == self.aim), self.left == 0, False, self.told()

        def seen(self):
            return np.array([self.aim])

        def told(self):
            return {"action_mask": np.array([1, 1, 0], np.int8)}
"""


@pytest.fixture
def check(tmp_path, monkeypatch, capsys, request):
    """Checks the environment above with a change: status, standard output, standard error."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(progress, "QUIET", False)
    monkeypatch.chdir(tmp_path)

    def check(before="", after="", *settings):
        name = f"env_{abs(hash((request.node.name, before, after)))}"
        text = dedent(BASE)
        assert before in text
        (tmp_path / f"{name}.py").write_text(text.replace(before, after) if before else text)
        status = main(["check-env", f"{name}:Env", *settings])
        return status, *capsys.readouterr()

    return check


@pytest.mark.parametrize("name", ["rlcap/Caption-v0", "rlcap/Glimpse-v0", "rlcap/Adversarial-v0"])
def test_our_own_pass(name, capsys):
    assert main(["check-env", name, "reward=spread", "action_mask=true"]) == 0
    said = capsys.readouterr().out
    assert "check_env passes" in said
    assert said.endswith("ok: no problem was found\n")
    assert ("3 rows equal single ones over 40 steps (NextStep)" in said) == ("Caption" in name)


def test_a_good_one_of_somebody_else_passes(check):
    status, said, _ = check("", "", "length=6")
    assert status == 0
    assert "30, 6 to 6 steps" in said


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("super().reset(seed=seed)", "pass", "reset("),
        ("np.array([self.aim])", "np.array([self.aim + 0.5])", "observation"),
        ("float(action == self.aim)", "float('nan')", "nan"),
        ("self.left == 0", "False", "an episode has not ended after 1000 steps: truncate it earlier"),
        ("[1, 1, 0]", "[1, 1]", "the mask in info['action_mask'] has the shape (2,): give (3,)"),
        ("[1, 1, 0]", "[0, 0, 0]", "leaves no action"),
        ("float(action == self.aim)", "float(id(object()) % 97 + np.random.rand())", "rewards are not equivalent"),
        ("def seen", "def action_masks(self):\n        return np.ones(3, bool)\n\n    def seen", "differ"),
    ],
)
def test_what_is_wrong_is_named(check, before, after, problem):
    status, said, _ = check(before, after)
    assert status == 2
    problems = [line for line in said.splitlines() if line.startswith("problem: ")]
    assert any(problem in line for line in problems), said
    assert said.splitlines()[-1].startswith("not ok: ")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("rlcap/Captoin-v0", "environment 'rlcap/Captoin-v0'"),
        ("no_such_module:Env", "No module named 'no_such_module'"),
        ("rlcap.envs.caption:Captain", "Captain"),
    ],
)
def test_names_that_lead_nowhere(name, error, capsys):
    assert main(["check-env", name]) == 2
    said = capsys.readouterr().err
    assert error in said
    assert len(said.splitlines()) == 1


def test_settings_that_it_does_not_take(capsys):
    assert main(["check-env", "rlcap/Caption-v0", "lenght=3"]) == 2
    assert "lenght" in capsys.readouterr().err
