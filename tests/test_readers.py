"""Every annotation format, what is read from it, and what is said of files that are not sound."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcap.data.annotations import survey
from rlcap.data.preparation import json_line
from rlcap.data.readers import read
from rlcap.data.records import Record, SceneObject
from rlcap.errors import DataError, RlcapError

KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filepath": "val2014",
            "filename": f"COCO_val2014_{number:012d}.jpg",
            "imgid": number,
            "cocoid": 100 + number,
            "split": split,
            "sentences": [{"raw": "A dog runs.", "tokens": []}, {"raw": "A brown dog. ", "tokens": []}],
        }
        for number, split in enumerate(["test", "restval", "train"])
    ],
}
LAST = "COCO_val2014_000000000002.jpg"
COCO = {
    "images": [{"id": 7, "file_name": "000000000007.jpg"}, {"id": 9, "file_name": "000000000009.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 9, "caption": "A cat sleeps.\n"},
        {"id": 2, "image_id": 7, "caption": "Two birds"},
        {"id": 3, "image_id": 9, "caption": "One cat"},
    ],
}
TOKENS = "a_1.jpg#0\tA dog .\na_1.jpg#1\tThe dog runs\nb_2.jpg#0\tA cat\n"
PIPED = 'image_name| comment_number| comment\n1.jpg| 0| A dog | cat\n1.jpg| 1|  He said "hi"\n2.jpg| 0| A cat\n'
CSV = 'image,caption\na.jpg,"A dog, running"\nb.jpg,A cat\na.jpg,Another dog\n'
LINES = (
    '{"image": "a.jpg", "split": "train", "captions": ["A dog"], "image_id": 4, "file": "x/a.jpg"}\n'
    '{"image": "b.jpg", "split": "val", "captions": ["A red ball"], '
    '"objects": [{"name": "ball", "box": [0, 0.5, 0.25, 1]}], "mentions": [[[1, 0], [2, 0]]]}\n'
)
FORMS = {"karpathy": json.dumps(KARPATHY), "coco": json.dumps(COCO), "tokens": TOKENS}
FORMS |= {"piped": PIPED, "csv": CSV, "lines": LINES}


def written(folder: Path, text: str | bytes, name: str = "annotations") -> Path:
    path = folder / name
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    return path


def refused(path: Path, *words: str, **arguments: object) -> None:
    """`read` raises one line that names the file and holds all `words`."""
    with pytest.raises(DataError) as caught:
        read(path, **arguments)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


def test_karpathy(tmp_path: Path) -> None:
    annotations = read(written(tmp_path, json.dumps(KARPATHY)))
    assert annotations.format == "Karpathy's dataset JSON (coco)"
    assert annotations.splits == {"test": 1, "train": 2}
    assert annotations.notes == ("'restval' joined 'train': 1 images",)
    assert annotations.records[0] == Record(
        image="COCO_val2014_000000000000.jpg",
        split="test",
        captions=("A dog runs.", "A brown dog. "),
        image_id=100,
        file="val2014/COCO_val2014_000000000000.jpg",
    )


def test_karpathy_of_flickr_has_neither_folders_nor_cocoids(tmp_path: Path) -> None:
    entry = {"filename": "1.jpg", "imgid": 3, "split": "val", "sentences": [{"raw": "A dog"}]}
    (record,) = read(written(tmp_path, json.dumps({"images": [entry], "dataset": "flickr8k"}))).records
    assert record == Record("1.jpg", "val", ("A dog",), image_id=3)


def test_coco_takes_its_split_from_the_file_name(tmp_path: Path) -> None:
    val = written(tmp_path, json.dumps(COCO, indent=1), "captions_val2017.json")
    annotations = read(val)
    assert annotations.format == "COCO captions JSON"
    assert annotations.records == (
        Record("000000000007.jpg", "val", ("Two birds",), image_id=7),
        Record("000000000009.jpg", "val", ("A cat sleeps.\n", "One cat"), image_id=9),
    )
    assert read(written(tmp_path, json.dumps(COCO), "mine.json")).splits == {None: 2}
    assert read(f"dev={val}").splits == {"dev": 2}


def test_coco_pair(tmp_path: Path) -> None:
    val = written(tmp_path, json.dumps(COCO), "captions_val2017.json")
    other = json.loads(json.dumps(COCO).replace("0000000000", "1000000000"))
    train = written(tmp_path, json.dumps(other), "captions_train2017.json")
    assert read([train, val]).splits == {"train": 2, "val": 2}
    unnamed = written(tmp_path, json.dumps(other), "mine.json")
    assert read([f"train={unnamed}", val]).splits == {"train": 2, "val": 2}
    with pytest.raises(DataError, match=r"mine.json: names no split .* SPLIT="):
        read([unnamed, val])
    with pytest.raises(DataError, match=r"captions_val2017.json: the image .* stands already"):
        read([val, val])


def test_flickr8k_with_the_official_lists_beside_it(tmp_path: Path) -> None:
    text = TOKENS + "2258277193_586949ec62.jpg.1#0\tA horse\n"
    path = written(tmp_path, text, "Flickr8k.token.txt")
    alone = read(path)
    assert alone.format == "Flickr token file"
    assert alone.splits == {None: 3}
    assert alone.records[0] == Record("a_1.jpg", None, ("A dog .", "The dog runs"))
    assert alone.records[2].image == "2258277193_586949ec62.jpg"
    assert "read as" in alone.notes[0]
    written(tmp_path, "b_2.jpg\n", "Flickr_8k.trainImages.txt")
    written(tmp_path, "a_1.jpg\n", "Flickr_8k.devImages.txt")
    written(tmp_path, "elsewhere.jpg\n", "Flickr_8k.testImages.txt")
    annotations = read(path)
    assert {record.image: record.split for record in annotations.records} == {
        "a_1.jpg": "dev",
        "b_2.jpg": "train",
    }
    assert "Flickr_8k.testImages.txt: none of its 1 images" in annotations.notes[1]
    assert annotations.notes[2].endswith("left out: 1")
    lemmas = written(tmp_path, TOKENS, "Flickr8k.lemma.token.txt")
    assert read(lemmas).format == "Flickr token file (lemmatised)"


def test_given_split_lists(tmp_path: Path) -> None:
    path = written(tmp_path, TOKENS)
    train, val = written(tmp_path, "a_1\n", "train.txt"), written(tmp_path, "b_2.jpg\r\n", "val_images.txt")
    assert read(path, splits=[train, val]).splits == {"train": 1, "val": 1}
    assert read(path, splits=[f"mine={val}"]).splits == {"mine": 1}
    for text, complaint in (
        ("a_1.jpg\nno.jpg\n", "line 2: no annotation is of"),
        ("a_1.jpg\na_1.jpg\n", "line 2: a_1.jpg stands already in line 1"),
        ("b_2.jpg\n", "train.txt, line 1: b_2.jpg is in the split 'val' too"),
    ):
        written(tmp_path, text, "train.txt")
        with pytest.raises(DataError, match=complaint):
            read(path, splits=[val, train])
    refused(written(tmp_path, LINES), "leave --splits out", splits=[val])
    refused(written(tmp_path, "a.jpg\nb.jpg\n"), "--splits")


def test_flickr30k_csv_with_its_missing_separator(tmp_path: Path) -> None:
    annotations = read(written(tmp_path, PIPED + "2.jpg| 4   A dog runs across the grass .\n", "results.csv"))
    assert annotations.format == "Flickr30k results.csv"
    assert annotations.records == (
        Record("1.jpg", None, ("A dog | cat", 'He said "hi"')),
        Record("2.jpg", None, ("A cat", "A dog runs across the grass .")),
    )
    assert annotations.notes == ("line 5: a separator is missing; read as caption 4 of 2.jpg",)


def test_csv_with_pictures(tmp_path: Path) -> None:
    path, folder = written(tmp_path, CSV), tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    written(folder, b"", "a.jpg")
    refused_words = '1 of 2 pictures are not there, such as "b.jpg"'
    with pytest.raises(DataError, match=refused_words):
        read(path, images=folder)
    written(folder / "deep", b"", "b.jpg")
    assert read(path, images=folder).records == (
        Record("a.jpg", None, ("A dog, running", "Another dog")),
        Record("b.jpg", None, ("A cat",), file="deep/b.jpg"),
    )
    written(folder / "deep", b"", "a.jpg")
    assert read(path, images=folder).records[0].file is None  # the exact place wins
    with pytest.raises(DataError, match="no such folder"):
        read(path, images=tmp_path / "nowhere")


def test_csv_columns(tmp_path: Path) -> None:
    text = '\ufeffid,"Image_Name",Comment,split\r\n1,a.jpg,"A ""big""\ndog",train\r\n2,b.jpg,A cat,val\r\n'
    assert read(written(tmp_path, text)).records == (
        Record("a.jpg", "train", ('A "big"\ndog',)),
        Record("b.jpg", "val", ("A cat",)),
    )


def test_json_lines(tmp_path: Path) -> None:
    annotations = read(written(tmp_path, LINES))
    assert annotations.format == "rlcap JSON Lines"
    assert annotations.records == (
        Record("a.jpg", "train", ("A dog",), image_id=4, file="x/a.jpg"),
        Record(
            "b.jpg",
            "val",
            ("A red ball",),
            objects=(SceneObject("ball", (0, 0.5, 0.25, 1)),),
            mentions=(((1, 0), (2, 0)),),
        ),
    )


texts = st.text(min_size=1).filter(str.strip)
CONTROLS = "a\u2028b\rc\td\x0be\x0cf\x1cg\x85h\u2029i"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(texts, min_size=1, max_size=3), min_size=1, max_size=4))
def test_any_caption_survives_json_lines(tmp_path_factory: pytest.TempPathFactory, captions: list[list[str]]) -> None:
    records = tuple(Record(f"{i}.jpg", None, tuple(some)) for i, some in enumerate(captions))
    text = "".join(json_line(record.to_json()) for record in records)
    assert len(text.splitlines()) == len(records)
    assert read(written(tmp_path_factory.getbasetemp(), text)).records == records


def test_control_characters_shift_nothing(tmp_path: Path) -> None:
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("image", "caption"), ("a.jpg", CONTROLS), ("b.jpg", "B")])
    unquoted = f"image,caption\r\na.jpg,{CONTROLS}\r\nb.jpg,B\r\n"
    raw = json.dumps({"image": "a.jpg", "captions": [CONTROLS]}, ensure_ascii=False)
    for text in (
        f"a.jpg#0\t{CONTROLS}\nb.jpg#0\tB\n",
        f"image_name| comment_number| comment\na.jpg| 0| {CONTROLS}\nb.jpg| 0| B\n",
        table.getvalue(),
        unquoted,
        raw + '\n{"image": "b.jpg", "captions": ["B"]}',
    ):
        annotations = read(written(tmp_path, text))
        assert [record.captions for record in annotations.records] == [(CONTROLS,), ("B",)]
    assert any("U+2028 in 1" in remark for remark in survey(annotations.records))


def outcome(path: Path) -> str:
    """The error's message, empty for a file that can be read. Other errors than ours are faults."""
    try:
        survey(read(path).records)
    except RlcapError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("form", FORMS)
