"""SPICE (Anderson et al. 2016, https://arxiv.org/abs/1607.08822), by the Java classes that pycocoevalcap brings.

It needs Stanford CoreNLP 3.6.0, which is not part of any package. The parser is loaded once and stays:
SpiceServer.java beside this file asks SPICE's own classes and remembers what each sentence says.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlcap.errors import ComponentError
from rlcap.metrics.java import JavaTool, Pair, Remembered, pycocoevalcap
from rlcap.metrics.ngrams import Result, Words, check_pairs

TIMEOUT = 300.0  # seconds of silence; the first answer includes the loading of the parser
AT_ONCE = 20  # captions a line: with their references they keep some threads busy
SERVER = Path(__file__).with_name("SpiceServer.java")
CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
SOURCE = "https://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"
# Libraries of that time reach by reflection into packages that Java has kept closed since version 16.
OPENED = ("java.lang", "java.math", "java.util", "java.util.concurrent", "java.net", "java.text")


def spice(captions: Sequence[Words], references: Sequence[Sequence[Words]], timeout: float = TIMEOUT) -> Result:
    """The F-measure of what caption and references say; the corpus value is the mean over images."""
    check_pairs(captions, references)
    scores = np.array(spice_scores(captions, references, timeout))
    return Result(float(scores.mean()), scores)


def spice_scores(
    captions: Sequence[Words], references: Sequence[Sequence[Words]], timeout: float = TIMEOUT
) -> list[float]:
    """Of each caption by itself."""
    pairs: list[Pair] = [
        (" ".join(caption), tuple(" ".join(reference) for reference in image))
        for caption, image in zip(captions, references, strict=True)
    ]
    return _judged(pairs, timeout)


def _arguments() -> list[str]:
    jar = pycocoevalcap("spice/spice-1.0.jar")
    if not jar.is_file():
        raise ComponentError(f"SPICE: {jar} is missing; install pycocoevalcap again")
    for name in CORENLP:
        if not (jar.parent / "lib" / name).is_file():
            raise ComponentError(
                f"SPICE needs Stanford CoreNLP, and {jar.parent / 'lib' / name} is missing; "
                f"take {' and '.join(CORENLP)} out of {SOURCE} and put them there, or leave SPICE out"
            )
    opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED]
    return ["-Xmx8G", *opened, "-cp", str(jar), str(SERVER)]  # the jar names those in lib


def _judge(pairs: Sequence[Pair], timeout: float) -> list[float]:
    lines = [json.dumps(pairs[first : first + AT_ONCE]) for first in range(0, len(pairs), AT_ONCE)]
    return [score for scores in SPICE.ask(lines, len(lines), timeout, _numbers) for score in scores]


def _numbers(line: str) -> list[float]:
    return [float(number) for number in json.loads(line)]


SPICE = JavaTool("SPICE", _arguments, oldest=11, compiler=True)
_judged = Remembered(_judge)
