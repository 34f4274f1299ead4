"""The feature store: what is written is read back, by many readers, and damage is named."""

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from rlcap.data.features import EncoderCard, FeatureStore, FeatureWriter
from rlcap.errors import DataError

CARD = EncoderCard("resnet18", {"layer": "layer3", "sides": (1, 2)}, 224, "squash", "abc")
RANDOM = np.random.default_rng(0)


def names(n: int) -> list[str]:
    return [f"bild_{i}_ü.jpg" for i in range(n)]


def write_grid(path: Path, n: int = 20, width: int = 8) -> np.ndarray:
    """(n, 6, width) as floats that fp16 holds exactly."""
    values = RANDOM.integers(-50, 50, (n, 6, width)).astype(np.float32) / 4
    with FeatureWriter(path, "grid", card=CARD, grid=(2, 3)) as writer:
        for first in range(0, n, 7):
            writer.append(names(n)[first : first + 7], values[first : first + 7])
    return values


def write_foreign(path: Path, features: np.ndarray, given: list[str] | None = None, **marks: float) -> None:
    with h5py.File(path, "w") as file:
        file["features"] = features
        file["names"] = names(len(features)) if given is None else given
        file["features"].attrs.update(marks)


def test_a_grid_comes_back_in_the_order_asked(tmp_path: Path) -> None:
    values = write_grid(tmp_path / "x.h5")
    store = FeatureStore(tmp_path / "x.h5")
    rows = np.array([13, 2, 2, 19, 0, 13])
    read = store.read(rows)
    assert read.values.dtype == torch.float32
    assert (read.values.numpy() == values[rows]).all()
    assert read.mask.all()
    assert read.mask.shape == (6, 6)
    assert read.grid == store.shape.grid == (2, 3)
    assert (store.kind, store.shape.regions, store.shape.width, len(store)) == ("grid", 6, 8, 20)
    assert store.names == names(20)
    assert store.encoder is not None
    assert store.encoder.to_json() == CARD.to_json()


def test_one_image_is_one_chunk_and_sparse_ones_are_packed(tmp_path: Path) -> None:
    write_grid(tmp_path / "dense.h5")
    with FeatureWriter(tmp_path / "sparse.h5", "regions") as writer:
        writer.append(["a"], np.eye(6, 8, dtype=np.float32)[None])
    assert (FeatureStore(tmp_path / "sparse.h5").read(np.array([0])).values[0] == torch.eye(6, 8)).all()
    for name, packing in (("dense", None), ("sparse", "gzip")):
        with h5py.File(tmp_path / f"{name}.h5") as file:
            assert file["features"].chunks == (1, 6, 8)
            assert file["features"].compression == packing


def test_regions_of_varying_number_with_boxes(tmp_path: Path) -> None:
    values = np.zeros((3, 4, 5), np.float32)
    counts, boxes = np.array([4, 1, 2]), RANDOM.random((3, 4, 4)).astype(np.float32)
    for row, count in enumerate(counts):
        values[row, :count] = row + 1
    with FeatureWriter(tmp_path / "x.h5", "regions") as writer:
        writer.append(["a", "b", "c"], values, counts, boxes)
    store = FeatureStore(tmp_path / "x.h5")
    read = store.read(np.array([2, 0]))
    assert read.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert (read.values.numpy() == values[[2, 0]]).all()
    assert read.boxes is not None
    assert (read.boxes.numpy() == boxes[[2, 0]]).all()
    assert store.shape.grid is None  # four regions are no 2x2 grid: the file says what they are


def test_bytes_with_a_scale_are_within_half_a_step(tmp_path: Path) -> None:
    values = RANDOM.random((5, 1, 300)).astype(np.float32) * 6
    with FeatureWriter(tmp_path / "x.h5", "global", dtype="uint8", scale=6 / 255) as writer:
        writer.append(names(5), values)
    read = FeatureStore(tmp_path / "x.h5").read(np.arange(5)).values.numpy()
    assert np.abs(read - values).max() <= 3 / 255 + 1e-6  # rounding, and float32's own error at 6