def test_every_truncation_is_read_or_refused(tmp_path: Path, form: str) -> None:
    raw = FORMS[form].encode()
    messages = [outcome(written(tmp_path, raw[:end])) for end in range(len(raw))]
    assert not any("\n" in message for message in messages)
    # JSON is refused at every place; of line formats a part can be sound
    refused_ones = sum(map(bool, messages))
    assert refused_ones == len(raw) if form in ("karpathy", "coco") else refused_ones > 10


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_no_damage_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    raw = bytearray(FORMS[data.draw(st.sampled_from(sorted(FORMS)))].encode())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(raw)))
        noise = data.draw(st.binary(max_size=3) | st.sampled_from([b"NaN", b"null", b"[]", b"-1", b'"', b"\n"]))
        raw[start : start + data.draw(st.integers(0, 12))] = noise
    assert "\n" not in outcome(written(tmp_path_factory.getbasetemp(), bytes(raw)))


def changed(form: dict[str, object], *path: str | int, to: object) -> str:
    """The JSON with one value replaced."""
    copy = json.loads(json.dumps(form))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return json.dumps(copy)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty"]),
        ("\ufeff \n\u2028\n", ["is empty"]),
        (b"\x1f\x8b\x08abc", ["line 1", "gzip", "unpack"]),
        (b"a.jpg#0\tA dog\nb.jpg#0\tcaf\xe9\n", ["line 2", "0xe9", "UTF-8"]),
        ("hello world\n", ["line 1", "no format"]),
        ("[1, 2]", ["no annotation file"]),
        ('{"a": 1}', ["no annotation file"]),
        ("[" * 100_000, ["nested"]),
        ("{" + f'"image": {"9" * 5000}', ["line 1"]),
        (json.dumps(KARPATHY)[:-30], ["line 1", "breaks off"]),
        (json.dumps(KARPATHY) + "]", ["something follows"]),
        (changed(KARPATHY, "images", to=[]), ["empty list"]),
        (changed(KARPATHY, "images", 1, to=3), ["images[1]", "an object"]),
        (changed(KARPATHY, "images", 1, "split", to=3), ["images[1], 'split'", "a text"]),
        (changed(KARPATHY, "images", 1, "sentences", to=[]), ["images[1]", "no captions"]),
        (changed(KARPATHY, "images", 1, "sentences", 1, "raw", to=" "), ["sentences[1]", "empty"]),
        (changed(KARPATHY, "images", 1, "sentences", 1, to={}), ["sentences[1]", "no 'raw'"]),
        (changed(KARPATHY, "images", 1, "cocoid", to=1.5), ["images[1]", "1.5"]),
        (changed(KARPATHY, "images", 0, "filename", to=LAST), ["images[2]", "images[0]"]),
        (changed(KARPATHY, "images", 1, "sentences", 0, "raw", to="\ud800"), ["lone surrogate"]),
        (changed(COCO, "annotations", 1, "image_id", to=8), ["annotations[1]", "8"]),
        (changed(COCO, "annotations", 1, "image_id", to=9), ["images[0]", "no captions"]),
        (changed(COCO, "annotations", 1, "caption", to=None), ["annotations[1]", "null"]),
        (changed(COCO, "annotations", 0, to={"image_id": 7, "category_id": 1}), ["captions_*.json"]),
        (changed(COCO, "images", 1, "id", to=7), ["images[1]", "images[0]"]),
        (changed(COCO, "images", 1, "id", to=True), ["images[1], 'id'", "true"]),
        (json.dumps({"images": COCO["images"]}), ["no captions"]),
        (changed(COCO, "info", to=float("nan")), ["NaN is no JSON value"]),
        (TOKENS + "c.jpg#0 A dog\n", ["line 4", "a tab"]),
        (TOKENS + "a_1.jpg#0\tAgain\n", ["line 4", "line 1"]),
        (TOKENS + "c.jpg#0\t \n", ["line 4", "empty"]),
        (PIPED + "3.jpg| x| A dog\n", ["line 5"]),
        ("image_name| comment_number| comment\n", ["no captions"]),
        ("image,caption\na.jpg,A dog, running\n", ["line 2", "double quotes"]),
        ('image,caption\na.jpg,"A dog\nb.jpg,A cat\n', ["line 2", "quote"]),
        ("image,caption\na.jpg,nan\n", ["line 2", "missing"]),
        ("image,caption\n,A dog\n", ["line 2", "name is empty"]),
        ("image,title\na.jpg,A dog\n", ["line 1", "columns image and caption"]),
        ("image,caption,split\na.jpg,A,train\na.jpg,B,val\n", ["line 3", "train", "val"]),
        (LINES.replace('"split": "val", ', ""), ['"b.jpg" has no split']),
        (LINES + "{", ["line 3", "breaks off"]),
        (LINES.replace('"split"', '"spilt"', 1), ["line 1", "did you mean 'split'"]),
        (LINES + LINES.split("\n")[0], ["line 3", "line 1"]),
        (LINES.replace('["A dog"]', "[]"), ["line 1", "no captions"]),
        (LINES.replace('["A dog"]', '"A dog"'), ["line 1", "a list"]),
        (LINES.replace("0.25", "NaN"), ["line 2", "NaN"]),
        (LINES.replace("0.25", "2.5"), ["line 2, objects[0], 'box'", "2.5"]),
        (LINES.replace("[1, 0]", "[1, 1]"), ["line 2, mentions[0]", "objects: 1"]),
        (LINES.replace("[1, 0]", "[true, 0]"), ["line 2, mentions[0]", "a whole number, not true"]),
        (LINES.replace("[1, 0]", "[1]"), ["line 2, mentions[0]"]),
    ],
)  # fmt: skip
def test_unsound_files_are_named_in_one_line(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    refused(written(tmp_path, text), *words)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    refused(tmp_path / "none.json", "no such file")
    refused(tmp_path, "is a folder")


@pytest.mark.real
def test_flickr8k_as_published() -> None:
    annotations = read(Path(os.environ["RLCAP_DATA"]) / "flickr8k" / "Flickr8k.token.txt")
    assert annotations.splits == {"train": 6000, "dev": 1000}
    assert annotations.captions == 35_000
