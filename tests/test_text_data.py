"""Text without images as a data set: sentences as they are, no features, and no end token where none is needed."""

import json
import pickle

import numpy as np
import pytest
import torch

from rlcap.building import make_policy
from rlcap.cli import main
from rlcap.config import Component, Experiment, Training
from rlcap.contracts import Candidates, FeatureShape
from rlcap.data.batches import Captioned, Plan, encode_captions, training_batches
from rlcap.data.dataset import DataSet
from rlcap.data.no_features import NoFeatures
from rlcap.data.sight import Sight
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import CheckpointError, ConfigError, DataError
from rlcap.metrics.packed_words import said_words

LINES = "A dog 's ball .\n\n a  dog runs\na Dog\n"


def prepared(tmp_path, train=LINES, dev="a cat runs .\n", *more) -> DataSet:
    (tmp_path / "some.txt").write_text(train)
    (tmp_path / "others.txt").write_text(dev)
    files = [str(tmp_path / "some.txt"), "--dev", str(tmp_path / "others.txt")]
    out = tmp_path / "data"
    assert main(["--quiet", "prepare", "text", *files, "--out", str(out), "--min-count", "1", *more]) == 0
    return DataSet.load(out)


def test_each_line_is_a_record_with_its_words_as_they_are(tmp_path, capsys):
    data = prepared(tmp_path)
    train = data.split("train")
    assert train.images == ["train:1", "train:3", "train:4"], "the lines of the file"
    assert train.tokens == [[["A", "dog", "'s", "ball", "."]], [["a", "dog", "runs"]], [["a", "Dog"]]]
    assert data.split("dev").tokens == [[["a", "cat", "runs", "."]]]
    assert set(data.vocabulary.entries[4:]) == {"A", "dog", "'s", "ball", ".", "a", "runs", "Dog"}, "of train alone"
    assert data.vocabulary.tokeniser == "blanks-1"
    assert data.vocabulary.end == 2
    assert not data.has_images
    assert data.oracle is None
    assert data.meta["notes"] == ["blank lines of 'train', left out: 1"]
    assert data.frequencies.count(("dog",)) == 2
    assert "train: 3 sentences\ndev: 1 sentences\n" in capsys.readouterr().out
    assert prepared(tmp_path).vocabulary.fingerprint == data.vocabulary.fingerprint, "preparing again is fine"


def test_sentences_of_one_length_have_no_end(tmp_path):
    data = prepared(tmp_path, "1 2 3\n3 2 1\n2 2 2\n", "1 1 1\n")
    words = data.vocabulary
    assert words.end is None
    assert words.banned == (0, 1, 2, 3), "the end token too: nobody may say it"
    captions = encode_captions(data.split("train").tokens, words, 3)
    assert captions == [[words.encode(line.split())] for line in ("1 2 3", "3 2 1", "2 2 2")]
    plan = Plan(captions, 3, 1, 0)
    batch = next(training_batches(Captioned(NoFeatures(data.path), np.arange(3), captions, words), plan))
    assert batch.words.shape == (3, 1, 3)
    assert batch.mask.all()
    assert (batch.words >= 4).all()
    assert batch.features.values.shape == (3, 0, 0)
    assert batch.features.mask.shape == (3, 0)
    assert prepared(tmp_path, "1 2 3\n3 2 1\n", "1 1\n").vocabulary.end == 2, "the other split counts"


def test_a_vocabulary_without_an_end_is_another_one(tmp_path):
    with_end, without = Vocabulary(["a", "b"], min_count=2), Vocabulary(["a", "b"], min_count=2, ends=False)
    assert with_end.fingerprint == "c62b0fb288c3e5ef", "as files and runs of earlier versions have it"
    assert without.fingerprint != with_end.fingerprint
    for vocabulary in (with_end, without):
        vocabulary.save(tmp_path / "vocabulary.json")
        again = Vocabulary.load(tmp_path / "vocabulary.json")
        assert (again.fingerprint, again.end, again.banned) == (
            vocabulary.fingerprint,
            vocabulary.end,
            vocabulary.banned,
        )
    state = json.loads((tmp_path / "vocabulary.json").read_text())
    with_end.save(tmp_path / "vocabulary.json")
    assert state.keys() - json.loads((tmp_path / "vocabulary.json").read_text()).keys() == {"ends"}
    (tmp_path / "vocabulary.json").write_text(json.dumps({**state, "ends": True}))
    with pytest.raises(DataError, match="was changed"):
        Vocabulary.load(tmp_path / "vocabulary.json")
    assert without.words([4, 5, 4, 0]) == ["a", "b", "a"]


def test_features_of_text_are_rows_without_regions(tmp_path):
    store = pickle.loads(pickle.dumps(NoFeatures(tmp_path)))  # as workers get it
    assert store.rows(["train:1", "train:3"]).tolist() == [0, 1]
    assert store.read(np.array([5, 7, 7])).images == 3
    assert store.shape == FeatureShape(0, 0)
    Sight.of(store).save(tmp_path)
    sight = Sight.load(tmp_path)
    sight.check(store, tmp_path)
    images = Sight("grid", FeatureShape(4, 8, (2, 2)), None)
    with pytest.raises(CheckpointError, match=r"holds text without images; .* was trained on grid 2x2 of width 8"):
        images.check(store, tmp_path)


@pytest.mark.parametrize(
    "name", ["show_tell", "soft_attention", "hard_attention", "bottom_up_top_down", "sca_cnn", "transformer"]
)
@pytest.mark.filterwarnings("error")
def test_a_policy_that_looks_at_images_refuses_text(name):
    component = Component(name)
    experiment = Experiment(name="test", policy=component, trainer=component, training=Training(updates=1))
    with pytest.raises(ConfigError, match=f"policy {name}: looks at images .*, and text has none; name a policy"):
        make_policy(experiment, Vocabulary(["a"], ends=False), FeatureShape(0, 0))


def test_what_cannot_be_prepared(tmp_path, capsys):
    (tmp_path / "some.txt").write_text("a b\n")
    (tmp_path / "empty.txt").write_text("\n")
    some, out = str(tmp_path / "some.txt"), ["--out", str(tmp_path / "data")]
    for arguments, said in (
        (["text", *out], "takes one file to train on, not 0"),
        (["text", some, some, *out], "takes one file to train on, not 2"),
        (["text", some + "x", *out], "some.txtx: there is no such file"),
        (["text", str(tmp_path / "empty.txt"), *out], "empty.txt: is empty"),
        (["text", some, *out], "no word occurs 5 times in 'train'; choose a smaller --min-count"),
        (["text", some, "--check"], "--check is for annotations"),
    ):
        assert main(["--quiet", "prepare", *arguments]) == 2
        told = capsys.readouterr().err
        assert said in told
        assert len(told.splitlines()) == 1


def test_rewards_over_sentences_without_an_end():
    """Every word counts, the last one too."""
    words = torch.tensor([[[4, 5, 2]]])
    candidates = Candidates(words, torch.tensor([[3]]), torch.tensor([0]), 1)
    assert said_words(candidates, None).tolist() == words.tolist()
    assert said_words(candidates, 2)[0, 0, 2] != 2
