"""The guides do what they say: their files are written, and every command of theirs is run."""

import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlcap.cli import main

DOCS = Path(__file__).parents[1] / "docs"
NOT_OURS = ("tensorboard", "torchrun", "pip")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def run_page(name: str, smaller: dict[str, str]) -> None:
    """Each command, with `smaller` words in the place of some; files begin with a line that names them."""
    for kind, text in re.findall(r"```(python|yaml|csv|sh)\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.S):
        if kind != "sh":
            first, _, rest = text.partition("\n")
            Path(re.match(r"# (\w+\.\w+)", first)[1]).write_text(rest if kind == "csv" else text, encoding="utf-8")
            continue
        for line in text.replace("\\\n", " ").splitlines():
            words = [smaller.get(word, word) for word in shlex.split(line, comments=True)]
            if words and words[0] not in NOT_OURS:
                assert words[0] == "rlcap"
                assert main(shlex.split(shlex.join(words).replace("'", ""))[1:]) == 0, line


def test_data_of_ones_own(place):
    (place / "photos").mkdir()
    for number, name in enumerate("abc"):
        pixels = np.random.default_rng(number).integers(0, 255, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "photos" / f"{name}.png")
    run_page("own_data.md", {"soft_attention": "soft_attention training.epochs=1 policy.hidden=16 policy.embedding=8"})
    assert (place / "captioner" / "weights.safetensors").exists()
    assert (place / "a.png").exists()


@pytest.mark.slow  # six minutes
def test_an_experiment_with_rewards(place, capsys):
    run_page("fine_tuning.md", {})
    assert "<html" in (place / "report.html").read_text(encoding="utf-8")
    said = capsys.readouterr().out
    assert "scenes_scst" in said
    shutil.rmtree(place / "runs")
