"""METEOR and SPICE. By default a script stands in for `java`; with `-m java` the real ones run."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from corenlp_stand_in import build
from java_stand_in import ECHO, StandIn

from rlcap.contracts import Candidates
from rlcap.data.frequencies import DocumentFrequencies
from rlcap.data.references import References
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import ComponentError
from rlcap.metrics import evaluate_captions, meteor, spice
from rlcap.metrics.java import Remembered, pycocoevalcap
from rlcap.metrics.meteor import METEOR
from rlcap.metrics.spice import CORENLP, SPICE
from rlcap.rewards.java_metrics import Meteor, Spice

LONG = 60.0  # seconds of silence that a sound answer never needs
# The statistics of a caption: 22 zeros and how many of its words its references have; its score: the share of 8.
LIKE_METEOR = """
sys.stdin.reconfigure(newline=None)  # as in Java, a carriage return ends a line
for line in sys.stdin:
    (folder / "asked").open("a").write(line)
    kind, *fields = line.rstrip("\\n").split(" ||| ")
    if kind == "SCORE":
        print(*[0] * 22, len(set(fields[-1].split()) & set(" ".join(fields[:-1]).split())), flush=True)
    else:
        found = [float(field.split()[-1]) for field in fields]
        print(*[n / 8 for n in found], sum(found) / 8 / len(found) ** 2, sep="\\n", flush=True)
"""
LIKE_SPICE = """
for line in sys.stdin:
    print([len(caption.split()) / len(references) for caption, references in json.loads(line)], flush=True)
"""


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process and no answer passes from one test to another."""
    for name in ("meteor", "spice"):
        module = import_module(f"rlcap.metrics.{name}")
        monkeypatch.setattr(module, "_judged", Remembered(module._judge))
    yield
    METEOR.close()
    SPICE.close()


def made_references() -> References:
    tokens = [[["a", "dog", "runs"], ["the", "dog"]], [["a", "red", "car"]]]
    vocabulary = Vocabulary.build([words for image in tokens for words in image], min_count=1)
    frequencies = DocumentFrequencies.build(tokens, vocabulary.fingerprint)
    return References([7, 9], tokens, [["…"], ["…"]], vocabulary, frequencies)


def made_candidates(references: References, texts: list[list[str]]) -> Candidates:
    """What stands behind a caption's length is a word that would count."""
    vocabulary = references.vocabulary
    rows = [[[*vocabulary.encode(text.split()), vocabulary.end] for text in image] for image in texts]
    (dog,) = vocabulary.encode(["dog"])
    words = torch.tensor([[(row + [dog] * 8)[:8] for row in image] for image in rows])
    lengths = torch.tensor([[len(row) for row in image] for image in rows])
    return Candidates(words, lengths, torch.tensor([1, 0]), drawn=2)


# What is missing


@pytest.mark.parametrize("ask", [lambda: meteor([["a"]], [[["a"]]]), lambda: Meteor(made_references())])
def test_no_java_is_told_before_anything_starts(ask, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ComponentError, match="METEOR needs Java 8 or newer, and there is no `java` on PATH; install"):
        ask()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('java version "1.7.0_80"', "METEOR needs Java 8 or newer, and .*/java is Java 7; install"),
        ("Unable to locate a\nJava Runtime.", "java -version` says 'Unable to locate a Java Runtime.'; install"),
    ],
)
def test_the_wrong_java_is_told(said, told, java):
    java.install(ECHO, version=said)
    with pytest.raises(ComponentError, match=told):
        meteor([["a"]], [[["a"]]])


@pytest.mark.parametrize("said", ['openjdk version "1.8.0_402"', 'java version "22-ea" 2024-03-19', 'version "21"'])
def test_other_versions_are_read(said, java):
    java.install(ECHO, version=said)
    assert METEOR.preflight()


