"""`rlcap features check` says what a file holds, and finds each thing that can be wrong with it."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from rlcap.cli import main
from rlcap.data.annotations import Annotations
from rlcap.data.feature_check import check_features
from rlcap.data.features import EncoderCard, FeatureWriter
from rlcap.data.preparation import prepare
from rlcap.data.records import Record


def write_regions(path: Path) -> None:
    """Two images of one and three regions, all values 2 but for four zeros; padding does not count."""
    values = np.zeros((2, 3, 4), np.float32)
    values[0, :1], values[1] = 2, 2
    values[1, 0] = 0
    boxes = np.tile(np.array([0, 0.25, 0.5, 1], np.float32), (2, 3, 1))
    with FeatureWriter(path, "regions", card=EncoderCard("m:Net", {"k": 1}, 224, "crop", "12ab")) as writer:
        writer.append(["a.jpg", "b.jpg"], values, np.array([1, 3]), boxes)


def test_our_own_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_regions(tmp_path / "x.h5")
    assert main(["features", "check", str(tmp_path / "x.h5")]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "kind:     regions",
        "images:   2, of 1 to 3 regions, shape (3, 4), with boxes",
        "stored:   float16, not packed",
        "values:   0 to 2, mean 1.5, 25.0% zeros",
        "encoder:  m:Net {'k': 1}, 224 pixels (crop), weights 12ab",
        "names:    a.jpg, b.jpg",
    ]


def test_a_foreign_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = np.arange(2, 18, dtype=np.uint8).reshape(2, 4, 2)
        file["names"] = ["a", "b"]
        file["features"].attrs["scale"] = 0.5
    check = check_features(tmp_path / "x.h5")
    lines = list(check.lines())
    assert check.problems == []
    assert "kind:     grid 2x2 (guessed: the file does not say)" in lines
    assert "stored:   uint8 times 0.5, not packed" in lines
    assert "values:   1 to 8.5, mean 4.75, 0.0% zeros" in lines
    assert "encoder:  unknown: captions of new pictures need it (import with --encoder)" in lines


def spoiled(path: Path, what: str) -> None:
    names = ["a", "b", "c", "d"]
    features = np.ones((4, 3, 2), np.float32)
    boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (4, 3, 1))
    counts = np.array([3, 3, 1, 2])
    if what == "nan":
        features[1, 2, 0] = np.nan
    elif what == "infinity":
        features[3, 0, 0] = -np.inf
    elif what == "dark":
        features[2] = 0
    elif what == "twice":
        names[2] = "a"
    elif what == "empty":
        names[1] = ""
    elif what == "counts":
        counts[1:3] = 4, 0
    elif what == "pixels":
        boxes[1] = [0, 0, 20, 20]
    elif what == "turned":
        boxes[3, 0] = [0.5, 0, 0.25, 1]
    with h5py.File(path, "w") as file:
        file["features"], file["names"], file["counts"], file["boxes"] = features, names, counts, boxes


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("nan", "the features of 'b' hold NaN"),
        ("infinity", "the features of 'd' hold infinity"),
        ("twice", "these names come more than once: 'a'"),
        ("empty", "1 images have an empty name"),
        ("counts", "their number of regions is not 1 to 3: 'b', 'c'"),
        ("pixels", "boxes are not left, top, right, bottom as shares of the image: 'b'"),
        ("turned", "boxes are not left, top, right, bottom as shares of the image: 'd'"),
    ],
)
def test_each_problem_is_found(tmp_path: Path, what: str, found: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoiled(tmp_path / "x.h5", what)
    assert main(["features", "check", str(tmp_path / "x.h5")]) == 2
    problems = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem:")]
    assert len(problems) == 1
    assert found in problems[0]


def test_a_sound_file_and_one_with_a_dark_image(tmp_path: Path) -> None:
    spoiled(tmp_path / "x.h5", "nothing")
    assert check_features(tmp_path / "x.h5").problems == []
    spoiled(tmp_path / "y.h5", "dark")
    check = check_features(tmp_path / "y.h5")
    assert (check.problems, check.notes) == ([], ["nothing but zeros: 'c'"])


def test_damaged_chunks_are_listed(tmp_path: Path) -> None:
    with FeatureWriter(tmp_path / "x.h5", "regions") as writer:
        writer.append(["a", "b"], np.eye(40, dtype=np.float32)[None].repeat(2, 0))
    with h5py.File(tmp_path / "x.h5") as file:
        chunk = file["features"].id.get_chunk_info(1)
    with (tmp_path / "x.h5").open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    (problem,) = check_features(tmp_path / "x.h5").problems
    assert problem.startswith("the features of 'b (")
    assert "cannot be read" in problem


def test_a_truncated_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_regions(tmp_path / "x.h5")
    whole = (tmp_path / "x.h5").read_bytes()
    (tmp_path / "x.h5").write_bytes(whole[:-100])
    assert main(["features", "check", str(tmp_path / "x.h5")]) == 2
    error = capsys.readouterr().err
    assert "cannot be opened (truncated file" in error
    assert error.count("\n") == 1


def test_against_a_data_set(tmp_path: Path) -> None:
    records = [Record(f"{split}{k}.jpg", split, ("a dog runs .",)) for split in ("train", "dev") for k in range(8)]
    prepare(Annotations("test", tuple(records)), tmp_path / "data", min_count=1)
    names = [record.image for record in records if record.image != "dev3.jpg"]
    for path, given in (
        ("x", names),
        ("y", [*names, "dev3.jpg", "more.jpg"]),
        ("z", [n[:-4] for n in names]),
    ):
        with FeatureWriter(tmp_path / f"{path}.h5", "global") as writer:
            writer.append(given, np.ones((len(given), 1, 4)))
    assert check_features(tmp_path / "x.h5", tmp_path / "data").problems == [
        "1 of 8 images of 'dev' have none: 'dev3.jpg'"
    ]
    more = check_features(tmp_path / "y.h5", tmp_path / "data")
    assert more.problems == []
    assert f"against:  {tmp_path / 'data'}, all of whose 16 images have features" in more.lines()
    assert more.notes == [f"1 are of no image of {tmp_path / 'data'}: 'more.jpg'"]
    without = check_features(tmp_path / "z.h5", tmp_path / "data")
    assert without.problems[0] == (
        "8 of 8 images of 'train' have none: 'train0.jpg', 'train1.jpg', 'train2.jpg', 'train3.jpg', "
        "'train4.jpg' and 3 more"
    )
    assert any("--names-of" in note for note in without.notes)
