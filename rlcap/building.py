"""From a config to the objects that it describes: encoder, policy, trainer, device."""

import warnings
from pathlib import Path

import numpy as np
import torch

from rlcap.components import find
from rlcap.config import Component, Experiment
from rlcap.contracts import Codec, Course, FeatureShape, Policy, Trainer
from rlcap.data.dataset import Split
from rlcap.data.features import FeatureStore
from rlcap.data.no_features import NONE
from rlcap.errors import ConfigError
from rlcap.models.encoders import load_encoder
from rlcap.models.scorer import Scorer
from rlcap.models.scorers import make_scorer
from rlcap.models.seeing import Seeing
from rlcap.models.seeing_scorer import SeeingTowers
from rlcap.models.word_vectors import fill_embedding
from rlcap.progress import say

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def make_model(experiment: Experiment, codec: Codec, shape: FeatureShape) -> Policy | Scorer:
    """What the experiment trains."""
    if experiment.scorer is not None:
        return make_scorer(experiment.scorer, experiment.encoder, codec, shape)
    return make_policy(experiment, codec, shape)


def make_policy(experiment: Experiment, codec: Codec, shape: FeatureShape, weights_follow: bool = False) -> Policy:
    """The policy over features of this shape, or over pixels through an encoder that is trained along.

    `weights_follow`: a checkpoint is loaded next, so an encoder's first weights need not be at hand.
    """
    if experiment.policy is None:
        raise ConfigError(f"{experiment.name}: trains a scorer, which writes no captions; name the run of a policy")
    encoder = None
    if experiment.encoder is not None:
        encoder = load_encoder(experiment.encoder.name, experiment.encoder.settings, weights_follow)
        shape = encoder.shape
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # what follows says more
        policy: Policy = find("policy", experiment.policy.name)(codec, shape, **experiment.policy.settings)
    empty = [name for name, weights in policy.named_parameters() if weights.numel() == 0]
    if shape.width == 0 and empty:  # a layer over features of width 0
        raise ConfigError(
            f"policy {experiment.policy.name}: looks at images ({empty[0]}), and text has none; name a policy that "
            "writes without them, or a data set with images"
        )
    return policy if encoder is None else Seeing(policy, encoder)


def begin_words(experiment: Experiment, model: Policy | Scorer) -> None:
    """Pretrained word vectors for a policy at its very beginning; from then on its weights hold them.

    A policy that starts from another run's weights has that run's words.
    """
    vectors = experiment.training.word_vectors
    if vectors is None or experiment.training.start is not None:
        return
    if not isinstance(model, Policy):
        raise ConfigError(f"training.word_vectors={vectors}: is for policies, and {experiment.name} trains a scorer")
    say(fill_embedding(model, Path(vectors)))


def check_features(experiment: Experiment, store: FeatureStore) -> None:
    """Pixels go with an encoder that is trained along, features and text without one."""
    if store.kind == NONE and experiment.encoder is not None:
        raise ConfigError(
            f"encoder {experiment.encoder.name!r}: {store.path} is text, without images; set encoder=null"
        )
    if store.kind == "pixels" and experiment.encoder is None:
        raise ConfigError(
            f"{store.path} holds pixels: name an encoder to train along (encoder.name=small_cnn), "
            "or give features (rlcap features extract) as data.features"
        )
    if store.kind != "pixels" and experiment.encoder is not None:
        raise ConfigError(
            f"{store.path} holds {store.kind} features, but encoder {experiment.encoder.name!r} is to be trained "
            "along and needs pixels: rlcap features extract FOLDER --encoder pixels, or encoder=null"
        )


def check_size(model: Policy | Scorer, store: FeatureStore) -> None:
    """Pictures of another size than the encoder names would teach it what it never sees in `caption`."""
    if not isinstance(model, Seeing | SeeingTowers) or store.kind != "pixels":
        return
    here, there = store.layout.item[-1], model.encoder.size
    if here != there:
        raise ConfigError(
            f"{store.path} holds pictures of {here}x{here} pixels, the encoder sees {there}x{there}; "
            f"set encoder.size={here}, or extract them again with --size {there}"
        )


def rows_for(experiment: Experiment, store: FeatureStore, split: Split) -> np.ndarray:
    """Where the features of a split's images stand; for a blind control, those of another image each."""
    rows = store.rows(split.images)
    if experiment.data.blind:
        order = np.random.default_rng(0).permutation(len(rows))
        rows[order] = rows[np.roll(order, 1)]
    return rows


def make_trainer(section: Component, model: Policy | Scorer, course: Course) -> Trainer:
    trainer: Trainer = find("trainer", section.name)(model, course, **section.settings)
    return trainer


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """ "auto" is bfloat16 on a GPU that has it, float32 elsewhere."""
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return PRECISIONS[name]
