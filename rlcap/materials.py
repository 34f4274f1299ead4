"""What a run works with, made once from its config: data, features, model, rewards, trainer, batches."""

from dataclasses import dataclass

import numpy as np
import torch

from rlcap import distributed
from rlcap.building import check_features, check_size, choose_precision, make_model, make_trainer, rows_for
from rlcap.checkpoint import check_same_model
from rlcap.config import Experiment
from rlcap.contracts import Candidates, Course, Policy, Trainer
from rlcap.data.batches import Captioned, Plan, encode_captions
from rlcap.data.dataset import DataSet, Split
from rlcap.data.features import FeatureStore
from rlcap.data.no_features import NoFeatures
from rlcap.data.references import References
from rlcap.data.sight import Sight
from rlcap.data.vocabulary import Vocabulary
from rlcap.decoding.loop import write
from rlcap.devices import choose_device
from rlcap.errors import ConfigError, did_you_mean
from rlcap.evaluation import EVALUATED, Evaluation, evaluate
from rlcap.models.scorer import Scorer
from rlcap.progress import say
from rlcap.recipe import load_recipe
from rlcap.retrieval import RETRIEVED, Retrieval, retrieve
from rlcap.rewards.agreement import check_agreement
from rlcap.rewards.combination import Combination, make_rewards
from rlcap.text_evaluation import check_text, evaluate_text, text_metrics
from rlcap.weights import OtherModelError, find_weights, load_weights, run_folder

CHECKED = 50  # images whose greedy captions show that rewards and evaluation agree


@dataclass(frozen=True)
class Materials:
    experiment: Experiment
    data: DataSet
    store: FeatureStore
    training: Split
    evaluated: Split
    model: Policy | Scorer
    references: References
    judge: Combination | None
    trainer: Trainer
    plan: Plan
    batches: Captioned
    course: Course

    @property
    def vocabulary(self) -> Vocabulary:
        return self.data.vocabulary

    def evaluate(self) -> Evaluation | Retrieval:
        """The evaluated split: captions and their metrics, or what a scorer finds in it."""
        experiment, split, device = self.experiment, self.evaluated, self.course.device
        if not self.data.has_images and isinstance(self.model, Policy):
            settings, words, seed = experiment.decoding, experiment.data.max_words, experiment.training.seed
            return evaluate_text(self.model, self.store, split, self.data, settings, words, device, seed)
        rows = rows_for(experiment, self.store, split)
        if isinstance(self.model, Scorer):
            return retrieve(self.model, self.store, rows, split, device, experiment.data.max_words)
        return evaluate(
            self.model,
            self.store,
            rows,
            split,
            self.data.frequencies,
            experiment.decoding,
            device,
            experiment.training.seed,
        )

    def check_rewards(self) -> None:
        """Scores the greedy captions of some training images by the rewards and by the evaluation's code."""
        if self.judge is None or isinstance(self.model, Scorer):
            return
        self.model.eval()
        rows = self.batches.rows[:CHECKED]
        features = self.store.read(rows).to(self.course.device)
        with torch.no_grad():
            captions = write(
                self.model,
                self.model.remember(features),
                images=len(rows),
                length=self.experiment.decoding.length,
            )
        images = torch.arange(len(rows), device=self.course.device)
        candidates = Candidates(captions.words, captions.mask.sum(-1), images, 0, features)
        differences = check_agreement(self.judge, candidates, self.references)
        for label, difference in differences.items():
            say(f"reward '{label}' agrees with the evaluation's code on {len(rows)} captions (within {difference:.0e})")


def gather(experiment: Experiment) -> Materials:
    """Reads the data, checks that its parts belong together, and builds model, rewards and trainer."""
    data = DataSet.load(experiment.data.path)
    store = features_of(experiment, data)
    check_features(experiment, store)
    settings = experiment.training
    _check_metric(experiment, data)
    torch.manual_seed(settings.seed)
    np.random.seed(settings.seed % 2**32)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = choose_device(distributed.own_device(settings.device))
    training, evaluated = data.split(experiment.data.train), data.split(experiment.data.evaluate)
    if not data.has_images:
        _check_text(experiment, data, training)
    model = make_model(experiment, data.vocabulary, store.shape).to(device)
    check_size(model, store)
    if settings.start is not None:
        network, start = "policy" if experiment.scorer is None else "scorer", run_folder(settings.start)
        weights = find_weights(start)  # first: it says so if there is no such run
        Sight.load(start).check(store, start)
        try:
            load_weights(weights, {network: model}, model.codec.fingerprint)
        except OtherModelError:
            check_same_model(load_recipe(start / "config.yaml", unused=("trainer", "rewards")), experiment, start)
            raise
    references = References.of(training, data.vocabulary, data.frequencies, device)
    judge = None
    if experiment.rewards:
        judge = make_rewards(experiment.rewards, references, model.codec)
    captions = encode_captions(training.tokens, model.codec, experiment.data.max_words)
    plan = Plan(captions, settings.images, settings.captions, settings.seed)
    updates = settings.updates or max(1, round((settings.epochs or 0) * len(plan)))
    course = Course(updates, choose_precision(settings.precision, device), device, settings.seed, judge)
    return Materials(
        experiment=experiment,
        data=data,
        store=store,
        training=training,
        evaluated=evaluated,
        model=model,
        references=references,
        judge=judge,
        trainer=make_trainer(experiment.trainer, model, course),
        plan=plan,
        batches=Captioned(store, rows_for(experiment, store, training), captions, model.codec),
        course=course,
    )


def _check_text(experiment: Experiment, data: DataSet, training: Split) -> None:
    """What evaluation would refuse after a while, and what would only waste time."""
    check_text(training, data.vocabulary, experiment.decoding, experiment.data.max_words)
    if experiment.training.captions != 1:
        raise ConfigError(
            f"training.captions={experiment.training.captions}: each line of {data.path} is a record with one caption; "
            "set training.captions=1"
        )


def _check_metric(experiment: Experiment, data: DataSet) -> None:
    metric, known = experiment.training.metric, EVALUATED if experiment.scorer is None else RETRIEVED
    if experiment.scorer is None and not data.has_images:
        known = text_metrics(data)
    if metric not in known:
        raise ConfigError(f"training.metric={metric}: no such metric{did_you_mean(metric, known)}")


def features_of(experiment: Experiment, data: DataSet) -> FeatureStore:
    """Of data.features, or of the one .h5 file in the data set's folder; text has none."""
    named = experiment.data.features
    if not data.has_images:
        if named is not None:
            raise ConfigError(f"data.features={named}: {data.path} is text, without images; leave it out")
        return NoFeatures(data.path)
    if named is not None:
        return FeatureStore(named)
    found = sorted(data.path.glob("*.h5"))
    if len(found) != 1:
        raise ConfigError(
            f"{data.path}: holds {len(found)} feature files; name one with data.features=FILE.h5 "
            "(rlcap features extract or import makes them)"
        )
    return FeatureStore(found[0])
