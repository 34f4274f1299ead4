"""Checkpoints that are damaged or kept back, and the states of the random numbers."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import left_by

from rlcap.checkpoint import checkpoints, newest_whole, random_states, restore_random_states
from rlcap.cli import main
from rlcap.errors import CheckpointError
from rlcap.files import SUMS, damage, write_sums
from rlcap.recipe import load_recipe
from rlcap.training import train


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Of 6 updates, with checkpoints behind each second one."""
    folder = tmp_path_factory.mktemp("data")
    assert main(["--quiet", "prepare", "scenes", "--out", str(folder / "scenes"), "--count", "70"]) == 0
    small = {
        "data.path": str(folder / "scenes"),
        "encoder.width": 32,
        "policy.hidden": 24,
        "policy.dropout": 0.3,
        "training.images": 8,
        "training.updates": 6,
        "training.evaluate_every": "2 updates",
        "training.keep": 2,
        "training.threads": 1,
        "training.device": "cpu",
        "decoding.length": 6,
    }
    return train(load_recipe("scenes", small), folder / "run")


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


def test_the_last_ones_and_the_best_are_kept(run):
    names = [path.name for path in checkpoints(run)]
    assert names == ["last", "earlier-1", "best"]
    assert all(damage(path) is None for path in checkpoints(run))
    assert newest_whole(run).name == "last"


@pytest.mark.parametrize("name", ["state.pt", "weights.safetensors", "meta.json"])
@pytest.mark.parametrize("place", [0.0, 0.6, 1 - 1e-9])
def test_one_wrong_bit_is_told_and_the_checkpoint_before_is_taken(copy, name, place, capsys):
    flip(copy / "checkpoints" / "last" / name, place)
    assert newest_whole(copy).name == "earlier-1"
    assert f"checkpoints/last/{name}: is damaged or cut short; going on from earlier-1" in capsys.readouterr().err


@pytest.mark.parametrize("left", [0, 30, 66 + len("meta.json") + 1])  # nothing, a part of a line, one line
def test_sums_that_are_cut_short_are_no_sums(copy, left):
    path = copy / "checkpoints" / "last" / SUMS
    path.write_bytes(path.read_bytes()[:left])
    assert newest_whole(copy).name == "earlier-1"


def test_from_the_one_before_it_comes_to_the_same_end(run, copy):
    (copy / "checkpoints" / "last" / "state.pt").write_bytes(b"")
    train(load_recipe(copy / "config.yaml"), copy, resume=True)
    wanted, found = left_by(run), left_by(copy)
    assert [key for key in wanted if found.get(key) != wanted[key]] == []


def test_without_a_whole_checkpoint_training_cannot_go_on(copy):
    for path in checkpoints(copy):
        (path / SUMS).unlink()
    with pytest.raises(
        CheckpointError,
        match=r"last/SHA256SUMS: cannot be read \(No such file.*there is no other that is whole; train anew",
    ):
        train(load_recipe(copy / "config.yaml"), copy, resume=True)


def test_sums_are_those_of_sha256sum(tmp_path):
    (tmp_path / "a b.txt").write_text("abc")
    write_sums(tmp_path)
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert (tmp_path / SUMS).read_text() == f"{known}  a b.txt\n"


def test_all_global_generators_go_on(tmp_path):
    def drawn() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), float(torch.rand(()))]

    drawn()
    torch.save(random_states(), tmp_path / "states.pt")
    following = [drawn() for _ in range(3)]
    drawn()
    restore_random_states(torch.load(tmp_path / "states.pt", weights_only=True))
    assert [drawn() for _ in range(3)] == following
