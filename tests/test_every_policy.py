"""What every policy of the table must do: one learns eight captions by heart, and is then asked in every way.

A new policy needs one line in SMALL: settings that make it tiny, without dropout, penalties or draws of its own.
"""

from copy import deepcopy
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from rlcap.agents.cross_entropy import CrossEntropy
from rlcap.agents.optimisers import Optimiser
from rlcap.agents.rollout import Drawing
from rlcap.agents.scheduled_sampling import score_own_words
from rlcap.agents.scst import SCST
from rlcap.components import find
from rlcap.config import Decoding
from rlcap.contracts import Batch, Course, Features, FeatureShape, Judgement, Policy, caption_mask
from rlcap.data.vocabulary import Vocabulary
from rlcap.decoding.beam import beam_search
from rlcap.decoding.choosing import Sampling
from rlcap.decoding.constraints import Constraints
from rlcap.decoding.decode import decode
from rlcap.decoding.loop import write
from rlcap.decoding.uniforms import keyed_uniforms
from rlcap.models import POLICIES
from rlcap.policy_check import check_policy, leaves

SMALL = {
    "bottom_up_top_down": {"hidden": 32, "embedding": 32, "attention": 12, "dropout": 0.0},
    "hard_attention": {"hidden": 24, "embedding": 24, "attention": 12, "dropout": 0.0},
    "leakgan": {"hidden": 24, "embedding": 24, "manager": 12, "goal": 4, "attention": 12, "dropout": 0.0},
    "sca_cnn": {"hidden": 24, "embedding": 24, "attention": 12, "channel_attention": 8, "dropout": 0.0},
    "show_tell": {"hidden": 24, "embedding": 24, "dropout": 0.0},
    "soft_attention": {"hidden": 24, "embedding": 24, "attention": 12, "dropout": 0.0},
    "transformer": {"width": 24, "heads": 2, "layers": 2, "encoder_layers": 1, "inner": 32, "dropout": 0.0},
}
OURS = [name for name in POLICIES if name != "hugging_face"]  # which needs a saved model: test_hugging_face.py
RATE, UPDATES = 0.02, 200  # the updates that it may take; about 50 are enough
IMAGES, LENGTH = 8, 6
SHAPE = FeatureShape(regions=6, width=5, grid=(2, 3))
CODEC = Vocabulary(["a", "red", "ball", "and", "blue", "box", "on", "grass"])


@dataclass(frozen=True)
class Learned:
    policy: Policy
    batch: Batch
    loss: float  # nats a word, when it stopped


def eight_images() -> Batch:
    """Six regions each, of the second one four; captions of five or six tokens."""
    generator = torch.Generator().manual_seed(2)
    mask = torch.ones(IMAGES, SHAPE.regions, dtype=torch.bool)
    mask[1, -2:] = False
    values = torch.randn(IMAGES, SHAPE.regions, SHAPE.width, generator=generator) * mask[..., None]
    words = torch.randint(4, CODEC.size, (IMAGES, 1, LENGTH), generator=generator)
    words[:, :, -1] = CODEC.end
    words[::2, :, -2] = CODEC.end
    words[::2, :, -1] = CODEC.pad
    features = Features(values, mask, SHAPE.grid)
    return Batch(torch.arange(IMAGES), features, words, caption_mask(words, CODEC.end))


@pytest.fixture(scope="module", params=OURS)
def learned(request: pytest.FixtureRequest) -> Learned:
    assert request.param in SMALL, f"give {request.param} its line in SMALL"
    torch.manual_seed(1)
    policy, batch = find("policy", request.param)(CODEC, SHAPE, **SMALL[request.param]), eight_images()
    trainer = CrossEntropy(policy, Course(updates=UPDATES), optimiser=Optimiser(lr=RATE))
    for _ in range(UPDATES):
        loss = trainer.update(batch)["loss/cross_entropy"].item()
        if loss < 0.03:
            break
    return Learned(policy.eval(), batch, loss)


def exact(learned: Learned) -> tuple[Policy, Features]:
    """In float64, where other orders of a sum leave no trace."""
    features = learned.batch.features
    return deepcopy(learned.policy).double(), replace(features, values=features.values.double())


def one_of(features: Features, image: int) -> Features:
    return replace(features, values=features.values[image : image + 1], mask=features.mask[image : image + 1])