def test_spice_needs_a_newer_java_with_a_compiler(java):
    java.install(LIKE_SPICE, version='version "1.8.0_402"')
    with pytest.raises(ComponentError, match=r"SPICE needs Java 11 or newer \(a JDK\), and .* is Java 8"):
        Spice(made_references())
    java.install(LIKE_SPICE, modules="java.base@17")
    with pytest.raises(ComponentError, match=r"no compiler \(jdk.compiler\); install a JDK instead of a JRE"):
        spice([["a"]], [[["a"]]])


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A pycocoevalcap that holds nothing, in the place of the installed one."""
    (tmp_path / "site" / "pycocoevalcap").mkdir(parents=True)
    elsewhere = [path for path in sys.path if not (Path(path) / "pycocoevalcap").exists()]
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *elsewhere])
    for name in [name for name in sys.modules if name.partition(".")[0] == "pycocoevalcap"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path / "site" / "pycocoevalcap"


def test_a_missing_package_or_jar_is_told(java, package):
    java.install(ECHO)
    with pytest.raises(ComponentError, match=r"pycocoevalcap/meteor/meteor-1.5.jar is missing; install pycocoevalcap"):
        meteor([["a"]], [[["a"]]])
    with pytest.raises(ComponentError, match=r"pycocoevalcap/spice/spice-1.0.jar is missing; install pycocoevalcap"):
        spice([["a"]], [[["a"]]])
    package.rmdir()
    with pytest.raises(ComponentError, match="part of pycocoevalcap, which is missing: pip install pycocoevalcap"):
        meteor([["a"]], [[["a"]]])


def test_missing_corenlp_is_told_with_where_to_get_it_and_where_to_put_it(java, package):
    java.install(LIKE_SPICE)
    lib = package / "spice" / "lib"
    lib.mkdir(parents=True)
    (lib.parent / "spice-1.0.jar").touch()
    for jar in CORENLP:
        with pytest.raises(ComponentError) as caught:
            Spice(made_references())
        assert f"{lib / jar} is missing; take" in str(caught.value)
        assert "https://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip" in str(caught.value)
        (lib / jar).touch()
    assert spice([["a", "b"], []], [[["a"]], [["a"]]]).per_image.tolist() == [2, 0]
    assert len(java.started) == 1


# The metrics


def test_odd_words_cannot_break_the_protocol_of_meteor(java, tmp_path):
    java.install(LIKE_METEOR)
    odd = ["x\ny", "|||", "a|||", "\u2028", "z\r", "\ud800"]
    captions = [odd, ["plain"], [], odd]
    result = meteor(captions, [[["x", "a"], odd], [["plain"]], [["a"]], [["x", "a"], odd]])
    # Of x, y, a, z and what UTF-8 writes for a lone surrogate; Python's split sees a blank in U+2028, Java none.
    assert result.per_image.tolist() == [5 / 8, 1 / 8, 0, 5 / 8]
    assert result.corpus == (5 + 1 + 0 + 5) / 8 / 16
    asked = tmp_path / "asked"
    assert asked.read_text().count("SCORE") == 3  # the pair that stands twice is asked once
    assert evaluate_captions(captions[1:2], [[["plain"]]], ["meteor"])["meteor"].per_image.tolist() == [1 / 8]
    assert asked.read_text().count("SCORE") == 3


def test_the_rewards_judge_each_caption_by_its_own_image(java):
    java.install(LIKE_METEOR)
    references = made_references()
    candidates = made_candidates(references, [["a red dog", "car car", ""], ["a red dog", "the dog runs", "red"]])
    reward = Meteor(references, timeout=LONG)
    assert java.started == []
    scores = reward(candidates)
    torch.testing.assert_close(scores, torch.tensor([[2, 1, 0], [2, 3, 0]]) / 8)
    candidates.lengths[0, 0] = 1  # cut behind "a", without an end token
    assert reward(candidates)[0, 0] == 1 / 8
    assert len(java.started) == 1


def test_spice_asks_some_captions_at_a_time(java, package):
    java.install(LIKE_SPICE)
    (package / "spice" / "lib").mkdir(parents=True)
    for jar in ["spice-1.0.jar", *(f"lib/{name}" for name in CORENLP)]:
        (package / "spice" / jar).touch()
    captions = [["w\n"] * n for n in range(50)]
    result = spice(captions, [[["r"], ["s"]]] * 50)
    assert result.per_image.tolist() == [n / 2 for n in range(50)]
    assert result.corpus == 49 / 4
    references = made_references()
    candidates = made_candidates(references, [["a red dog", ""], ["a red dog", "red"]])
    assert Spice(references)(candidates).tolist() == [[3, 0], [1.5, 0.5]]


# With Java


ODD = [
    ("a man rides a horse in front of the house", ["a man is riding a horse before a house", "the rider"]),
    ("an automobile , parked .", ["a car is parked ."]),
    ("", ["a dog"]),
    ("a dog", [""]),
    ("", [""]),
    ("... !", [". . ."]),
    ("a dog 's don't -lrb- e-mail -rrb-", ["the dog's do n't ( e-mail )"]),
    ("le café naïve 中国 😀 İ", ["LE CAFÉ naive 中国 😀 i"]),
    ("one\u2028two\u00a0three\x85four", ["one two three four"]),
    ("a a a a a a a", ["a a", "a b a b a"]),
    ("50 % of $ 3.50", ["50% of $3.50", "half"]),
]


def in_blanks(captions: list[list[str]], references: list[list[list[str]]]) -> tuple[dict, dict]:
    """As pycocoevalcap takes them: references, captions."""
    given = {i: [" ".join(words) for words in image] for i, image in enumerate(references)}
    return given, {i: [" ".join(words)] for i, words in enumerate(captions)}


@pytest.mark.java
def test_meteor_equals_pycocoevalcap_also_after_a_crash():
    from pycocoevalcap.meteor.meteor import Meteor as Theirs

    if " " in sys.prefix:
        pytest.skip("pycocoevalcap's own METEOR does not run where its path holds a blank")
    theirs = Theirs()
    captions = [caption.split(" ") for caption, _ in ODD]
    references = [[reference.split(" ") for reference in image] for _, image in ODD]
    corpus, per_image = theirs.compute_score(*in_blanks(captions, references))
    ours = meteor(captions, references)
    assert (ours.corpus, ours.per_image.tolist()) == (corpus, per_image)
    assert len({*per_image}) > 6

    killed = METEOR.pid
    killer = threading.Timer(0.3, lambda: os.kill(killed, 9))  # 3,000 captions take seconds
    killer.start()
    many = [[f"word{n}", "horse", "in", "a", "house"] for n in range(3000)]
    scores = meteor(many, [[["a", "horse", "in", "the", "house"]]] * len(many)).per_image
    killer.join()
    assert METEOR.pid != killed
    assert len(scores) == len(many)
    assert len(set(scores)) == 1
    assert meteor(captions, references).corpus == corpus

    made = made_references()
    rewards = Meteor(made)(made_candidates(made, [["a red dog", "car"], ["a dog runs", "the the"]]))
    said = [["a", "red", "dog"], ["car"], ["a", "dog", "runs"], ["the", "the"]]
    _, each = theirs.compute_score(*in_blanks(said, [made.tokens[1]] * 2 + [made.tokens[0]] * 2))
    np.testing.assert_allclose(rewards.flatten(), each, rtol=1e-6)  # float32


@pytest.mark.java
@pytest.mark.skipif(shutil.which("javac") is None, reason="needs javac")
def test_spice_runs_with_a_stand_in_for_corenlp(tmp_path, monkeypatch, capfd):
    """All of SPICE but the parser: each word is a noun. The figures are those of its own main program."""
    installed = pycocoevalcap("spice")
    build(tmp_path, installed)
    monkeypatch.syspath_prepend(str(tmp_path))
    captions = [["dog", "cat"], ["automobile"], [], ["ü\u2028", "x\ny"]]
    references = [[["dog"], ["horse"]], [["car"], ["car", "cat"]], [["dog"]], [["ü\u2028"]]]
    result = spice(captions, references)
    # Two nouns of which one is among two; one synonym of two nouns; nothing; one of x, y, ü (a blank is no noun).
    np.testing.assert_allclose(result.per_image, [1 / 2, 2 / 3, 0, 2 / 3])
    pairs = [
        {"image_id": i, "test": " ".join(caption), "refs": [" ".join(words) for words in image]}
        for i, (caption, image) in enumerate(zip(captions, references, strict=True))
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    jar = tmp_path / "pycocoevalcap" / "spice" / "spice-1.0.jar"
    main = subprocess.run(["java", "-jar", jar, tmp_path / "pairs.json"], check=True, capture_output=True, text=True)
    found = re.search(r"f-score:\s+([\d.]+)", main.stdout)
    assert found is not None
    assert float(found[1]) == pytest.approx(result.corpus, abs=5e-4)  # it prints three digits
    spice([["dog", "cat"], ["horse"]], references[:2])
    parsed = [line.partition("parsed: ")[2] for line in capfd.readouterr().err.splitlines() if "parsed: dog" in line]
    assert parsed.count("dog cat") == 1  # the second time its words are known
