"""The signs of sick training: what is looked at, where it stops being healthy, and what to do. See docs/curves.md."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Symptom:
    name: str
    update: int
    text: str  # what was seen; what to do

    def __str__(self) -> str:
        return f"update {self.update}: {self.text}"


@dataclass(frozen=True)
class Level:
    """A logged figure whose mean over the last `loggings` is beyond a limit."""

    tag: str
    limit: float
    loggings: int
    seen: str  # with {value}
    remedy: str
    above: bool = True  # False: below the limit is sick


@dataclass(frozen=True)
class Drift:
    """A figure of the evaluation that has become `times` what it was, in two evaluations running."""

    figure: str
    times: float  # below 1: it shrinks
    least: float  # smaller changes are noise, whatever their ratio
    seen: str  # with {before} and {now}
    remedy: str


EQUAL, CLIPPED = "equal rewards", "clipped gradients"  # figures that are worked out here: 1 yes, 0 no

# Five loggings are 50 updates by default: long enough for a mean, short enough to save a night.
LEVELS = {
    # All of the last loggings: a batch whose captions are all alike happens, five in a row do not.
    "no_gradient": Level(
        EQUAL,
        0.99,
        5,
        "the rewards of all samples are equal: no gradient",
        "try the reward on different captions (rlcap check-reward), or draw with a higher trainer.rollout.temperature",
    ),
    # A healthy norm crosses its bound now and then; nine times in ten the bound, not the rate, sets the step.
    "clipped_gradient": Level(
        CLIPPED,
        0.9,
        20,
        "the gradient's norm is above its bound in {value:.0%} of the last 20 loggings",
        "lower trainer.optimiser.lr, or raise trainer.optimiser.clip",
    ),
    # At 0.05 nats a word about one word in a hundred differs from the likeliest: nothing new is drawn. A temperature
    # counts: what matters is how words are drawn, not how sure the policy is without one.
    "low_entropy": Level(
        "policy/entropy",
        0.05,
        5,
        "words are drawn with an entropy of {value:.3f} nats: samples are all alike",
        "raise trainer.rollout.temperature or trainer.regularise.entropy, or lower trainer.optimiser.lr",
        above=False,
    ),
    # One nat a word makes the start's own words e times less likely each: little is left of what it knew. A temperature
    # below 1 sharpens both, and so what lies between them.
    "far_from_start": Level(
        "policy/kl_to_start",
        1.0,
        5,
        "the words' distribution, as they are drawn, is {value:.2f} nats a word (KL) away from the start's",
        "raise trainer.regularise.weight, or lower trainer.optimiser.lr",
    ),
    # A clipped word learns nothing from this step: with four in ten the steps on a batch lead too far from its draw.
    "clipped_ratio": Level(
        "policy/clipped",
        0.4,
        5,
        "{value:.0%} of the words are clipped by the objective",
        "lower trainer.optimiser.lr, or take fewer steps on a batch",
    ),
    # Minimum risk compares the different captions of an image: with one of each ten images having two, there are none.
    "one_candidate": Level(
        "risk/candidates",
        1.1,
        5,
        "the samples of an image are one and the same caption: no gradient",
        "draw more, or with a higher trainer.rollout.temperature",
        above=False,
    ),
    # A discriminator that is never wrong says no more of a better caption than of a worse one. 50 loggings: 500
    # updates.
    "discriminator_won": Level(
        "discriminator/accuracy",
        0.995,
        50,
        "the discriminator is right of {value:.1%} of all captions for 50 loggings: no signal",
        "lower trainer.discriminator_optimiser.lr, make it smaller, or raise its dropout",
    ),
    # Less than half of a hundredth apart, ranks are noise: the discriminator says the same of all.
    "even_rewards": Level(
        "reward/spread",
        0.005,
        20,
        "the discriminator's probabilities of drawn captions differ by {value:.4f}: no signal",
        "give it more steps (trainer.discriminator_steps), or a lower rate if it has won",
        above=False,
    ),
    # Of unit vectors in hundreds of dimensions: chance would say 0.
    "collapsed_goals": Level(
        "goals/cosine",
        0.95,
        20,
        "the Manager sets nearly the same goal for all captions (cosine {value:.2f})",
        "set policy.goals=centred, or lower trainer.optimiser.lr",
    ),
    # A third of the time is worth a minute of care; below that the shares waver with the machine's other work.
    "waiting_for_data": Level(
        "time/share_waiting_for_data",
        0.33,
        5,
        "training waits for data {value:.0%} of the time",
        "raise training.workers, or put the feature file on a faster disk",
    ),
}

DRIFTS = {
    # The classic loophole of rewards by n-grams: 5 points are more than a split of 1,000 images wavers.
    "bad_endings": Drift(
        "bad_ending",
        2,
        0.05,
        "captions that end in the middle: {before:.0%} -> {now:.0%}",
        "let the rewards count the end token, add the reward bad_ending with weight -1, or raise decoding.length",
    ),
    "repetition": Drift(
        "repetition",
        2,
        0.02,
        "word pairs said again in a caption: {before:.1%} -> {now:.1%}",
        "add the reward repetition with a negative weight, or lower trainer.optimiser.lr",
    ),
    # SCST shortens or lengthens captions by about a tenth; 30% pays for length itself.
    "longer": Drift(
        "length",
        1.3,
        1.0,
        "captions grow: {before:.1f} -> {now:.1f} words",
        "look whether a reward pays for length, and add one that does not",
    ),
    "shorter": Drift(
        "length",
        0.7,
        1.0,
        "captions shrink: {before:.1f} -> {now:.1f} words",
        "look whether a reward pays for brevity, and add one that does not",
    ),
    # Rewards narrow the vocabulary somewhat, always; half of it gone are templates.
    "fewer_words": Drift(
        "vocabulary_use",
        0.5,
        0.02,
        "words of the vocabulary that are said: {before:.1%} -> {now:.1%}",
        "add the reward self_cider, raise trainer.regularise.entropy, or lower trainer.optimiser.lr",
    ),
}
DRIFTING = 2  # evaluations

CUT_SHORT, CUT_SHORT_FOR = 0.3, 2  # share of captions: people end one in a hundred so, a weak model one in ten
BELOW_START, BELOW_START_FOR = 0.99, 3  # of the start: within a hundredth is noise; RL may dip, and recovers
FALLEN, FALLEN_FOR = 0.8, 2  # of the best: over-fitting loses less, and slowly
NOTHING = 0.05  # a best below this is noise: the policy has yet to learn anything
GAMED, GAMED_FOR = 0.9, 2  # of what it was: metrics that are not optimised may lose a little to one that is
FLAT_FOR = 5  # evaluations, whose mean is no more than that before the first: where rewards rise, they do so sooner
FIRST = 5  # loggings that say where a reward began: within the first evaluation's interval it may rise a lot
RISEN_LOSS, RISEN_LOSS_FOR = 1.2, 2  # times its lowest: batches differ by less, over an evaluation's interval
SURE = 2.0  # standard errors between two means that differ for certain
FEW = 3  # loggings that a standard error needs at least

NAMES = {"bleu_4": "BLEU-4", "rouge_l": "ROUGE-L", "cider_d": "CIDEr-D"}
OPTIMISED_BY = {  # rewards under which a metric is no witness
    "bleu_4": {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "smooth_bleu"},
    "rouge_l": {"rouge_l", "rouge_l_single"},
    "cider_d": {"cider", "cider_d"},
}
REWARD, LOSS = "reward/total", "loss/cross_entropy"  # whose means between evaluations are kept
