"""The frame of the command line: help, switches, and what is said when something fails."""

import errno
import json
import os
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest

from rlcap import cli, progress
from rlcap.errors import ConfigError
from rlcap.version import __version__

HEAVY = ("torch", "torchvision", "numpy", "pydantic", "yaml", "rich", "matplotlib", "h5py", "PIL")


@pytest.fixture
def command(monkeypatch):
    """Stands a command up under the name of `demo`; what it gets is in `seen`."""
    monkeypatch.setattr(progress, "QUIET", False)
    seen = SimpleNamespace(arguments=None, quiet=None)

    def stand_up(act=lambda: 0, configure=lambda parser: None):
        def run(arguments):
            seen.arguments, seen.quiet = arguments, progress.QUIET
            return act()

        monkeypatch.setitem(sys.modules, "rlcap.cli.demo", SimpleNamespace(configure=configure, run=run))
        return seen

    return stand_up


def raising(error):
    def act():
        raise error

    return act


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh process has after the statement."""
    script = f"import sys, json\nfrom rlcap.cli import COMMANDS, main\n{statement}\nprint(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_is_light_and_quick():
    assert not set(HEAVY) & loaded_by("main(['--help'])")
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", "rlcap", "--help"], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.returncode == 0
    assert all(f"    {name}" in done.stdout for name in cli.COMMANDS)
    assert min(spent) < 0.5  # seconds of processor time, which a busy machine does not stretch


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name, capsys):
    assert cli.main([name, "--help"]) == 0
    assert f"usage: rlcap {name}" in capsys.readouterr().out


def test_no_command_is_heavy_before_it_runs():
    loaded = loaded_by("for name in COMMANDS: main([name, '--help'])")
    assert not {"torch", "torchvision"} & loaded


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"rlcap {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "name a command"),
        (["--quiet"], "name a command"),
        (["trian"], "there is no command 'trian' (did you mean 'train'?)"),
        (["xyz", "--help"], "there is no command 'xyz' (known: bench, caption, check-env, "),
        (["--deb", "list"], "unrecognized arguments: --deb"),
        (["list", "--bogus"], "unrecognized arguments: --bogus"),
        (["list", "policies", "more"], "unrecognized arguments: more"),
        (["train"], "the following arguments are required: RECIPE"),
        (["train", "x", "--out"], "argument --out: expected one argument"),
    ],
)
def test_wrong_arguments_end_with_the_usage(argv, said, capsys):
    assert cli.main(argv) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("usage: rlcap")
    assert said in told.err


def test_overrides_may_stand_on_both_sides_of_an_option(command):
    def configure(parser):
        parser.add_argument("recipe")
        parser.add_argument("overrides", nargs="*")
        parser.add_argument("--out")

    seen = command(configure=configure)
    assert cli.main(["demo", "r", "a.b=1", "--out", "x", "c.d=-2"]) == 0
    assert (seen.arguments.recipe, seen.arguments.overrides) == ("r", ["a.b=1", "c.d=-2"])
    assert seen.arguments.command == "demo"


def test_a_command_may_have_commands_of_its_own(command):
    def configure(parser):
        inner = parser.add_subparsers(dest="action", required=True)
        inner.add_parser("extract").add_argument("file")

    seen = command(configure=configure)
    assert cli.main(["demo", "extract", "x"]) == 0
    assert (seen.arguments.action, seen.arguments.file) == ("extract", "x")
    assert cli.main(["demo"]) == 2


@pytest.mark.parametrize("argv", [["--quiet", "--debug", "demo"], ["demo", "--quiet", "--debug"]])
def test_switches_stand_before_or_behind_the_command(command, argv):
    seen = command()
    assert cli.main(argv) == 0
    assert seen.quiet
    assert seen.arguments.debug
    assert cli.main(["demo"]) == 0
    assert not seen.quiet


def test_the_commands_status_is_the_programs(command):
    command(act=lambda: 1)
    assert cli.main(["demo"]) == 1


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ConfigError("r.yaml:3: seed: wrong"), 2, ["rlcap: r.yaml:3: seed: wrong"]),
        (ConfigError("one\ntwo"), 2, ["rlcap: one", "rlcap: two"]),
        (KeyboardInterrupt(), 130, ["rlcap: interrupted"]),
        (KeyboardInterrupt("after update 7"), 130, ["rlcap: interrupted: after update 7"]),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x.h5"),
            2,
            ["rlcap: runs/x.h5: No space left on device; --debug shows where"],
        ),
        (OSError("of two\n  lines"), 2, ["rlcap: of two lines; --debug shows where"]),
    ],
)
def test_what_the_user_can_mend_is_one_line(command, capsys, error, status, said):
    command(act=raising(error))
    assert cli.main(["demo"]) == status
    assert capsys.readouterr() == ("", "\n".join(said) + "\n")
    assert cli.main(["demo", "--debug"]) == status
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback(command):
    command(act=raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["demo"])


def test_a_reader_that_leaves_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [sys.executable, "-m", "rlcap", "list"]
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(arguments, stdout=writer, stderr=subprocess.PIPE, text=True, env=buffered)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_list_shows_everything_by_kind(capsys):
    assert cli.main(["list"]) == 0
    shown = capsys.readouterr().out
    for heading in ("policies:", "encoders:", "trainers:", "recipes:"):
        assert heading in shown.splitlines()
    assert cli.main(["list", "trainers"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["cross_entropy", "rlcap.agents.cross_entropy:CrossEntropy"]
    assert cli.main(["list", "recipe"]) == 2
    assert capsys.readouterr().err == "rlcap: 'recipe' cannot be listed (did you mean 'recipes'?)\n"
