"""`rlcap prepare` from the command line."""

from pathlib import Path

import pytest

from rlcap.cli import main
from rlcap.data.dataset import DataSet

TOKENS = "".join(f"{i}.jpg#{k}\tA dog runs here .\n" for i in range(9) for k in range(2))


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "my captions.token"
    path.write_text(TOKENS)
    return path


def test_check(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(tokens), "--check"]) == 0
    told = capsys.readouterr().out
    for line in (
        "Flickr token file",
        "images:   9",
        "captions: 18",
        "(unnamed) 9",
        "longest caption: 5 words",
    ):
        assert line in told
    tokens.write_text(TOKENS + "nonsense\n")
    assert main(["prepare", str(tokens), "--check"]) == 2
    told = capsys.readouterr().err
    assert f"{tokens}, line 19" in told
    assert "Traceback" not in told


def test_prepare(tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    (tmp_path / "val.txt").write_text("".join(f"{i}.jpg\n" for i in range(2)))
    (tmp_path / "train.txt").write_text("".join(f"{i}.jpg\n" for i in range(2, 9)))
    lists = ["--splits", str(tmp_path / "val.txt"), f"train={tmp_path / 'train.txt'}"]
    assert main(["prepare", str(tokens), "--out", str(out), *lists, "--hold-out", "3", "--min-count", "8"]) == 0
    assert "train: 4 images, 8 captions" in capsys.readouterr().out
    data = DataSet.load(out)
    assert {name: len(rows) for name, rows in data.splits.items()} == {"val": 2, "train": 4, "held-out": 3}
    assert data.vocabulary.min_count == 8


def test_a_data_set_of_another_source_is_not_replaced(tmp_path, tokens, capsys):
    scenes = ["prepare", "scenes", "--out", str(tmp_path / "data"), "--min-count", "1"]
    assert main([*scenes, "--count", "10"]) == 0
    assert main([*scenes, "--count", "12"]) == 0, "the same scenes and more"
    for other in ([*scenes, "--seed", "1"], [*scenes, "--difficulty", "1"], ["prepare", str(tokens), *scenes[2:]]):
        capsys.readouterr()
        assert main(other) == 2
        line = capsys.readouterr().err
        assert "data: holds a data set of made-up scenes (seed 0, difficulty 2), and this would be one of" in line
        assert "dataset.json to have it replaced" in line
    assert len(DataSet.load(tmp_path / "data").records) == 12
    (tmp_path / "data" / "dataset.json").unlink()
    assert main(["prepare", str(tokens), *scenes[2:]]) == 0


def test_out_is_needed(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(tokens)]) == 2
    assert "--out FOLDER" in capsys.readouterr().err
    assert main(["prepare", str(tokens), "--out", str(tokens), "--min-count", "0"]) == 2
    assert main(["prepare", "scenes", "--check"]) == 2


def test_scenes(tmp_path: Path) -> None:
    for seed in "34":
        arguments = ["--out", str(tmp_path / seed), "--count", "40", "--seed", seed, "--min-count", "1"]
        assert main(["prepare", "scenes", *arguments]) == 0
    data = DataSet.load(tmp_path / "3")
    assert data.tokens != DataSet.load(tmp_path / "4").tokens
    assert sum(map(len, data.splits.values())) == 40
    assert (data.path / "scenes.h5").is_file()
    assert data.records[0].objects
