"""A training that is killed and resumed ends as if it never had been: bit for bit on a CPU.

`pytest -m slow -s tests/test_resume.py` kills each trainer often, and prints how often.
"""

import random
from pathlib import Path

import pytest
from killing import left_by, survived, undisturbed

from rlcap.cli import main

BASE = """
name: kills
data: {{path: {data}, max_words: 10}}
encoder: {{name: small_cnn, width: 32}}
{sections}
decoding: {{length: 8}}
"""
TRAINING = "images: 8, captions: 2, log_every: 2, threads: 1, device: cpu"
SOFT = "policy: {name: soft_attention, hidden: 24, embedding: 16, attention: 16, dropout: 0.2}"
# In the middle of an epoch (of 7 batches) and behind its end; with and without checkpoints between evaluations.
LIKELIHOOD = f"training: {{{TRAINING}, updates: 10, evaluate_every: 4 updates, save_every: 3 updates, keep: 3}}"
STAGES = f"""
{SOFT}
stages:
  words:
    trainer: {{name: cross_entropy, label_smoothing: 0.1, attention_penalty: 1.0}}
    {LIKELIHOOD}
  scst:
    trainer: {{name: scst, baseline: critic, critic: {{hidden: 8}}, rollout: {{samples: 2, length: 8}}}}
    rewards: {{cider_d: {{weight: 1.0, normalise: true}}}}
    training: {{{TRAINING}, updates: 6, evaluate_every: 4 updates}}
"""
HARD = f"""
policy: {{name: hard_attention, hidden: 24, embedding: 16, attention: 16, dropout: 0.2}}
trainer: {{name: hard_attention}}
{LIKELIHOOD}
"""
LEAKGAN = f"""
policy: {{name: leakgan, hidden: 12, embedding: 8, manager: 8, goal: 4, goals: centred, attention: 8, dropout: 0.2}}
trainer:
  name: adversarial
  rollout: {{samples: 1, length: 8}}
  playouts: {{every: 4, count: 1}}
  turns: {{pretraining: 3, adversarial: 2, likelihood: 1}}
  alignment_words: [circle, square, star]
{LIKELIHOOD}
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    assert main(["--quiet", "prepare", "scenes", "--out", str(folder), "--count", "70", "--min-count", "1"]) == 0
    return folder


def compare(sections: str, scenes: Path, folder: Path, times: int, seed: int, latest: int) -> int:
    recipe = folder / "recipe.yaml"
    recipe.write_text(BASE.format(data=scenes, sections=sections))
    undisturbed(recipe, folder / "whole")
    wanted, kills = left_by(folder / "whole"), 0
    moments = random.Random(seed)
    for number in range(times):
        kills += survived(recipe, folder / f"killed{number}", moments, latest)
        found = left_by(folder / f"killed{number}")
        assert found.keys() == wanted.keys()
        assert [key for key in wanted if found[key] != wanted[key]] == []
    return kills


def test_killed_across_stages(scenes, tmp_path):
    assert compare(STAGES, scenes, tmp_path, times=1, seed=3, latest=300) >= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sections", "times"), [(STAGES, 4), (HARD, 4), (LEAKGAN, 4)], ids=["stages", "hard_attention", "leakgan"]
)
def test_killed_again_and_again(sections, times, scenes, tmp_path):
    kills = compare(sections, scenes, tmp_path, times, seed=1, latest=150)
    print(f"\n{kills} kills and resumptions, 0 differences")
    assert kills >= 3 * times
