"""Features of other programs: what is read comes out the same, and what is wrong is named with its place."""

import base64
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from processes import in_a_child, peak_memory

from rlcap.cli import main
from rlcap.data import feature_sources
from rlcap.data.annotations import Annotations
from rlcap.data.feature_import import Report, import_features
from rlcap.data.features import EncoderCard, FeatureStore, FeatureWriter
from rlcap.data.preparation import prepare
from rlcap.data.records import Record
from rlcap.errors import ConfigError, DataError

RANDOM = np.random.default_rng(0)
CARD = EncoderCard("resnet18", {}, 224, "squash")


def exact(*shape: int) -> np.ndarray:
    """Floats that fp16 holds exactly."""
    return RANDOM.integers(-40, 40, shape).astype(np.float32) / 8


def folder_of(path: Path, **arrays: np.ndarray) -> Path:
    path.mkdir()
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    return path


def encoded(array: np.ndarray) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode()


def tsv_line(name: str, values: np.ndarray, boxes: np.ndarray, size: tuple[int, int] = (200, 100)) -> str:
    return "\t".join([name, str(size[0]), str(size[1]), str(len(values)), encoded(boxes), encoded(values)]) + "\n"


def write_tsv(path: Path, counts: list[int], width: int = 4) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images 100, 101, … of 200x100 pixels with so many regions; boxes in pixels."""
    values = [exact(count, width) for count in counts]
    boxes = [RANDOM.integers(0, 100, (count, 4)).astype(np.float32) for count in counts]
    lines = [tsv_line(str(100 + k), *pair) for k, pair in enumerate(zip(values, boxes, strict=True))]
    path.write_text("".join(lines))
    return values, boxes


def data_set(path: Path, images: list[str]) -> Path:
    """A prepared data set of these images, numbered 100, 101, …"""
    records = [Record(image, "train", ("a dog runs .",), 100 + k) for k, image in enumerate(images)]
    prepare(Annotations("test", tuple(records)), path, min_count=1)
    return path


def test_a_folder_of_grids_vectors_and_regions(tmp_path: Path) -> None:
    shapes = {"grid": (2, 3, 4), "global": (4,), "regions": (5, 4)}
    for kind, shape in shapes.items():
        arrays = {"a": exact(*shape), "b.jpg": exact(*shape).astype(np.float64), "c": exact(*shape)}
        out = tmp_path / f"{kind}.h5"
        assert import_features(folder_of(tmp_path / kind, **arrays), out, card=CARD) == Report(3, 0, 0, 0)
        store = FeatureStore(out)
        assert (store.kind, store.encoder, sorted(store.names)) == (kind, CARD, ["a", "b.jpg", "c"])
        read = store.read(store.rows(list(arrays))).values.numpy()
        assert (read == np.stack([array.reshape(-1, 4) for array in arrays.values()])).all()
    assert FeatureStore(tmp_path / "grid.h5").shape.grid == (2, 3)


def test_regions_of_varying_number_in_npz_below_folders(tmp_path: Path) -> None:
    arrays = {"x/one": exact(1, 4), "x/y/three": exact(3, 4), "two": exact(2, 4)}
    for key, (name, array) in zip(("feat", "features", "anything"), arrays.items(), strict=True):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        extra = {"boxes": exact(1)} if key != "anything" else {}
        np.savez_compressed(tmp_path / "in" / f"{name}.npz", **{key: array}, **extra)
    (tmp_path / "in" / "._two.npy").write_bytes(b"what another system leaves")
    import_features(tmp_path / "in", tmp_path / "x.h5")
    store = FeatureStore(tmp_path / "x.h5")
    read = store.read(store.rows(["x/one", "x/y/three", "two"]))
    assert (store.kind, read.mask.sum(1).tolist()) == ("regions", [1, 3, 2])
    for row, array in enumerate(arrays.values()):
        assert (read.values[row, : len(array)].numpy() == array).all()
        assert (read.values[row, len(array) :] == 0).all()


def broken_folder(path: Path, what: str) -> None:
    folder_of(path, a=exact(3, 4))
    b = path / "b.npy"
    if what == "pickled":
        np.save(b, np.array([{"no": "numbers"}], dtype=object), allow_pickle=True)
    elif what == "plain pickle":
        b.write_bytes(pickle.dumps(exact(3, 4)))
    elif what == "cut header":
        b.write_bytes((path / "a.npy").read_bytes()[:40])
    elif what == "empty":
        b.touch()
    elif what == "cut":
        b.write_bytes((path / "a.npy").read_bytes()[:-4])
    elif what == "npz":
        b.with_suffix(".npz").write_bytes(b"PK no zip")
    elif what == "keys":
        np.savez(b.with_suffix(".npz"), first=exact(3), second=exact(3))
    elif what == "twice":
        np.savez(path / "a.npz", feat=exact(3, 4))
    else:
        values = {
            "text": np.array(["words"]),
            "width": exact(3, 5),
            "kind": exact(2, 2, 4),
            "none": exact(0, 4),
            "channels": exact(9, 2, 2),
            "deep": exact(1, 2, 2, 3),
            "nan": np.full((3, 4), np.nan, np.float32),
            "large": np.full((3, 4), 1e6, np.float32),
        }
        np.save(b, values[what])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("pickled", r"b.npy: holds pickled Python objects, which are not read"),
        ("plain pickle", "b.npy: cannot be read"),
        ("cut header", "b.npy: cannot be read"),
        ("empty", "b.npy: cannot be read"),
        ("cut", "b.npy: cannot be read"),
        ("npz", "b.npz: cannot be read"),
        ("keys", "b.npz: none of its arrays is called feat, features, x"),
        ("twice", "a.npz: a.npy lies beside it"),
        ("text", "b.npy: holds values of type <U5"),
        ("width", "b.npy: 3 regions of width 5 where the files before have 3 regions of width 4"),
        ("kind", "b.npy: a 2x2 grid of width 4 where the files before have 3 regions of width 4"),
        ("none", r"b.npy: shape \(0, 4\) has no regions"),
        ("channels", r"b.npy: shape \(9, 2, 2\) has its channels first; transpose it to \(2, 2, 9\)"),
        ("deep", r"b.npy: shape \(1, 2, 2, 3\) of one image is none of"),
        ("nan", "'b' hold NaN"),
        ("large", "'b' hold 1e.06, beyond what float16"),
    ],
)
def test_a_folder_with_one_wrong_file(tmp_path: Path, what: str, message: str) -> None:
    broken_folder(tmp_path / "in", what)
    with pytest.raises(DataError, match=message) as error:
        import_features(tmp_path / "in", tmp_path / "x.h5")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x.h5").exists()


def test_grids_of_two_sizes_are_refused(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", a=exact(2, 2, 4), b=exact(2, 3, 4))
    with pytest.raises(DataError, match=r"b.npy: a 2x3 grid .* where the files before have a 2x2 grid"):
        import_features(tmp_path / "in", tmp_path / "x.h5")


def test_a_foreign_hdf5_file_keeps_its_bytes(tmp_path: Path) -> None:
    stored = RANDOM.integers(0, 256, (70, 49, 8), dtype=np.uint8)
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["features"], file["names"] = stored, [f"{row}.jpg" for row in range(70)]
        file["features"].attrs["scale"] = 6 / 255
    import_features(tmp_path / "in.h5", tmp_path / "x.h5", card=CARD)
    store = FeatureStore(tmp_path / "x.h5")
    assert (store.kind, store.shape.grid, store.layout.scale, store.encoder) == (
        "grid",
        (7, 7),
        6 / 255,
        CARD,
    )
    with h5py.File(tmp_path / "x.h5") as file:
        assert (file["features"][:] == stored).all()
        assert file["features"].chunks == (1, 49, 8)
    import_features(tmp_path / "x.h5", tmp_path / "y.h5", dtype="fp16", no_grid=True)
    again = FeatureStore(tmp_path / "y.h5")
    assert (again.kind, again.shape.grid, again.layout.dtype, again.encoder) == (
        "regions",
        None,
        "float16",
        CARD,
    )
    both = (again.read(np.arange(70)).values, store.read(np.arange(70)).values)
    assert (both[0] - both[1]).abs().max() <= 6 * 2**-11  # half a unit of fp16's last place


def test_bytes_get_the_scale_that_the_largest_value_asks_for(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", a=np.full(4, 2.0), b=np.arange(4.0))
    import_features(tmp_path / "in", tmp_path / "x.h5", dtype="uint8")
    store = FeatureStore(tmp_path / "x.h5")
    assert store.layout.scale == 3 / 255
    assert np.abs(store.read(np.array([1])).values[0, 0].numpy() - np.arange(4)).max() < 1e-6  # multiples of 3 / 255
    folder_of(tmp_path / "negative", a=np.array([-1.0, 2.0]))
    with pytest.raises(DataError, match="'a' hold -1, beyond what uint8"):
        import_features(tmp_path / "negative", tmp_path / "y.h5", dtype="uint8")
    folder_of(tmp_path / "zero", a=np.zeros(2))
    with pytest.raises(DataError, match="largest value is 0"):
        import_features(tmp_path / "zero", tmp_path / "y.h5", dtype="uint8")


@pytest.mark.parametrize("counts", [[3, 3, 3], [1, 4, 2]])
def test_bottom_up_attention(tmp_path: Path, counts: list[int]) -> None:
    values, boxes = write_tsv(tmp_path / "in.tsv", counts)
    import_features(tmp_path / "in.tsv", tmp_path / "x.h5")
    store = FeatureStore(tmp_path / "x.h5")
    assert (store.kind, store.names) == ("regions", ["100", "101", "102"])
    read = store.read(store.rows(["102", "100"]))
    assert read.mask.sum(1).tolist() == [counts[2], counts[0]]
    assert read.boxes is not None
    for row, image in enumerate((2, 0)):
        assert (read.values[row, : counts[image]].numpy() == values[image]).all()
        shares = boxes[image] / np.array([200, 100, 200, 100], np.float32)
        assert (read.boxes[row, : counts[image]].numpy() == shares.astype(np.float32)).all()


def test_a_tsv_with_a_header_windows_lines_and_repeats(tmp_path: Path) -> None:
    values = exact(2, 4)
    line = tsv_line("7", values, exact(2, 4)).replace("\n", "\r\n")
    header = "image_id\timage_w\timage_h\tnum_boxes\tboxes\tfeatures\r\n"
    (tmp_path / "in.tsv").write_bytes((header + line + line).encode())
    assert import_features(tmp_path / "in.tsv", tmp_path / "x.h5") == Report(1, 0, 1, 0)
    assert (FeatureStore(tmp_path / "x.h5").read(np.array([0])).values[0].numpy() == values).all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("8\t200\t100\t2\t{boxes}\n", ":2: 5 fields, not 6"),
        ("8\t200\t100\t0\t\t{values}\n", ":2: image '8' has 0 regions"),
        ("8\t200\t0\t2\t{boxes}\t{values}\n", ":2: image '8' has 2 regions in 200x0 pixels"),
        ("8\t200\tx\t2\t{boxes}\t{values}\n", ":2: invalid literal.*must be whole numbers"),
        ("8\t200\t100\t3\t{boxes}\t{values}\n", ":2: image '8' has 32 bytes of features for 3 regions"),
        ("8\t200\t100\t1\t{boxes}\t{values}\n", ":2: features of width 8, the lines before have 4"),
        ("8\t200\t100\t2\t{boxes}\t*{values:.42}=\n", ":2: is no base64"),
        ("8\t200\t100\t2\tAAAA\t{values}\n", ":2: 3 bytes are not 2x4 float32"),
        ("8\t200\t100\t2\t{boxes}\t{values:.30}", ":2: image '8' has 24 bytes|:2: .*damaged"),
        ("8\t200\t100\t2\t{boxes}\t{nan}\n", "'8' hold NaN"),
    ],
)
def test_a_tsv_with_one_wrong_line(tmp_path: Path, line: str, message: str) -> None:
    parts = {
        "boxes": encoded(exact(2, 4)),
        "values": encoded(exact(2, 4)),
        "nan": encoded(np.full((2, 4), np.nan)),
    }
    (tmp_path / "in.tsv").write_text(tsv_line("7", exact(2, 4), exact(2, 4)) + line.format(**parts))
    with pytest.raises(DataError, match=message) as error:
        import_features(tmp_path / "in.tsv", tmp_path / "x.h5")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x.h5").exists()


def test_an_import_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, _ = write_tsv(tmp_path / "in.tsv", [1 + k % 3 for k in range(80)])
    numbers, read = feature_sources._numbers, []

    def interrupted(*arguments: object) -> np.ndarray:
        read.append(arguments)
        if len(read) == 100:  # two a line: the second batch of 32 is being read
            raise KeyboardInterrupt
        return numbers(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(feature_sources, "_numbers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_features(tmp_path / "in.tsv", tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()
    report = import_features(tmp_path / "in.tsv", tmp_path / "x.h5")
    assert (report.images, report.resumed) == (80, 32)
    assert len(read) == 100 + 2 * (80 - 32)
    store = FeatureStore(tmp_path / "x.h5")
    features = store.read(np.arange(80))
    for row, image in enumerate(values):
        assert (features.values[row][features.mask[row]].numpy() == image).all()


def test_a_long_tsv_streams(tmp_path: Path) -> None:
    line = tsv_line("NAME", np.ones((36, 1024)), np.zeros((36, 4)))
    for count in (128, 384):
        with (tmp_path / f"{count}.tsv").open("w") as file:
            file.writelines(line.replace("NAME", str(k)) for k in range(count))

    def import_both() -> None:
        import_features(tmp_path / "128.tsv", tmp_path / "128.h5")
        grown = -peak_memory()
        import_features(tmp_path / "384.tsv", tmp_path / "384.h5")
        grown += peak_memory()
        assert grown < 16 * 1024  # KiB; the further images are 36 MiB as float32, 48 MiB in the .tsv

    assert in_a_child(import_both) == 0
    assert len(FeatureStore(tmp_path / "384.h5")) == 384


def test_names_of_a_data_set(tmp_path: Path) -> None:
    data = data_set(tmp_path / "data", ["val/dog.jpg", "cat.jpg", "train/cow.jpg", "val/cow.jpg"])
    folder_of(tmp_path / "in", dog=exact(4), cat=exact(4), cow=exact(4), other=exact(4))
    report = import_features(tmp_path / "in", tmp_path / "x.h5", names_of=data)
    assert report == Report(2, 0, 0, 2)  # two cows: which of them cannot be told
    assert sorted(FeatureStore(tmp_path / "x.h5").names) == ["cat.jpg", "val/dog.jpg"]
    write_tsv(tmp_path / "in.tsv", [2, 2, 2])
    import_features(tmp_path / "in.tsv", tmp_path / "y.h5", names_of=data)
    assert FeatureStore(tmp_path / "y.h5").names == ["val/dog.jpg", "cat.jpg", "train/cow.jpg"]
    with pytest.raises(DataError, match=r"no name fits .*'other' here, 'val/dog.jpg' there"):
        import_features(folder_of(tmp_path / "none", other=exact(4)), tmp_path / "z.h5", names_of=data)


def test_what_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("words")
    (tmp_path / "empty.tsv").touch()
    (tmp_path / "folder").mkdir()
    with FeatureWriter(tmp_path / "pixels.h5", "pixels") as writer:
        writer.append(["a"], np.zeros((1, 3, 4, 4), np.uint8))
    for name, message in {
        "in.txt": "no HDF5 file, no .tsv and no folder",
        "empty.tsv": "is empty",
        "folder": "holds no .npy",
        "nothing.h5": "no such file",
        "nothing": "no such file",
        "pixels.h5": "holds pixels",
    }.items():
        with pytest.raises(DataError, match=message):
            import_features(tmp_path / name, tmp_path / "x.h5")
    regions = folder_of(tmp_path / "regions", a=exact(6, 4))
    with pytest.raises(ConfigError, match="2x2 does not go with 6 regions"):
        import_features(regions, tmp_path / "x.h5", grid=(2, 2))
    with pytest.raises(ConfigError, match="source itself"):
        import_features(tmp_path / "pixels.h5", tmp_path / "folder" / ".." / "pixels.h5")
    with pytest.raises(ConfigError, match="goes with --dtype uint8"):
        import_features(regions, tmp_path / "x.h5", scale=0.5)


def test_the_command_records_the_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder_of(tmp_path / "in", a=exact(16, 32), b=exact(16, 32))
    out = str(tmp_path / "x.h5")
    options = ["--encoder", "small_cnn", "--size", "32", "--encoder-option", "width=32", "--grid", "4x4"]
    assert main(["features", "import", str(source), "--out", out, *options]) == 0
    assert "(2 images)" in capsys.readouterr().out
    store = FeatureStore(out)
    assert store.shape.grid == (4, 4)
    assert store.encoder is not None
    assert (store.encoder.spec, store.encoder.size, store.encoder.options["width"]) == ("small_cnn", 32, 32)
    assert len(store.encoder.weights) == 16
    assert main(["features", "import", str(source), "--out", out, "--size", "32"]) == 2
    assert "name it with --encoder" in capsys.readouterr().err
    assert main(["features", "import", str(source), "--out", out, "--grid", "4"]) == 2
    assert "'4' is no grid such as 7x7" in capsys.readouterr().err
