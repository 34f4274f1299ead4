"""A trained captioner as a person holds it: load it, caption pictures, evaluate it, hand it over."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from PIL import Image

from rlcap import distributed
from rlcap.building import check_size, make_policy, rows_for
from rlcap.components import name_of
from rlcap.config import Experiment
from rlcap.contracts import Encoder, Features, Policy
from rlcap.data.dataset import DataSet
from rlcap.data.features import FeatureStore
from rlcap.data.images import fit, read_image, upright
from rlcap.data.no_features import NONE
from rlcap.data.sight import FILE as SIGHT
from rlcap.data.sight import Sight
from rlcap.data.vocabulary import Vocabulary
from rlcap.decoding.decode import decode
from rlcap.devices import choose_device
from rlcap.errors import CheckpointError, ConfigError, DataError
from rlcap.evaluation import Evaluation, Looks, evaluate, point
from rlcap.files import atomic_folder
from rlcap.materials import features_of
from rlcap.models.encoders import frozen_encoder, weights_hash
from rlcap.models.ensemble import Ensemble
from rlcap.models.scorers import load_scorer
from rlcap.models.seeing import Seeing
from rlcap.pictures import Picture
from rlcap.recipe import load_recipe, load_stages, revised
from rlcap.retrieval import Retrieval, retrieve
from rlcap.seeds import refuse_seeds
from rlcap.stages import train_stages
from rlcap.text_evaluation import evaluate_text
from rlcap.weights import WEIGHTS, find_weights, load_weights, run_folder, save_weights

ENCODER = "encoder.safetensors"


class Run:
    """A policy with all that it needs. Made by `load`."""

    def __init__(
        self,
        folder: Path,
        experiment: Experiment,
        policy: Policy,
        sight: Sight,
        device: torch.device,
    ):
        self.folder, self.experiment, self.policy, self.device = folder, experiment, policy, device
        self.sight = sight

    def caption(self, image: Any, n_best: int = 1, **decoding: Any) -> list[str]:
        """Captions of one picture (a path, PIL image or array), best first. `decoding` overrides the run's settings."""
        return [hypothesis.text for hypothesis in self.look([image], n_best, **decoding)[0].captions]

    def look(self, images: Sequence[Any], n_best: int = 1, **decoding: Any) -> list[Picture]:
        """Pictures with their captions and where the policy looked at each word."""
        encoder = self.encoder
        pictures = [_as_image(image) for image in images]
        stacked = np.stack([fit(picture, encoder.size, encoder.resize) for picture in pictures])
        pixels = torch.from_numpy(stacked).to(self.device).float() / 255
        features = Features.of_pixels(pixels)
        if not isinstance(self.policy, Seeing):
            with torch.inference_mode():
                features = encoder(pixels)
        settings = revised(self.experiment.decoding, **decoding)
        found = decode(
            self.policy,
            features,
            settings,
            keys=torch.tensor([crc32(square) for square in stacked], device=self.device),
            n_best=n_best,
            seed=self.experiment.training.seed,
            want=["attention"],
        )
        boxes = [None] * len(pictures) if features.boxes is None else list(features.boxes.cpu().numpy())
        return [
            Picture(image, captions, encoder.shape.grid, box, encoder.resize)
            for image, captions, box in zip(pictures, found, boxes, strict=True)
        ]

    @cached_property
    def encoder(self) -> Encoder:
        """What turns pixels into this policy's features: its own, or the one that made the feature file."""
        if isinstance(self.policy, Seeing):
            return self.policy.encoder
        if self.sight.kind == NONE:
            raise ConfigError(
                f"{self.folder}: writes text without images; draw sentences with `rlcap evaluate --sample`"
            )
        card = self.sight.encoder
        if card is None:
            raise ConfigError(
                f"{self.folder}: its feature file does not say which encoder made it, so it cannot caption pixels; "
                "import the features again with --encoder module:Name"
            )
        exported = self.folder / ENCODER
        encoder = frozen_encoder(card.spec, card.options, weights_follow=exported.exists()).to(self.device)
        if exported.exists():
            load_weights(exported, {"encoder": encoder})
        if card.weights and weights_hash(encoder) != card.weights:
            raise CheckpointError(
                f"{self.folder}: its features were made by {card.spec} with weights {card.weights}, "
                f"and {card.spec} here has {weights_hash(encoder)}; give it the same weights"
            )
        return encoder

    def evaluate(
        self,
        split: str | None = None,
        data: str | None = None,
        features: str | None = None,
        with_others: Sequence["Run"] = (),
        metrics: Sequence[str] = (),
        **decoding: Any,
    ) -> tuple[Evaluation, Looks | None]:
        """The metrics of a split (the recipe's own, unless named), and where attention goes, if that can be judged.

        `with_others` decodes with the mean of several runs' distributions; `metrics`: "meteor", "spice", "cider" too.
        """
        where = self.experiment.data
        where = replace(where, path=data or where.path, features=features or where.features)
        experiment = replace(self.experiment, data=where)
        prepared = DataSet.load(where.path)
        chosen = prepared.split(where.evaluate if split is None else split)
        store = features_of(experiment, prepared)
        for run in (self, *with_others):
            run.check(prepared, store)
        policy: Policy = self.policy
        if with_others:
            policy = Ensemble([self.policy, *(run.policy for run in with_others)])
        settings = revised(self.experiment.decoding, **decoding)
        seed = self.experiment.training.seed
        if not prepared.has_images:
            if metrics:
                raise ConfigError(
                    f"--metrics {' '.join(metrics)}: {where.path} is text; these judge captions of images"
                )
            return evaluate_text(policy, store, chosen, prepared, settings, where.max_words, self.device, seed), None
        rows = rows_for(experiment, store, chosen)
        result = evaluate(policy, store, rows, chosen, prepared.frequencies, settings, self.device, seed, metrics)
        grid = self.policy.encoder.shape.grid if isinstance(self.policy, Seeing) else store.shape.grid
        looks = None
        if grid is not None and any(record.mentions for record in chosen.records):
            looks = point(self.policy, store, rows, chosen, grid, self.device, where.max_words)
        return result, looks

    def check(self, data: DataSet, store: FeatureStore) -> None:
        """Refuses words and features that this policy was not trained on."""
        check_words(self.folder, data)
        self.sight.check(store, self.folder)
        check_size(self.policy, store)

    def export(self, folder: str | Path) -> Path:
        """One folder that `load` reads anywhere: config, vocabulary, weights, and the encoder's weights."""
        target = Path(folder)
        if target.exists() and (target.is_file() or any(target.iterdir())):
            raise ConfigError(f"{target}: is {'a file' if target.is_file() else 'not empty'}; export into a new folder")
        with atomic_folder(target) as part:
            for name in ("config.yaml", "vocabulary.json", SIGHT):
                shutil.copy(self.folder / name, part / name)
            save_weights(part / WEIGHTS, {"policy": self.policy}, self.policy.codec.fingerprint)
            if not isinstance(self.policy, Seeing) and self.sight.encoder is not None:
                save_weights(part / ENCODER, {"encoder": self.encoder})
        return target


