"""Any damage to any file that a command reads: it works, or says in one line what is wrong; nothing is half-written.

`pytest -m slow tests/test_fuzz.py` tries a few thousand. Each try is a process of its own, so that a library that
crashes or hangs is seen as well.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlcap.cli import main
from rlcap.data.dataset import DataSet
from rlcap.data.features import EncoderCard, FeatureWriter
from rlcap.data.scenes import write_images

SMALL = (
    *("policy.hidden=16", "policy.embedding=8", "policy.attention=8", "policy.project=8", "training.images=8"),
    *("training.updates=2", "training.epochs=null", "training.evaluate_every=1 update", "decoding.length=6"),
    *("training.threads=1", "training.device=cpu"),
)
TRAIN = ("train", "soft_attention", "--stage", "cross_entropy", "data.path=scenes", "data.evaluate=val", *SMALL)
RUN = "runs/cross_entropy"
LONG = 60  # seconds until a command hangs
FEW, MANY = 6, 300

KARPATHY = {
    "images": [
        {"filename": f"{n}.jpg", "split": ("train", "val")[n % 2], "imgid": n, "sentences": [{"raw": "A dog runs ."}]}
        for n in range(6)
    ]
}
COCO = {
    "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(4)],
    "annotations": [{"id": n, "image_id": n % 4, "caption": "A dog runs ."} for n in range(8)],
}
RECIPE = """
data: {path: scenes, evaluate: val}
policy: {name: soft_attention, hidden: 16}
trainer: {name: scst, baseline: critic, rollout: {samples: 2}}
rewards: {cider_d: {weight: [[0, 1.0], [5, 0.0]], clip: [0, 1]}, length: -0.1}
training: {updates: 1}
decoding: {beam: 2}
"""


@dataclass(frozen=True)
class Reading:
    """A file, and a command that reads it; `out` may not be there if the command fails."""

    file: str
    command: tuple[str, ...]
    out: str = "new"


PREPARE = ("prepare", "--min-count", "1", "--out", "new")
RESUME = (*TRAIN, "--out", "runs", "--resume", "training.updates=3")
READINGS = {
    "karpathy": Reading("karpathy.json", (*PREPARE, "karpathy.json")),
    "coco": Reading("coco.json", (*PREPARE, "train=coco.json", "--hold-out", "1", "--hold-out-name", "val")),
    "token file": Reading("a.token.txt", (*PREPARE, "a.token.txt", "--hold-out", "1", "--hold-out-name", "val")),
    "csv": Reading("a.csv", (*PREPARE, "a.csv", "--hold-out", "1", "--hold-out-name", "val")),
    "json lines": Reading("a.jsonl", (*PREPARE, "a.jsonl")),
    "captions": Reading("scenes/captions.jsonl", ("evaluate", RUN, "--out", "new")),
    "data set": Reading("scenes/dataset.json", ("evaluate", RUN, "--out", "new")),
    "frequencies": Reading("scenes/frequencies.npz", ("evaluate", RUN, "--out", "new")),
    "features": Reading("scenes/features.h5", ("evaluate", RUN, "--out", "new")),
    "config": Reading(f"{RUN}/config.yaml", ("evaluate", RUN, "--out", "new")),
    "vocabulary": Reading(f"{RUN}/vocabulary.json", ("evaluate", RUN, "--out", "new")),
    "sight": Reading(f"{RUN}/features.json", ("evaluate", RUN, "--out", "new")),
    "weights": Reading(f"{RUN}/checkpoints/best/weights.safetensors", ("evaluate", RUN, "--out", "new")),
    "state": Reading(f"{RUN}/checkpoints/last/state.pt", RESUME, ""),
    "meta": Reading(f"{RUN}/checkpoints/last/meta.json", RESUME, ""),
    "results": Reading("results.json", ("score", "results.json", "--references", "scenes", "--split", "val"), ""),
    "recipe": Reading("recipe.yaml", ("train", "recipe.yaml", "--out", "new"), ""),
    "picture": Reading("pictures/a.png", ("features", "extract", "pictures", "--encoder", "pixels", "--size", "32",
                                          "--out", "new.h5", "--strict"), "new.h5"),
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("home")
    here = Path.cwd()
    os.chdir(home)
    try:
        assert main(["--quiet", "prepare", "scenes", "--out", "scenes", "--count", "30", "--min-count", "1"]) == 0
        data = DataSet.load("scenes")
        write_images(Path("pictures"), data.split("val").records[:1], 2)
        next(Path("pictures").iterdir()).rename("pictures/a.png")
        names = [record.image for record in data.records]
        card = EncoderCard("my_nets:Net", {}, 64, "squash", "aaaa")
        Path("scenes/scenes.h5").unlink()
        with FeatureWriter(Path("scenes/features.h5"), "grid", card=card, grid=(2, 2)) as writer:
            writer.append(names, np.random.default_rng(0).random((len(names), 4, 8)))
        assert main(["--quiet", *TRAIN, "--out", "runs"]) == 0
        assert main(["--quiet", "evaluate", RUN, "--out", "."]) == 0
        shutil.move("val.json", "results.json")
        Path("karpathy.json").write_text(json.dumps(KARPATHY))
        Path("coco.json").write_text(json.dumps(COCO))
        Path("a.token.txt").write_text("".join(f"{n}.jpg#{k}\tA dog runs .\n" for n in range(4) for k in range(2)))
        Path("a.csv").write_text("image,caption\n" + "".join(f'{n}.jpg,"A dog, it runs ."\n' for n in range(4)))
        lines = [{"image": f"{n}", "captions": ["A dog runs ."], "split": ("train", "val")[n % 2]} for n in range(4)]
        Path("a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        Path("recipe.yaml").write_text(RECIPE)
    finally:
        os.chdir(here)
    return home


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.sampled_from(
            [10**9, 10**19, -1, 1e308, float("inf"), float("nan"), "", "..", "/etc/passwd", "\x00", "a" * 999]
        ),
        st.text(max_size=4),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=4,
)
JUNK = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"null", b"1e999", b"{}", b"&a [*a, *a]", b"\n", b'"', b"\xff\xfe", b"\xed\xa0\x80", b"-", b": "]),
    st.sampled_from([b"[" * 3000, b"9" * 400, b"\x00" * 40, b"!!python/object/apply:os.system [ls]"]),
)
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 60), JUNK), min_size=1, max_size=3)


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """Bytes put in the place of others, or the end cut off, or, of JSON, other values in the place of some."""
    tree = None
    if content[:1] in b"{[" and data.draw(st.booleans(), label="as JSON"):
        try:
            tree = json.loads(content)
        except ValueError:
            tree = [json.loads(line) for line in content.splitlines()]
            return b"".join(json.dumps(altered(line, data)).encode() + b"\n" for line in tree)
        return json.dumps(altered(tree, data)).encode()
    if data.draw(st.integers(0, 4), label="cut") == 0:
        return content[: int(data.draw(st.floats(0, 1), label="at") * len(content))]
    for place, length, junk in data.draw(EDITS, label="edits"):
        at = int(place * len(content))
        content = content[:at] + junk + content[at + length :]
    return content


def altered(tree: Any, data: st.DataObject) -> Any:
    if isinstance(tree, dict | list) and tree and data.draw(st.integers(0, 5), label="deeper"):
        key = data.draw(st.sampled_from(sorted(tree) if isinstance(tree, dict) else range(len(tree))), label="into")
        copy = dict(tree) if isinstance(tree, dict) else list(tree)
        copy[key] = altered(tree[key], data)
        return copy
    return data.draw(VALUES, label="value")


def check(name: str, home: Path, place: Path, data: st.DataObject) -> None:
    reading = READINGS[name]
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(home, place)
    path = place / reading.file
    path.write_bytes(damaged(path.read_bytes(), data))
    status, said = in_a_process(lambda: main(["--quiet", *reading.command]), place)
    assert os.WIFEXITED(status), f"ended by signal {status & 127}: {said}"
    told = [line for line in said.splitlines() if line.startswith("rlcap: ")]
    if os.WEXITSTATUS(status) == 2:
        assert told, said
        assert not (reading.out and (place / reading.out).exists()), "half of the output is there"
    else:
        assert os.WEXITSTATUS(status) == 0, said
    assert "Traceback" not in said


def in_a_process(work: Callable[[], int], place: Path) -> tuple[int, str]:
    output = place / "said.txt"
    child = os.fork()
    if child == 0:
        status = 77
        try:
            os.chdir(place)
            to = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(to, 1)
            os.dup2(to, 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            signal.alarm(LONG)
            status = work()
        except BaseException as error:
            os.write(2, f"raised {type(error).__name__}: {error}".encode(errors="replace"))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitpid(child, 0)[1], output.read_text(errors="replace") if output.exists() else ""


CHECKED = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None, "print_blob": False}


@pytest.mark.parametrize("name", READINGS)
@settings(max_examples=FEW, derandomize=True, **CHECKED)
@given(data=st.data())
def test_some_damage(name, home, tmp_path_factory, data):
    check(name, home, tmp_path_factory.getbasetemp() / "few", data)


@pytest.mark.slow
@pytest.mark.parametrize("name", READINGS)
@settings(max_examples=MANY, **CHECKED)
@given(data=st.data())
def test_much_damage(name, home, tmp_path_factory, data):
    check(name, home, tmp_path_factory.getbasetemp() / "many", data)
