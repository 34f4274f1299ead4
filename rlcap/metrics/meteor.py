"""METEOR 1.5 (Denkowski and Lavie 2014, https://aclanthology.org/W14-3348), by its own Java program.

The program is pycocoevalcap's, asked as pycocoevalcap asks it: the figures are equal. It takes some 7 seconds to
start and 1.3 GB of memory.
"""

import atexit
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import quote

import numpy as np

from rlcap.errors import ComponentError
from rlcap.metrics.java import JavaTool, Pair, Remembered, pycocoevalcap
from rlcap.metrics.ngrams import Result, Words, check_pairs

TIMEOUT = 120.0  # seconds of silence; the first answer includes the start, which is slow on a busy machine
STATISTICS = 23  # numbers that METEOR has of a caption: lengths, matches, chunks
BETWEEN = " ||| "


def meteor(captions: Sequence[Words], references: Sequence[Sequence[Words]], timeout: float = TIMEOUT) -> Result:
    """The corpus value comes from the summed statistics; it is no mean over images."""
    check_pairs(captions, references)
    judged = _judged(_pairs(captions, references), timeout)
    return Result(_scores([statistics for statistics, _ in judged], timeout)[-1], np.array([s for _, s in judged]))


def meteor_scores(
    captions: Sequence[Words], references: Sequence[Sequence[Words]], timeout: float = TIMEOUT
) -> list[float]:
    """Of each caption by itself, without a corpus value."""
    return [score for _, score in _judged(_pairs(captions, references), timeout)]


def _arguments() -> list[str]:
    jar = pycocoevalcap("meteor/meteor-1.5.jar")
    if not jar.is_file():
        raise ComponentError(f"METEOR: {jar} is missing; install pycocoevalcap again")
    return ["-Xmx2G", "-jar", str(_by_plain_path(jar)), "-", "-", "-stdio", "-l", "en", "-norm"]


@cache
def _by_plain_path(jar: Path) -> Path:
    """The jar where no blank is in its path: METEOR looks for its data beside it, by a URL that it escapes twice."""
    if quote(str(jar)) == str(jar):
        return jar
    home = Path(mkdtemp(prefix="rlcap-meteor-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    (home / "data").symlink_to(jar.parent / "data", target_is_directory=True)
    return Path(shutil.copy(jar, home))  # Java would see through a link


def _pairs(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[Pair]:
    return [
        (_text(caption), tuple(_text(reference) for reference in image))
        for caption, image in zip(captions, references, strict=True)
    ]


def _text(words: Words) -> str:
    """Without what ends a line or a field of the program's protocol."""
    return " ".join(words).replace("|||", "").replace("\r", " ").replace("\n", " ")


def _judge(pairs: Sequence[Pair], timeout: float) -> list[tuple[str, float]]:
    """The statistics of each pair, as the program writes them, and the score that they give."""
    questions = [BETWEEN.join(("SCORE", *references, caption)) for caption, references in pairs]
    statistics = METEOR.ask(questions, len(questions), timeout, _statistics)
    return list(zip(statistics, _scores(statistics, timeout)[:-1], strict=True))


def _scores(statistics: Sequence[str], timeout: float) -> list[float]:
    """Of each caption, and last the one of their sum."""
    return METEOR.ask([BETWEEN.join(("EVAL", *statistics))], len(statistics) + 1, timeout, float)


def _statistics(line: str) -> str:
    if len([float(number) for number in line.split()]) != STATISTICS:
        raise ValueError(line)
    return line.strip()


METEOR = JavaTool("METEOR", _arguments, oldest=8)
_judged = Remembered(_judge)
