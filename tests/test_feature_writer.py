"""Writing features: whole or not there, resumable after any interrupt, and what does not fit is refused."""

import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import in_a_child, peak_memory

from rlcap.data.features import EncoderCard, FeatureStore, FeatureWriter
from rlcap.errors import ConfigError, DataError

CARD = EncoderCard("resnet18", {"layer": "layer3", "sides": (1, 2)}, 224, "squash", "abc")


def test_nothing_is_there_before_the_end_and_the_same_writer_goes_on(tmp_path: Path) -> None:
    target, names = tmp_path / "x.h5", [f"{i}.jpg" for i in range(10)]
    values = np.random.default_rng(0).random((10, 4, 3)).astype(np.float32)
    with pytest.raises(KeyboardInterrupt), FeatureWriter(target, "regions", card=CARD) as writer:  # noqa: PT012
        writer.append(names[:6], values[:6])
        raise KeyboardInterrupt
    assert not target.exists()
    with FeatureWriter(target, "regions", card=CARD) as writer:
        assert writer.done == set(names[:6])
        writer.append(names[6:], values[6:])
    store = FeatureStore(target)
    assert store.names == names
    assert (store.read(np.arange(10)).values.numpy() == values.astype(np.float16)).all()
    assert [file.name for file in tmp_path.iterdir()] == ["x.h5"]


def append_missing(path: Path, n: int) -> None:
    """Image i holds i + 1; 5 KiB each."""
    with FeatureWriter(path, "regions") as writer:
        for i in range(n):
            if str(i) not in writer.done:
                writer.append([str(i)], np.full((1, 40, 64), i + 1))


def assert_whole(path: Path, n: int) -> None:
    store = FeatureStore(path)
    assert store.names == [str(i) for i in range(n)]
    assert (store.read(np.arange(n)).values == torch.arange(1.0, n + 1)[:, None, None]).all()


@pytest.mark.parametrize("lost", [1, 100, 6_000, 10_000])
def test_what_a_killed_process_left_is_cut_after_the_last_whole_image(tmp_path: Path, lost: int) -> None:
    with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path / "x.h5", "regions") as writer:  # noqa: PT012
        for i in range(6):
            writer.append([str(i)], np.full((1, 40, 64), i + 1))  # 5,120 bytes in the log, and a line
        raise KeyboardInterrupt
    part = tmp_path / ".x.h5.part"
    part.write_bytes(part.read_bytes()[:-lost])
    with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path / "x.h5", "regions") as writer:  # noqa: PT012
        whole = 6 - 1 - lost // 5_200
        assert writer.done == {str(i) for i in range(whole)}
        writer.append([str(whole)], np.full((1, 40, 64), whole + 1))
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path / "x.h5", "regions") as writer:  # noqa: PT012
        assert writer.done == {str(i) for i in range(whole + 1)}
        raise KeyboardInterrupt
    append_missing(tmp_path / "x.h5", 6)
    assert_whole(tmp_path / "x.h5", 6)


def test_a_killed_process_loses_nothing_that_was_appended(tmp_path: Path) -> None:
    def be_killed() -> None:
        with FeatureWriter(tmp_path / "x.h5", "regions") as writer:
            writer.append(["0", "1"], np.array([1, 2])[:, None, None].repeat(40, 1).repeat(64, 2))
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_child(be_killed) == signal.SIGKILL
    assert not (tmp_path / "x.h5").exists()
    with FeatureWriter(tmp_path / "x.h5", "regions") as writer:
        assert writer.done == {"0", "1"}
    assert_whole(tmp_path / "x.h5", 2)


def test_damage_on_the_disk_does_not_reach_the_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path / "x.h5", "regions") as writer:  # noqa: PT012
        writer.append(["a", "b", "c"], np.ones((3, 40, 64)))
        raise KeyboardInterrupt
    part = tmp_path / ".x.h5.part"
    raw = bytearray(part.read_bytes())
    raw[-6_000] ^= 1  # within the second image
    part.write_bytes(raw)
    with pytest.raises(DataError, match=r"'b' was damaged on the disk; delete"):  # noqa: SIM117
        with FeatureWriter(tmp_path / "x.h5", "regions"):
            pass
    assert [file.name for file in tmp_path.iterdir()] == [".x.h5.part"]


