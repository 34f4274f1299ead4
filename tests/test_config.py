"""Recipes: what they become, and what is said of wrong ones."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from rlcap.config import (
    Component,
    Data,
    Decoding,
    Experiment,
    Training,
    in_updates,
)
from rlcap.errors import ConfigError
from rlcap.recipe import load_recipe, recipes, revised, to_yaml

PLUGIN = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Optimiser:
    lr: float = 4e-4
    betas: tuple[float, float] = (0.9, 0.999)

class Policy:
    def __init__(self, codec, shape, *, hidden: int = 512, dropout: float = 0.5): ...

class Trainer:
    def __init__(self, policy, course, *, optimiser: Optimiser = Optimiser()): ...

class Anything:
    def __init__(self, *given, **settings): ...
"""
GOOD = """\
# A recipe for tests
name: test
policy: config_plugin:Policy
trainer: {name: config_plugin:Trainer}
training:
  epochs: 3
"""


@pytest.fixture(autouse=True, scope="module")
def plugin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "config_plugin.py").write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        yield


@pytest.fixture
def recipe(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return write


def problems(path, overrides=()) -> list[str]:
    """What is said of a recipe, without the folder that it lies in."""
    with pytest.raises(ConfigError) as wrong:
        load_recipe(path, overrides)
    return str(wrong.value).replace(f"{path.parent}/", "").splitlines()


def test_a_recipe_becomes_an_experiment_with_all_defaults(recipe):
    experiment = load_recipe(recipe(GOOD))
    assert experiment.name == "test"
    assert experiment.data == Data()
    assert experiment.encoder is None
    assert experiment.policy == Component("config_plugin:Policy", {"hidden": 512, "dropout": 0.5})
    assert experiment.trainer.settings["optimiser"].betas == (0.9, 0.999)  # as the constructor takes it
    assert experiment.training == Training(epochs=3.0)
    assert experiment.decoding == Decoding()


def test_everything_wrong_is_said_at_once_in_the_order_of_the_file(recipe):
    path = recipe("""\
        # Everything in it is wrong
        data:
          path: 2017
          trian: b
        policy:
          name: config_plugin:Policy
          hiden: 3
          dropout: much
        trainer:
          name: config_plugin:Trainr
        training:
          updates: many
          epochs: 3
          device: gpu
          precision: float16
          seed: -1
          epochs: 4
          evaluate_every: 500
        decoding: {top_p: 0,
          beam: 1e2, sample: yes}
        seed: 3
        encoder: [resnet18]
    """)
    overrides = ["polic.hidden=3", "rubbish", "data.train=[", "training.threads=none", "trainig=1"]
    overrides.append("data.path.x=1")
    said = problems(path, overrides)
    plugin = sys.modules["config_plugin"].__file__
    assert said == [
        "recipe.yaml: name: is missing",
        "recipe.yaml:3: data.path: should be text (perhaps put it in quotes), not 2017",
        "recipe.yaml:4: data.trian: unknown key (did you mean 'train'?)",
        "recipe.yaml:7: policy.hiden: unknown key (did you mean 'hidden'?)",
        "recipe.yaml:8: policy.dropout: should be a number, not 'much'",
        f"recipe.yaml:10: trainer.name: trainer 'config_plugin:Trainr': {plugin} "
        "has no 'Trainr' (did you mean 'Trainer'?)",
        "recipe.yaml:12: training.updates: should be a whole number, not 'many'",
        "recipe.yaml:13: training.epochs: stands twice, again at recipe.yaml:17",
        "recipe.yaml:14: training.device: should be auto, cpu, cuda, cuda:0 (or another number) or mps, not 'gpu'",
        "recipe.yaml:15: training.precision: should be one of 'auto', 'float32' or 'bfloat16', not 'float16'",
        "recipe.yaml:16: training.seed: should be at least 0, not -1",
        "recipe.yaml:18: training.evaluate_every: should be like '1 epoch', '0.5 epochs' or '500 updates', not 500",
        "recipe.yaml:19: decoding.top_p: should be more than 0 and at most 1, not 0",
        "recipe.yaml:20: decoding.beam: should be a whole number, not 100.0",
        "recipe.yaml:20: decoding.sample: should be true or false, not 'yes'",
        "recipe.yaml:21: seed: unknown key (did you mean 'training.seed'?)",
        "recipe.yaml:22: encoder: needs a name: 'name: NAME', from `rlcap list` or your own module:Name",
        "override 'polic.hidden=3': polic: unknown key (did you mean 'policy'?)",
        "override 'rubbish': write it as section.key=value, such as training.seed=3",
        "override 'data.train=[': is not YAML: expected the node content, but found '<stream end>'",
        "override 'training.threads=none': training.threads: should be a whole number, not 'none'",
        "override 'trainig=1': trainig: unknown key (did you mean 'training'?)",
        "override 'data.path.x=1': data.path.x: cannot be set: 'data.path' is no section",
    ]


def test_what_is_missing_is_named_where_it_belongs(recipe):
    assert problems(recipe("name: x\ntraining:\n  images: 3\npolicy: {hidden: 3}\n")) == [
        "recipe.yaml: trainer: is missing",
        "recipe.yaml:2: training: give exactly one of 'updates' and 'epochs'",
        "recipe.yaml:4: policy: needs a name: 'name: NAME', from `rlcap list` or your own module:Name",
    ]
    assert problems(recipe("")) == [
        f"recipe.yaml: {section}: is missing" for section in ("policy", "name", "trainer", "training")
    ]


@pytest.mark.parametrize("overrides", [["training.epochs=null"], ["training.updates=3", "training.epochs=2"]])
def test_what_is_wrong_with_a_whole_section_is_told_at_its_line(recipe, overrides):
    said = "recipe.yaml:5: training: give exactly one of 'updates' and 'epochs'"
    assert problems(recipe(GOOD), overrides) == [said]


def test_updates_take_the_place_of_the_recipes_epochs(recipe):
    assert load_recipe(recipe(GOOD), ["training.updates=3"]).training == Training(updates=3)
    by_updates = recipe(GOOD.replace("epochs: 3", "updates: 3"))
    assert load_recipe(by_updates, ["training.epochs=2"]).training == Training(epochs=2.0)
    assert load_recipe(by_updates, ["training.epochs=null"]).training == Training(updates=3)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.images=0", "training.images: should be at least 1, not 0"),
        ("training.epochs=0", "training.epochs: should be more than 0, not 0"),
        ("training.epochs=.inf", "training.epochs: should be a finite number, not Infinity"),
        ("training.epochs=.nan", "training.epochs: should be a finite number, not NaN"),
        ("training.workers=-1", "training.workers: should be at least 0, not -1"),
        ("training.seed=true", "training.seed: should be a whole number, not true"),
        (
            "training.device=cuda:x",
            "cuda:0 (or another number) or mps, not 'cuda:x'",
        ),
        ("training.evaluate_every=0 epochs", "500 updates', not '0 epochs'"),
        ("training.evaluate_every=1.5 updates", "500 updates', not '1.5 updates'"),
        ("training=3", "training: should be a section of keys and values, not 3"),
        ("data.max_words=twenty", "data.max_words: should be a whole number, not 'twenty'"),
        ("data.train=2017", "data.train: should be text (perhaps put it in quotes), not 2017"),
        ("decoding.temperature=0", "decoding.temperature: should be more than 0, not 0"),
        ("decoding.top_p=1.1", "decoding.top_p: should be more than 0 and at most 1, not 1.1"),
        ("decoding.diversity=-0.1", "decoding.diversity: should be at least 0, not -0.1"),
        ("decoding={beam: 4, groups: 3}", "decoding: 'groups' (3) must divide 'beam' (4)"),
        ("decoding={beam: 4, sample: true}", "decoding: 'sample' goes with 'beam' 1, not 4"),
        ("decoding.min_words=21", "decoding: 'min_words' (21) is more than 'length' (20)"),
        ("policy=null", "policy: is missing"),
        ("policy=config_plugin:Polcy", "has no 'Polcy' (did you mean 'Policy'?)"),
        (
            "policy=sof_attention",
            "policy.name: no policy is called 'sof_attention' (did you mean 'soft_attention'?)",
        ),
        ("policy.codec=3", "policy.codec: is a positional parameter"),
        ("trainer.optimiser.lr=fast", "trainer.optimiser.lr: should be a number, not 'fast'"),
        ("trainer.optimiser.rate=1", "trainer.optimiser.rate: unknown key (known: betas, lr)"),
        ("trainer.optimiser.betas.0=1", "'trainer.optimiser.betas' is no section"),
        ("name.x.y=1", "name.x.y: cannot be set: 'name' is no section"),
        ("=3", "write it as section.key=value"),
        ("training..seed=3", "write it as section.key=value"),
        ("training.seed=&a 3", None),  # an anchor that nothing refers to does no harm
        ("training.seed=*a", "is not YAML: found undefined alias"),
        ("training.seed=!!python/name:os.system x", "cannot stand in a recipe"),
        ("training.seed=!!int x", "!!int 'x' cannot stand in a recipe"),
        ("training={epochs: 3, epochs: 4}", "training.epochs: stands twice"),
        ("training={[1, 2]: 3, epochs: 2}", "training: a key is a word, not a list or a section"),
    ],
)
def test_one_wrong_override(recipe, override, said):
    text = GOOD.replace("config_plugin:Trainer", "config_plugin:Trainer, optimiser: {betas: [0.1, 0.2]}")
    if said is None:
        assert load_recipe(recipe(text), [override]).training.seed == 3
        return
    (line,) = [line for line in problems(recipe(text), [override]) if said in line]
    assert line.startswith(f"override '{override}': ")


