"""Updates that are not finite: nothing moves, the batch is kept, and training stops or goes on without it."""

import json
import shutil
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch
from killing import left_by
from safetensors.torch import load_file
from torch import nn

from rlcap.agents.optimisers import Descent, Optimiser
from rlcap.cli import main
from rlcap.data.dataset import DataSet
from rlcap.data.features import EncoderCard, FeatureWriter

FRAGILE = """
    from rlcap.models.soft_attention import SoftAttention

    class Fragile(SoftAttention):
        def remember(self, features):
            memory = super().remember(features)
            return {**memory, "values": memory["values"] + 0 / features.values.amin()}
"""
RECIPE = (
    *(
        "soft_attention",
        "policy.name=fragile:Fragile",
        "--stage",
        "cross_entropy",
        "data.path=scenes",
        "data.evaluate=val",
        "data.features=features.h5",
    ),
    *("policy.hidden=16", "policy.embedding=8", "policy.attention=8", "policy.project=8", "training.images=8"),
    *("training.epochs=null", "training.updates=10", "training.evaluate_every=5 updates", "training.log_every=1"),
    *("training.threads=1", "training.device=cpu", "training.workers=0"),
)


@pytest.mark.parametrize("fused", [False, True])  # as on a GPU
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nothing_moves_along_a_gradient_that_is_not_finite(fused, bad):
    torch.manual_seed(1)
    network = nn.Linear(3, 2)
    descent = Descent(network, Optimiser(lr=0.1), 5)
    if fused:
        descent.optimiser, descent.fused = torch.optim.Adam(network.parameters(), lr=0.1, fused=True), True
    descent.step(network(torch.ones(3)).sum())
    before = [weight.detach().clone() for weight in network.parameters()]
    norm = descent.step(network(torch.tensor([1.0, bad, 1.0])).sum())["optimiser/gradient_norm"]
    assert not torch.isfinite(norm)
    assert all(map(torch.equal, before, network.parameters()))
    descent.step(network(torch.ones(3)).sum())
    assert not any(map(torch.equal, before, network.parameters()))
    assert descent.done == 3
    momenta = [value for state in descent.optimiser.state.values() for value in state.values()]
    assert all(bool(torch.isfinite(value).all()) for value in momenta)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A data set, features of which one training image has a 0, and a policy that divides by them."""
    home = tmp_path_factory.mktemp("home")
    assert main(["--quiet", "prepare", "scenes", "--out", str(home / "scenes"), "--count", "40"]) == 0
    data = DataSet.load(home / "scenes")
    names = [record.image for record in data.records]
    card = EncoderCard("my_nets:Net", {}, 64, "squash", "aaaa")
    with FeatureWriter(home / "features.h5", "grid", card=card, grid=(2, 2)) as writer:
        values = np.random.default_rng(0).uniform(0.5, 1.5, (len(names), 4, 8))
        values[names.index(data.split("train").records[3].image), 1, 2] = 0
        writer.append(names, values)
    (home / "fragile.py").write_text(dedent(FRAGILE))
    return home


@pytest.fixture
def place(home, tmp_path, monkeypatch) -> Path:
    shutil.copytree(home, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_it_stops_can_be_seen_again_and_goes_on_without(place, capsys):
    train = ["--quiet", "train", *RECIPE, "--out"]
    assert main([*train, "run"]) == 2
    told = capsys.readouterr().err
    kept = next(Path("run/cross_entropy/replay").iterdir())
    number = int(kept.name.removeprefix("update_"))
    assert f"update {number}: loss/" in told
    assert f"see it again with rlcap replay {kept}" in told
    assert len(told.splitlines()) == 1
    last = Path("run/cross_entropy/checkpoints/last")
    assert json.loads((last / "meta.json").read_text())["update"] == number - 1

    assert main(["replay", str(kept), "--allow", "fragile"]) == 0
    seen = capsys.readouterr().out
    assert f"update {number}: 8 images x 5 captions" in seen
    assert "nan   not finite" in seen
    assert "backwards it begins here: Function '" in seen

    assert main([*train, "run", "--resume", "training.not_finite=skip"]) == 0
    assert capsys.readouterr().err.count("; skipped") == 2, (
        "in 10 updates of 4 an epoch, row 3 comes two or three times"
    )
    assert main([*train, "whole", "training.not_finite=skip"]) == 0
    wanted, found = left_by(place / "whole"), left_by(place / "run")
    assert {key for key in wanted if found[key] != wanted[key]} <= {"cross_entropy: files"}  # a batch more is kept
    weights = load_file(last / "weights.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())


def test_where_nothing_is_finite_any_more_it_stops_nevertheless(place, capsys):
    words = [
        "--quiet",
        "train",
        *RECIPE,
        "training.updates=30",
        "trainer.optimiser.lr=1e30",
        "trainer.optimiser.warmup=0",
    ]
    assert main([*words, "--out", "run", "training.not_finite=skip"]) == 2
    assert "the 9 updates before it were skipped as well" in capsys.readouterr().err.splitlines()[-1]
    assert len(list(Path("run/cross_entropy/replay").iterdir())) == 3
