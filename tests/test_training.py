"""The outer loop on a handful of scenes: what a run leaves behind, and that it goes on where it stopped."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rlcap
from rlcap.cli import main
from rlcap.errors import CheckpointError, ConfigError, DataError
from rlcap.recipe import load_recipe
from rlcap.training import train

SMALL = {
    "encoder.width": 32,
    "policy.hidden": 24,
    "policy.embedding": 16,
    "policy.attention": 16,
    "trainer.optimiser.warmup": 0,
    "training.images": 8,
    "training.captions": 2,
    "training.updates": 8,
    "training.evaluate_every": "4 updates",
    "training.log_every": 2,
    "training.threads": 1,
    "training.device": "cpu",
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    assert main(["--quiet", "prepare", "scenes", "--out", str(folder), "--count", "80", "--min-count", "2"]) == 0
    return folder


@pytest.fixture(scope="module")
def recipe(scenes):
    def make(**changes):
        return load_recipe("scenes", {**SMALL, "data.path": str(scenes), **changes})

    return make


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory) -> Path:
    return train(recipe(), tmp_path_factory.mktemp("runs") / "whole")


def weights(run: Path, which: str = "last") -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / which / "weights.safetensors")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_leaves_all_that_it_promises(run, recipe):
    assert load_recipe(run / "config.yaml") == recipe()
    assert json.loads((run / "environment.json").read_text())["torch"] == torch.__version__.split("+")[0]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines if "loss/cross_entropy" in line] == [2, 4, 6, 8]
    assert [line["update"] for line in lines if "eval/val/cider_d" in line] == [4, 8]
    losses = [line["loss/cross_entropy"] for line in lines if "loss/cross_entropy" in line]
    assert losses[-1] < losses[0] < 5.0, "log(V) is about 4.2"
    captions = json.loads((run / "captions" / "val_0000008.json").read_text())
    assert len(captions) == 8
    assert set(captions[0]) == {"image_id", "caption"}
    assert list(run.glob("events.out.tfevents*"))


def test_stopped_and_resumed_ends_bit_identical(run, recipe, tmp_path, monkeypatch):
    from rlcap.agents.cross_entropy import CrossEntropy

    plain, count = CrossEntropy.update, 0

    def interrupted(self, batch):
        nonlocal count
        count += 1
        if count == 6:  # in the middle of an epoch, between two evaluations: the loop ends after this update
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, batch)

    monkeypatch.setattr(CrossEntropy, "update", interrupted)
    with pytest.raises(KeyboardInterrupt, match="SIGTERM after update 6"):
        train(recipe(), tmp_path / "cut")
    monkeypatch.undo()
    train(recipe(), tmp_path / "cut", resume=True)
    assert equal(weights(tmp_path / "cut"), weights(run))
    lines = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines if "loss/cross_entropy" in line] == [2, 4, 6, 8]


def test_another_seed_is_another_run(run, recipe, tmp_path):
    other = train(recipe(**{"training.seed": 2}), tmp_path / "other")
    assert not equal(weights(other), weights(run))


def test_early_stopping_waits_for_its_patience(recipe, tmp_path):
    changes = {"training.evaluate_every": "1 update", "training.patience": 2, "trainer.optimiser.lr": 1e-9}
    stopped = train(recipe(**changes), tmp_path / "run")
    lines = [json.loads(line) for line in (stopped / "metrics.jsonl").read_text().splitlines()]
    updates = [line["update"] for line in lines if "eval/val/cider_d" in line]
    assert updates == [1, 2, 3], "a rate of 1e-9 changes no caption: the first stays the best"
    train(recipe(**changes), stopped, resume=True)
    assert len((stopped / "metrics.jsonl").read_text().splitlines()) == len(lines), "its patience is still at an end"
    assert json.loads((stopped / "checkpoints" / "best" / "meta.json").read_text())["update"] == 1


def test_label_smoothing_and_blindness_change_training(run, recipe, tmp_path):
    for number, change in enumerate(({"trainer.label_smoothing": 0.1}, {"data.blind": True})):
        assert not equal(weights(train(recipe(**change), tmp_path / str(number))), weights(run))


def test_load_caption_evaluate_export(run, scenes, tmp_path):
    from rlcap.data.dataset import DataSet
    from rlcap.data.scenes import write_images

    loaded = rlcap.load(run, device="cpu")
    best = load_file(run / "checkpoints" / "best" / "weights.safetensors")
    mine = {f"policy.{key}": value for key, value in loaded.policy.state_dict().items()}
    assert equal(mine, best)
    result, looks = loaded.evaluate("test")
    assert result.corpus.keys() >= {"bleu_4", "rouge_l", "cider_d", "cider_d_training"}
    assert looks is not None
    assert looks.pointing.words >= 100
    assert 0 < looks.moved < 1
    files = write_images(tmp_path / "pictures", DataSet.load(scenes).split("test").records, 3)
    captions = [loaded.caption(file)[0] for file in files]
    assert captions == result.captions[:3], "from a PNG as from the data set"
    assert captions[0] in loaded.caption(files[0], n_best=3, beam=3) or len(loaded.caption(files[0], n_best=3)) == 3

    exported = rlcap.load(loaded.export(tmp_path / "captioner"), device="cpu")
    assert [exported.caption(file)[0] for file in files] == captions
    with pytest.raises(ConfigError, match="not empty"):
        loaded.export(tmp_path / "captioner")


def test_an_ensemble_of_a_run_with_itself_says_the_same(run):
    loaded = rlcap.load(run, device="cpu")
    alone, _ = loaded.evaluate("test")
    together, _ = loaded.evaluate("test", with_others=[rlcap.load(run, device="cpu")])
    assert together.captions == alone.captions


def test_the_command_line_from_training_to_a_picture(recipe, scenes, tmp_path, capsys):
    from PIL import Image

    from rlcap.data.dataset import DataSet
    from rlcap.data.scenes import write_images

    overrides = [f"{key}={value}" for key, value in {**SMALL, "data.path": scenes, "training.updates": 2}.items()]
    folder = tmp_path / "a run"
    assert main(["train", "scenes", *overrides, "--out", str(folder)]) == 0
    assert main(["evaluate", str(folder), "--split", "test", "--json", "--beam", "2"]) == 0
    printed = capsys.readouterr().out.strip().splitlines()[-1]
    scores = json.loads((folder / "captions" / "test_beam2_scores.json").read_text())
    assert json.loads(printed) == scores["corpus"]
    (file,) = write_images(tmp_path, DataSet.load(scenes).split("test").records, 1)
    assert main(["caption", str(folder), str(file), "--json", "--attention", str(tmp_path / "out.png")]) == 0
    assert json.loads(capsys.readouterr().out)["image"] == str(file)
    assert Image.open(tmp_path / "out.png").size[0] > 200
    assert main(["train", "scenes", *overrides, "--out", str(folder)]) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_what_does_not_belong_together_is_refused(run, recipe, scenes, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        train(recipe(), tmp_path / "none", resume=True)
    with pytest.raises(ConfigError, match="holds pixels: name an encoder"):
        train(recipe(encoder=None), tmp_path / "no encoder")
    with pytest.raises(DataError, match="'vall'") as error:
        train(recipe(**{"data.evaluate": "vall"}), tmp_path / "no split")
    assert "val" in str(error.value)
    with pytest.raises(DataError, match=r"nowhere: holds none of the 8 pictures of split val"):
        train(recipe(**{"data.pictures": "nowhere"}), tmp_path / "no pictures")
    assert not (tmp_path / "no pictures").exists()
    other = tmp_path / "other scenes"
    main(["--quiet", "prepare", "scenes", "--out", str(other), "--count", "40", "--min-count", "3"])
    loaded = rlcap.load(run, device="cpu")
    with pytest.raises(CheckpointError, match="was trained with vocabulary"):
        loaded.evaluate(data=str(other))
    assert not (tmp_path / "no split").exists()


def test_weights_of_another_model_or_of_none_are_refused(run, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    for name in ("vocabulary.json", "features.json", "config.yaml"):
        (folder / name).write_bytes((run / name).read_bytes())
    with pytest.raises(CheckpointError, match="has no checkpoint 'best' yet"):
        rlcap.load(folder, device="cpu")
    (folder / "weights.safetensors").write_bytes(b"PK nothing")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        rlcap.load(folder, device="cpu")
    (folder / "weights.safetensors").write_bytes((run / "checkpoints/best/weights.safetensors").read_bytes())
    text = (run / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("hidden: 24", "hidden: 25"))
    with pytest.raises(CheckpointError, match=r"another model: policy\."):
        rlcap.load(folder, device="cpu")


def test_with_features_an_evaluation_shows_the_pictures_of_a_folder(recipe, scenes, tmp_path):
    from rlcap.data.dataset import DataSet
    from rlcap.data.features import FeatureWriter
    from rlcap.data.scenes import write_images

    records = DataSet.load(scenes).records
    with FeatureWriter(tmp_path / "grid.h5", "grid", grid=(2, 2)) as writer:
        writer.append([record.image for record in records], torch.randn(len(records), 4, 8).numpy())
    write_images(tmp_path / "pictures", [record for record in records if record.split == "val"], 4)
    where = {"data.features": str(tmp_path / "grid.h5"), "data.pictures": str(tmp_path / "pictures")}
    policy = {"name": "soft_attention", "hidden": 24, "embedding": 16, "attention": 16}
    small = {**where, "encoder": None, "policy": policy, "training.updates": 1}
    plain = {key: value for key, value in SMALL.items() if not key.startswith(("encoder", "policy"))}
    run = train(load_recipe("scenes", {**plain, "data.path": str(scenes), **small}), tmp_path / "run")
    board = EventAccumulator(str(run)).Reload()
    assert [tag for tag in board.Tags()["images"] if tag.startswith("samples/")] == [
        f"samples/val/{number}" for number in (1, 2, 3, 4)
    ]


def test_help_needs_no_torch():
    code = "import sys, rlcap; assert rlcap.__version__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_train_from_python(scenes, tmp_path):
    overrides = {key.replace(".", "__"): value for key, value in {**SMALL, "training.updates": 1}.items()}
    run = rlcap.train("scenes", tmp_path / "run", data__path=str(scenes), **overrides)
    assert run.experiment.training.updates == 1
    with pytest.raises(DataError, match="is no picture"):
        run.caption(3.0)
