"""The wheel holds the package and nothing else, and no folder of the repository can be imported by its bare name."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
AT_THE_ROOT = ("agents", "envs", "experiments", "rewards")  # each is rlcap.NAME once it is installed


def project_files() -> list[Path]:
    """What git does not ignore; in an unpacked archive, all of the folders and files that a wheel is made from."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        files = [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]
    except (OSError, subprocess.CalledProcessError):
        files = []
    if files:
        return files
    found = [path for folder in ("rlcap", *AT_THE_ROOT) for path in (ROOT / folder).rglob("*")]
    found += [ROOT / name for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")]
    return [path.relative_to(ROOT) for path in found if path.is_file() and "__pycache__" not in path.parts]


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy, so that building leaves nothing in the repository."""
    copy = tmp_path_factory.mktemp("source")
    for file in project_files():
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, copy / file)
    return copy


@pytest.fixture(scope="module")
def shipped(tree) -> set[str]:
    """The files that the wheel must hold."""
    sources = [path for folder in ("rlcap", *AT_THE_ROOT) for path in (tree / folder).rglob("*")]
    kept = [path for path in sources if path.suffix in (".py", ".yaml", ".java") or path.name == "py.typed"]
    names = [path.relative_to(tree).as_posix() for path in kept]
    return {name if name.startswith("rlcap/") else f"rlcap/{name}" for name in names}


@pytest.fixture(scope="module")
def wheel(tree, shipped, tmp_path_factory) -> Path:
    """The wheel, unpacked."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(tree)]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (file,) = out.glob("rlcap-*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(out / "unpacked")
    return out / "unpacked"


def test_the_wheel_holds_the_package_and_nothing_else(wheel, shipped):
    names = {path.relative_to(wheel).as_posix() for path in wheel.rglob("*") if path.is_file()}
    assert {name for name in names if ".dist-info/" not in name} == shipped
    assert {"rlcap/py.typed", "rlcap/cli/__init__.py", "rlcap/experiments/scenes.yaml"} <= shipped
    assert {f"rlcap/{folder}/__init__.py" for folder in AT_THE_ROOT} <= shipped


def test_the_command_is_the_command_line_of_the_package(wheel):
    (file,) = wheel.glob("*.dist-info/entry_points.txt")
    entries = configparser.ConfigParser()
    entries.read(file, encoding="utf-8")
    assert {name: dict(entries[name]) for name in entries.sections()} == {
        "console_scripts": {"rlcap": "rlcap.cli:main"}
    }
    assert callable(EntryPoint("rlcap", "rlcap.cli:main", "console_scripts").load())


def test_the_unpacked_wheel_works_without_the_repository(wheel):
    code = (
        "import rlcap, rlcap.agents, rlcap.envs, rlcap.rewards, rlcap.recipe as c; print(rlcap.__file__, *c.recipes())"
    )
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=wheel, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    place, *recipes = done.stdout.split()
    assert Path(place) == wheel / "rlcap" / "__init__.py"
    assert recipes == sorted(path.stem for path in (wheel / "rlcap" / "experiments").glob("*.yaml"))


def test_setup_lists_every_package(tree):
    setup = configparser.ConfigParser()
    setup.read(tree / "setup.cfg", encoding="utf-8")
    folders = [
        init.parent.relative_to(tree) for f in ("rlcap", *AT_THE_ROOT) for init in (tree / f).rglob("__init__.py")
    ]
    names = {".".join(folder.parts if folder.parts[0] == "rlcap" else ("rlcap", *folder.parts)) for folder in folders}
    assert set(setup["options"]["packages"].split()) == names
    places = dict(line.split(" = ") for line in setup["options"]["package_dir"].strip().splitlines())
    assert {f"rlcap.{name}": name for name in AT_THE_ROOT} == places


@pytest.mark.parametrize("name", AT_THE_ROOT)
def test_the_bare_name_is_refused_in_one_line(name):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: import rlcap.{name}, not {name}: the bare name would make a second copy of every class"
    )
