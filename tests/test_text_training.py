"""Text without images through the one loop: a language model learns an oracle's sentences, and lines of text."""

import json

import pytest
import torch
from torch import Tensor, nn

import rlcap
from rlcap.cli import main
from rlcap.config import Decoding
from rlcap.contracts import Codec, Features, FeatureShape, Memory, Policy, State, Step
from rlcap.data.dataset import DataSet
from rlcap.data.no_features import NoFeatures
from rlcap.data.text import write_sentences
from rlcap.errors import CheckpointError, ConfigError
from rlcap.metrics.text_bleu import text_bleu, text_self_bleu
from rlcap.models.oracle import OracleLSTM, drawn_weights, read_weights, save_weights
from rlcap.observer import Observer
from rlcap.recipe import load_recipe
from rlcap.text_evaluation import evaluate_text, held_out_nll
from rlcap.training import train

WORDS, LENGTH = 12, 5


class LanguageModel(Policy):
    """A GRU over words, and nothing to see."""

    def __init__(self, codec: Codec, shape: FeatureShape, *, hidden: int = 24) -> None:
        super().__init__()
        self.codec = codec
        self.embed, self.cell = nn.Embedding(codec.size, hidden), nn.GRUCell(hidden, hidden)
        self.output = nn.Linear(hidden, codec.size)

    def remember(self, features: Features) -> Memory:
        return features.values

    def start(self, memory: Memory, n: int, length: int) -> State:
        return self.output.weight.new_zeros(len(memory) * n, self.cell.hidden_size)

    def step(self, words: Tensor, state: State, memory: Memory, *, uniforms=None, choices=None, want=()) -> Step:
        state = self.cell(self.embed(words), state)
        return Step(self.output(state), state)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """The data set of a small oracle: 300 sentences of five words."""
    folder = tmp_path_factory.mktemp("data")
    save_weights(folder / "weights.npz", drawn_weights(1, words=WORDS, width=4))
    sizes = ["--count", "300", "--hold-out", "60", "--length", str(LENGTH)]
    arguments = ["--weights", str(folder / "weights.npz"), "--out", str(folder / "oracle"), *sizes]
    assert main(["--quiet", "prepare", "oracle", *arguments]) == 0
    return DataSet.load(folder / "oracle")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "text"
    folder.mkdir()
    lines = [line.split() for line in ("a dog runs .", "a cat sleeps .", "the dog sleeps here .", "a dog")]
    write_sentences(folder, {"train": lines * 3, "dev": lines[1:]}, source="test")
    return DataSet.load(folder)


def recipe(data, folder, **changes):
    values = {
        "name": "text",
        "data": {"path": str(data.path), "evaluate": "dev", "max_words": LENGTH},
        "policy": f"{__name__}:LanguageModel",
        "trainer": {"name": "cross_entropy", "optimiser": {"lr": 0.02}},
        "training": {
            "updates": 60,
            "images": 20,
            "captions": 1,
            "metric": "nll" if data.oracle is None else "oracle_nll",
            "evaluate_every": "30 updates",
            "threads": 1,
            "device": "cpu",
        },
        "decoding": {"length": LENGTH, "sample": True},
    }
    (folder / "recipe.yaml").write_text(json.dumps(values))
    return load_recipe(folder / "recipe.yaml", changes)