def test_overrides_reach_every_depth(recipe):
    overrides = ["trainer.optimiser.lr=5e-5", "policy.hidden=8", "data.features=null", "name='3'"]
    overrides.append("training={updates: 7}")
    experiment = load_recipe(recipe(GOOD), overrides)
    assert experiment.trainer.settings["optimiser"].lr == 5e-5  # a word for YAML 1.1
    assert experiment.policy.settings == {"hidden": 8, "dropout": 0.5}  # the file has the short form
    assert experiment.data.features is None
    assert experiment.training == Training(updates=7)
    assert experiment.name == "3"
    twice = load_recipe(recipe(GOOD), ["training.seed=3", "training.seed=4"])
    assert twice.training.seed == 4  # the last one counts


def test_overrides_from_python_are_values(recipe):
    path = recipe(GOOD)
    overrides = {"data.path": Path("a") / "é😀", "decoding": {"beam": 3}}
    overrides["trainer.optimiser.betas"] = (0.1, 1e-05)
    experiment = load_recipe(path, overrides)
    assert experiment.data.path == "a/é😀"
    assert experiment.decoding == Decoding(beam=3)
    assert experiment.trainer.settings["optimiser"].betas == (0.1, 1e-5)
    assert load_recipe(path, {"data.train": "2017"}).data.train == "2017"  # text stays text
    assert "cannot stand in a recipe" in problems(path, {"data.path": print})[0]
    assert problems(path, {"data.path": 3}) == [
        "override 'data.path=3': data.path: should be text (perhaps put it in quotes), not 3"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "recipe.yaml:1: is not YAML: "),
        ("a: 1\nb: 'x\n", "recipe.yaml:3: is not YAML: found unexpected end of stream"),
        ("a: 1\n\tb: 2\n", "recipe.yaml:2: is not YAML: found character '\\t'"),
        ("a: 1\n--- \nb: 2\n", "recipe.yaml:2: is not YAML: but found another document"),
        ("- a\n", "recipe.yaml: is no recipe: it needs sections"),
        ("only words", "recipe.yaml: is no recipe: it needs sections"),
        ("a: \x01", "recipe.yaml: unacceptable character #x0001"),
        ("a: &x [*x]", "recipe.yaml:1: a.0: is an alias (*name): a recipe has none"),
        ("a: " + "[" * 800, "recipe.yaml: cannot be read as a recipe"),
        ("a: " + "9" * 5000, "recipe.yaml:1: a: !!int '9999"),
    ],
)
def test_what_is_not_yaml_is_told_with_its_line(recipe, text, said):
    assert [line for line in problems(recipe(text)) if line.startswith(said)]


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xff\xfe\x00binary")
    assert problems(path)[0].startswith("recipe.yaml: cannot be read as a recipe")
    with pytest.raises(ConfigError, match=r"is a folder; give a \.yaml file"):
        load_recipe(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no such recipe \(did you mean '.*/recipe.yaml'"):
        load_recipe(tmp_path / "recip.yaml")
    with pytest.raises(ConfigError, match=r"there is no such recipe \(did you mean 'soft_attention'\?\)"):
        load_recipe("sof_attention")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("4e-4", 4e-4), ("1E5", 1e5), (".5", 0.5), ("-1.", -1.0), ("010", 10), ("+3", 3), ("1_000", "1_000"),
        ("1:30", "1:30"), ("no", "no"), ("2020-01-01", "2020-01-01"), ("True", True), ("~", None), ("", None),
        ("0x10", "0x10"), ("<<", "<<"), ("=", "="),
    ],
)  # fmt: skip
def test_words_and_numbers_follow_yaml_1_2(recipe, written, value):
    experiment = load_recipe(recipe(GOOD), ["policy=config_plugin:Anything", f"policy.x={written}"])
    assert experiment.policy.settings == {"x": value}
    assert type(experiment.policy.settings["x"]) is type(value)


