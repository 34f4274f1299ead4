"""A split's images with what the evaluation says of them, and the commands that draw them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rlcap
from rlcap.album import Album
from rlcap.cli import main
from rlcap.config import Decoding
from rlcap.data.dataset import DataSet, Split
from rlcap.data.features import EncoderCard, FeatureStore, FeatureWriter
from rlcap.data.records import Record
from rlcap.data.scenes import write_images
from rlcap.errors import DataError
from rlcap.evaluation import caption_split
from rlcap.models.soft_attention import SoftAttention
from rlcap.sheets import GAP, MARGIN
from rlcap.weights import save_weights

CPU = torch.device("cpu")
SETTINGS = Decoding(length=5, sample=True)  # what is drawn shows whether each image has its own key
ROWS = np.array([4, 0, 2, 1, 3])
TINY = (
    *("encoder.width=32", "policy.hidden=16", "policy.embedding=16", "policy.attention=16", "decoding.length=5"),
    *("training.images=8", "training.captions=2", "training.updates=1", "trainer.optimiser.warmup=0"),
    *("training.threads=1", "training.device=cpu"),
)

BLIND = ("policy={name: show_tell, hidden: 16, embedding: 16}", *(each for each in TINY if "policy" not in each))


@pytest.fixture
def regions(tmp_path) -> Album:
    """Five images of a split, in an order of their own, with boxes; the picture of the second is missing."""
    dice, boxes = np.random.default_rng(0), np.zeros((6, 4, 4), np.float32)
    boxes[..., 2:] = np.linspace(0.1, 1, 24).reshape(6, 4, 1)
    with FeatureWriter(tmp_path / "regions.h5", "regions", card=EncoderCard("my:Encoder", {}, 32, "crop")) as writer:
        writer.append([f"{row}.png" for row in range(6)], dice.normal(size=(6, 4, 8)), boxes=boxes)
    store = FeatureStore(tmp_path / "regions.h5")
    records = [Record(f"{row}.png", "val", ("A cat .",), file="deep/3.bmp" if row == 3 else None) for row in ROWS]
    for record in records:
        path = tmp_path / "pictures" / (record.file or record.image)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20), (40 * int(record.image[0]), 0, 0)).save(path)
    (tmp_path / "pictures" / "0.png").unlink()
    return Album(Split("val", records, []), store, ROWS, tmp_path / "pictures")


def test_captions_are_the_evaluations_also_where_pictures_are_missing(codec, regions):
    torch.manual_seed(0)
    policy = SoftAttention(codec, regions.store.shape, hidden=8, embedding=8, attention=8)
    assert regions.there() == [0, 2, 3, 4]
    looks = list(regions.looks(policy, regions.there(), SETTINGS, CPU, seed=3))
    said = [caption.text for caption in caption_split(policy, regions.store, ROWS, SETTINGS, CPU, seed=3)]
    assert len(set(said)) > 2
    assert [look.captions[0].text for look in looks] == [said[place] for place in regions.there()]
    assert [look.image.getpixel((0, 0))[0] // 40 for look in looks] == [4, 2, 1, 3]
    for look, row in zip(looks, [4, 2, 1, 3], strict=True):
        np.testing.assert_array_equal(look.boxes, regions.store.read(np.array([row])).boxes[0])
        assert (look.grid, look.resize) == (None, "crop")


def test_pictures_that_are_nowhere_are_asked_for(regions, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: holds none of the 5 pictures of split val .*empty/4\.png"):
        Album(regions.split, regions.store, ROWS, tmp_path / "empty").there()
    with pytest.raises(DataError, match=r"regions\.h5: holds features, not pictures; name the folder .*--pictures"):
        Album(regions.split, regions.store, ROWS).there()


def test_the_best_stand_above_the_worst(regions, monkeypatch):
    sheets = []

    def noted(images, captions, references, scores, title):
        sheets.append((title, captions, scores, [image.getpixel((0, 0))[0] // 40 for image in images]))
        assert set(references) == {("A cat .",)}
        return Image.new("RGB", (100, 100))

    monkeypatch.setattr("rlcap.album.contact_sheet", noted)
    monkeypatch.setattr("rlcap.album.EXTREMES", 3)
    regions.best_and_worst(["e", "a", "c", "b", "d"], [0.5, 9.0, 0.0, 2.0, 1.0])
    assert sheets == [
        ("Best of 4 by CIDEr-D", ["b", "d"], [2.0, 1.0], [1, 3]),
        ("Worst of 4 by CIDEr-D", ["c", "e"], [0.0, 0.5], [2, 4]),
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Scenes, their pictures, and two runs."""
    home = tmp_path_factory.mktemp("album")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["--quiet", "prepare", "scenes", "--out", "scenes", "--count", "40", "--min-count", "2"]) == 0
        write_images(Path("pictures"), DataSet.load("scenes").split("val").records, 3)
        for name in ("soft_attention", "hard_attention"):
            given = (f"policy.name={name}", "data.path=scenes", "--out", name)
            assert main(["--quiet", "train", "scenes", *TINY, *given]) == 0
    return home