def test_pixels_come_back_as_shares(tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
    with FeatureWriter(tmp_path / "x.h5", "pixels") as writer:
        writer.append(names(3), pixels)
    store = FeatureStore(tmp_path / "x.h5")
    read = store.read(np.array([1, 0]))
    assert read.pixels is not None
    assert torch.equal(read.pixels, torch.from_numpy(pixels[[1, 0]]).float() / 255)
    assert (read.values.shape, read.mask.shape, store.shape.width) == ((2, 0, 0), (2, 0), 0)


@pytest.mark.parametrize(
    ("shape", "kind", "grid"),
    [
        ((4, 9, 5), "grid", (3, 3)),
        ((4, 10, 5), "regions", None),
        ((4, 5), "global", None),
        ((4, 2, 3, 5), "grid", (2, 3)),
    ],
)
def test_a_foreign_file_is_read_as_it_is(tmp_path: Path, shape: tuple[int, ...], kind: str, grid: object) -> None:
    features = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    write_foreign(tmp_path / "x.h5", features, scale=0.5)
    store = FeatureStore(tmp_path / "x.h5")
    assert (store.kind, store.shape.grid, store.encoder) == (kind, grid, None)
    read = store.read(np.array([3, 1]))
    assert (read.values.numpy() == features[[3, 1]].reshape(2, *store.layout.item) * 0.5).all()


def test_foreign_types_and_names(tmp_path: Path) -> None:
    features = np.arange(24).reshape(2, 3, 4)
    for stored in (">f4", "<f8", "u2"):
        path = tmp_path / f"{stored.strip('<>')}.h5"
        with h5py.File(path, "w") as file:
            file["features"], file["names"] = features.astype(stored), np.array([7, 391895])
        store = FeatureStore(path)
        assert store.names == ["7", "391895"]
        assert store.read(np.array([1])).values.tolist() == features[1:].tolist()
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"], file["names"] = features.astype("f4"), np.array([b"a.jpg", b"bc.jpg"], "S8")
    assert FeatureStore(tmp_path / "x.h5").names == ["a.jpg", "bc.jpg"]


def test_missing_names_are_counted_and_the_near_miss_shown(tmp_path: Path) -> None:
    write_grid(tmp_path / "x.h5")
    store = FeatureStore(tmp_path / "x.h5")
    assert store.rows(["bild_3_ü.jpg", "bild_0_ü.jpg"]).tolist() == [3, 0]
    with pytest.raises(DataError, match=r"no features of 2 of 3 images.*'bild_1_ü' \(did you mean 'bild_1_ü.jpg'\?\)"):
        store.rows(["bild_1_ü", "bild_0_ü.jpg", "other"])


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    write_foreign(tmp_path / "x.h5", np.ones((3, 2, 2), np.float32), ["a", "b", "a"])
    with pytest.raises(DataError, match="'a' more than once"):
        FeatureStore(tmp_path / "x.h5").rows(["b"])


class Rows(Dataset[torch.Tensor]):
    """What a worker does: reads through a store that came over a fork or a pickle."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store) // 4

    def __getitem__(self, batch: int) -> torch.Tensor:
        return self.store.read(np.arange(batch * 4, batch * 4 + 4)[::-1]).values


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_at_once_while_the_parent_does(tmp_path: Path, start: str) -> None:
    values = write_grid(tmp_path / "x.h5", n=80)
    store = FeatureStore(tmp_path / "x.h5")
    store.read(np.array([0]))  # open before the fork: the children must not share the handle
    loader = DataLoader(Rows(store), batch_size=None, num_workers=2, multiprocessing_context=start)
    for batch, read in enumerate(loader):
        assert (read.numpy() == values[batch * 4 : batch * 4 + 4][::-1]).all()
        assert (store.read(np.array([batch])).values[0].numpy() == values[batch]).all()


def test_a_child_has_a_handle_of_its_own(tmp_path: Path) -> None:
    write_grid(tmp_path / "x.h5")
    store = FeatureStore(tmp_path / "x.h5")
    store.read(np.array([0]))
    parent = store._file
    child = os.fork()
    if child == 0:
        store.read(np.array([1]))
        os._exit(0 if store._file is not parent and store._process == os.getpid() else 1)
    assert os.waitpid(child, 0)[1] == 0
    store.read(np.array([2]))
    assert store._file is parent
    assert pickle.loads(pickle.dumps(store))._file is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_a_number_is_found_when_read(tmp_path: Path, bad: float) -> None:
    features = np.ones((4, 3, 2), np.float16)
    features[2, 1, 0] = bad
    write_foreign(tmp_path / "x.h5", features)
    store = FeatureStore(tmp_path / "x.h5")
    store.read(np.array([3, 1]))
    with pytest.raises(DataError, match=r"'bild_2_ü.jpg' \(row 2\) hold NaN or infinity"):
        store.read(np.array([3, 2, 1]))


def test_finite_values_whose_sum_is_not_are_fine(tmp_path: Path) -> None:
    write_foreign(tmp_path / "x.h5", np.full((2, 3, 2), 3e38, np.float32))
    assert FeatureStore(tmp_path / "x.h5").read(np.array([1])).values.isfinite().all()


def test_a_truncated_file_is_one_line(tmp_path: Path) -> None:
    write_grid(tmp_path / "x.h5", n=200)
    whole = (tmp_path / "x.h5").read_bytes()
    (tmp_path / "x.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cannot be opened \(truncated file.*; copy it again") as error:
        FeatureStore(tmp_path / "x.h5")
    assert "\n" not in str(error.value)


def test_a_damaged_chunk_names_its_image(tmp_path: Path) -> None:
    with FeatureWriter(tmp_path / "x.h5", "regions") as writer:
        writer.append(names(3), np.eye(40, dtype=np.float32)[None].repeat(3, 0))
    with h5py.File(tmp_path / "x.h5") as file:
        chunk = file["features"].id.get_chunk_info(1)
    with (tmp_path / "x.h5").open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    store = FeatureStore(tmp_path / "x.h5")
    store.read(np.array([0, 2]))
    with pytest.raises(DataError, match=r"'bild_1_ü.jpg' \(row 1\) cannot be read .*damaged"):
        store.read(np.array([0, 1]))


def broken(path: Path, what: str) -> None:
    with h5py.File(path, "w") as file:
        file["features" if what != "feature" else "feature"] = np.ones((3, 2, 2), "c8" if what == "complex" else "f4")
        file["names"] = names(2 if what == "names" else 3)
        if what == "counts":
            file["counts"] = [1, 2]
        if what == "grid":
            file["features"].attrs.update({"kind": "grid", "grid": (2, 2)})
        if what == "card":
            file.attrs["encoder"] = "{}"
        if what == "later":
            file.attrs["rlcap_features"] = 99
        if what == "latin":
            del file["names"]
            file["names"] = np.array([b"a", b"b", b"\xff"], "S1")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("names", "3 features but 2 names"),
        ("counts", "3 features but 2 counts"),
        ("complex", "features of type complex64"),
        ("feature", r"no data set 'features' \(did you mean 'feature'\?\)"),
        ("grid", r"kind 'grid' and grid \(2, 2\) do not fit"),
        ("card", "is no encoder card"),
        ("later", "later rlcap"),
        ("latin", "not UTF-8"),
    ],
)
def test_files_that_disagree_with_themselves(tmp_path: Path, what: str, message: str) -> None:
    broken(tmp_path / "x.h5", what)
    with pytest.raises(DataError, match=message):
        FeatureStore(tmp_path / "x.h5")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_text("no HDF5")
    for path, message in (
        (tmp_path / "x.h5", "not an HDF5"),
        (tmp_path, "folder"),
        (tmp_path / "y", "no such file"),
    ):
        with pytest.raises(DataError, match=message):
            FeatureStore(path)