def two_captions(batch: Batch) -> Tensor:
    """(B, 2, T): an image's own caption, and that of its neighbour."""
    return torch.cat((batch.words, batch.words.roll(1, 0)), 1)


@torch.no_grad()
def test_learns_eight_images_by_heart(learned):
    policy, batch = learned.policy, learned.batch
    assert learned.loss < 0.05
    memory = policy.remember(batch.features)
    assert torch.equal(write(policy, memory, images=IMAGES, length=LENGTH).words, batch.words)
    beams = beam_search(policy, memory, images=IMAGES, beams=3, length=LENGTH, constraints=Constraints())
    assert torch.equal(beams.words[:, :1], batch.words)


# Of float64 only rounding is left; float32 has seven digits, and log-probabilities here reach -20.
@pytest.mark.parametrize(("double", "tolerance"), [(True, 1e-9), (False, 1e-4)])
@torch.no_grad()
def test_step_by_step_equals_teacher_forced(learned, double, tolerance):
    policy, features = exact(learned) if double else (learned.policy, learned.batch.features)
    words = two_captions(learned.batch)
    uniforms = None
    if policy.coins:
        uniforms = keyed_uniforms(1, 0, learned.batch.images, 2, LENGTH, policy.coins)
    memory = policy.remember(features)
    state = policy.start(memory, 2, LENGTH)
    said, log_probs, attentions, choices = torch.full((2 * IMAGES,), CODEC.start), [], [], []
    for t in range(LENGTH):
        coins = None if uniforms is None else uniforms[:, :, t].flatten(0, 1)
        step = policy.step(said, state, memory, uniforms=coins, want=["attention"])
        state, said = step.state, words[..., t].flatten()
        log_probs.append(step.logits.log_softmax(-1).gather(-1, said[:, None])[:, 0])
        attentions.append(step.attention)
        choices.append(step.choices)

    def over_words(steps: list[Tensor]) -> Tensor:
        return torch.stack(steps, 1).unflatten(0, (IMAGES, 2))

    stepped, counts = over_words(log_probs), caption_mask(words, CODEC.end)
    replayed = over_words(choices) if policy.coins else None
    scores = [policy.score(memory, words, choices=replayed, want=["attention"])]
    if policy.coins:
        scores.append(policy.score(memory, words, uniforms=uniforms, want=["attention"]))
        close(scores[0].choice_log_prob[counts], scores[1].choice_log_prob[counts], tolerance)
    for each in scores:
        close(each.log_prob[counts], stepped[counts], tolerance)
        assert (each.attention is None) == (attentions[0] is None)
        if each.attention is not None:
            close(each.attention[counts], over_words(attentions)[counts], tolerance)


def close(got: Tensor, wanted: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("settings", "n_best"),
    [({}, 1), ({"sample": True, "temperature": 3.0}, 3), ({"beam": 3}, 3)],
    ids=["greedy", "sampled", "beam"],
)
def test_captions_are_the_same_batched_and_one_by_one(learned, settings, n_best):
    policy, features = exact(learned)
    keys, decoding = learned.batch.images, Decoding(length=LENGTH, **settings)
    together = decode(policy, features, decoding, keys=keys, n_best=n_best)
    for image in range(IMAGES):
        (alone,) = decode(policy, one_of(features, image), decoding, keys=keys[image : image + 1], n_best=n_best)
        assert [caption.text for caption in alone] == [caption.text for caption in together[image]]
        assert [caption.log_prob for caption in alone] == pytest.approx([each.log_prob for each in together[image]])
    assert len({captions[0].text for captions in together}) == IMAGES


@torch.no_grad()
def test_samples_share_the_memory_of_their_image(learned):
    """Drawn alone or beside others, a sample is the same, and what an image is remembered by stays as it is."""
    policy, features = exact(learned)
    memory = policy.remember(features)
    before = [leaf.clone() for leaf in leaves(memory)]
    assert all(len(leaf) == IMAGES for leaf in before)
    uniforms = keyed_uniforms(1, 0, learned.batch.images, 4, LENGTH, 1 + policy.coins)

    def draw(n: int) -> Tensor:
        settings = {"length": LENGTH, "sampling": Sampling(temperature=3.0)}
        words = torch.full((IMAGES, n, LENGTH), CODEC.pad)
        found = write(policy, memory, images=IMAGES, n=n, uniforms=uniforms[:, :n], **settings).words
        words[..., : found.shape[-1]] = found
        return words

    four = draw(4)
    assert torch.equal(draw(1), four[:, :1])
    assert len(four.flatten(0, 1).unique(dim=0)) > IMAGES
    assert all(torch.equal(now, then) for now, then in zip(leaves(memory), before, strict=True))


