"""Kendall's tau by enumeration and by hand, and `rlcap correlate` on made-up judgements in Flickr8k's two forms."""

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcap.cli import main
from rlcap.metrics import evaluate_captions
from rlcap.metrics.correlation import kendall

CAPTIONS = {
    "a.jpg": ["A dog runs on grass .", "The brown dog is running"],
    "b.jpg": ["Two cats sleep on a sofa .", "Cats lie there"],
    "c.jpg": ["Three men play chess .", "Men play chess in a park"],
}
EXPERT = "a.jpg\ta.jpg#1\t4\t4\t4\na.jpg\tb.jpg#0\t1\t1\t2\nb.jpg\ta.jpg#0\t1\t2\t2\nc.jpg\tb.jpg#1\t1\t1\t1\n"
CROWD = "a.jpg\ta.jpg#1\t1\t3\t0\na.jpg\tb.jpg#0\t0.333333333333\t1\t2\n"
CROWD += "b.jpg\ta.jpg#0\t0\t0\t3\nb.jpg\tc.jpg#1\t0.25\t1\t3\n"


def by_enumeration(x: list[int], y: list[int]) -> tuple[float, float]:
    """tau-b and tau-c of their definitions, pair by pair."""
    pairs = [((x[i] > x[j]) - (x[i] < x[j]), (y[i] > y[j]) - (y[i] < y[j])) for i, j in combinations(range(len(x)), 2)]
    difference = sum(a * b for a, b in pairs)
    m = min(len(set(x)), len(set(y)))
    if m < 2:
        return math.nan, math.nan
    untied = sum(a != 0 for a, _ in pairs) * sum(b != 0 for _, b in pairs)
    return difference / math.sqrt(untied), 2 * m * difference / (len(x) ** 2 * (m - 1))


@given(st.lists(st.tuples(st.integers(-4, 9), st.integers(0, 5)), max_size=40))
def test_kendall_equals_enumeration(points):
    x, y = [a for a, _ in points], [b for _, b in points]
    found = kendall(x, y)
    # Both sides divide the same whole numbers, in another order: a few units in the last place.
    assert (found.tau_b, found.tau_c) == pytest.approx(by_enumeration(x, y), rel=1e-14, nan_ok=True)
    assert found.points == len(points)


def test_kendall_by_hand():
    """Of 6 pairs: (1,1)-(2,1) and (1,1)-(1,2) tie on one side; (2,1)-(1,2) is opposite, the three with (3,3) agree.

    C - D = 2; 5 pairs without a tie on each side; 3 distinct values on both.
    """
    found = kendall([1, 2, 1, 3], [1, 1, 2, 3])
    assert found.tau_b == pytest.approx(2 / 5)
    assert found.tau_c == pytest.approx(2 / (4**2 * 2 / 6))
    assert kendall([0.1, 0.2, 0.3], [1, 2, 4]).tau_b == kendall([0.1, 0.2, 0.3], [1, 2, 4]).tau_c == 1
    assert kendall([3, 2, 1], [1, 2, 4]).tau_b == -1
    assert math.isnan(kendall([1, 2, 3], [5, 5, 5]).tau_b)
    with pytest.raises(ValueError, match="2 scores for 3 judgements"):
        kendall([1, 2], [1, 2, 3])


def test_kendall_equals_scipy():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    x, y = random.random(20_000).round(3), random.integers(1, 5, 20_000)
    found = kendall(x, y)
    assert found.tau_b == pytest.approx(stats.kendalltau(x, y, variant="b").statistic, rel=1e-9)
    assert found.tau_c == pytest.approx(stats.kendalltau(x, y, variant="c").statistic, rel=1e-9)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [f"{image}#{k}\t{text}\n" for image, texts in CAPTIONS.items() for k, text in enumerate(texts)]
    Path("tokens.txt").write_text("".join(reversed(lines)))  # captions are found by their numbers
    Path("expert.txt").write_text(EXPERT)
    Path("crowd.txt").write_text(CROWD)
    return tmp_path


