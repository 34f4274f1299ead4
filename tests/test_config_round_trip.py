"""Any experiment survives being written and read; any rubbish is only ever a ConfigError."""

import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlcap.config import Component, Data, Decoding, Experiment, Training
from rlcap.errors import ConfigError
from rlcap.recipe import load_recipe, to_yaml


@pytest.fixture(autouse=True, scope="module")
def plugin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "round_trip_plugin.py").write_text("def anything(*given, **settings): ...")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        yield


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
COUNT = st.integers(1, 10**6)
EXPERIMENTS = st.builds(
    Experiment,
    name=WORDS,
    data=st.builds(Data, path=WORDS, features=st.none(), train=WORDS, evaluate=WORDS, max_words=COUNT),
    encoder=st.none() | st.just(Component("round_trip_plugin:anything")),
    policy=st.builds(
        Component,
        st.just("round_trip_plugin:anything"),
        st.dictionaries(WORDS.filter(lambda word: word not in ("name", "given")), PLAIN, max_size=4),
    ),
    trainer=st.just(Component("round_trip_plugin:anything")),
    training=st.builds(
        Training,
        epochs=FINITE.filter(lambda value: value > 0),
        images=COUNT,
        patience=st.none() | COUNT,
        metric=WORDS,
        device=st.sampled_from(["auto", "cpu", "cuda:3"]),
        evaluate_every=st.sampled_from(["1 epoch", "0.5 epochs", "7 updates"]),
    ),
    decoding=st.builds(
        Decoding,
        length=COUNT,
        length_normalisation=st.floats(0, 10),
        sample=st.just(True),
        top_p=st.floats(0, 1, exclude_min=True),
    ),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(experiment=EXPERIMENTS)
def test_the_written_recipe_reads_as_the_same_experiment(tmp_path, experiment):
    path = tmp_path / "written.yaml"
    path.write_text(to_yaml(experiment), encoding="utf-8", newline="")
    assert load_recipe(path) == experiment


PIECES = ["name: ", "policy", "training:", "\n  ", "\n", "- ", "{", "}", "[", "!!", "&a ", "*a", "? "]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(st.sampled_from(PIECES)).map("".join).flatmap(lambda text: WORDS.map(lambda word: text + word)),
    override=WORDS,
)
def test_rubbish_is_only_ever_a_config_error(tmp_path, text, override):
    path = tmp_path / "rubbish.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(ConfigError):
        load_recipe(path, [override])
