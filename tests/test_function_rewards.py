"""A reward that is a plain function: what it gets, what it may give back, and what happens when it fails."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import count
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch

from rlcap.components import find, resolved_arguments
from rlcap.contracts import Candidates, Features, Reward
from rlcap.data.frequencies import DocumentFrequencies
from rlcap.data.references import References
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import ComponentError, ConfigError
from rlcap.rewards import functions
from rlcap.rewards.functions import FunctionReward, reward_factory

NUMBER = count()
TOKENS = [[["a", "red", "ball"], ["red", "ball"]], [["a", "blue", "box"]]]


@pytest.fixture
def references():
    vocabulary = Vocabulary.build([words for image in TOKENS for words in image], min_count=1)
    raw = [["A red ball.", "Red ball!"], ["A blue box"]]
    return References(["x.png", 7], TOKENS, raw, vocabulary, DocumentFrequencies.build(TOKENS, ""))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A user's module that worker processes can import too."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)

    def write(text):
        name = f"functions_{next(NUMBER)}"
        (tmp_path / f"{name}.py").write_text(dedent(text))
        return name

    return write


@pytest.fixture
def written(module):
    """The function `judge` of such a module."""

    def write(text):
        name = module(text)
        find("reward", f"{name}:judge", [Path.cwd()])
        return sys.modules[name].judge

    return write


def spoken(references, texts, ended=True, features=None):
    """Candidates: equally many captions of each image."""
    vocabulary, n = references.vocabulary, len(texts[0])
    rows = [[*vocabulary.encode(text.split()), *[vocabulary.end] * ended] for image in texts for text in image]
    longest = max(map(len, rows))
    words = torch.tensor([row + vocabulary.encode(["box"]) * (longest - len(row)) for row in rows])  # no part of them
    lengths = torch.tensor([len(row) for row in rows])
    images = torch.arange(len(texts))
    return Candidates(words.view(len(texts), n, -1), lengths.view(len(texts), n), images, n, features)


@pytest.fixture
def four(references):
    return spoken(references, [["a red ball", "ball"], ["a blue box", ""]])


def test_a_function_gets_what_it_names(references):
    seen = {}

    def judge(captions, references, raw_references, images, ended, features):
        seen.update(locals())
        return [1, 2, 3, 4]

    values = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[True, True, True], [True, False, True]])
    candidates = spoken(references, [["a red ball", "ball"], ["a blue box", ""]], features=Features(values, mask))
    scores = FunctionReward(references, judge)(candidates)
    assert torch.equal(scores, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert seen["captions"] == ["a red ball", "ball", "a blue box", ""]
    assert seen["references"] == [["a red ball", "red ball"]] * 2 + [["a blue box"]] * 2
    assert seen["raw_references"] == [["A red ball.", "Red ball!"]] * 2 + [["A blue box"]] * 2
    assert seen["images"] == ["x.png", "x.png", 7, 7]
    assert seen["ended"] == [True] * 4
    assert [each.tolist() for each in seen["features"][1:3]] == [values[0].tolist(), values[1, [0, 2]].tolist()]
    assert seen["features"][0].dtype == np.float32


def test_a_cut_caption_has_not_ended(references):
    seen = []

    def judge(captions, ended):
        seen.extend(captions)
        return ended

    cut = FunctionReward(references, judge)(spoken(references, [["a red"], ["a"]], ended=False))
    assert cut.tolist() == [[0.0], [0.0]]
    assert seen == ["a red", "a"]


def test_images_that_are_seen_as_pixels_are_features(references):
    pixels = torch.rand(2, 3, 4, 4)
    candidates = spoken(references, [["a"], ["a"]], features=Features.of_pixels(pixels))
    scores = FunctionReward(references, lambda features: [each[2, 1, 3] for each in features])(candidates)
    assert scores.flatten().tolist() == pixels[:, 2, 1, 3].tolist()


def test_features_that_are_not_there_are_missed(references, four):
    with pytest.raises(ComponentError, match=r"^reward 'judge': asks for features, and there are none here$"):
        FunctionReward(references, lambda features: [0] * 4, "judge")(four)


def test_a_function_cannot_change_what_is_ours(references):
    def judge(captions, references, raw_references):
        for listed in (captions, *references, *raw_references):
            listed.clear()
        return [1.0] * 4

    candidates = spoken(
        references, [["a", "a"], ["a", "a"]], features=Features(torch.ones(2, 1, 1), torch.ones(2, 1) > 0)
    )
    FunctionReward(references, judge)(candidates)
    assert references.raw == [["A red ball.", "Red ball!"], ["A blue box"]]
    assert references.tokens[0][0] == ["a", "red", "ball"]

    def paint(features):
        features[0][:] = 0
        return [1.0] * 4

    with pytest.raises(ComponentError, match="ValueError: assignment destination is read-only"):
        FunctionReward(references, paint)(candidates)
    assert candidates.features.values.tolist() == [[[1.0]], [[1.0]]]


def test_one_shared_list_is_each_captions_own(references, four):
    def judge(references):
        references[0].clear()
        return [len(several) for several in references]

    assert FunctionReward(references, judge)(four).tolist() == [[0.0, 2.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    "answer",
    [
        [1, 2.5, True, np.float32(4)],
        (1, 2.5, np.True_, torch.tensor(4)),
        np.array([1, 2.5, 1, 4], np.float16),
        np.array([1, 2.5, True, 4], object),
        torch.tensor([1, 2.5, 1, 4], dtype=torch.bfloat16, requires_grad=True),
    ],
)
def test_numbers_come_in_many_forms(references, four, answer):
    scores = FunctionReward(references, lambda captions: answer)(four)
    assert (scores.dtype, scores.requires_grad) == (torch.float32, False)
    assert scores.tolist() == [[1.0, 2.5], [1.0, 4.0]]


WANTED = "give a list, array or tensor of 4 numbers, one a caption"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([1, 2, 3], f"gave 3 numbers; {WANTED}"),
        (torch.zeros(4, 1), rf"gave numbers of shape \(4, 1\); {WANTED}"),
        (np.float64(3), rf"gave numbers of shape \(\); {WANTED}"),
        (None, rf"gave None \(is a return missing\?\); {WANTED}"),
        (1.0, f"gave a float; {WANTED}"),
        ("abcd", f"gave a str; {WANTED}"),
        ({1: 1, 2: 2, 3: 3, 4: 4}, f"gave a dict; {WANTED}"),
        ((0 for _ in range(4)), f"gave a generator; {WANTED}"),
        (
            [1, float("nan"), 1, 1],
            r"answer\[1\] is nan, not a finite number of float32, for caption 'ball' of image x.png",
        ),
        (torch.tensor([0, 0, -torch.inf, 0]), r"answer\[2\] is -inf, .* for caption 'a blue box' of image 7"),
        ([0, 0, 0, 1e39], r"answer\[3\] is 1e\+39, not a finite number of float32, for caption '' of image 7"),
        ([0, 0, 0, 10**400], r"answer\[3\] is 1000+, not a finite"),
        ([0, None, 0, 0], r"answer\[1\] is None, not a number, for caption 'ball'"),
        (["0.5", 0, 0, 0], r"answer\[0\] is a str \('0.5'\), not a number, for caption 'a red ball'"),
        ([[1], 0, 0, 0], r"answer\[0\] is a list \('\[1\]'\), not a number"),
        (np.zeros(4, complex), r"answer\[0\] is a complex"),
        (np.array(["1"] * 4), r"answer\[0\] is a str"),
    ],
)
def test_what_is_no_number_a_caption_is_refused(references, four, answer, said):
    with pytest.raises(ComponentError, match=f"^reward 'mine': {said}") as refused:
        FunctionReward(references, lambda captions: answer, "mine")(four)
    assert "\n" not in str(refused.value)


def test_a_failing_caption_is_found(references, four, written):
    judge = written("""
        import torch

        def share(caption):
            return 1 / len(caption)

        @torch.no_grad()
        def judge(captions):
            return [share(caption) for caption in captions]
    """)
    with pytest.raises(ComponentError) as failed:
        FunctionReward(references, judge, "mine")(four)
    file = judge.__wrapped__.__code__.co_filename
    place = f"ZeroDivisionError: division by zero at {file}:5"
    assert str(failed.value) == f"reward 'mine': {place}, for caption '' of image 7"
    assert isinstance(failed.value.__cause__, ZeroDivisionError)  # for --debug


def test_a_batch_that_fails_as_a_whole_has_no_culprit(references, four):
    def judge(captions):
        if len(captions) == 1:
            raise KeyError("another fault than that of the batch")
        raise ValueError("of\nmore")

    with pytest.raises(
        ComponentError, match=r"ValueError: of more at .*\.py:\d+, for a batch of 4 captions, first 'a red"
    ):
        FunctionReward(references, judge)(four)


def test_the_search_for_the_culprit_has_an_end(references, four, monkeypatch):
    monkeypatch.setattr("rlcap.rewards.calling.SEARCH", -1.0)
    with pytest.raises(ComponentError, match="for a batch of 4 captions"):
        FunctionReward(references, lambda captions: [1 / len(caption) for caption in captions])(four)


def test_exit_is_a_failure_and_ctrl_c_is_none(references, four):
    with pytest.raises(ComponentError, match="SystemExit: 3 at "):
        FunctionReward(references, lambda captions: sys.exit(3))(four)

    def interrupted(captions):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FunctionReward(references, interrupted)(four)


def test_a_constant_function_is_asked_once(references, monkeypatch):
    asked = []

    def judge(captions, images):
        asked.append(list(zip(captions, images, strict=True)))
        return [len(caption) for caption in captions]

    reward = FunctionReward(references, judge, constant=True)
    texts = [["a", "ball", "a"], ["a", "ball", "box"]]
    first = reward(spoken(references, texts))
    assert first.tolist() == [[1, 4, 1], [1, 4, 3]]
    assert len(asked[0]) == 5
    assert set(asked[0]) == {("a", "x.png"), ("ball", "x.png"), ("a", 7), ("ball", 7), ("box", 7)}
    assert torch.equal(reward(spoken(references, texts)), first)
    assert len(asked) == 1
    reward(spoken(references, [["a", "red", "a"], ["a", "ball", "box"]]))
    assert asked[1] == [("red", "x.png")]
    monkeypatch.setattr(functions, "REMEMBERED", 2)  # the last two that were asked for
    reward(spoken(references, [["a"], ["a"]]))
    reward(spoken(references, [["a"], ["box"]]))
    assert asked[2:] == [[("box", 7)]]


def test_a_constant_function_that_fails_names_the_caption(references, four):
    reward = FunctionReward(references, lambda captions: [1 / len(c) for c in captions], constant=True)
    reward(spoken(references, [["a red ball", "ball"], ["a blue box", "box"]]))
    with pytest.raises(ComponentError, match="for caption '' of image 7"):
        reward(four)


def test_settings_are_the_keyword_only_parameters(references, four):
    def judge(captions, *, limit: int = 10, images=()):
        return [limit] * len(images)

    assert FunctionReward(references, judge)(four).tolist() == [[10, 10], [10, 10]]
    assert FunctionReward(references, judge, limit=3)(four).tolist() == [[3, 3], [3, 3]]
    assert FunctionReward(references, partial(judge, limit=4))(four).tolist() == [[4, 4], [4, 4]]
    with pytest.raises(ConfigError, match=r"reward 'judge': unknown setting 'limt' \(did you mean 'limit'\?\)"):
        FunctionReward(references, judge, limt=3)
    with pytest.raises(ConfigError, match="reward 'judge': unknown setting 'images'"):
        FunctionReward(references, judge, images=3)

    def strict(captions, *, limit): ...

    with pytest.raises(ConfigError, match="the setting 'limit' is missing"):
        FunctionReward(references, strict)


def test_a_recipe_checks_the_functions_settings_and_ours(references, four, module):
    name = module("""
        from __future__ import annotations
        from typing import Literal

        def judge(captions, old=1, *, images, limit: int = 10, kind: Literal["words", "letters"] = "words"):
            return [limit * old for _ in captions]
    """)
    factory = find("reward", f"{name}:judge", [Path.cwd()])
    resolved, problems = resolved_arguments(factory, {"limit": 3})
    assert not problems
    assert resolved == {"workers": 0, "time_limit": None, "constant": False, "limit": 3, "kind": "words"}
    assert factory(references, **resolved)(four).tolist() == [[3, 3], [3, 3]]
    given = {"limit": "x", "kind": "word", "workers": -1, "time_limit": 0, "old": 2, "constnt": True}
    _, problems = resolved_arguments(factory, given)
    assert {str(problem) for problem in problems} == {
        "limit: should be a whole number, not 'x'",
        "kind: should be one of 'words' or 'letters', not 'word'",
        "workers: should be at least 0, not -1",
        "time_limit: should be more than 0, not 0",
        "old: is a positional parameter; a recipe sets keyword-only ones: put it behind a * in judge",
        "constnt: unknown key (did you mean 'constant'?)",
    }


def test_a_class_is_its_own_factory():
    class Mine(Reward):
        def __call__(self, candidates): ...

    assert reward_factory(Mine, "mine") is Mine
    with pytest.raises(ComponentError, match=r"reward 'int': is a class, but no rlcap.contracts.Reward"):
        reward_factory(int, "int")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda caps: 0, r"no reward is given 'caps' \(did you mean 'captions'\?\)|asks for nothing"),
        (lambda captions, model: 0, r"no reward is given 'model' \(known: captions, .*\); put a setting behind a \*"),
        (lambda: 0, "asks for nothing; name a parameter 'captions'"),
        (lambda captions, *, weight=1: 0, "its setting 'weight' means something else in a recipe"),
        (lambda captions, *, workers=1: 0, "its setting 'workers' means something else in a recipe"),
        (lambda captions, /: 0, "'captions' is positional-only"),
        (3, "is a int, not a function"),
    ],
)
def test_functions_that_ask_for_the_wrong_things_are_refused(references, function, said):
    with pytest.raises(ComponentError, match=said):
        FunctionReward(references, function, "mine")


# Worker processes.


def test_workers_say_the_same(references, written):
    judge = written("""
        import os

        def judge(captions, features, *, scale=1):
            return [scale * float(each.sum()) + len(caption) for caption, each in zip(captions, features)]

        def who(captions):
            return [os.getpid()] * len(captions)
    """)
    features = Features(torch.rand(2, 3, 2), torch.ones(2, 3, dtype=torch.bool))
    candidates = spoken(references, [["a", "ball", "box"], ["a", "", "red"]], features=features)
    alone = FunctionReward(references, judge, scale=2)(candidates)
    shared = FunctionReward(references, judge, workers=2, scale=2)
    assert torch.equal(shared(candidates), alone)
    assert torch.equal(shared(spoken(references, [["a"]], features=features)), alone[:1, :1])  # fewer than workers
    who = FunctionReward(references, sys.modules[judge.__module__].who, workers=2)
    first, second = who(candidates), who(candidates)
    assert torch.equal(first, second)  # they stay
    assert len(set(first.flatten().tolist())) == 2
    assert os.getpid() not in first.flatten().tolist()


def test_a_worker_that_fails_names_the_caption(references, four, written):
    judge = written("""
        import os

        def judge(captions):
            if "ball" in captions[0] and len(captions) == 1:
                os._exit(3)
            return [1 / len(caption) for caption in captions]
    """)
    reward = FunctionReward(references, judge, "mine", workers=2)
    place = f"ZeroDivisionError: division by zero at {judge.__code__.co_filename}:7"
    for _ in range(2):  # the second time by new processes
        with pytest.raises(ComponentError) as failed:
            reward(four)
        assert str(failed.value) == f"reward 'mine': {place}, for caption '' of image 7"
    assert "in a worker process:\nTraceback" in str(failed.value.__cause__)
    death = r"^reward 'mine': its worker process ended with status 3, for caption 'a red ball' of image x.png$"
    with pytest.raises(ComponentError, match=death):
        reward(spoken(references, [["a red ball"], ["a"]]))
    assert reward(spoken(references, [["a"], ["a"]])).tolist() == [[1.0], [1.0]]


def test_a_time_limit_ends_the_call_and_the_processes(references, written, tmp_path):
    judge = written("""
        import os, pathlib, time

        def judge(captions):
            if "red" in captions:
                pathlib.Path(f"at-{os.getpid()}").touch()
                time.sleep(60)
            return [1.0] * len(captions)
    """)
    reward = FunctionReward(references, judge, "mine", workers=2, time_limit=0.5)
    assert reward(spoken(references, [["a"], ["a"]])).tolist() == [[1.0], [1.0]]
    begun = time.monotonic()
    with pytest.raises(ComponentError, match=r"ended after its time_limit of 0.5 s, for caption 'red' of image 7$"):
        reward(spoken(references, [["a"], ["red"]]))
    assert time.monotonic() - begun < 10  # it sleeps 60 s
    (left,) = tmp_path.glob("at-*")
    with pytest.raises(ProcessLookupError):
        os.kill(int(left.name.removeprefix("at-")), 0)
    assert reward(spoken(references, [["a"], ["a"]])).tolist() == [[1.0], [1.0]]


def test_a_time_limit_needs_a_worker(references):
    with pytest.raises(ConfigError, match="reward 'mine': time_limit needs worker processes; set workers to 1 or more"):
        FunctionReward(references, lambda captions: [], "mine", time_limit=1.0)


def test_workers_need_a_function_that_has_a_name(references, monkeypatch):
    def inner(captions): ...

    for function in (inner, lambda captions: []):
        with pytest.raises(
            ComponentError, match=r"worker processes cannot import it by its name; put it into a module"
        ):
            FunctionReward(references, function, workers=1)
    program = sys.modules["__main__"]
    monkeypatch.setattr(program, "of_the_program", inner, raising=False)
    inner.__module__, inner.__qualname__ = "__main__", "of_the_program"
    with pytest.raises(ComponentError, match=r"of_the_program: is written in the program itself"):
        FunctionReward(references, inner, workers=1)


PROGRAM = """
import signal, sys
from rlcap.rewards.pool import Pool
from {name} import judge

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins deaf to it
try:
    Pool(judge, 2).call({{"captions": ["a", "b"]}}, {{}}, None)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_ends_the_workers_without_a_word_of_theirs(module, tmp_path):
    name = module("""
        import os, pathlib, time

        def judge(captions):
            pathlib.Path(f"at-{os.getpid()}").touch()
            time.sleep(60)
    """)
    command = [sys.executable, "-c", PROGRAM.format(name=name)]  # without a guard: workers do not run it again
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 60
    while len(workers := list(tmp_path.glob("at-*"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of the group
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "")
    assert len(workers) == 2
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(int(worker.name.removeprefix("at-")), 0)