@pytest.fixture(scope="module")
def run(oracle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return train(recipe(oracle, folder), folder / "run")


def evaluations(run) -> list[dict[str, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if any(key.startswith("eval/") for key in line)]


def test_a_language_model_learns_the_oracle(run, oracle):
    first, last = evaluations(run)
    assert last["eval/dev/nll"] < first["eval/dev/nll"] < torch.tensor(float(WORDS)).log()
    assert last["eval/dev/oracle_nll"] < first["eval/dev/oracle_nll"]
    best = rlcap.load(run, device="cpu", checkpoint="best")
    weights = [json.loads((run / "checkpoints" / which / "meta.json").read_text()) for which in ("best", "last")]
    assert [meta["update"] for meta in weights] == [60, 60], "lower is better"
    result, looks = best.evaluate("dev")
    assert looks is None
    assert result.corpus["oracle_nll"] == pytest.approx(last["eval/dev/oracle_nll"], abs=1e-5)
    judge = OracleLSTM(read_weights(oracle.oracle))
    said = torch.tensor([list(map(int, sentence.split())) for sentence in result.captions])
    assert said.shape == (60, LENGTH)
    assert result.corpus["oracle_nll"] == pytest.approx(-float(judge.log_prob(said).mean()), abs=1e-5)
    cold = best.evaluate("dev", temperature=0.3)[0].corpus
    assert cold["entropy"] < result.corpus["entropy"] - 0.3
    assert cold["self_bleu_2"] > result.corpus["self_bleu_2"]
    assert cold["nll"] == pytest.approx(result.corpus["nll"]), "of the policy itself, however it draws"
    assert not (run / "warnings.txt").exists()


@torch.no_grad()
def test_the_policys_own_likelihood(run, oracle):
    """Word by word through `step`, one sentence at a time."""
    policy, split, total = rlcap.load(run, device="cpu").policy, oracle.split("dev"), 0.0
    for tokens in split.tokens[:7]:
        state, said = policy.start(torch.zeros(1, 0, 0), 1, LENGTH), torch.tensor([policy.codec.start])
        for word in policy.codec.encode(tokens[0]):
            step = policy.step(said, state, None)
            total -= float(step.logits.double().log_softmax(-1)[0, word])
            state, said = step.state, torch.tensor([word])
    few = type(split)("dev", split.records[:7], split.tokens[:7])
    found = held_out_nll(policy, NoFeatures(oracle.path), few, torch.device("cpu"), LENGTH)
    assert found == pytest.approx(total / (7 * LENGTH), abs=1e-5)  # float32


def test_lines_of_different_lengths(text, tmp_path):
    """They end, so an end token is learned and counts; BLEU stands in for the oracle."""
    run = rlcap.load(train(recipe(text, tmp_path, **{"training.updates": 90}), tmp_path / "run"), device="cpu")
    result = run.evaluate("dev")[0]
    assert result.corpus["nll"] < 0.8, "four lines, of which one word in three is open"
    sentences = [caption.split() for caption in result.captions]
    lines = [image[0] for image in text.split("dev").tokens]
    assert len(sentences) == 3
    for k, n in enumerate((2, 3, 4, 5)):
        assert result.corpus[f"bleu_{n}"] == pytest.approx(text_bleu(sentences, lines)[:, k].mean())
        assert result.corpus[f"self_bleu_{n}"] == pytest.approx(text_self_bleu(sentences)[:, k].mean())
    assert "oracle_nll" not in result.corpus
    assert "BLEU-4 against all lines of the split" in result.table()
    features, device = NoFeatures(text.path), torch.device("cpu")
    short = evaluate_text(run.policy, features, text.split("dev"), text, Decoding(length=2, sample=True), 5, device)
    assert short.health["bad_ending"] > 0.6, "cut"
    assert short.health["length"] <= 2


def test_evaluate_on_the_command_line(run, capsys):
    assert main(["evaluate", str(run), "--split", "dev", "--sample", "--temperature", "0.8", "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "on dev (60 sentences), x100" in told
    assert "nats a word under the oracle" in told
    scores = json.loads((run / "captions" / "dev_temperature0.8_sampleTrue_scores.json").read_text())
    assert len(scores["per_image"]["oracle_nll"]) == 60
    for arguments, said in (
        (["evaluate", str(run), "--metrics", "meteor"], "is text; these judge captions of images"),
        (["evaluate", str(run), "--features", "some.h5"], "data.features=some.h5: "),
        (["evaluate", str(run), "--sheet", "sheet.png"], "is text, without images"),
        (["evaluate", str(run), "--length", "9"], "decoding.length=9: all sentences of 'dev' have 5 words"),
    ):
        assert main(arguments) == 2
        told = capsys.readouterr().err
        assert said in told
        assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"decoding.sample": False}, "set decoding.sample=true"),
        ({"decoding.length": 4}, "all sentences of 'train' have 5 words and no end; set decoding.length=5"),
        ({"data.max_words": 4}, "would cut the sentences of 'train', which all have 5 words; set data.max_words=5"),
        ({"training.captions": 5}, "set training.captions=1"),
        ({"training.metric": "bleu_2"}, "training.metric=bleu_2: no such metric"),
        ({"data.features": "some.h5"}, "data.features=some.h5: .* is text, without images; leave it out"),
        ({"encoder": "small_cnn"}, "encoder 'small_cnn': .* is text, without images; set encoder=null"),
    ],
)
def test_a_recipe_that_does_not_fit_text(oracle, tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        train(recipe(oracle, tmp_path, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_text_does_not_caption_pictures(run):
    with pytest.raises(ConfigError, match="writes text without images"):
        rlcap.load(run, device="cpu").caption(torch.zeros(3, 8, 8).numpy())


def test_another_data_set_is_refused(run, text):
    with pytest.raises(CheckpointError, match="was trained with vocabulary"):
        rlcap.load(run, device="cpu").evaluate("dev", data=str(text.path))


def test_the_observer_knows_that_lower_is_better():
    def told(metric, values):
        observer = Observer(metric)
        found = [observer.observe(k, {f"eval/dev/{metric}": value}) for k, value in enumerate(values)]
        return [symptom.text for some in found for symptom in some]

    assert told("nll", [5.0, 4.0, 3.0, 3.1, 3.0]) == []
    fallen, *more = told("nll", [5.0, 4.0, 3.0, 4.0, 4.1])
    assert "nll on dev has risen far above its best (4.100, 3.000 at update 2)" in fallen
    assert more == []
    (below,) = told("nll", [5.0, 5.2, 5.2, 5.2])
    assert "nll on dev has been above its start for 3 evaluations" in below
