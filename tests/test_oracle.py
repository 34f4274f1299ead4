"""SeqGAN's oracle: against the equations in plain numpy, against enumeration, and as a data set."""

import itertools

import numpy as np
import pytest
import torch

from rlcap.cli import main
from rlcap.data.dataset import DataSet
from rlcap.errors import DataError
from rlcap.models.oracle import OracleLSTM, drawn_weights, read_weights, save_weights


def by_hand(weights, words):
    """Log-probabilities of one sentence, gate by gate, in float64."""
    embedding, *gates, output, bias = (array.astype(np.float64) for array in weights)
    hidden = cell = np.zeros(embedding.shape[1])
    said, found = 0, []
    for word in words:
        x = embedding[said]
        inward, forget, outward, new = (
            x @ gates[3 * k] + hidden @ gates[3 * k + 1] + gates[3 * k + 2] for k in range(4)
        )
        cell = cell / (1 + np.exp(-forget)) + np.tanh(new) / (1 + np.exp(-inward))
        hidden = np.tanh(cell) / (1 + np.exp(-outward))
        scores = hidden @ output + bias
        found.append(scores[word] - np.log(np.exp(scores).sum()))
        said = word
    return found


def test_the_equations():
    weights = drawn_weights(3, words=7, width=5)
    words = np.random.default_rng(0).integers(7, size=(4, 6))
    found = OracleLSTM(weights).log_prob(torch.from_numpy(words))
    expected = [by_hand(weights, sentence) for sentence in words]
    np.testing.assert_allclose(found, expected, atol=2e-5)  # float32, sums of ten numbers, six words long


def test_what_it_draws_comes_as_often_as_it_says():
    oracle, rows = OracleLSTM(drawn_weights(1, words=3, width=2)), 20000
    sentences = torch.tensor(list(itertools.product(range(3), repeat=3)))
    expected = oracle.log_prob(sentences).sum(1).exp()
    assert float(expected.sum()) == pytest.approx(1, abs=1e-5)
    drawn = oracle.sample(rows, 3, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn @ torch.tensor([9, 3, 1]), minlength=27)
    deviation = (expected * (1 - expected) / rows).sqrt()
    assert ((counts / rows - expected).abs() < 4 * deviation + 1e-4).all()  # 27 of them: 4 deviations are rare
    again = oracle.sample(rows, 3, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


def test_weights_are_the_seeds_own_and_survive_their_file(tmp_path):
    weights = drawn_weights(0)
    assert [array.shape for array in weights[:4]] == [(5000, 32), (32, 32), (32, 32), (32,)]
    assert len(weights) == 15
    np.testing.assert_allclose(weights[0][0, :2], [1.117622, -1.3871249], rtol=1e-6)  # on every machine
    assert abs(np.concatenate([array.ravel() for array in weights]).std() - 1) < 0.01
    save_weights(tmp_path / "oracle.npz", weights)
    for one, other in zip(weights, read_weights(tmp_path / "oracle.npz"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_no_oracle(tmp_path):
    path = tmp_path / "oracle.npz"
    with pytest.raises(DataError, match="there is no such file"):
        read_weights(path)
    path.write_text("nonsense")
    with pytest.raises(DataError, match=r"is no \.npz file"):
        read_weights(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match=r"is no \.npz file"):
        read_weights(path)
    save_weights(path, drawn_weights(0, 9, 4)[:-1])
    with pytest.raises(DataError, match=r"\(9, 4\), .* an oracle has 15"):
        read_weights(path)


def test_its_data_set(tmp_path, capsys):
    weights = tmp_path / "weights.npz"
    save_weights(weights, drawn_weights(5, words=30, width=4))
    sizes = ["--length", "6", "--count", "40", "--hold-out", "10"]

    def prepare(name, *more):
        out = str(tmp_path / name)
        assert main(["--quiet", "prepare", "oracle", "--weights", str(weights), "--out", out, *sizes, *more]) == 0
        return DataSet.load(out)

    data = prepare("one")
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 40, "dev": 10}
    assert data.vocabulary.end is None
    assert data.vocabulary.entries[4:] == tuple(map(str, range(30))), "all ids in order, said or not"
    assert all(len(caption) == 6 for record in data.tokens for caption in record)
    assert data.oracle is not None
    ids = torch.tensor([list(map(int, image[0])) for image in data.tokens])
    score = -OracleLSTM(read_weights(data.oracle)).log_prob(ids).mean()
    assert data.meta["notes"][0] == f"the oracle's score of its own sentences: {score:.3f} nats a word"
    assert prepare("two").tokens == data.tokens
    assert prepare("three", "--seed", "1").tokens != data.tokens

    save_weights(data.oracle, drawn_weights(6, words=30, width=4))
    with pytest.raises(DataError, match=r"oracle\.npz: was damaged or changed"):
        DataSet.load(data.path)