def load(path: str | Path, device: str = "auto", checkpoint: str = "best") -> Run:
    """A run's folder or an exported one -> Run. `checkpoint`: "best" or "last"."""
    folder = run_folder(path)
    weights = find_weights(folder, checkpoint)
    experiment = load_recipe(folder / "config.yaml", unused=("trainer", "rewards"))
    sight = Sight.load(folder)
    chosen = choose_device(device)
    policy = make_policy(experiment, vocabulary_of(folder), sight.shape, weights_follow=True)
    if isinstance(policy, Seeing) and sight.encoder and sight.encoder.size != policy.encoder.size:
        raise CheckpointError(
            f"{folder / 'config.yaml'}: encoder.size is {policy.encoder.size}, the run was trained on pictures of "
            f"{sight.encoder.size}; set it back"
        )
    load_weights(weights, {"policy": policy}, policy.codec.fingerprint)
    return Run(folder, experiment, policy.to(chosen).eval(), sight, chosen)


def search(
    path: str | Path,
    split: str | None = None,
    data: str | None = None,
    features: str | None = None,
    device: str = "auto",
    checkpoint: str = "best",
) -> Retrieval:
    """What the scorer that a run trained finds in a split (the recipe's own, unless named)."""
    folder, chosen = run_folder(path), choose_device(device)
    scorer, sight = load_scorer(folder, checkpoint)
    experiment = load_recipe(folder / "config.yaml", unused=("trainer", "rewards"))
    where = replace(experiment.data, path=data or experiment.data.path, features=features or experiment.data.features)
    experiment = replace(experiment, data=where)
    prepared = DataSet.load(where.path)
    store = features_of(experiment, prepared)
    check_words(folder, prepared)
    sight.check(store, folder)
    check_size(scorer, store)
    wanted = prepared.split(where.evaluate if split is None else split)
    return retrieve(scorer.to(chosen), store, rows_for(experiment, store, wanted), wanted, chosen, where.max_words)


def vocabulary_of(folder: Path) -> Vocabulary:
    """The words of the data set that a run was trained on."""
    return Vocabulary.load(folder / "vocabulary.json", remedy="copy the whole folder of the run")


def check_words(folder: Path, data: DataSet) -> None:
    """Refuses words that the run's model was not trained on."""
    mine, theirs = vocabulary_of(folder).fingerprint, data.vocabulary.fingerprint
    if mine != theirs:
        raise CheckpointError(
            f"{folder}: was trained with vocabulary {mine}, {data.path} has {theirs}; "
            "evaluate on the data set that it was trained on"
        )


def train(
    recipe: str | Path,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    stage: str | None = None,
    rewards: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> Run:
    """Trains a recipe (a short name or a file) into `folder` (runs/NAME) and loads what came out.

    Overrides name values of the recipe, `__` for the dot: `train("scenes", training__updates=5)`. Of a recipe with
    stages all are trained, or `stage` alone.
    `rewards` are written as in a recipe, and may be functions or classes too: `{"cider_d": 1.0, "brevity": brevity}`
    or `{"brevity": {"name": brevity, "weight": 0.2}}`.
    """
    values = {name.replace("__", "."): value for name, value in overrides.items()}
    if rewards is not None:
        values["rewards"] = {label: _named(reward, label) for label, reward in rewards.items()}
    stages = load_stages(recipe, values, stage)
    last = stages[stage or list(stages)[-1]]
    target = Path(folder) if folder is not None else Path("runs") / last.name
    refuse_seeds(target)
    with distributed.joined():
        trained = train_stages(stages, target, resume, stage)
    return load(trained / stage if stage else trained, device=last.training.device)


def _named(reward: Any, label: str) -> Any:
    """A reward as a recipe writes it: an object is told by a name."""
    if callable(reward):
        return {"name": name_of(reward, label)}
    if isinstance(reward, Mapping) and callable(reward.get("name")):
        return {**reward, "name": name_of(reward["name"], label)}
    return reward


def _as_image(image: Any) -> Image.Image:
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        image = Image.fromarray(image)
    if isinstance(image, Image.Image):
        return upright(image)
    raise DataError(f"a {type(image).__name__} is no picture: give a path, a PIL image or a uint8 array (h, w, 3)")
