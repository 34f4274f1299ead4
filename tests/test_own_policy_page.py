"""docs/own_policy.md does what it says: its files are written, its commands run, smaller."""

import re
import shlex
import sys
from pathlib import Path

import yaml

from rlcap.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "own_policy.md"
SMALLER = {"4000": "60", "mine.yaml": "mine.yaml training.updates=3 training.images=4"}


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    blocks = re.findall(r"```(python|yaml|sh)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    commands = [text for kind, text in blocks if kind == "sh"]
    for kind, text in blocks:
        if kind != "sh":
            Path(re.match(r"# (\w+\.\w+)", text)[1]).write_text(text, encoding="utf-8")
    for line in "".join(commands).splitlines():
        words = [SMALLER.get(word, word) for word in shlex.split(line, comments=True)]
        assert main(" ".join(words).split()[1:]) == 0, line
    said = capsys.readouterr().out
    assert "ok: no problem was found" in said
    assert "gives no attention" not in said
    assert yaml.safe_load(Path("tune.yaml").read_text())["policy"]["name"] == "hugging_face"