@pytest.mark.parametrize("name", OURS)
def test_keeps_the_contract(name):
    assert check_policy(name, SMALL[name]).problems == []


def test_learns_from_rewards(learned):
    """One update; where the graph of drawing can be kept, it gives the gradient of scoring again."""
    kept, scored = (gradients(learned, Drawing(samples=3, length=LENGTH, graph=graph)) for graph in ("kept", "scored"))
    assert any(gradient.abs().max() > 0 for gradient in kept.values())
    for name in kept:
        torch.testing.assert_close(kept[name], scored[name], rtol=1e-7, atol=1e-9)


def gradients(learned: Learned, drawing: Drawing) -> dict[str, Tensor]:
    policy, features = exact(learned)
    course = Course(updates=1, judge=length_judge)
    trainer = SCST(policy, course, rollout=drawing, baseline="none", optimiser=Optimiser(lr=1e-30, clip=0))
    assert all(torch.isfinite(value) for value in trainer.update(replace(learned.batch, features=features)).values())
    return {name: each.grad for name, each in policy.named_parameters() if each.grad is not None}


def length_judge(candidates) -> Judgement:
    return Judgement(candidates.lengths.double(), {})


def test_cross_entropy_draws_the_choices(learned):
    """Once for each word of each caption, by uniforms of their own; of a policy without choices it needs none."""
    policy, features = exact(learned)
    batch = replace(learned.batch, features=features)
    uniforms = keyed_uniforms(1, 0, batch.images, 1, LENGTH, 2 + policy.coins)[..., 2:]
    log_prob = policy(features, batch.words, uniforms=uniforms if policy.coins else None).log_prob
    loss = CrossEntropy(policy, Course(updates=1, seed=1)).update(batch)["loss/cross_entropy"]
    close(loss, -log_prob[batch.mask].mean().detach(), 1e-9)


def test_may_hear_its_own_words(learned):
    """Scheduled sampling: fed none, it is teacher forcing (float64 leaves rounding); fed all, it still learns."""
    policy, features = exact(learned)
    words, coins = two_captions(learned.batch), policy.coins
    counts = caption_mask(words, CODEC.end)
    uniforms = keyed_uniforms(1, 0, learned.batch.images, 2, LENGTH, 2 + coins)
    plain = policy(features, words, uniforms=uniforms[..., 2:] if coins else None)
    none, fed = score_own_words(policy, features, words, 0.0, uniforms)
    close(none.log_prob[counts], plain.log_prob[counts], 1e-9)
    assert not fed.any()
    own, fed = score_own_words(policy, features, words, 1.0, uniforms)
    assert (fed[..., 1:] & counts[..., 1:]).float().mean() > 0.5
    assert (own.log_prob - plain.log_prob)[counts].abs().max() > 0.01  # an image's neighbour says something else
    (-own.log_prob[counts].mean()).backward()
    assert all(torch.isfinite(each.grad).all() for each in policy.parameters() if each.grad is not None)


def test_runs_in_half_precision(learned):
    """bfloat16 has three digits: log-probabilities of some nats are off by some hundredths, not more."""
    policy, batch = deepcopy(learned.policy), learned.batch
    course = Course(updates=1, precision=torch.bfloat16)
    with torch.no_grad(), course.autocast():
        scores = policy(batch.features, batch.words)
        written = write(policy, policy.remember(batch.features), images=IMAGES, length=LENGTH)
    assert scores.log_prob.dtype == written.log_prob.dtype == torch.float32
    with torch.no_grad():
        plain = policy(batch.features, batch.words).log_prob
    close(scores.log_prob[batch.mask], plain[batch.mask], 0.1)
    assert torch.equal(written.words, batch.words)
    assert torch.isfinite(CrossEntropy(policy, course).update(batch)["loss/cross_entropy"])
