"""`rlcap check-policy`: what it says of good and bad policies."""

import sys
from itertools import count
from textwrap import dedent

import pytest

from rlcap import progress
from rlcap.cli import main

NUMBER = count()
BASE = """
    import torch
    from torch import nn
    from rlcap.contracts import Policy, Scores, Step

    class Small(Policy):
        coins = 0

        def __init__(self, codec, shape, *, hidden: int = 8):
            super().__init__()
            self.codec = codec
            self.see, self.embed = nn.Linear(shape.width, hidden), nn.Embedding(codec.size, hidden)
            self.cell, self.say = nn.GRUCell(hidden, hidden), nn.Linear(hidden, codec.size)

        def remember(self, features):
            seen, there = self.see(features.values), features.mask[..., None]
            return {"mean": (seen * there).sum(1) / there.sum(1), "mask": features.mask}

        def start(self, memory, n, length):
            return (memory["mean"].repeat_interleave(n, 0),)

        def step(self, words, state, memory, *, uniforms=None, choices=None, want=()):
            hidden = self.cell(self.embed(words), state[0])
            n = len(words) // len(memory["mask"])
            even = memory["mask"] / memory["mask"].sum(1, keepdim=True)
            return Step(self.say(hidden), (hidden,), attention=even.repeat_interleave(n, 0))
"""
SCORE = """
        def score(self, memory, words, **others):
            found = super().score(memory, words, **others)
            CHANGE
            return Scores(log_prob=log_prob, entropy=found.entropy, logits=found.logits)
"""


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Checks the policy above with a change: status, standard output, standard error."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(progress, "QUIET", False)
    monkeypatch.chdir(tmp_path)

    def check(before="", after="", *settings, more=""):
        name = f"policy_{next(NUMBER)}"
        assert before in BASE
        text = BASE.replace(before, after) if before else BASE
        (tmp_path / f"{name}.py").write_text(dedent(text + more))
        status = main(["check-policy", f"{name}:Small", *settings])
        return status, *capsys.readouterr()

    return check


def test_our_own_pass(capsys):
    assert main(["check-policy", "soft_attention", "hidden=16"]) == 0
    assert capsys.readouterr().out.endswith("ok: no problem was found\n")


def test_a_small_one_passes(check):
    status, said, _ = check("", "", "hidden=5")
    assert status == 0, said
    assert "gives no attention" not in said
    assert said.count("checked:") == 9


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ('"mask": features.mask', '"mask": features.mask, "all": seen.flatten(0, 1)', "images come first"),
        ("repeat_interleave(n, 0),)", "repeat_interleave(n, 0)[:1],)", "rows come first (12)"),
        ("Step(self.say(hidden), (hidden,)", "Step(self.say(hidden), (hidden, hidden)", "its shapes are fixed"),
        ("Step(self.say(hidden)", "Step(self.say(hidden)[:, 1:]", "logits are (12, 12), not (12, 13)"),
        ("Step(self.say(hidden)", "Step(self.say(hidden) / 0", "logits are not finite"),
        ("attention=even.repeat_interleave(n, 0)", "attention=even", "attention is (3, 6), not (12, 6)"),
        ("seen, there = self.see(features.values)", "seen, there = self.see(features.values.roll(1, 0))", "is alone"),
        ("(seen * there).sum(1)", "seen.sum(1)", "regions that are not there do not count"),
        ("Step(self.say(hidden)", "Step(self.say(hidden) + torch.rand(1)", "once more: differs by up to"),
        ("Step(self.say(hidden)", "Step(self.say(hidden).detach()", "log_prob has no gradient"),
        ("coins = 0", "coins = 1", "must override score"),
    ],
)
def test_what_is_wrong_is_named(check, before, after, problem):
    status, said, _ = check(before, after)
    assert status == 2
    assert any(problem in line for line in said.splitlines() if line.startswith("problem: ")), said


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("log_prob = found.log_prob.roll(1, -1)", "score says what step by step does"),
        ("log_prob = found.log_prob + 1e-3 * words[..., -1:]", "earlier words do not hear of later ones"),
        ("log_prob = found.log_prob[:, :, 1:]", "log_prob: (3, 4, 4), not (3, 4, 5)"),
    ],
)
def test_a_wrong_score_is_named(check, change, problem):
    status, said, _ = check(more=SCORE.replace("CHANGE", change))
    assert status == 2
    assert problem in said


def test_a_wrong_select_is_named(check):
    status, said, _ = check(more="\n        def select(self, state, rows):\n            return state\n")
    assert status == 2
    assert "logits after select" in said


def test_a_position_that_all_rows_share_is_named(check):
    """A number in the state, one for all rows: fine until rows stand at different words."""
    status, said, _ = check(
        "hidden = self.cell(self.embed(words), state[0])",
        "hidden = self.cell(self.embed(words), state[0]) + self.tick(words)",
        more="""
        def tick(self, words):
            self.t = 0 if (words == self.codec.start).all() else getattr(self, "t", 0) + 1
            return 0.1 * self.t
""",
    )
    assert status == 2
    assert "rows may stand at different words" in said


def test_parameters_without_gradients_are_noted(check):
    status, said, _ = check("self.codec = codec", "self.codec, self.idle = codec, nn.Linear(2, 2)")
    assert status == 0
    assert "no gradient reaches idle.weight, idle.bias" in said


def test_what_cannot_be_made_is_an_error(check):
    status, _, said = check("self.codec = codec", "raise ValueError('no luck')")
    assert status == 2
    assert "cannot be made: ValueError: no luck" in said
    status, _, said = check("class Small(Policy)", "class Small(nn.Module)")
    assert status == 2
    assert "let it inherit rlcap.contracts.Policy" in said
