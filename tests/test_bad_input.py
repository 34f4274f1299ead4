"""What goes wrong for people, over the whole command line: one clear line, status 2, and nothing half-written.

The readers, the feature store, encoders and pictures have tests of their own; here are the commands on top of them.
"""

import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from rlcap.checkpoint import load_state, save_checkpoint
from rlcap.cli import main
from rlcap.data.dataset import DataSet
from rlcap.data.features import EncoderCard, FeatureWriter
from rlcap.data.scenes import write_images
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import DataError
from rlcap.files import SUMS, atomic_folder, only_writer, write_sums
from rlcap.loggers import Logger
from rlcap.weights import load_weights

TINY = (
    *("policy.hidden=24", "policy.embedding=16", "policy.attention=16", "trainer.optimiser.warmup=0"),
    *("training.images=8", "training.captions=2", "training.updates=2", "training.evaluate_every=1 update"),
    *("training.threads=1", "training.device=cpu"),
)
PIXELS = ("scenes", "encoder.width=32", *TINY)
FROZEN = ("scenes", "encoder=null", *TINY)
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a data set `scenes`, its pictures, a file of made-up features, and two runs."""
    home = tmp_path_factory.mktemp("ein Übungsplatz")
    here = Path.cwd()
    os.chdir(home)
    try:
        assert main(["--quiet", "prepare", "scenes", "--out", "scenes", "--count", "40", "--min-count", "2"]) == 0
        data = DataSet.load("scenes")
        write_images(Path("pictures"), data.split("val").records, 3)
        write_features(Path("features.h5"), [record.image for record in data.records])
        assert main(["--quiet", "train", *PIXELS, "data.path=scenes", "--out", "run"]) == 0
        assert main(["--quiet", "train", *FROZEN, *OF_FEATURES, "--out", "frozen"]) == 0
    finally:
        os.chdir(here)
    return home


OF_FEATURES = ("data.path=scenes", "data.features=features.h5")


def write_features(path: Path, names: list[str], width: int = 8, weights: str = "aaaa") -> None:
    card = EncoderCard("my_nets:Net", {}, 64, "squash", weights)
    with FeatureWriter(path, "grid", card=card, grid=(2, 2)) as writer:
        writer.append(names, np.random.default_rng(0).random((len(names), 4, width)))


@pytest.fixture
def place(home, tmp_path, monkeypatch) -> Path:
    """A copy of it all as the current folder."""
    shutil.copytree(home, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def refused(capsys):
    """Runs a command that must end with status 2 and one line, which is given back."""

    def run(*argv: object) -> str:
        capsys.readouterr()
        assert main(["--quiet", *map(str, argv)]) == 2
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 1, told
        assert told[0].startswith("rlcap: ")
        return told[0]

    return run


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def gone(path: Path) -> None:
    path.unlink()


def holding(text: str) -> Damage:
    return lambda path: path.write_text(text)


def edited(change: Callable[[dict], object]) -> Damage:
    """A JSON file changed by hand."""

    def edit(path: Path) -> None:
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return edit


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


WHOLE = "copy the whole folder of the run"


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("config.yaml", gone, "run: is no run (config.yaml is missing)"),
        ("config.yaml", holding("training: [\n"), "config.yaml:2: is not YAML"),
        ("config.yaml", lambda path: path.write_text(path.read_text().replace("hidden: 24", "hiden: 24")), "'hidden'?"),
        ("config.yaml", lambda path: path.write_text(path.read_text().replace("size: 64", "size: 32")), "set it back"),
        ("vocabulary.json", half, WHOLE),
        ("vocabulary.json", gone, WHOLE),
        ("vocabulary.json", lambda path: Vocabulary(["dog", "cat"]).save(path), "was trained with vocabulary"),
        ("features.json", half, "is damaged or cut short"),
        ("features.json", gone, "cannot be read (No such file or directory)"),
        ("features.json", holding("[]"), WHOLE),
        ("features.json", edited(lambda sight: sight["shape"].update(grid=[3])), "shape.grid"),
        ("features.json", edited(lambda sight: sight["shape"].update(width="wide")), "shape.width"),
        ("features.json", edited(lambda sight: sight["encoder"].update(sise=3)), "encoder.sise"),
        ("checkpoints/best/weights.safetensors", half, "cannot be read as weights"),
        ("checkpoints/best/weights.safetensors", holding(""), "cannot be read as weights"),
        ("checkpoints/best/weights.safetensors", a_folder, "cannot be read as weights"),
        ("checkpoints/best/weights.safetensors", gone, "has no checkpoint 'best' yet"),
    ],
)
def test_a_damaged_run(place, refused, file, damage, said):
    damage(place / "run" / file)
    line = refused("caption", "run", next((place / "pictures").iterdir()))
    assert said in line
    assert "run" in line.split(": ")[1]


def test_words_of_another_run_of_the_same_number(place, refused):
    words = Vocabulary.load(place / "run/vocabulary.json").entries[4:]
    Vocabulary(words[::-1], min_count=2).save(place / "run/vocabulary.json")
    assert "was trained with vocabulary" in refused("caption", "run", "pictures")
    assert main(["--quiet", "export", "frozen", "--out", "t"]) == 2, "its encoder is not at hand"
    assert not Path("t").exists()


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("state.pt", holding("not a zip"), "state.pt: is no part of a checkpoint"),
        ("state.pt", gone, "state.pt: is no part of a checkpoint"),
        ("state.pt", lambda path: torch.save({"trainer": {}}, path), "state.pt: does not fit this trainer (KeyError"),
        ("state.pt", lambda path: torch.save([1], path), "state.pt: holds no part of a checkpoint"),
        ("meta.json", holding("[]"), "meta.json: holds no part of a checkpoint"),
        ("meta.json", holding("{}"), "was trained with vocabulary None"),
        ("weights.safetensors", half, "cannot be read as weights"),
    ],
)
def test_what_another_program_wrote_as_a_checkpoint_is_not_resumed(place, refused, file, damage, said):
    last = place / "run/checkpoints/last"
    damage(last / file)
    (last / SUMS).unlink()
    write_sums(last)
    assert said in refused("train", *PIXELS, "data.path=scenes", "training.updates=3", "--out", "run", "--resume")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ((*PIXELS, "training.updates=1"), "has 2 updates behind it, and the recipe asks for 1"),
        ((*PIXELS, "policy.hidden=32"), "began with policy.hidden=24, not 32"),
        ((*PIXELS, "trainer.optimiser.name=rmsprop"), "began with trainer.optimiser.name=adam, not rmsprop"),
        ((*PIXELS, "training.seed=7"), "began with training.seed=1, not 7"),
        ((*PIXELS, "data.path=others"), "others has"),
        ((*FROZEN, "data.features=features.h5"), "began with encoder.name=small_cnn, not None"),
    ],
)
def test_a_run_resumes_only_as_it_began(place, refused, recipe, said):
    if "data.path=others" in recipe:
        main(["--quiet", "prepare", "scenes", "--out", "others", "--count", "40", "--min-count", "2", "--seed", "4"])
    else:
        recipe = (*recipe, "data.path=scenes")
    assert said in refused("train", *recipe, "--out", "run", "--resume")


def test_a_run_imports_nothing_that_merely_lies_about(place, refused, capsys):
    """Neither from its own folder nor from the current one, unless it is allowed to."""
    ours = "from pathlib import Path\nfrom rlcap.models.soft_attention import SoftAttention as Theirs\n"
    for folder in (place, place / "run"):
        (folder / "theirs.py").write_text(f"{ours}Path('imported').touch()\n")
    config = place / "run" / "config.yaml"
    config.write_text(config.read_text().replace("name: soft_attention", "name: theirs:Theirs"))
    resume = ("train", "run/config.yaml", "--out", "run", "--resume")
    for words in (("evaluate", "run"), ("caption", "run", "pictures"), ("export", "run", "--out", "new"), resume):
        assert "if you trust it and it lies in the current folder, add --allow theirs" in refused(*words)
    assert not Path("imported").exists()
    path = list(sys.path)
    assert main(["--quiet", "evaluate", "run", "--allow", "theirs"]) == 0
    assert Path("imported").exists()
    assert sys.path == path


def test_a_run_may_be_moved_and_go_on_longer(place):
    Path("scenes").rename("moved scenes")
    recipe = (*PIXELS, "data.path=moved scenes", "training.updates=3", "--out", "run", "--resume")
    assert main(["--quiet", "train", *recipe]) == 0


@pytest.mark.parametrize("file", ["dataset.json", "captions.jsonl", "vocabulary.json", "frequencies.npz", "scenes.h5"])
@pytest.mark.parametrize("damage", [half, gone])
def test_a_damaged_data_set(place, refused, file, damage):
    damage(place / "scenes" / file)
    for command in (("train", *PIXELS, "data.path=scenes", "--out", "new"), ("evaluate", "run", "--out", "new")):
        assert ": scenes" in refused(*command)
    assert not Path("new").exists()


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    def rewrite(file: h5py.File) -> None:
        marks, values = dict(file[name].attrs), change(file[name][:])
        del file[name]
        file[name] = values
        file[name].attrs.update(marks)

    return rewrite


def marked(**marks: object) -> Callable[[h5py.File], None]:
    return lambda file: file["features"].attrs.update(marks)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed("features", lambda values: values[:30]), "30 features but 40 names"),
        (changed("names", lambda names: np.stack([names, names], 1)), "names of shape (40, 2), not (40,)"),
        (changed("names", lambda names: np.arange(40) / 3), "names of type float64"),
        (changed("features", lambda values: values[:, :, :, None]), "kind 'grid' and grid (2, 2) do not fit"),
        (changed("features", lambda values: values.astype(complex)), "features of type complex128"),
        (marked(grid=7), "attribute 'grid' cannot be 7"),
        (marked(grid="2x2"), "attribute 'grid' cannot be '2x2'"),
        (marked(scale=np.nan), "attribute 'scale' cannot be nan"),
        (marked(scale=[1.0, 2.0]), "attribute 'scale' cannot be [1.0, 2.0]"),
        (marked(kind="pixels"), "holds pixels as float16 of shape (4, 8), not as uint8 (3, S, S)"),
        (lambda file: file.create_dataset("counts", data=np.full(40, b"a")), "counts of type |S1"),
        (lambda file: file.create_dataset("counts", data=[9] * 40), "has 9 regions, not 1 to 4"),
        (lambda file: file.create_dataset("boxes", data=np.zeros((40, 3))), "boxes of shape (40, 3), not (40, 4, 4)"),
        (lambda file: file.attrs.update(rlcap_features="x"), "attribute 'rlcap_features' cannot be 'x'"),
        (changed("names", lambda names: np.array([b"x" + name for name in names])), "has no features of"),
    ],
)
def test_features_that_disagree_with_themselves_or_the_data(place, refused, change, said):
    with h5py.File("features.h5", "r+") as file:
        change(file)
    for command in (("train", *FROZEN, *OF_FEATURES, "--out", "new"), ("evaluate", "frozen", "--out", "new")):
        line = refused(*command)
        assert "features.h5: " in line
        assert said in line
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"width": 5}, "holds grid 2x2 of width 5"),
        ({"weights": "bbbb"}, "weights bbbb; frozen was trained on grid 2x2"),
    ],
)
def test_features_of_another_encoder_after_training(place, refused, made, said):
    write_features(place / "features.h5", [record.image for record in DataSet.load("scenes").records], **made)
    train = ("train", *FROZEN, *OF_FEATURES, "training.updates=3")
    assert said in refused("evaluate", "frozen")
    assert said in refused(*train, "--out", "frozen", "--resume")
    assert said in refused(*train, "training.start=frozen", "--out", "new")
    assert "nowhere: is no run" in refused(*train, "training.start=nowhere", "--out", "new")
    assert not Path("new").exists()


def test_a_start_of_another_policy(place, refused):
    run = ("train", "scenes", "encoder=null", *OF_FEATURES, "training.threads=1", "training.start=frozen")
    line = refused(*run, "policy={name: show_tell, hidden: 24, embedding: 20}", "--out", "new")
    assert "training.start=frozen: holds policy soft_attention (" in line
    assert "embedding=16, attention=16" in line
    assert "and this recipe asks for policy show_tell (embedding=20" in line
    assert not Path("new").exists()
    line = refused("train", *FROZEN, *OF_FEATURES, "policy.hidden=20", "training.start=frozen", "--out", "new")
    assert "holds policy soft_attention (hidden=24), and this recipe asks for policy soft_attention (hidden=20)" in line


def test_pictures_of_another_size_than_the_encoder_sees(place, refused):
    extract = ("features", "extract", "pictures", "--encoder", "pixels", "--size", "32", "--out", "small.h5")
    assert main(["--quiet", *extract]) == 0
    line = refused("train", *PIXELS, "data.path=scenes", "data.features=small.h5", "--out", "new")
    assert "holds pictures of 32x32 pixels, the encoder sees 64x64" in line
    assert "was trained on pictures of 64x64 pixels" in refused("evaluate", "run", "--features", "small.h5")


@pytest.mark.parametrize("workers", [0, 1])
def test_not_a_number_among_the_features(place, refused, workers):
    train = ("train", *FROZEN, *OF_FEATURES, f"training.workers={workers}", "--out", "new")
    whole = Path("features.h5").read_bytes()
    for split in ("train", "val"):
        name = DataSet.load("scenes").split(split).images[1]
        # A new file takes the old one's place: HDF5 would not write to one that a failed command still holds open.
        Path("damaged.h5").write_bytes(whole)
        with h5py.File("damaged.h5", "r+") as file:
            row = list(file["names"].asstr()).index(name)
            file["features"][row, 2, 3] = np.nan
        Path("damaged.h5").replace("features.h5")
        line = refused(*(train if split == "train" else ("evaluate", "frozen")))
        assert f"features.h5: the features of '{name}' (row {row}) hold NaN or infinity" in line
    Path("whole.h5").write_bytes(whole)
    Path("whole.h5").replace("features.h5")
    shutil.rmtree("new/checkpoints", ignore_errors=True)
    assert main(["--quiet", *train]) == 0, "what failed before its first checkpoint simply starts again"


def test_weights_that_hold_nan_are_never_kept(place, refused):
    wild = ("trainer.optimiser.lr=1e30", "trainer.optimiser.decay=none", "training.updates=40")
    seldom = ("training.log_every=1000", "training.evaluate_every=9 updates")
    line = refused("train", *PIXELS, "data.path=scenes", *wild, *seldom, "--out", "new")
    assert "lower the learning rate" in line
    kept = list(Path("new").rglob("*.safetensors"))
    assert all(bool(torch.isfinite(value).all()) for path in kept for value in load_file(path).values())
    assert kept, "the update before it"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("caption run PICTURE --n-best 0", "--n-best 0: must be at least 1"),
        ("caption run PICTURE --beam -1", "beam: should be at least 1, not -1"),
        ("caption run PICTURE --length 0", "length: should be at least 1, not 0"),
        ("caption run PICTURE --top-p 2", "top_p: should be more than 0 and at most 1, not 2.0"),
        ("caption run PICTURE --temperature nan", "temperature: should be a finite number"),
        (
            "caption run PICTURE --length-normalisation 1e300",
            "length_normalisation: should be at least 0 and at most 10",
        ),
        ("caption run PICTURE --device nonsense", "device=nonsense: should be auto, cpu, cuda"),
        ("caption run PICTURE --device meta", "device=meta: should be auto, cpu, cuda"),
        ("caption run PICTURE --attention out.xyz", "out.xyz: pictures are written as .png"),
        ("caption run PICTURE --attention run/config.yaml/x.png", "(run/config.yaml is a file, not a folder)"),
        ("caption run pictures --attention x.png", "--attention draws one image, and 3 were given"),
        ("caption run https://example.com/a.png", "https://example.com/a.png: is an address; download the picture"),
        ("caption run nowhere.png", "nowhere.png: no such file"),
        ("caption run scenes", "scenes: holds no picture"),
        ("caption nowhere PICTURE", "nowhere: is no run"),
        ("caption frozen PICTURE", "no module is called 'my_nets'"),
        ("evaluate run --split nowhere", "scenes: has no split 'nowhere' (known: test, train, val)"),
        ("evaluate run --data scenes/scenes.h5", "scenes/scenes.h5: is a file"),
        ("evaluate run --features features.h5", "run was trained on pictures of 64x64 pixels"),
        ("evaluate run --ensemble frozen", "frozen was trained on grid 2x2 of width 8"),
        ("evaluate frozen --ensemble run", "run was trained on pictures"),
        ("evaluate run --out scenes/dataset.json/x", "(scenes/dataset.json is a file, not a folder)"),
        ("export run --out scenes", "scenes: is not empty"),
        ("export run --out scenes/dataset.json", "scenes/dataset.json: is a file"),
        ("export run --out scenes/dataset.json/x", "(scenes/dataset.json is a file, not a folder)"),
        ("train scenes data.path=scenes --out scenes/dataset.json", "scenes/dataset.json: is a file; name a folder"),
        ("train scenes data.path=scenes --out run", "run: holds a run already"),
        ("train scenes data.path=nowhere --out new", "nowhere: there is no such data set folder"),
        ("train scenes data.path=scenes data.evaluate=vall --out new", "scenes: has no split 'vall'"),
        ("prepare scenes/captions.jsonl --out run", "which is no part of a data set"),
        ("prepare PICTURE --out new", "a picture: name the annotations"),
        ("features import features.h5 --out pictures", "pictures: is a folder; name the file to write"),
        ("demo nonsense --out run/config.yaml", "(run/config.yaml is a file, not a folder)"),
    ],
)
def test_odd_values_and_wrong_paths(home, monkeypatch, refused, words, said):
    monkeypatch.chdir(home)
    before = sorted(home.rglob("*"))
    picture = str(next(Path("pictures").iterdir()))
    line = refused(*(picture if word == "PICTURE" else word for word in words.split()))
    assert said in line
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize(
    "argv", [["caption", "run", ""], ["train", "scenes", "--out="], ["evaluate", "run", "--split="]]
)
def test_a_shell_variable_that_is_not_set(argv, capsys):
    assert main(argv) == 2
    assert "an argument is empty" in capsys.readouterr().err


def test_unreadable_pictures_alone_and_among_others(place, capsys, refused):
    good = next((place / "pictures").iterdir())
    bad = {"cut.png": good.read_bytes()[:90], "empty.png": b"", "text.jpg": b"<html>not found</html>"}
    for name, raw in bad.items():
        (place / "pictures" / name).write_bytes(raw)
        assert f"pictures/{name}: " in refused("caption", "run", f"pictures/{name}")
    strange = os.fsencode(place / "pictures") + b"/caf\xe9.png"
    Path(os.fsdecode(strange)).write_bytes(good.read_bytes())
    assert main(["--quiet", "caption", "run", "pictures", "--json"]) == 0
    out, err = capsys.readouterr()
    assert len([json.loads(line) for line in out.splitlines()]) == 4
    assert "skipped 3 of 7 pictures:" in err
    assert all(f"pictures/{name}: " in err for name in bad)
    assert "pictures/cut.png: " in refused("caption", "run", "pictures", "--strict")
    shutil.rmtree("pictures")
    Path("pictures").mkdir()
    for name, raw in bad.items():
        (place / "pictures" / name).write_bytes(raw)
    assert main(["--quiet", "caption", "run", "pictures"]) == 2
    assert "none of the 3 pictures could be read" in capsys.readouterr().err.splitlines()[-1]


def test_odd_but_valid_pictures_have_captions(place):
    Path("odd").mkdir()
    for mode in ("1", "L", "P", "RGBA", "CMYK", "I;16", "F"):
        Image.new(mode, (5, 3)).save(f"odd/{mode.strip(';')}.tif".replace(";", ""))
    Image.new("RGB", (1, 1)).save("odd/dot.png")
    Image.new("RGB", (2000, 1)).save("odd/line.png")
    assert main(["--quiet", "caption", "run", "odd", "--strict"]) == 0
    assert main(["--quiet", "caption", "run", "odd/line.png", "--attention", "a line.png"]) == 0


@contextmanager
def disk_with_room_for(size: int) -> Iterator[None]:
    """No file may grow beyond this; the system's answer is the same as on a full disk, but for its words."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("room", "words", "said"),
    [
        (20, "evaluate run --out new", "new/val.json: cannot be written"),
        (900, "caption run pictures/PICTURE --attention new/x.png", "new/x.png: cannot be written"),
        (20_000, "export run --out new", "new: cannot be written"),
        (9_000, "prepare scenes --out new --count 20", "new: cannot be written"),
        (60_000, "features extract pictures --encoder pixels --size 128 --out new/x.h5", "new/x.h5: cannot be written"),
        (400, "TRAIN", "cannot be written"),
        ("weights.safetensors", "TRAIN", "new/checkpoints/best: cannot be written"),
        ("state.pt", "TRAIN", "new/checkpoints/best: cannot be written"),
    ],
)
def test_a_full_disk(place, refused, room, words, said):
    recipe = PIXELS
    if isinstance(
        room, str
    ):  # for all but the end of that file: without pictures, those of a checkpoint are the largest
        recipe = (*FROZEN, "data.features=features.h5")
        room = Path("frozen/checkpoints/best", room).stat().st_size - 1000
    train = f"train {' '.join(recipe)} data.path=scenes --out new".replace("1 update ", "1_update ")
    picture = next(Path("pictures").iterdir()).name
    argv = words.replace("TRAIN", train).replace("PICTURE", picture).split()
    with disk_with_room_for(room):
        line = refused(*(word.replace("_update", " update") for word in argv))
    assert said in line
    assert "File too large" in line
    whole = {"config.yaml", "environment.json", "features.json", "vocabulary.json", "metrics.jsonl"}
    left = [path for path in Path("new").rglob("*") if path.is_file() and path.name not in whole]
    assert not [path for path in left if "captions" not in path.parts and "tfevents" not in path.name]


