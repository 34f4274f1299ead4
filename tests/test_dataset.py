"""The prepared folder: what is in it, that it comes back, and that its parts belong together."""

import json
import shutil
from pathlib import Path

import pytest

from rlcap.data.annotations import Annotations
from rlcap.data.dataset import DataSet
from rlcap.data.preparation import prepare
from rlcap.data.readers import read
from rlcap.data.records import Record, SceneObject
from rlcap.data.splits import hold_out
from rlcap.errors import DataError

RECORDS = (
    Record("a.jpg", "train", ("A dog runs.", "The dog\u2028runs!"), image_id=7, file="x/a.jpg"),
    Record("b.jpg", "val", ("A bird flies.",)),
    Record(
        "c.jpg",
        "train",
        ("...", "A red ball."),
        objects=(SceneObject("ball", (0.0, 0.5, 0.25, 1.0)),),
        mentions=((), ((1, 0), (2, 0))),
    ),
    Record("d.jpg", "train", ("...", "!")),
)
ANNOTATIONS = Annotations("test", RECORDS, ("a remark",))


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return prepare(ANNOTATIONS, tmp_path / "data", min_count=1)


def test_what_is_prepared(data: DataSet) -> None:
    assert [record.image for record in data.records] == ["a.jpg", "b.jpg", "c.jpg"]
    assert data.records[0] == RECORDS[0]
    assert data.records[2].captions == ("A red ball.",)
    assert data.records[2].mentions == (((1, 0), (2, 0)),)
    assert data.tokens[0] == [["a", "dog", "runs"], ["the", "dog", "runs"]]
    assert data.splits == {"train": [0, 2], "val": [1]}
    assert data.vocabulary.entries[4:] == (
        "a",
        "dog",
        "runs",
        "ball",
        "red",
        "the",
    )  # of the training split alone
    assert data.frequencies.images == 2
    assert data.frequencies.count(("dog", "runs", "<end>")) == 1
    assert data.meta["notes"] == [
        "a remark",
        "captions without a word, dropped: 3",
        "images left without captions, dropped: 1",
    ]
    again = DataSet.load(data.path)
    assert (again.records, again.tokens, again.meta) == (data.records, data.tokens, data.meta)
    assert again.vocabulary.entries == data.vocabulary.entries


def test_split(data: DataSet) -> None:
    train = data.split("train")
    assert (train.name, train.images, len(train)) == ("train", ["a.jpg", "c.jpg"], 2)
    assert train.tokens == [data.tokens[0], data.tokens[2]]
    assert train.records == [data.records[0], data.records[2]]
    with pytest.raises(DataError, match=r"no split 'vale' \(did you mean 'val'\?\)"):
        data.split("vale")


def test_captions_can_be_prepared_again(data: DataSet) -> None:
    assert read(data.path / "captions.jsonl").records == tuple(data.records)


def test_one_unnamed_split_is_for_training(tmp_path: Path) -> None:
    unnamed = Annotations("test", (Record("a", None, ("A dog",)), Record("b", None, ("A cat",))))
    data = prepare(unnamed, tmp_path / "data", min_count=1)
    assert data.splits == {"train": [0, 1]}
    assert "name no splits" in data.meta["notes"][0]


def test_training_needs_a_split_and_words(tmp_path: Path) -> None:
    out = tmp_path / "data"
    with pytest.raises(DataError, match=r"no split 'trian' \(did you mean 'train'\?\).*--train-split"):
        prepare(ANNOTATIONS, out, train_split="trian")
    with pytest.raises(DataError, match="no word occurs 100 times"):
        prepare(ANNOTATIONS, out, min_count=100)
    with pytest.raises(DataError, match="holds a word"):
        prepare(Annotations("test", RECORDS[3:]), out)
    bad = Record("a", "train", ("A dog",), objects=RECORDS[2].objects, mentions=(((2, 0),),))
    with pytest.raises(DataError, match=r"image a, mentions\[0\]: word 2 of a caption of 2 words"):
        prepare(Annotations("test", (bad,)), out)
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_hold_out_depends_on_seed_and_names_alone(tmp_path: Path) -> None:
    records = [Record(f"{i}.jpg", "train" if i else "val", ("A dog",)) for i in range(50)]

    def held(some: list[Record], seed: int = 0) -> set[str]:
        return {r.image for r in hold_out(some, "train", 10, "select", seed) if r.split == "select"}

    assert len(held(records)) == 10
    assert held(records) == held(records[::-1])
    assert held(records) != held(records, seed=1)
    assert "0.jpg" not in held(records)
    # a training image fewer changes one held image at most
    assert len(held(records) - held([r for r in records if r.image != "9.jpg"])) <= 1
    data = prepare(Annotations("test", tuple(records)), tmp_path / "data", min_count=1, hold_out=10)
    assert {name: len(rows) for name, rows in data.splits.items()} == {"val": 1, "train": 39, "held-out": 10}
    assert data.frequencies.images == 39
    with pytest.raises(DataError, match="between 1 and 48"):
        hold_out(records, "train", 49, "select", 0)
    with pytest.raises(DataError, match="'val' exists already"):
        hold_out(records, "train", 9, "val", 0)


def test_features_stay_and_other_folders_are_left_alone(tmp_path: Path, data: DataSet) -> None:
    (data.path / "features.h5").write_bytes(b"features")
    prepare(ANNOTATIONS, data.path, min_count=2)
    assert (data.path / "features.h5").read_bytes() == b"features"
    assert DataSet.load(data.path).vocabulary.min_count == 2
    (data.path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"holds thesis\.txt"):
        prepare(ANNOTATIONS, data.path)
    assert (data.path / "thesis.txt").exists()
    with pytest.raises(DataError, match="is a file"):
        prepare(ANNOTATIONS, data.path / "thesis.txt")


def test_parts_of_different_data_sets_are_told_apart(tmp_path: Path, data: DataSet) -> None:
    other = prepare(Annotations("test", RECORDS[:2]), tmp_path / "other", min_count=1)
    for name, complaint in (
        ("vocabulary.json", "vocabulary.json: belongs to another data set"),
        ("frequencies.npz", "the document frequencies belong to another"),
        ("captions.jsonl", "captions.jsonl: was damaged or changed"),
    ):
        mixed = tmp_path / name.replace(".", "_")
        shutil.copytree(data.path, mixed)
        shutil.copy(other.path / name, mixed / name)
        with pytest.raises(DataError, match=complaint):
            DataSet.load(mixed)


def test_damaged_folders(tmp_path: Path, data: DataSet) -> None:
    with pytest.raises(DataError, match="there is no such data set folder"):
        DataSet.load(tmp_path / "none")
    with pytest.raises(DataError, match=r"is no data set \(it has no dataset.json\)"):
        DataSet.load(tmp_path)
    captions = data.path / "captions.jsonl"
    captions.write_bytes(captions.read_bytes()[:-5])
    with pytest.raises(DataError, match="was damaged"):
        DataSet.load(data.path)
    captions.unlink()
    with pytest.raises(DataError, match=r"captions\.jsonl: cannot be read"):
        DataSet.load(data.path)
    meta = data.path / "dataset.json"
    for text, complaint in (
        (meta.read_text()[:30], "cannot be read"),
        (json.dumps({**data.meta, "format": "rlcap data set 0"}), "not of this version"),
        (json.dumps({**data.meta, "fingerprints": {}}), "lacks its fingerprints"),
    ):
        meta.write_text(text)
        with pytest.raises(DataError, match=complaint):
            DataSet.load(data.path)
