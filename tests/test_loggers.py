"""What is logged can be read back, by TensorBoard and as JSON lines."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin

from rlcap import loggers, progress
from rlcap.errors import DataError
from rlcap.loggers import METRICS, WARNINGS, Logger


@pytest.fixture(autouse=True)
def speaking(monkeypatch):
    monkeypatch.setattr(progress, "QUIET", False)


def lines(folder: Path) -> list[dict]:
    text = (folder / METRICS).read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def board(folder: Path) -> EventAccumulator:
    read = EventAccumulator(str(folder))
    read.Reload()
    return read


def test_figures_reach_tensorboard_and_the_json_lines(tmp_path):
    with Logger(tmp_path) as logger:
        logger.scalars(10, {"loss/total": torch.tensor(1.5), "time/step": 2})
        logger.scalars(20, {"loss/total": torch.tensor(0.5)})
    first, second = lines(tmp_path)
    assert first.pop("wall_time") > 1.6e9
    assert first == {"update": 10, "loss/total": 1.5, "time/step": 2.0}
    assert second["loss/total"] == 0.5
    events = board(tmp_path).Scalars("loss/total")
    assert [(event.step, event.value) for event in events] == [(10, 1.5), (20, 0.5)]


def test_each_line_is_whole_at_once(tmp_path):
    with Logger(tmp_path) as logger:
        for update in range(3):
            logger.scalars(update, {"loss/total": update})
            assert len(lines(tmp_path)) == update + 1


def test_what_json_cannot_say_becomes_a_word_that_float_reads(tmp_path):
    with Logger(tmp_path) as logger:
        logger.scalars(1, {"a": torch.tensor(float("nan")), "b": float("inf"), "c": -float("inf")})
    (line,) = lines(tmp_path)
    assert [line[tag] for tag in "abc"] == ["nan", "inf", "-inf"]
    assert float(line["c"]) == -float("inf")


def test_text_and_images(tmp_path):
    with Logger(tmp_path) as logger:
        logger.text(1, "captions/val", "a red\nball\u2028é")
        logger.image(1, "gaze/pil", Image.new("RGBA", (5, 4), "red"))
        logger.image(1, "gaze/floats", np.full((4, 5, 3), 0.5))
        logger.image(1, "gaze/gray", np.zeros((4, 5), np.uint8))
    (line,) = lines(tmp_path)
    assert line["captions/val"] == "a red\nball\u2028é"
    read = board(tmp_path)
    for name in ("pil", "floats", "gray"):
        (image,) = read.Images(f"gaze/{name}")
        assert (image.width, image.height) == (5, 4)


def test_what_was_logged_is_given_back(tmp_path):
    with Logger(tmp_path) as logger:
        assert logger.scalars(1, {"loss/total": torch.tensor(1.5), "time/step": 2}) == {
            "loss/total": 1.5,
            "time/step": 2.0,
        }
    with Logger(tmp_path, rank=1) as logger:
        assert logger.scalars(1, {"loss/total": 1.0}) == {}


@pytest.mark.parametrize("quiet", [False, True])
def test_a_warning_is_on_the_console_in_the_run_and_on_the_board(tmp_path, capsys, monkeypatch, quiet):
    monkeypatch.setattr(progress, "QUIET", quiet)
    with Logger(tmp_path) as logger:
        logger.warning(30, "repetition", "it repeats itself; do something")
        logger.warning(40, "shorter", "captions shrink; é")
    told = ["update 30: it repeats itself; do something", "update 40: captions shrink; é"]
    assert (tmp_path / WARNINGS).read_text(encoding="utf-8").splitlines() == told
    heard = capsys.readouterr()
    assert heard.err.splitlines() == [f"warning: {line}" for line in told]
    assert not heard.out
    assert lines(tmp_path)[0]["warning/repetition"] == "it repeats itself; do something"
    (event,) = board(tmp_path).Tensors("warning/repetition/text_summary")
    assert (event.step, event.tensor_proto.string_val) == (30, [b"it repeats itself; do something"])


def test_a_resumed_run_drops_the_warnings_that_lie_behind_it(tmp_path):
    with Logger(tmp_path) as logger:
        for update in (10, 20, 30):
            logger.warning(update, "longer", f"captions grow to {update}")
    with Logger(tmp_path, after=20) as logger:
        logger.warning(25, "longer", "again")
    assert (tmp_path / WARNINGS).read_text().splitlines() == [
        "update 10: captions grow to 10",
        "update 20: captions grow to 20",
        "update 25: again",
    ]


@pytest.mark.parametrize("rewards", [True, False])
def test_the_custom_page_of_tensorboard_has_a_chart_for_every_tag(tmp_path, rewards):
    """As TensorBoard's own plug-in reads it, from a run that was stopped and goes on."""
    tags = {"eval/val/cider_d": 1.0, "optimiser/rate": 0.1, "loss/policy_gradient": 1.0}
    if rewards:
        tags |= {"reward/total": 1.0, "reward/greedy": 1.0, "reward/cider_d/raw": 1.0, "reward/cider_d/weighted": 1.0}
    for after in (None, 5):
        with Logger(tmp_path / "run", after=after) as logger:
            logger.layout(rewards)
            logger.scalars(1, tags)
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tmp_path))
    page = json.loads(CustomScalarsPlugin(TBContext(data_provider=provider)).layout_impl(RequestContext(), ""))
    assert page["category"][0]["title"] == ("Rewards" if rewards else "Evaluation")
    patterns = [tag for some in page["category"] for chart in some["chart"] for tag in chart["multiline"]["tag"]]
    for tag in tags:
        assert any(re.match(pattern, tag) for pattern in patterns), tag


