"""Two processes with half of a batch each make the update that one makes of the whole: drawn captions included.

Real processes, started by torchrun, on gloo. Dropout is 0: its masks differ among processes.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rlcap.cli import main
from rlcap.data.dataset import DataSet
from rlcap.data.features import EncoderCard, FeatureWriter

RECIPE = """
name: shared
data: {{path: {data}, max_words: 10}}
{sections}
decoding: {{length: 8}}
"""
# 56 training images: six batches of 9, and one of 2. Five updates in the middle of the first epoch.
TRAINING = (
    "training: {images: 9, captions: 2, updates: 7, log_every: 1, threads: 1, device: cpu, evaluate_every: 3 updates}"
)
SOFT = "policy: {name: soft_attention, hidden: 24, embedding: 16, attention: 16, dropout: 0.0}"
RECIPES = {
    "stages": f"""
{SOFT}
{TRAINING}
stages:
  words:
    trainer: {{name: cross_entropy, label_smoothing: 0.1, attention_penalty: 1.0}}
  scst:
    trainer: {{name: scst, baseline: moving_average, rollout: {{samples: 2, length: 8}}, regularise: {{entropy: 0.1}}}}
    rewards: {{cider_d: {{weight: 1.0, normalise: true}}}}
""",
    "hard_attention": f"""
policy: {{name: hard_attention, hidden: 24, embedding: 16, attention: 16, dropout: 0.0}}
trainer: {{name: hard_attention}}
{TRAINING}
""",
    "critic": f"""
{SOFT}
{TRAINING}
trainer: {{name: scst, baseline: critic, critic: {{hidden: 8}}, rollout: {{samples: 2, length: 8, graph: scored}}}}
rewards: {{cider_d: 1.0}}
""",
    "ppo": f"""
{SOFT}
{TRAINING}
trainer: {{name: ppo, rollout: {{samples: 2, length: 8}}}}
rewards: {{cider_d: 1.0}}
""",
    "mixer": f"""
{SOFT}
{TRAINING}
trainer: {{name: mixer, rollout: {{samples: 2, length: 8}}, anneal: {{}}}}
rewards: {{cider_d: 1.0}}
""",
    "minimum_risk": f"""
{SOFT}
{TRAINING}
trainer: {{name: minimum_risk, rollout: {{samples: 3, length: 8}}}}
rewards: {{cider_d: 1.0}}
""",
}


COMPARED = {
    *("loss/cross_entropy", "loss/attention", "loss/policy_gradient", "loss/risk", "optimiser/gradient_norm"),
    *("policy/entropy", "baseline/average", "eval/val/cider_d"),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """With made-up features: the batch norms of an encoder that is trained along see their own process's part."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    assert main(["--quiet", "prepare", "scenes", "--out", str(folder), "--count", "70", "--min-count", "1"]) == 0
    (folder / "scenes.h5").unlink()
    names = [record.image for record in DataSet.load(folder).records]
    card = EncoderCard("my_nets:Net", {}, 64, "squash", "aaaa")
    with FeatureWriter(folder / "features.h5", "grid", card=card, grid=(2, 2)) as writer:
        writer.append(names, np.random.default_rng(0).random((len(names), 4, 8)))
    return folder


def shared(processes: int, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return subprocess.run([*command, "-m", "rlcap", *words], capture_output=True, text=True, timeout=300)


def same(recipe: Path, one: Path, two: Path) -> None:
    assert main(["--quiet", "train", str(recipe), "--out", str(one)]) == 0
    found = shared(2, "--quiet", "train", str(recipe), "--out", str(two))
    assert found.returncode == 0, found.stderr
    for folder in [path.parent for path in one.rglob("config.yaml")]:
        other = two / folder.relative_to(one)
        weights, others = (load_file(each / "checkpoints/last/weights.safetensors") for each in (folder, other))
        # Float32 sums in another order, seven updates long; Adam makes much of a gradient that is nearly 0.
        apart = {name: float((weights[name] - others[name]).abs().max()) for name in weights}
        assert max(apart.values()) < 2e-4, apart
        logs = [
            [json.loads(line) for line in (each / "metrics.jsonl").read_text().splitlines()] for each in (folder, other)
        ]
        assert len(logs[0]) == len(logs[1]), "only the first process writes"
        for before, after in zip(*logs, strict=True):
            assert before.keys() == after.keys()
            for key in before.keys() & COMPARED:
                assert after[key] == pytest.approx(before[key], rel=2e-3, abs=1e-4), (before["update"], key)


@pytest.mark.parametrize(
    "name", ["stages", *(pytest.param(each, marks=pytest.mark.slow) for each in list(RECIPES)[1:])]
)
def test_two_make_the_update_of_one(name, scenes, tmp_path):
    torch.manual_seed(0)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(data=scenes, sections=RECIPES[name]))
    same(recipe, tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_what_several_processes_refuse(scenes, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    few = TRAINING.replace("images: 9", "images: 11")  # 56 = 5 * 11 + 1
    recipe.write_text(RECIPE.format(data=scenes, sections=f"{SOFT}\ntrainer: cross_entropy\n{few}"))
    found = shared(2, "--quiet", "train", str(recipe), "--out", str(tmp_path / "run"))
    assert found.returncode != 0
    assert "training.images: a batch (perhaps an epoch's last) has 1 images for 2 processes" in found.stderr
    leakgan = "policy: {name: leakgan, hidden: 12, embedding: 8, manager: 8}\ntrainer: adversarial"
    recipe.write_text(RECIPE.format(data=scenes, sections=f"{leakgan}\n{TRAINING}"))
    found = shared(2, "--quiet", "train", str(recipe), "--out", str(tmp_path / "run"))
    assert "trainer.name=adversarial: compares all captions of a batch" in found.stderr
