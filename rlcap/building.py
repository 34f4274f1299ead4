"""From a config to the objects that it describes: encoder, policy, trainer, device."""

import numpy as np
import torch

from rlcap.components import find
from rlcap.config import Component, Experiment
from rlcap.contracts import Codec, Course, FeatureShape, Policy, Trainer
from rlcap.data.dataset import Split
from rlcap.data.features import FeatureStore
from rlcap.errors import ConfigError
from rlcap.models.encoders import load_encoder
from rlcap.models.seeing import Seeing

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def make_policy(experiment: Experiment, codec: Codec, shape: FeatureShape) -> Policy:
    """The policy over features of this shape, or over pixels through an encoder that is trained along."""
    encoder = None
    if experiment.encoder is not None:
        encoder = load_encoder(experiment.encoder.name, experiment.encoder.settings)
        shape = encoder.shape
    policy: Policy = find("policy", experiment.policy.name)(codec, shape, **experiment.policy.settings)
    return policy if encoder is None else Seeing(policy, encoder)


def check_features(experiment: Experiment, store: FeatureStore) -> None:
    """Pixels go with an encoder that is trained along, features without one."""
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


def rows_for(experiment: Experiment, store: FeatureStore, split: Split) -> np.ndarray:
    """Where the features of a split's images stand; shuffled among them for a blind control."""
    rows = store.rows(split.images)
    return np.random.default_rng(0).permutation(rows) if experiment.data.blind else rows


def make_trainer(section: Component, policy: Policy, course: Course) -> Trainer:
    trainer: Trainer = find("trainer", section.name)(policy, course, **section.settings)
    return trainer


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """ "auto" is bfloat16 on a GPU that has it, float32 elsewhere."""
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return PRECISIONS[name]