def test_a_part_that_is_none_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / ".x.h5.part").write_bytes(b"\x89HDF\r\n\x1a\n and then nothing")
    append_missing(tmp_path / "x.h5", 3)
    assert_whole(tmp_path / "x.h5", 3)


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ({"card": EncoderCard("resnet50", {}, 224, "crop")}, "encoder .*resnet18.* now .*resnet50"),
        ({"kind": "global", "grid": None}, "kind grid, now global"),
        ({"dtype": "uint8", "scale": 0.5}, "dtype float16, now uint8"),
    ],
)
def test_a_part_of_another_making_is_not_resumed(tmp_path: Path, now: dict[str, object], message: str) -> None:
    begun = {"kind": "grid", "grid": (2, 2), "card": CARD}
    with pytest.raises(KeyboardInterrupt), FeatureWriter(tmp_path / "x.h5", **begun) as writer:  # type: ignore[arg-type]  # noqa: PT012
        writer.append(["a"], np.ones((1, 4, 3)))
        raise KeyboardInterrupt
    with (
        pytest.raises(DataError, match=f"other settings.*{message}.*delete"),
        FeatureWriter(  # type: ignore[arg-type]
            tmp_path / "x.h5", **(begun | now)
        ),
    ):
        pass
    assert (tmp_path / ".x.h5.part").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((1, 4, 3), np.nan), "'b' hold NaN"),
        (np.full((1, 4, 3), 7e4), "'b' hold 70000, beyond what float16"),
        (np.full((1, 4, 3), -np.inf), "'b' hold -inf.*extract it anew"),
        (np.ones((1, 5, 3)), r"'b' differs .*shape \(5, 3\), not \(4, 3\)"),
        (np.ones((2, 4, 3)), "1 names do not go with 2 features"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, values: np.ndarray, message: str) -> None:
    with FeatureWriter(tmp_path / "x.h5", "regions") as writer:
        writer.append(["a"], np.ones((1, 4, 3)))
        with pytest.raises(DataError, match=message):
            writer.append(["b"], values)
        with pytest.raises(DataError, match="'a' comes twice"):
            writer.append(["a"], np.ones((1, 4, 3)))
        with pytest.raises(DataError, match="'c' comes twice"):
            writer.append(["c", "c"], np.ones((2, 4, 3)))
        for name in ("", "a\0b", "a\ud800"):
            with pytest.raises(DataError, match="cannot be called"):
                writer.append([name], np.ones((1, 4, 3)))
    assert FeatureStore(tmp_path / "x.h5").names == ["a"]


def test_no_regions_and_wrong_settings(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="'b' has 0 regions, not 1 to 4"),
        FeatureWriter(tmp_path / "x", "regions") as w,
    ):
        w.append(["a", "b"], np.ones((2, 4, 3)), counts=np.array([2, 0]))
    with pytest.raises(DataError, match="no image"), FeatureWriter(tmp_path / "x", "regions"):
        pass
    assert list(tmp_path.iterdir()) == []
    for wrong in ({"kind": "gird"}, {"kind": "grid"}, {"dtype": "fp32"}, {"dtype": "uint8"}):
        with pytest.raises(ConfigError):
            FeatureWriter(tmp_path / "x", **({"kind": "regions"} | wrong))  # type: ignore[arg-type]


# In the middle of the log, and after it (518 kB), when the HDF5 file is to be made.
@pytest.mark.parametrize("room", [200_000, 530_000])
def test_a_full_disk_is_one_line_and_what_is_done_stays(tmp_path: Path, room: int) -> None:
    def fill_the_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        with pytest.raises(DataError, match=r"cannot be written \(File too large\); what is done lies in .x.h5.part"):
            append_missing(tmp_path / "x.h5", 100)

    assert in_a_child(fill_the_disk) == 0
    assert [file.name for file in tmp_path.iterdir()] == [".x.h5.part"]
    assert (tmp_path / ".x.h5.part").stat().st_size > 0.95 * min(room, 518_000)
    append_missing(tmp_path / "x.h5", 100)
    assert_whole(tmp_path / "x.h5", 100)


def test_a_long_stream_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    values = np.ones((16, 36, 2048), np.float32)

    def write() -> None:
        with FeatureWriter(tmp_path / "x.h5", "regions") as writer:
            for i in range(24):
                writer.append([f"{i} {j}" for j in range(16)], values)
                if i == 3:
                    before = peak_memory()
        assert peak_memory() - before < 16 * 1024  # KiB; the 20 later batches are 46 MiB in the file

    assert in_a_child(write) == 0


def test_two_writers_of_one_file(tmp_path: Path) -> None:
    with FeatureWriter(tmp_path / "x.h5", "regions") as writer:
        writer.append(["0"], np.ones((1, 40, 64)))
        with pytest.raises(DataError, match="another process is writing it"):
            append_missing(tmp_path / "x.h5", 1)
    assert_whole(tmp_path / "x.h5", 1)
