"""A script in the place of `java`: a real process, quick to start, that crashes and falls silent when told to."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

ECHO = """
for line in sys.stdin:
    print(line.strip(), flush=True)
"""


class StandIn:
    """`install(body)` puts the script on PATH, with nothing else there; it notes the id of each process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder  # `folder` in the script, too; `starts` tells it how often it was started
        monkeypatch.setenv("PATH", str(folder))

    def install(self, body: str, version: str = 'version "17.0.15"', modules: str = "jdk.compiler@17") -> None:
        script = f"""import json, os, sys, time
from pathlib import Path
folder = Path({str(self.folder)!r})
if "-version" in sys.argv: sys.exit({version!r})
if "--list-modules" in sys.argv: print({modules!r}); sys.exit()
(folder / "starts").open("a").write(f"{{os.getpid()}}\\n")
starts = len((folder / "starts").read_text().split())
{body}"""
        (self.folder / "script.py").write_text(script)
        # By way of a shell: the path behind #! may hold no blank, and the one of this Python may have some.
        (self.folder / "java").write_text(f"#!/bin/sh\nexec '{sys.executable}' '{self.folder}/script.py' \"$@\"\n")
        (self.folder / "java").chmod(0o755)

    @property
    def started(self) -> list[int]:
        file = self.folder / "starts"
        return [int(pid) for pid in file.read_text().split()] if file.exists() else []


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