@pytest.fixture
def place(home, monkeypatch) -> Path:
    monkeypatch.chdir(home)
    return home


def drawn(folder: str) -> dict[str, tuple[int, int]]:
    return {path.name: Image.open(path).size for path in sorted(Path(folder).iterdir())}


def test_a_split_is_drawn_into_a_folder(place, capsys):
    assert main(["--quiet", "caption", "soft_attention", "--split", "val", "--attention", "split/", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = DataSet.load("scenes").split("val").images
    assert [line["image"] for line in lines] == names
    assert list(drawn("split")) == sorted(f"{Path(name).stem}.jpg" for name in names)
    assert main(["--quiet", "evaluate", "soft_attention", "--split", "val", "--sheet", "sheet.png", "--out", "ev"]) == 0
    evaluated = json.loads(Path("ev/val.json").read_text())
    assert [line["captions"][0]["caption"] for line in lines] == [result["caption"] for result in evaluated]
    assert Image.open("sheet.png").width == 2 * MARGIN + 2 * 260 + GAP  # of four, two are the best
    given = ("--split", "val", "--attention", "few", "--pictures", "pictures", "--against", "hard_attention")
    assert main(["--quiet", "caption", "soft_attention", *given]) == 0
    assert list(drawn("few")) == sorted(f"{Path(name).stem}.jpg" for name in names[:3])


def test_without_attention_and_without_words(place, capsys):
    """What there is nothing to draw of is told before any caption; an empty caption is told too."""
    assert main(["--quiet", "train", "scenes", *BLIND, "data.path=scenes", "--out", "silent"]) == 0
    policy, weights = rlcap.load("silent").policy, Path("silent/checkpoints/best/weights.safetensors")
    policy.policy.output.bias.data[policy.codec.end] = 100.0
    save_weights(weights, {"policy": policy}, policy.codec.fingerprint)
    capsys.readouterr()
    assert main(["caption", "silent", "pictures", "--attention", "none/"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rlcap: --attention: this policy looks at nothing that has a place")
    assert not Path("none").exists()
    file = str(sorted(Path("pictures").iterdir())[0])
    assert main(["caption", "silent", file]) == 0
    assert capsys.readouterr().out == "(nothing)\n"
    assert main(["caption", "silent", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["captions"][0]["caption"] == ""


def test_runs_are_compared_on_an_image(place, capsys):
    file = sorted(Path("pictures").iterdir())[0]
    assert main(["caption", "soft_attention", "--against", "hard_attention", str(file), "--attention", "two.png"]) == 0
    said = dict(re.findall("(.*?): (.*)", capsys.readouterr().out))
    assert list(said) == ["soft_attention", "hard_attention"]
    for name, caption in said.items():
        assert main(["caption", name, str(file), "--attention", f"{name}.png"]) == 0
        assert capsys.readouterr().out == f"{caption}\n"
    assert Image.open("two.png").height > Image.open("hard_attention.png").height
    assert main(["caption", "soft_attention", "pictures", "--against", "hard_attention", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["image"], line["run"]) for line in lines[:2]] == [(str(file), name) for name in said]


def test_a_folder_of_pictures_is_drawn_into_a_folder(place):
    assert main(["caption", "soft_attention", "pictures", "--attention", "v1.2/"]) == 0
    assert list(drawn("v1.2")) == [f"{path.stem}.jpg" for path in sorted(Path("pictures").iterdir())]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("caption RUN", "there is nothing to caption: name pictures, folders of them, or --split NAME"),
        ("caption RUN pictures --split val --attention out/", "--split val and pictures: caption one or the other"),
        ("caption RUN --split val", "--split val: name a folder to draw in, --attention OUT/"),
        (
            "caption RUN --split val --attention out.png",
            "draws one image, and split val was given; name a folder: out/",
        ),
        ("caption RUN --split vall --attention out/", "has no split 'vall' (did you mean 'val'?)"),
        ("caption RUN pictures --pictures pictures", "--pictures pictures: goes with --split NAME"),
        ("caption RUN pictures scenes/../pictures --attention out/", "two images would be drawn as out/"),
        ("caption RUN --split val --attention out/ --pictures nowhere", "nowhere: holds none of the "),
        ("caption RUN pictures --against nowhere", "nowhere: is no run"),
        ("evaluate RUN --sheet out.txt", "out.txt: pictures are written as .png"),
        ("evaluate RUN --sheet out.png --pictures nowhere", "nowhere: holds none of the "),
    ],
)
def test_what_cannot_be_drawn_is_told(place, capsys, argv, said):
    assert main(["--quiet", *argv.replace("RUN", "soft_attention").split()]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