def test_another_rank_writes_nothing(tmp_path, capsys):
    with Logger(tmp_path / "run", rank=1) as logger:
        logger.scalars(1, {"loss/total": torch.zeros(2, 3)})  # not even read
        logger.text(1, "captions/val", "x")
        logger.image(1, "gaze", None)
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr() == ("", "")


def test_a_resumed_run_drops_what_it_will_make_again(tmp_path):
    with Logger(tmp_path) as logger:
        for update in (10, 20, 30):
            logger.scalars(update, {"loss/total": update})
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"update": 40, "loss/to')  # killed while it wrote
    with Logger(tmp_path, after=20) as logger:
        logger.scalars(30, {"loss/total": 31})
    assert [(line["update"], line["loss/total"]) for line in lines(tmp_path)] == [
        (10, 10),
        (20, 20),
        (30, 31),
    ]
    assert [event.value for event in board(tmp_path).Scalars("loss/total")] == [10, 20, 31]


def test_without_a_resume_nothing_but_half_a_line_is_dropped(tmp_path):
    (tmp_path / METRICS).write_bytes(b'{"update": 50}\n{"upd\xff')
    with Logger(tmp_path) as logger:
        logger.scalars(1, {"loss/total": 1})
    assert [line["update"] for line in lines(tmp_path)] == [50, 1]


def test_the_console_hears_of_training_now_and_then(tmp_path, capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(loggers.time, "monotonic", lambda: now[0])
    with Logger(tmp_path) as logger:
        logger.scalars(10, {"loss/total": 1.23456789, "time/step": 2})
        logger.scalars(20, {"loss/total": 1})  # too soon
        now[0] += progress.PLAIN_EVERY
        logger.scalars(30, {"eval/val/cider_d": 1})  # the training loop tells it
        logger.scalars(40, {"loss/total": 3})
        monkeypatch.setattr(progress, "QUIET", True)
        now[0] += progress.PLAIN_EVERY
        logger.scalars(50, {"loss/total": 3})
    assert capsys.readouterr().out.splitlines() == [
        "update 10  loss/total 1.235  time/step 2",
        "update 40  loss/total 3",
    ]


def test_a_full_disk_is_one_line_that_names_the_folder(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / METRICS).symlink_to("/dev/full")
    logger = Logger(tmp_path)
    with pytest.raises(DataError, match=r"^/.*: cannot be logged to \(No space left on device\); make room"):
        logger.scalars(1, {"loss/total": 1})


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/run: cannot be logged to \(Not a directory\)"):
        Logger(tmp_path / "file" / "run")
