"""`rlcap score`: any tool's captions against references, and what is said of files that do not belong together."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from rlcap.cli import main
from rlcap.data.tokens import tokenise
from rlcap.evaluation import Evaluation

EXACT = 1e-9  # as in test_metrics.py: both sides add the same doubles, perhaps in another order
IMAGES = {  # image -> id, split, references
    "dog.jpg": (7, "val", ["A dog runs on the grass.", "The brown dog is running , fast ."]),
    "cat.jpg": (9, "val", ["Two cats sleep on a red sofa", "Cats lie on a sofa!"]),
    "men.jpg": (12, "val", ["Three men play chess in a park.", "Men are playing chess"]),
    "sea.jpg": (4, "train", ["Waves break on the beach"]),
}
SAID = {"dog.jpg": "A dog is running on grass.", "cat.jpg": "a dog on a sofa", "men.jpg": ""}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the same references in several forms."""
    monkeypatch.chdir(tmp_path)
    coco = {
        "images": [{"id": number} for number, _, _ in IMAGES.values()],
        "annotations": [
            {"image_id": number, "caption": text} for number, _, texts in IMAGES.values() for text in texts
        ],
    }
    Path("coco.json").write_text(json.dumps(coco))
    lines = [
        {"image": name, "image_id": number, "split": split, "captions": texts}
        for name, (number, split, texts) in IMAGES.items()
    ]
    Path("lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tokens = [f"{name}#{k}\t{text}\n" for name, (_, _, texts) in IMAGES.items() for k, text in enumerate(texts)]
    Path("captions.token").write_text("".join(tokens))
    Path("by_id.json").write_text(
        json.dumps([{"image_id": IMAGES[name][0], "caption": said} for name, said in SAID.items()])
    )
    Path("by_name.json").write_text(json.dumps([{"image_id": name, "caption": said} for name, said in SAID.items()]))
    Path("mapping.json").write_text(json.dumps(SAID))
    return tmp_path


def scored(capsys: pytest.CaptureFixture[str], *argv: str) -> dict:
    capsys.readouterr()
    assert main(["score", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main(["--quiet", "score", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    return err


def test_equals_coco_caption(place, capsys):
    given = {name: [" ".join(tokenise(text)) for text in IMAGES[name][2]] for name in SAID}
    said = {name: [" ".join(tokenise(text))] for name, text in SAID.items()}
    bleu, bleu_images = Bleu(4).compute_score(given, said, verbose=0)
    theirs = {f"bleu_{n + 1}": (bleu[n], bleu_images[n]) for n in range(4)}
    theirs["rouge_l"] = Rouge().compute_score(given, said)
    theirs["cider_d"] = Cider().compute_score(given, said)  # its CIDEr is CIDEr-D
    ours = scored(capsys, "mapping.json", "--references", "lines.jsonl")
    assert list(ours["corpus"]) == list(ours["per_image"]) == [*theirs, "cider"]
    assert ours["images"] == [7, 9, 12]
    for key, (corpus, per_image) in theirs.items():
        assert ours["corpus"][key] == pytest.approx(corpus, abs=EXACT), key
        np.testing.assert_allclose(ours["per_image"][key], per_image, rtol=0, atol=EXACT, err_msg=key)
    assert ours["corpus"]["cider_d"] > 0.1
    assert ours["per_image"]["cider"][1] > ours["per_image"]["cider_d"][1]  # other lengths than its references


@pytest.mark.parametrize(
    ("results", "references", "images"),
    [
        ("by_id.json", "lines.jsonl", [7, 9, 12]),
        ("by_name.json", "lines.jsonl", [7, 9, 12]),
        ("by_id.json", "coco.json", [7, 9, 12]),
        ("by_name.json", "captions.token", ["dog.jpg", "cat.jpg", "men.jpg"]),
        ("mapping.json", "dev=captions.token", ["dog.jpg", "cat.jpg", "men.jpg"]),
    ],
)
def test_forms_say_the_same(place, capsys, results, references, images):
    usual = scored(capsys, "mapping.json", "--references", "lines.jsonl")
    found = scored(capsys, results, "--references", references, "--partial")
    assert found == {**usual, "images": images}


def test_a_prepared_data_set_has_references_too(place, capsys):
    usual = scored(capsys, "mapping.json", "--references", "lines.jsonl")
    assert main(["prepare", "lines.jsonl", "--out", "data", "--min-count", "1"]) == 0
    assert scored(capsys, "mapping.json", "--references", "data") == usual
    Path("empty").mkdir()
    assert "empty: is no data set (it has no dataset.json)" in refused(capsys, "mapping.json", "--references", "empty")


def test_ids_of_a_mapping_are_texts(place, capsys):
    Path("ids.json").write_text(json.dumps({"7": "a dog", "9": "a cat", "12": "men"}))
    assert scored(capsys, "ids.json", "--references", "lines.jsonl")["images"] == [7, 9, 12]


def test_what_evaluate_writes(place, capsys):
    Evaluation("val", [12, 7, 9], [SAID["men.jpg"], SAID["dog.jpg"], SAID["cat.jpg"]], {}, {}, {}).save(place, "val")
    usual = scored(capsys, "mapping.json", "--references", "lines.jsonl")
    assert scored(capsys, "val.json", "--references", "lines.jsonl") == usual
    said = refused(capsys, "val_scores.json", "--references", "lines.jsonl")
    assert "val_scores.json, 'corpus': must be a text" in said


def test_names_may_look_like_the_ids_of_others(place, capsys):
    lines = [("1", 2, "a dog runs"), ("2", 1, "a cat sleeps")]
    Path("swapped.jsonl").write_text(
        "".join(
            json.dumps({"image": name, "image_id": number, "captions": [text]}) + "\n" for name, number, text in lines
        )
    )
    Path("results.json").write_text(
        json.dumps([{"image_id": 1, "caption": "a cat sleeps"}, {"image_id": 2, "caption": "a dog runs"}])
    )
    assert scored(capsys, "results.json", "--references", "swapped.jsonl")["corpus"]["rouge_l"] == pytest.approx(1.0)


def test_splits(place, capsys):
    """The results decide which splits must be captioned whole; --split leaves other captions aside."""
    Path("all.json").write_text(json.dumps({**SAID, "sea.jpg": "the sea"}))
    alone = scored(capsys, "mapping.json", "--references", "lines.jsonl")
    assert scored(capsys, "all.json", "--references", "lines.jsonl", "--split", "val") == alone
    assert scored(capsys, "all.json", "--references", "lines.jsonl")["images"] == [7, 9, 12, 4]
    assert main(["score", "all.json", "--references", "lines.jsonl", "--split", "val"]) == 0
    assert capsys.readouterr().out.startswith(
        "all.json: 3 images of val; 1 captions of other splits left aside; x100\n"
    )
    assert main(["score", "all.json", "--references", "coco.json"]) == 2
    assert main(["score", "all.json", "--references", "captions.token"]) == 0
    assert capsys.readouterr().out.startswith("all.json: 4 images; x100\n")


def test_table(place, capsys):
    figures = scored(capsys, "mapping.json", "--references", "lines.jsonl")["corpus"]
    assert main(["score", "mapping.json", "--references", "lines.jsonl"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "mapping.json: 3 images of val; x100"
    assert [line.split()[0] for line in lines] == [*(f"BLEU-{n}" for n in range(1, 5)), "ROUGE-L", "CIDEr-D", "CIDEr"]
    assert [float(line.split()[1]) for line in lines] == [round(100 * value, 2) for value in figures.values()]


def test_lines_of_images(place, capsys):
    Path("odd.json").write_text(json.dumps({**SAID, "cat.jpg": "a\tdog\non a sofa"}))
    scores = scored(capsys, "odd.json", "--references", "lines.jsonl")["per_image"]
    assert main(["score", "odd.json", "--references", "lines.jsonl", "--per-image"]) == 0
    header, *lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert header == ["image", *scores, "caption"]
    order = np.argsort(scores["cider_d"], kind="stable")
    assert [line[0] for line in lines] == [str([7, 9, 12][row]) for row in order]
    assert lines[-1][0] == "7"
    assert [float(line[6]) for line in lines] == [round(100 * scores["cider_d"][row], 2) for row in order]
    assert {line[0]: line[-1] for line in lines} == {"7": SAID["dog.jpg"], "9": "a dog on a sofa", "12": ""}


def test_partial(place, capsys):
    Path("part.json").write_text(json.dumps({name: SAID[name] for name in ("dog.jpg", "men.jpg")}))
    said = refused(capsys, "part.json", "--references", "lines.jsonl")
    assert 'part.json: 1 of 3 images have no caption, such as "cat.jpg"' in said
    assert "--partial" in said
    assert scored(capsys, "part.json", "--references", "lines.jsonl", "--partial")["images"] == [7, 12]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("[]", "holds no captions"),
        ("{}", "holds no captions"),
        ("3", "holds 3; write the coco results format"),
        ('[{"image_id": 7, "caption": "a"}', "the JSON breaks off"),
        ('[{"image_id": 7, "caption": "a"}] []', "character 33: something follows the end of the JSON"),
        ("[7]", "[0]: must be an object, not 7"),
        ('[{"image_id": true, "caption": "a"}]', "[0], 'image_id': must be a whole number or a text, not true"),
        ('[{"caption": "a"}]', "[0], 'image_id': must be a whole number or a text, not null"),
        ('[{"image_id": 7}]', "[0]: has no 'caption'"),
        ('[{"image_id": 7, "caption": null}]', "[0], 'caption': must be a text, not null"),
        ('{"dog.jpg": ["a dog"]}', "'dog.jpg': must be a text, not [\"a dog\"]"),
        (
            '[{"image_id": 7, "caption": "a"}, {"image_id": "7", "caption": "b"}]',
            '[1]: the image "7" has a caption already; keep one an image',
        ),
        ('{"dog.jpg": "a", "dog.jpg": "b"}', 'the image "dog.jpg" has a caption already'),
        ('{"cow.jpg": "a", "hen.jpg": "b"}', 'the image "cow.jpg" is not in lines.jsonl (nor are 1 others)'),
        ('{"dog.jpg": "a", "cow.jpg": "b"}', 'the image "cow.jpg" is not in lines.jsonl; images are known there'),
        ('{"7": "a", "cat.jpg": "b"}', 'the image "cat.jpg" is not in lines.jsonl'),
    ],
)
def test_bad_results(place, capsys, text, said):
    Path("bad.json").write_text(text)
    line = refused(capsys, "bad.json", "--references", "lines.jsonl")
    assert line.startswith("rlcap: bad.json")
    assert said in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("gone.json --references lines.jsonl", "gone.json: there is no such file"),
        ("mapping.json --references gone.json", "gone.json: there is no such file"),
        ("mapping.json --references by_id.json", "by_id.json: this JSON is no annotation file"),
        ("mapping.json --references lines.jsonl --split vall", "no such split (did you mean 'val'?)"),
        ("mapping.json --references captions.token --split val", "captions.token names no splits"),
        ("mapping.json --references lines.jsonl --split train", "holds no caption of an image of the split 'train'"),
        ("mapping.json --references lines.jsonl --split train --partial", "no caption of an image of the split"),
        ("mapping.json --references lines.jsonl --metrics cidre", "there is no metric 'cidre'"),
        ("by_id.json --references twice.jsonl", 'several images have the id "9"'),
    ],
)
def test_files_that_do_not_belong_together(place, capsys, words, said):
    twice = Path("lines.jsonl").read_text().replace('"image_id": 4', '"image_id": 9')
    Path("twice.jsonl").write_text(twice)
    assert said in refused(capsys, *words.split())


def test_images_with_one_id_are_told_apart_by_name(place, capsys):
    Path("twice.jsonl").write_text(Path("lines.jsonl").read_text().replace('"image_id": 9', '"image_id": 7'))
    assert scored(capsys, "by_name.json", "--references", "twice.jsonl")["images"] == [7, 7, 12]


@pytest.mark.java
def test_meteor_comes_on_request(place, capsys):
    usual = scored(capsys, "mapping.json", "--references", "lines.jsonl")
    found = scored(capsys, "mapping.json", "--references", "lines.jsonl", "--metrics", "meteor")
    assert list(found["corpus"]) == [*usual["corpus"], "meteor"]
    assert found["per_image"]["meteor"][0] > found["per_image"]["meteor"][2]  # an empty caption
    assert main(["score", "mapping.json", "--references", "lines.jsonl", "--metrics", "meteor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("METEOR ")


def test_coco_without_file_names_is_prepared_too(place, capsys):
    assert main(["prepare", "coco.json", "--check"]) == 0
    told = capsys.readouterr().out
    assert "images without a 'file_name', known by their ids: 4" in told
    assert "of 7" in told  # the longest caption's image
