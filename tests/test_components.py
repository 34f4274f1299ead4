"""Names to objects, and settings against constructors."""

import sys
from itertools import count
from pathlib import Path
from textwrap import dedent

import pytest

from rlcap.components import TABLES, as_plain, check_arguments, find, names, resolved_arguments
from rlcap.errors import ComponentError, ConfigError

NUMBER = count()


class Folder:
    """A folder of a user's modules; each gets a name that no other test has used."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def module(self, text: str) -> str:
        name = f"plugin_{next(NUMBER)}"
        (self.path / f"{name}.py").write_text(dedent(text))
        return name


@pytest.fixture
def user(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


@pytest.mark.parametrize("kind", TABLES)
def test_every_short_name_is_there(kind):
    for name in names(kind):
        assert callable(find(kind, name))


def test_a_near_miss_is_suggested(user):
    with pytest.raises(ComponentError, match=r"^no policy is called 'soft_atention' \(did you mean 'soft_at"):
        find("policy", "soft_atention")
    with pytest.raises(ComponentError, match=r"'polcy' is no kind of component \(did you mean 'policy'\?\)"):
        names("polcy")


def test_a_module_in_the_current_folder_is_found_and_hides_nothing(user):
    name = user.module("class Mine: pass")
    (user.path / "colorsys.py").write_text("raise RuntimeError('the installed one comes first')")
    before = list(sys.path)
    assert find("policy", f"{name}:Mine", [user.path]).__name__ == "Mine"
    assert sys.path == [*before, str(user.path)]  # at the end
    assert find("policy", "colorsys:rgb_to_hsv") is not None
    assert sys.path == [*before, str(user.path)]


def test_a_short_name_puts_nothing_on_the_path(user):
    before = list(sys.path)
    find("trainer", "cross_entropy")
    assert sys.path == before


def test_a_module_beside_the_recipe_comes_before_one_in_the_current_folder(user, tmp_path):
    beside = tmp_path / "recipes"
    beside.mkdir()
    name = user.module("class Mine: place = 'current'")
    (beside / f"{name}.py").write_text("class Mine: place = 'beside'")
    assert find("policy", f"{name}:Mine", [beside, user.path]).place == "beside"


def test_three_ways_to_fail_have_three_messages(user):
    good = user.module("class Mine: pass\nclass Other: pass\nfrom pathlib import Path")
    bad = user.module("def fail():\n    return 1 / 0\n\nfail()\n")
    unwritten = user.module("import a_module_that_nobody_wrote")
    broken = user.module("class Mine:\n    def (:\n")
    with pytest.raises(ComponentError) as absent:
        find("policy", f"{good}x:Mine", [Path.cwd()])
    assert f"no module is called '{good}x' (did you mean '{good}'?)" in str(absent.value)
    assert str(user.path) in str(absent.value)
    with pytest.raises(ComponentError, match=rf"{good}.py has no 'Mime' \(did you mean 'Mine'\?\)"):
        find("policy", f"{good}:Mime", [Path.cwd()])
    with pytest.raises(ComponentError, match=r"has no 'Absent' \(known: Mine, Other\)"):
        find("policy", f"{good}:Absent", [Path.cwd()])
    for name, said in (
        (bad, rf"{bad}.py:4: fails while it is imported: ZeroDivisionError: "),
        (
            unwritten,
            rf"{unwritten}.py:1: fails while it is imported: ModuleNotFoundError: No module",
        ),
        (broken, rf"{broken}.py:2: fails while it is imported: SyntaxError: "),
    ):
        with pytest.raises(ComponentError, match=said) as failed:
            find("policy", f"{name}:Mine", [Path.cwd()])
        assert "\n" not in str(failed.value)


def test_a_missing_submodule_is_told_from_its_package():
    with pytest.raises(ComponentError, match=r"called 'rlcap.model' \(did you mean 'models'\?\)"):
        find("policy", "rlcap.model:SoftAttention")


@pytest.mark.parametrize("name", ["mine:", ":Mine", "mine:a.b", "my mine:Mine", "mine::Mine", "../mine:Mine"])
def test_a_malformed_name_is_refused(name):
    with pytest.raises(ComponentError, match="write it as module:Name"):
        find("policy", name)


def test_a_constant_is_no_component(user):
    name = user.module("SIZE = 3")
    with pytest.raises(ComponentError, match="is a int: it must be a class or a function"):
        find("policy", f"{name}:SIZE", [Path.cwd()])


PLUGIN = """
    from __future__ import annotations
    from dataclasses import dataclass, field
    from pathlib import Path
    from typing import Annotated, Literal
    from annotated_types import Ge, Interval
    from pydantic import Field
    from rlcap.errors import ConfigError

    @dataclass(frozen=True)
    class Optimiser:
        lr: float
        name: Literal["adam", "sgd"] = "adam"
        betas: tuple[float, float] = (0.9, 0.999)

        def __post_init__(self):
            if self.lr < 0:
                raise ConfigError("lr is negative")
            if self.lr > 10:
                raise ValueError("lr is\\nabsurd")

    @dataclass
    class Schedule:
        steps: list[Optimiser] = field(default_factory=list)

    class Mine:
        def __init__(
            self, codec, old=1, *, hidden: Annotated[int, Ge(1)] = 512,
            optimiser: Optimiser = Optimiser(4e-4),
            dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.5, k: int = 3,
            mix: float | Schedule | None = None, file: Path | None = None, free=None, act=print,
            bound: float = float("inf"), wrong: int = None,
            bits: Annotated[int, Field(ge=1, le=9)] | None = None,
        ): ...

    class Needs:
        def __init__(self, codec, *, width: int): ...

    def anything(*, width: int = 1, **others): ...
    def odd(*, width: Nowhere): ...
