"""Scorers by name, and from the folder of a run that trained one."""

from pathlib import Path

from rlcap.components import find
from rlcap.config import Component
from rlcap.contracts import Codec, FeatureShape
from rlcap.data.sight import Sight
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import CheckpointError, ComponentError
from rlcap.models.encoders import load_encoder
from rlcap.models.scorer import Scorer, Towers
from rlcap.models.seeing_scorer import SeeingTowers
from rlcap.recipe import load_recipe
from rlcap.weights import find_weights, load_weights, run_folder


def make_scorer(
    section: Component,
    encoder: Component | None,
    codec: Codec,
    shape: FeatureShape,
    weights_follow: bool = False,
) -> Scorer:
    """The scorer of a recipe, over features of this shape or over pixels through an encoder that is trained along.

    `weights_follow`: a checkpoint is loaded next, so the encoder's first weights need not be at hand.
    """
    sees = None if encoder is None else load_encoder(encoder.name, encoder.settings, weights_follow)
    made = find("scorer", section.name)(codec, shape if sees is None else sees.shape, **section.settings)
    if not isinstance(made, Scorer):
        raise ComponentError(f"scorer '{section.name}': is a {type(made).__name__}; make it a child of Scorer")
    if sees is None:
        return made
    if not isinstance(made, Towers):
        raise ComponentError(f"scorer '{section.name}': an encoder is trained along with Towers only; set encoder=null")
    return SeeingTowers(made, sees)


def load_scorer(folder: Path, checkpoint: str = "best") -> tuple[Scorer, Sight]:
    """What a run trained, at rest on the CPU, and what features it was trained on."""
    folder = run_folder(folder)
    weights = find_weights(folder, checkpoint)
    experiment = load_recipe(folder / "config.yaml", unused=("trainer", "rewards"))
    if experiment.scorer is None:
        raise CheckpointError(f"{folder}: trained no scorer; name the run of a recipe that has a 'scorer' section")
    sight = Sight.load(folder)
    vocabulary = Vocabulary.load(folder / "vocabulary.json", remedy="copy the whole folder of the run")
    scorer = make_scorer(experiment.scorer, experiment.encoder, vocabulary, sight.shape, weights_follow=True)
    load_weights(weights, {"scorer": scorer}, vocabulary.fingerprint)
    return scorer.eval().requires_grad_(False), sight
