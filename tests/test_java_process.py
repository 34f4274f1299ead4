"""The Java process behind METEOR and SPICE: crash, silence, many callers, its end. A script stands in for `java`."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from java_stand_in import ECHO, StandIn, alive
from processes import in_a_child

from rlcap.errors import ComponentError
from rlcap.metrics.java import JavaTool, Remembered

LONG = 60.0  # seconds of silence that a sound answer never needs


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(tmp_path, monkeypatch)


@pytest.fixture
def echo() -> Iterator[JavaTool]:
    tool = JavaTool("ECHO", lambda: [], oldest=8)
    yield tool
    tool.close()


def test_nothing_starts_unless_asked(java, echo):
    java.install(ECHO)
    assert java.started == []
    assert echo.pid is None
    assert echo.ask(["1"], 1, LONG, float) == echo.ask(["1"], 1, LONG, float)
    assert java.started == [echo.pid]


def test_a_crash_in_the_middle_loses_nothing(java, echo, capsys):
    java.install("""
for number, line in enumerate(sys.stdin):
    if starts == 1 and number == 3: sys.exit("out of luck")
    print(line.strip(), flush=True)
""")
    lines = [str(n) for n in range(10)]
    assert echo.ask(lines, 10, LONG, float) == list(range(10))
    assert len(java.started) == 2
    shown = capsys.readouterr().err
    assert "ECHO: out of luck\n" in shown
    assert "ended with status 1 (stderr: out of luck); starting it again" in shown


def test_a_second_crash_is_told_with_its_last_words(java, echo):
    java.install("sys.exit('Error: x\\n\\tat a.b(C.java:1)\\nCaused by: y')")
    with pytest.raises(ComponentError, match=r"ECHO died twice .* status 1 \(stderr: Error: x \| Caused by: y\)"):
        echo.ask(["1"], 1, LONG, float)
    assert len(java.started) == 2
    java.install(ECHO)
    assert echo.ask(["1"], 1, LONG, float) == [1]


def test_silence_ends_the_process_and_only_it(java, tmp_path, echo):
    java.install("""
for line in sys.stdin:
    if line.strip() == "2":
        os.fork()
        while True: (folder / "ticks").open("a").write("."), time.sleep(0.02)
    print(line.strip(), flush=True)
""")
    other = JavaTool("OTHER", lambda: [], oldest=8)
    assert other.ask(["7"], 1, LONG, float) == [7]
    with pytest.raises(
        ComponentError, match=r"no answer for 0.5 s, so its process \d+ was ended; it had answered 1 of 3"
    ):
        echo.ask(["1", "2", "3"], 3, 0.5, float)
    first, second = java.started
    assert alive(first)
    assert not alive(second)  # no zombie either
    ticks = (tmp_path / "ticks").read_text()
    time.sleep(0.1)
    assert (tmp_path / "ticks").read_text() == ticks  # what it had started is ended with it
    assert echo.ask(["4"], 1, LONG, float) == [4]  # not the late answer to another question
    assert other.pid == first
    other.close()
    assert not alive(first)


def test_an_answer_that_is_none_is_told_and_mixes_with_no_other(java, echo):
    java.install(ECHO)
    with pytest.raises(ComponentError, match="ECHO: answers 'Error: what'"):
        echo.ask(["1", "Error: what", "2", "3"], 4, LONG, float)
    assert echo.ask(["5"], 1, LONG, float) == [5]


def test_many_callers_each_get_their_own_answers(java, echo):
    java.install(ECHO)
    answers: dict[int, list[float]] = {}

    def call(caller: int) -> None:
        answers[caller] = [echo.ask([f"{caller}.{n}"] * 9, 9, LONG, float)[-1] for n in range(1, 10)]

    callers = [threading.Thread(target=call, args=(n,)) for n in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert answers == {caller: [float(f"{caller}.{n}") for n in range(1, 10)] for caller in range(6)}
    assert len(java.started) == 1


def test_a_batch_larger_than_the_pipes_does_not_jam(java, echo):
    java.install(ECHO)
    lines = [f"{n}{'0' * 300}" for n in range(1, 1001)]  # 300 kB each way; a pipe holds 64 kB
    assert echo.ask(lines, len(lines), LONG, str.strip) == lines


def test_a_process_that_does_not_listen_is_ended_too(java, echo):
    java.install("time.sleep(600)")
    with pytest.raises(ComponentError, match=r"no answer for 0\.5 s"):
        echo.ask(["0" * 300] * 1000, 1, 0.5, float)  # more than a pipe holds


def test_a_forked_child_has_a_process_of_its_own(java, echo):
    java.install(ECHO)
    echo.ask(["1"], 1, LONG, float)

    def child() -> None:
        assert echo.ask(["2"], 1, LONG, float) == [2]
        echo.close()

    assert in_a_child(child) == 0
    first, second = java.started
    assert echo.pid == first
    assert not alive(second)
    assert echo.ask(["3"], 1, LONG, float) == [3]
    assert len(java.started) == 2


@pytest.mark.parametrize("end", ["", "raise ValueError", "os.kill(os.getpid(), 9)", "os._exit(0)"])
def test_the_process_ends_with_the_program(end, java):
    java.install(ECHO)
    program = f"""
import os
from rlcap.metrics.java import JavaTool
tool = JavaTool("ECHO", lambda: [], oldest=8)
assert tool.ask(["1"], 1, 60.0, float) == [1]
{end}
"""
    subprocess.run([sys.executable, "-c", program], check=False, stderr=subprocess.DEVNULL)
    (pid,) = java.started
    until = time.monotonic() + 10
    while alive(pid) and time.monotonic() < until:  # where we were killed, it ends by itself
        time.sleep(0.02)
    assert not alive(pid)


def test_only_what_is_new_is_asked_and_the_last_used_are_kept():
    asked: list[str] = []

    def judge(pairs, timeout):
        asked.extend(caption for caption, _ in pairs)
        return [caption.upper() for caption, _ in pairs]

    remembered = Remembered(judge, most=2)

    def ask(captions: str) -> str:
        asked.clear()
        answers = remembered([(caption, ("r",)) for caption in captions], 1.0)
        return f"{''.join(answers)} {''.join(asked)}"

    assert ask("aba") == "ABA ab"
    assert ask("ac") == "AC c"  # b was used longest ago
    assert ask("ab") == "AB b"
    assert ask("cdefc") == "CDEFC cdef"  # more at once than are kept
    assert remembered([("f", ("other",))], 1.0) == ["F"]
    assert asked[-1] == "f"