def correlated(capsys: pytest.CaptureFixture[str], *argv: str) -> dict:
    capsys.readouterr()
    assert main(["correlate", *argv, "--captions", "tokens.txt", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def scores_in(rounds: list[dict[str, str]], wanted: list[tuple[int, str]]) -> dict[str, list[float]]:
    """Metric -> score of each wanted (round, image); a round is one caption for every image of the captions file."""
    references = [[words(text) for text in texts] for texts in CAPTIONS.values()]
    found: dict[str, list[float]] = {}
    for number, image in wanted:
        captions = [words(rounds[number].get(name, "")) for name in CAPTIONS]
        for key, result in evaluate_captions(captions, references, ("bleu", "rouge_l", "cider_d", "cider")).items():
            found.setdefault(key, []).append(float(result.per_image[list(CAPTIONS).index(image)]))
    return found


def words(text: str) -> list[str]:
    return text.lower().replace(" .", "").split()


def test_experts(place, capsys):
    """Each of the three scores counts; captions that are references of their image do not."""
    found = correlated(capsys, "expert.txt")
    assert (found["form"], found["custom"], found["left_out"]) == ("Flickr8k-Expert", "tau_c", 1)
    said = {"a.jpg": CAPTIONS["b.jpg"][0], "b.jpg": CAPTIONS["a.jpg"][0], "c.jpg": CAPTIONS["b.jpg"][1]}
    scores = scores_in([said], [(0, name) for name in CAPTIONS])
    assert list(found["metrics"]) == list(scores)
    for key, values in scores.items():
        tau_b, tau_c = by_enumeration([value for value in values for _ in range(3)], [1, 1, 2, 1, 2, 2, 1, 1, 1])
        # Equal scores are equal to the last bit on both sides, so that only the division rounds.
        assert found["metrics"][key] == {"tau_b": pytest.approx(tau_b), "tau_c": pytest.approx(tau_c), "pairs": 9}, key
    assert len({figures["tau_b"] for figures in found["metrics"].values()}) > 1


def test_crowd(place, capsys):
    """An image judged twice, another not at all: the document frequencies are those of all three images."""
    found = correlated(capsys, "crowd.txt")
    assert (found["form"], found["custom"], found["left_out"]) == ("CrowdFlower", "tau_b", 1)
    rounds = [{"a.jpg": CAPTIONS["b.jpg"][0], "b.jpg": CAPTIONS["a.jpg"][0]}, {"b.jpg": CAPTIONS["c.jpg"][1]}]
    for key, values in scores_in(rounds, [(0, "a.jpg"), (0, "b.jpg"), (1, "b.jpg")]).items():
        tau_b, tau_c = by_enumeration(values, [0.333333333333, 0, 0.25])
        assert found["metrics"][key] == {"tau_b": pytest.approx(tau_b), "tau_c": pytest.approx(tau_c), "pairs": 3}, key


def test_the_same_words_under_another_image_are_a_reference_too(place, capsys):
    Path("tokens.txt").write_text(Path("tokens.txt").read_text() + f"d.jpg#0\t{CAPTIONS['b.jpg'][1]}\n")
    Path("expert.txt").write_text(EXPERT + "b.jpg\td.jpg#0\t4\t4\t3\n")
    assert correlated(capsys, "expert.txt")["left_out"] == 2


def test_own_captions_are_kept_when_asked(place, capsys):
    found = correlated(capsys, "crowd.txt", "--keep-own")
    assert found["left_out"] == 0
    assert found["metrics"]["cider_d"]["pairs"] == 4
    assert found["metrics"]["cider_d"]["tau_b"] > 0.5  # a reference beside itself tops both scales


def test_table(place, capsys):
    figures = correlated(capsys, "expert.txt")["metrics"]
    assert main(["correlate", "expert.txt", "--captions", "tokens.txt"]) == 0
    head, left_out, columns, *lines, last = capsys.readouterr().out.splitlines()
    assert head == "expert.txt: Flickr8k-Expert (custom: tau-c), x100"
    assert left_out.startswith("left out: 1 captions that are references of their image")
    assert columns.split() == ["tau-b", "tau-c", "pairs"]
    assert last == "CIDEr's document frequencies: 3 images of tokens.txt"
    for line, tau in zip(lines, figures.values(), strict=True):
        assert [float(cell) for cell in line.split()[1:]] == [
            round(100 * tau["tau_b"], 2),
            round(100 * tau["tau_c"], 2),
            9,
        ]


def test_a_metric_or_people_that_tell_nothing_apart(place, capsys):
    Path("flat.txt").write_text("a.jpg\tb.jpg#0\t1\t1\t1\nb.jpg\ta.jpg#0\t1\t1\t1\n")
    assert correlated(capsys, "flat.txt")["metrics"]["rouge_l"] == {"tau_b": None, "tau_c": None, "pairs": 6}


def test_the_name_as_published_is_mended(place, capsys):
    tokens = Path("tokens.txt").read_text().replace("b.jpg", "b.jpg.1")
    usual = correlated(capsys, "expert.txt")
    Path("tokens.txt").write_text(tokens)
    assert correlated(capsys, "expert.txt") == usual


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "bad.txt: is empty"),
        ("a.jpg#0\tA dog\n", 'bad.txt, line 1: "a.jpg#0\\tA dog" begins neither ExpertAnnotations.txt nor'),
        (EXPERT + "a.jpg\ta.jpg#1\t4\t4\n", "bad.txt, line 5: "),
        (EXPERT + "a.jpg\ta.jpg#1\t4\t4\t5\n", "is no line of Flickr8k-Expert judgements"),
        (EXPERT + CROWD, "bad.txt, line 5: "),
        (CROWD + EXPERT, "is no line of CrowdFlower judgements"),
        (CROWD + "a.jpg\ta.jpg\t1\t3\t0\n", "bad.txt, line 5: "),
        (CROWD + "a.jpg\tb.jpg#0\t0.5\t1\t2\n", "line 5: 0.5 is not the share of 1 Yes and 2 No"),
        (CROWD + "a.jpg\tb.jpg#0\t0\t0\t0\n", "line 5: 0 is not the share of 0 Yes and 0 No"),
        (EXPERT + "\nx.jpg\tb.jpg#0\t1\t1\t1\n", 'line 6: tokens.txt has no captions of "x.jpg"'),
        (EXPERT + "a.jpg\tx.jpg#0\t1\t1\t1\n", 'line 5: tokens.txt has no captions of "x.jpg"'),
        (EXPERT + "a.jpg\tb.jpg#2\t1\t1\t1\n", 'line 5: tokens.txt has no caption 2 of "b.jpg"'),
        ("a.jpg\ta.jpg#1\t4\t4\t4\n", "--keep-own keeps them"),
    ],
)
def test_bad_judgements(place, capsys, text, said):
    Path("bad.txt").write_text(text)
    assert said in refused(capsys, "bad.txt", "--captions", "tokens.txt")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,caption\na.jpg,A dog\n", "bad.txt, line 1: \"image,caption\" is not 'image#number', a tab, a caption"),
        ("a.jpg#0\tA dog\na.jpg#1\t \n", "bad.txt, line 2: the caption is empty"),
        ("a.jpg#0\tA dog\na.jpg#0\tA cat\n", "bad.txt, line 2: caption 0 of a.jpg stands above already"),
    ],
)
def test_bad_captions(place, capsys, text, said):
    Path("bad.txt").write_text(text)
    assert said in refused(capsys, "expert.txt", "--captions", "bad.txt")


def test_bad_names(place, capsys):
    assert "gone.txt: there is no such file" in refused(capsys, "gone.txt", "--captions", "tokens.txt")
    assert "gone.txt: there is no such file" in refused(capsys, "expert.txt", "--captions", "gone.txt")
    line = refused(capsys, "expert.txt", "--captions", "tokens.txt", "--metrics", "cidre")
    assert "there is no metric 'cidre'" in line


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main(["--quiet", "correlate", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    return err


@pytest.mark.java
def test_meteor_comes_on_request(place, capsys):
    found = correlated(capsys, "expert.txt", "--metrics", "meteor")
    assert list(found["metrics"])[-1] == "meteor"