"""


@pytest.fixture
def plugin(user):
    name = user.module(PLUGIN)
    return lambda attribute: find("policy", f"{name}:{attribute}", [Path.cwd()])


def test_arguments_come_out_as_the_constructor_takes_them(plugin):
    given = {
        "hidden": 3,
        "optimiser": {"lr": 1, "betas": [0.1, 0.2]},
        "file": "a/b",
        "mix": {"steps": [{"lr": 1e-3}]},
    }
    made = check_arguments(plugin("Mine"), given, "policy")
    assert list(made) == list(given)
    assert made["optimiser"].lr == 1.0
    assert made["optimiser"].betas == (0.1, 0.2)
    assert made["file"] == Path("a/b")
    assert made["mix"].steps[0].name == "adam"
    assert check_arguments(plugin("Mine"), made, "policy") == made  # what is made already may be given too


def test_everything_wrong_is_said_at_once(plugin):
    given = {
        "hiden": 3,
        "hidden": 0,
        "dropout": 1,
        "optimiser": {"nam": "adam", "name": "adamm", "betas": [1, "x"]},
        "mix": "often",
        "old": 2,
        "lr": 1e-3,
        "free": [1],
        "bits": 12,
    }
    with pytest.raises(ConfigError) as wrong:
        check_arguments(plugin("Mine"), given, "policy 'mine'")
    assert set(str(wrong.value).splitlines()) == {
        "policy 'mine': hiden: unknown key (did you mean 'hidden'?)",
        "policy 'mine': hidden: should be at least 1, not 0",
        "policy 'mine': dropout: should be at least 0 and less than 1, not 1",
        "policy 'mine': optimiser.lr: is missing",
        "policy 'mine': optimiser.nam: unknown key (did you mean 'name'?)",
        "policy 'mine': optimiser.name: should be one of 'adam' or 'sgd', not 'adamm'",
        "policy 'mine': optimiser.betas.1: should be a number, not 'x'",
        "policy 'mine': mix: should be a number or a section of keys and values, not 'often'",
        "policy 'mine': old: is a positional parameter; a recipe sets keyword-only ones: put it behind a * in Mine",
        "policy 'mine': lr: unknown key (did you mean 'optimiser.lr'?)",
        "policy 'mine': bits: should be at least 1 and at most 9, not 12",
    }


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("hidden", True, "should be a whole number, not true"),
        ("hidden", 3.0, "should be a whole number, not 3.0"),
        ("hidden", "3", "should be a whole number, not '3'"),
        ("dropout", "0.5", "should be a number, not '0.5'"),
        ("dropout", float("nan"), "should be a finite number, not NaN"),
        ("optimiser", [1], "should be a section of keys and values, not [1]"),
        ("optimiser", {"lr": 11}, "lr is absurd"),
        ("mix", {"step": 1, "steps": [{"lr": 1}]}, "step: unknown key (did you mean 'steps'?)"),
        ("file", 3, "should be text (perhaps put it in quotes), not 3"),
    ],
)
def test_one_wrong_value(plugin, setting, value, said):
    with pytest.raises(ConfigError) as wrong:
        check_arguments(plugin("Mine"), {setting: value}, "policy")
    assert f"policy: {setting}" in str(wrong.value)
    assert str(wrong.value).splitlines()[0].endswith(said)


def test_what_is_required_is_asked_for(plugin):
    with pytest.raises(ConfigError, match=r"^policy: width: is missing$"):
        check_arguments(plugin("Needs"), {}, "policy")


def test_a_constructor_that_takes_anything_is_given_anything(plugin):
    given = {"width": 2, "depth": "x"}
    assert check_arguments(plugin("anything"), given, "policy") == given
    with pytest.raises(ConfigError, match="width: should be a whole number"):
        check_arguments(plugin("anything"), {"width": "x", "depth": "x"}, "policy")


def test_annotations_that_cannot_be_read_are_the_plugins_fault(plugin):
    with pytest.raises(ComponentError, match=r"odd: its parameters cannot be read .*Nowhere"):
        check_arguments(plugin("odd"), {}, "policy")


def test_resolved_arguments_hold_every_default_that_a_recipe_can_hold(plugin):
    resolved, problems = resolved_arguments(plugin("Mine"), {"hidden": 3})
    assert not problems
    assert resolved["hidden"] == 3
    assert resolved["dropout"] == 0.5
    assert resolved["optimiser"].lr == 4e-4
    assert "act" not in resolved  # a function
    assert "bound" not in resolved  # infinite
    assert "wrong" not in resolved  # None, against its annotation
    again, problems = resolved_arguments(plugin("Mine"), as_plain(resolved))
    assert not problems
    assert again == resolved


def test_what_a_recipe_cannot_hold_is_named():
    assert as_plain({"a": (1, Path("x"))}) == {"a": [1, "x"]}
    with pytest.raises(ConfigError, match="a function like this cannot stand in a recipe"):
        as_plain(lambda: None)
    with pytest.raises(ConfigError, match="inf: a float like this cannot stand in a recipe"):
        as_plain(float("inf"))


def test_a_plugins_own_check_is_one_problem_among_others(plugin):
    with pytest.raises(ConfigError, match=r"^policy: lr is negative$"):
        check_arguments(plugin("Mine"), {"optimiser": {"lr": -1}}, "policy")