def test_intervals_count_in_epochs_or_updates():
    assert in_updates(Training(epochs=1).evaluate_every, 100) == 100
    assert in_updates("0.5 epochs", 101) == 50
    assert in_updates("500 updates", 100) == 500
    assert in_updates("0.001 epochs", 100) == 1


def test_a_section_is_revised_under_the_same_rules():
    assert revised(Decoding(length=9), beam=3) == Decoding(length=9, beam=3)
    with pytest.raises(ConfigError, match=r"^beam: should be at least 1, not 0$"):
        revised(Decoding(), beam=0)
    with pytest.raises(ConfigError, match=r"bean: unknown key \(did you mean 'beam'\?\)"):
        revised(Decoding(), bean=3)
    with pytest.raises(ConfigError, match=r"'groups' \(2\) must divide 'beam' \(3\)"):
        revised(Decoding(beam=3), groups=2)


def test_an_encoder_is_a_component_too(recipe):
    overrides = ["encoder=config_plugin:Anything", "encoder.size=64", "data.features=pixels.h5"]
    assert load_recipe(recipe(GOOD), overrides).encoder == Component("config_plugin:Anything", {"size": 64})


def test_shipped_recipes_are_whole_and_introduce_themselves():
    shipped = recipes()
    assert {"soft_attention", "scenes"} <= set(shipped)
    for name, headline in shipped.items():
        assert len(headline) > 10
        assert isinstance(load_recipe(name), Experiment)


def test_the_written_recipe_holds_defaults_and_reads_alike_elsewhere(recipe, tmp_path):
    experiment = load_recipe(recipe(GOOD), ["data.train=yes", "trainer.optimiser.lr=1e-5", "name='1e5'"])
    written = to_yaml(experiment)
    assert written.startswith(
        "name: '1e5'\ndata:\n  path: data/scenes\n  features: null\n  pictures: null\n  train: 'yes'\n"
    )
    elsewhere = yaml.safe_load(written)  # YAML 1.1
    assert elsewhere["data"]["train"] == "yes"
    assert math.isclose(elsewhere["trainer"]["optimiser"]["lr"], 1e-5)
    assert elsewhere["policy"] == {"name": "config_plugin:Policy", "hidden": 512, "dropout": 0.5}
    path = tmp_path / "config.yaml"
    path.write_text(written)
    assert load_recipe(path) == experiment
    assert load_recipe(path, ["training.seed=2"]) == replace(experiment, training=Training(epochs=3.0, seed=2))
