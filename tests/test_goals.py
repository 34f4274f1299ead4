"""Goals and gazes that turn together are told from those that do not, and a run of a captioner is drawn."""

import numpy as np
import pytest
from PIL import Image

from rlcap.cli import main
from rlcap.goals import Steered, together


def made(seed: int, follows: bool, length: int = 12) -> Steered:
    """Goals turn at some words; gazes at the same ones, or at others of their own."""
    random = np.random.default_rng(seed)
    turns = random.random((2, length)) < 0.3
    at = np.cumsum(turns, 1)
    goals = random.normal(size=(length + 1, 6))[at[0]] + 0.05 * random.normal(size=(length, 6))
    gazes = np.eye(9)[at[0 if follows else 1] % 9] * 0.9 + 0.1 / 9
    return Steered(tuple("word" for _ in range(length)), goals, gazes)


def test_changes_by_hand():
    one = Steered(("a", "b", "c"), np.array([[1.0, 0], [0, 2], [0, 1]]), np.array([[1.0, 0], [1, 0], [0.5, 0.5]]))
    assert one.changes == pytest.approx(np.array([[1, 0], [0, 0.5]]))


def test_what_turns_together_is_beyond_chance_and_what_does_not_is_within():
    found = together([made(seed, follows=True) for seed in range(40)])
    assert found.changes == 40 * 10  # of 12 words 11 changes, of which the first does not count
    assert found.correlation > 0.8 > found.high
    other = together([made(seed, follows=False) for seed in range(40)])
    assert other.low < other.correlation < other.high
    assert other.high - other.low < 0.25


def test_a_captioner_is_drawn_from_the_command_line(tmp_path, capsys):
    data = tmp_path / "scenes"
    assert main(["--quiet", "prepare", "scenes", "--out", str(data), "--count", "60", "--difficulty", "1"]) == 0
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        f"""
name: tiny
data: {{path: {data}}}
encoder: {{name: small_cnn, width: 32}}
policy: {{name: leakgan, embedding: 8, hidden: 16, manager: 8, goal: 4, attention: 8, discriminator: {{hidden: 8}}}}
trainer:
  name: adversarial
  rollout: {{samples: 1, length: 12, graph: scored}}
  playouts: {{every: 4, count: 1}}
  turns: {{pretraining: 6, adversarial: 1, likelihood: 1}}
training: {{updates: 8, images: 8, captions: 1, evaluate_every: 8 updates}}
decoding: {{length: 12, sample: true}}
""",
        encoding="utf-8",
    )
    run = tmp_path / "run"
    assert main(["--quiet", "train", str(recipe), "--out", str(run)]) == 0
    capsys.readouterr()
    picture = tmp_path / "goals.png"
    assert main(["--quiet", "goals", str(run), "--out", str(picture), "--captions", "2"]) == 0
    assert "goals and gazes change together: correlation" in capsys.readouterr().out
    with Image.open(picture) as drawn:
        assert drawn.width > 400
        assert len(drawn.convert("RGB").getcolors(maxcolors=10**6)) > 50  # heat maps, not a blank sheet
    assert main(["--quiet", "goals", str(run), "--out", str(tmp_path / "goals.doc")]) == 2
