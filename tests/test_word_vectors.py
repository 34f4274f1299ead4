"""Word vectors from text files: which rows of the embedding they fill, and what is said of files that do not fit."""

from pathlib import Path

import pytest
import torch
from torch import nn

from rlcap.building import begin_words
from rlcap.cli import main
from rlcap.config import Component, Experiment, Training
from rlcap.data.dataset import DataSet
from rlcap.errors import ConfigError, DataError
from rlcap.models.seeing import Seeing
from rlcap.models.show_tell import ShowTell
from rlcap.models.small_cnn import SmallCNN
from rlcap.models.soft_attention import SoftAttention
from rlcap.models.transformer import Transformer
from rlcap.models.word_vectors import fill_embedding
from rlcap.recipe import load_recipe
from rlcap.run import load
from rlcap.training import train

GLOVE = """\
the 9 9 9
red 0.5 -1e-1 2
. . . 1 2 3
at name@example.org 1 2 3
ball 1 0 -2
red 7 7 7
"""


@pytest.fixture
def policy(codec, shape) -> ShowTell:
    return ShowTell(codec, shape, hidden=4, embedding=3)


@pytest.fixture
def file(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "vectors.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: f"6 3\n{text}",  # word2vec's header
        lambda text: text.replace("\n", " \r\n"),
        lambda text: text.encode() + b"caf\xe9 1 2 3\n",
        lambda text: text.replace(" ", "\t"),
    ],
    ids=["glove", "word2vec", "spaces at the end", "not all UTF-8", "tabs"],
)
def test_fills_the_rows_of_words_that_it_has(policy, codec, file, change):
    before = policy.embed.weight.detach().clone()
    path = file(change(GLOVE))
    assert fill_embedding(policy, path) == f"{path}: 2 of 6 words found"
    red, ball = codec.encode(["red", "ball"])
    before[red], before[ball] = torch.tensor([0.5, -0.1, 2]), torch.tensor([1.0, 0, -2])
    assert torch.equal(policy.embed.weight, before)
    assert policy.embed.weight.requires_grad


def test_finds_the_embedding_wherever_it_lies(codec, shape, file):
    policy = SoftAttention(codec, shape, hidden=4, embedding=3, attention=4)
    fill_embedding(policy, file("box 1 2 3\n"))
    assert (policy.network.embed.weight[codec.encode(["box"])[0]] == torch.tensor([1, 2, 3])).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the 1 2 3\nred 0.5 x 2\n", ":2: is no word with 3 numbers ('red 0.5 x 2'); give the whole file, unpacked"),
        ("the 1 2 3\nred 0.5 nan 2\n", ":2: is no word with 3 numbers"),
        ("the 1 2 3\nblue 0.5 1", ":2: is no word with 3 numbers"),
        ("the 1 2 3\nof 0.5 1 2 3\n", ":2: is no word with 3 numbers"),
        ("2 3\nthe 1 2\n", ":2: is no word with 3 numbers"),
        ("the\n", ":1: is no word with its numbers"),
        (b"PK\x03\x04\x00\xff\xfe", ":1: is no word with its numbers"),
        ("the 1 2 3\n", ": holds none of the 6 words of the vocabulary; give vectors of the same language, in lower"),
        ("", ": holds none of the 6 words"),
        ("red 1 2\n", ": its vectors are 2 wide, the policy's embedding 3; set policy.embedding=2"),
    ],
)
def test_files_that_do_not_fit_are_told_by_line(policy, file, text, said):
    path = file(text)
    with pytest.raises((DataError, ConfigError)) as error:
        fill_embedding(policy, path)
    assert str(error.value).startswith(f"{path}{said}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("tied", "looking"), [(True, False), (False, True)])
def test_a_transformers_words_are_as_wide_as_itself(codec, shape, file, tied, looking):
    """Its setting has another name, whether the output layer has the same weights or an encoder stands in front."""
    policy = Transformer(codec, shape, width=16, heads=2, inner=8, layers=1, tied=tied)
    with pytest.raises(ConfigError, match=r"are 3 wide, the policy's embedding 16; set policy\.width=3$"):
        fill_embedding(Seeing(policy, SmallCNN()) if looking else policy, file(GLOVE))


def experiment_with(vectors: Path, **training) -> Experiment:
    return Experiment(
        name="tiny",
        policy=Component("show_tell"),
        trainer=Component("cross_entropy"),
        training=Training(updates=1, word_vectors=str(vectors), **training),
    )


def test_a_start_has_words_of_its_own(policy, codec, file, capsys):
    vectors, red = file(GLOVE), codec.encode(["red"])[0]
    before = policy.embed.weight.detach().clone()
    begin_words(experiment_with(vectors, start="runs/other"), policy)
    assert torch.equal(policy.embed.weight, before)
    begin_words(experiment_with(vectors), policy)
    assert policy.embed.weight[red].tolist() == pytest.approx([0.5, -0.1, 2])


@pytest.mark.slow  # two short trainings
def test_a_run_begins_with_them_and_needs_them_no_more(tmp_path, file):
    """At a rate that moves nothing the weights still hold the vector, and the run goes on without the file."""
    scenes = tmp_path / "scenes"
    assert main(["--quiet", "prepare", "scenes", "--out", str(scenes), "--count", "40", "--min-count", "1"]) == 0
    word = DataSet.load(scenes).vocabulary.entries[4]
    vectors = file(f"{word} {' '.join(map(str, range(16)))}\n")
    settings = {
        "encoder": {"name": "small_cnn", "width": 32},
        "policy": {"name": "show_tell", "hidden": 8, "embedding": 16},
        "trainer": {"name": "cross_entropy", "optimiser": {"lr": 1e-12}},
        "data.path": str(scenes),
        "training": {"images": 4, "captions": 1, "updates": 1, "threads": 1, "device": "cpu"},
        "training.word_vectors": str(vectors),
    }
    train(load_recipe("scenes", settings), tmp_path / "run")
    vectors.unlink()
    train(load_recipe("scenes", {**settings, "training.updates": 2}), tmp_path / "run", resume=True)
    policy = load(tmp_path / "run", device="cpu").policy
    assert isinstance(policy, Seeing)
    assert torch.allclose(policy.policy.embed.weight[4], torch.arange(16.0), atol=1e-6)


def test_no_file_and_no_embedding(policy, tmp_path, file):
    with pytest.raises(DataError, match=r"none.txt: cannot be read \(No such file or directory\); name a text file"):
        fill_embedding(policy, tmp_path / "none.txt")
    policy.embed = nn.Sequential(policy.embed)
    with pytest.raises(ConfigError, match=r"has 0 embeddings of words, .* call it self\.embed = nn\.Embedding"):
        fill_embedding(policy, file(GLOVE))