def test_a_full_disk_amid_a_large_tensor(tmp_path):
    """Where nothing waits in a buffer, torch alone reports it, in words of its own."""
    with disk_with_room_for(50_000), pytest.raises(DataError, match=r"last: cannot be written \(File too large\)"):
        save_checkpoint(tmp_path / "last", {"a": nn.Linear(2, 2)}, {"a": torch.zeros(10**5)}, {"vocabulary": "words"})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_under_the_curves(tmp_path, monkeypatch):
    """TensorBoard writes in a thread: its traceback must not follow our line."""
    printed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", printed.append)
    with disk_with_room_for(20), pytest.raises(DataError, match="cannot be logged to"), Logger(tmp_path) as logger:
        logger.scalars(1, {"loss": 1.0})
    assert not printed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_half_written(place, capsys, number):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins deaf to it
    timer = threading.Timer(0.25, os.kill, (os.getpid(), number))
    timer.start()
    status = main(["--quiet", "prepare", "scenes", "--out", "many", "--count", "20000"])  # seconds, if none comes
    signal.signal(signal.SIGINT, before)
    assert status == 130
    assert capsys.readouterr().err.startswith("rlcap: interrupted")
    assert not [path for path in place.iterdir() if "many" in path.name]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def killed(do: Callable[[], None], after: float) -> None:
    """Does it again and again in a process of its own, which is killed."""
    child = os.fork()
    if child == 0:
        try:
            while True:
                do()
        finally:
            os._exit(1)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_a_kill_leaves_the_old_checkpoint_or_the_new_one(tmp_path):
    networks = {"policy": nn.Linear(20, 30)}

    def save() -> None:
        save_checkpoint(tmp_path / "last", networks, {"a": torch.zeros(500)}, {"vocabulary": "words"})

    save()
    for round_ in range(6):
        killed(save, 0.05 + 0.007 * round_)
        state, meta = load_state(tmp_path / "last")
        load_weights(tmp_path / "last/weights.safetensors", networks, "words")
        assert state["a"].shape == (500,)
        assert meta == {"vocabulary": "words"}


def test_a_kill_leaves_no_data_set(place):
    command = ["--quiet", "prepare", "scenes", "--out", "many", "--count", "100000"]
    killed(lambda: main(command) and None, 0.4)
    assert not Path("many").exists()
    assert main([*command[:-1], "20", "--min-count", "1"]) == 0


def test_two_processes_do_not_train_into_one_folder(place, refused):
    with only_writer(Path("run")):
        resume = ("train", *PIXELS, "data.path=scenes", "training.updates=3", "--out", "run", "--resume")
        assert "run: another process is writing into it" in refused(*resume)
    assert main(["--quiet", *resume]) == 0


def test_what_fails_within_a_folder_is_told_of_the_folder(tmp_path):
    with (
        pytest.raises(DataError, match=r"^/\S*/whole: cannot be written \(File too large\)"),
        disk_with_room_for(100),
        atomic_folder(tmp_path / "whole") as part,
    ):
        Vocabulary(["word"] + [f"word{number}" for number in range(99)]).save(part / "vocabulary.json")
    assert not list(tmp_path.iterdir())


def test_others_may_read_what_is_written(place):
    mask = os.umask(0)
    os.umask(mask)
    files = [path for path in (place / "run").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~mask}
