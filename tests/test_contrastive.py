"""The contrastive scorer: its loss by plain loops, what must not count, a tiny world, and its use as a reward."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlcap import losses
from rlcap.agents.contrastive import InfoNCE
from rlcap.agents.optimisers import Optimiser
from rlcap.config import Component
from rlcap.contracts import Batch, Candidates, Course, Features, FeatureShape
from rlcap.data.batches import encode_captions, pad
from rlcap.data.frequencies import DocumentFrequencies
from rlcap.data.references import References
from rlcap.data.sight import Sight
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import CheckpointError, ComponentError, ConfigError
from rlcap.models.contrastive import Contrastive
from rlcap.models.scorer import Scorer
from rlcap.models.scorers import make_scorer
from rlcap.models.seeing_scorer import SeeingTowers
from rlcap.rewards.learned import Learned, ScorerReward
from rlcap.weights import save_weights

COLOURS = ["red", "blue", "green", "black"]


def small(codec, shape, dropout: float = 0.0) -> Contrastive:
    torch.manual_seed(1)
    return Contrastive(codec, shape, width=16, embedding=8, gazes=2, dropout=dropout)


def batch_of(features: Features, codec) -> Batch:
    """Three images with two captions each, of 1 to 4 words; the last one was cut and has no end token."""
    tokens = [[["a", "red", "ball"], ["red"]], [["blue", "box"], ["a", "box"]], [["a", "ball"], ["box"] * 5]]
    captions = encode_captions(tokens, codec, 4)
    words = pad(captions, codec.pad)
    lengths = torch.tensor([[len(caption) for caption in some] for some in captions])
    return Batch(torch.arange(3), features, words, torch.arange(words.shape[-1]) < lengths[..., None])


def test_the_loss_is_that_of_plain_loops():
    torch.manual_seed(0)
    logits = 3 * torch.randn(4, 4, 3, dtype=torch.float64)
    by_captions, by_images = [], []
    for image, caption in itertools.product(range(4), range(3)):
        right = logits[image, image, caption].exp()
        by_captions.append(-(right / logits[:, image, caption].exp().sum()).log())
        others = sum(logits[image, other].exp().sum() for other in range(4) if other != image)
        by_images.append(-(right / (right + others)).log())
    expected = (sum(by_captions) / 12 + sum(by_images) / 12) / 2
    assert torch.isclose(losses.info_nce(logits), expected, rtol=1e-12)  # float64, sums of twelve terms


def test_the_loss_at_chance_and_of_one_image():
    chance = (math.log(5) + math.log(1 + 2 * 4)) / 2  # five images, or the caption and two of each of four others
    assert losses.info_nce(torch.zeros(5, 5, 2)).item() == pytest.approx(chance, rel=1e-6)
    alone = torch.randn(1, 1, 3, requires_grad=True)
    loss = losses.info_nce(alone)
    loss.backward()
    assert loss == 0
    assert (alone.grad == 0).all(), "an epoch's last batch may hold one image: nothing to compare, and no NaN"


def test_what_stands_behind_a_caption_counts_nothing(codec, shape, features):
    scorer, batch = small(codec, shape), batch_of(features, codec)
    rubbish = batch.words.clone()
    ended = batch.words == codec.end
    rubbish[(ended.cumsum(-1) > 0) & ~ended] = 5
    longer = nn.functional.pad(batch.words, (0, 3), value=codec.pad)
    cut = batch.words[2, 1]
    assert codec.end not in cut
    with torch.no_grad():
        plain = scorer(features, batch.words)
        assert torch.equal(scorer(features, rubbish), plain)
        # one step more of the same GRU, in another block of memory: rounding of float32
        assert torch.allclose(scorer(features, longer), plain, atol=1e-6)
        assert torch.allclose(scorer(features, batch.words[:, 1:, :4])[2], plain[2, 1:], atol=1e-6)
    assert plain.abs().max() <= 1


def test_both_readers_end_at_the_captions_end(codec, shape):
    # the same as each caption read alone and unpadded, by torch's own bidirectional GRU with the same weights
    scorer = small(codec, shape)
    both = nn.GRU(16, 16, batch_first=True, bidirectional=True)
    state = dict(scorer.forwards.state_dict())
    state |= {f"{name}_reverse": value for name, value in scorer.backwards.state_dict().items()}
    both.load_state_dict(state)
    captions = [[4, 5, 6, codec.end], [5, codec.end], [7, 8, 9, 4, 5, 6]]
    with torch.no_grad():
        found = scorer.embed_captions(pad([captions], codec.pad)[0])
        for caption, embedded in zip(captions, found, strict=True):
            mean = both(scorer.embed[0].weight[caption][None])[0].mean(1)
            expected = nn.functional.normalize(scorer.of_caption(mean), dim=-1)
            assert torch.allclose(embedded, expected[0], atol=1e-6)  # float32, another order


def test_absent_regions_count_nothing(codec, shape, features):
    scorer = small(codec, shape)
    other = Features(torch.where(features.mask[..., None], features.values, torch.nan), features.mask)
    with torch.no_grad():
        assert torch.equal(scorer.embed_images(other), scorer.embed_images(features))
        assert torch.allclose(scorer.embed_images(features).norm(dim=-1), torch.ones(3))
    with pytest.raises(ComponentError, match="no features"):
        Contrastive(codec, FeatureShape(0, 0))


def test_every_parameter_learns_and_the_curves_are_right(codec, shape, features):
    scorer, batch = small(codec, shape), batch_of(features, codec)
    before = {name: value.clone() for name, value in scorer.state_dict().items()}
    with torch.no_grad():
        cosines = torch.stack([scorer(features, batch.words[[c] * 3]) for c in range(3)], 1)
    metrics = InfoNCE(scorer, Course(updates=1)).update(batch)
    still = [name for name, value in scorer.state_dict().items() if torch.equal(value, before[name])]
    assert not still
    right = [cosines[i, i, n] for i in range(3) for n in range(2)]
    wrong = [cosines[i, c, n] for i in range(3) for c in range(3) for n in range(2) if c != i]
    assert metrics["match/margin"].item() == pytest.approx(float(sum(right) / 6 - sum(wrong) / 12), abs=1e-6)
    found = [int(cosines[:, c, n].argmax() == c) for c in range(3) for n in range(2)]
    assert metrics["match/image_of_caption"].item() == pytest.approx(sum(found) / 6)
    found = [int(cosines[i].max(-1).values.argmax() == i) for i in range(3)]
    assert metrics["match/caption_of_image"].item() == pytest.approx(sum(found) / 3)
    assert metrics["match/scale"].item() == pytest.approx(1 / 0.07, rel=1e-6)
    assert metrics["loss/contrastive"].item() == pytest.approx(losses.info_nce(cosines / 0.07).item(), rel=1e-5)
    assert all(not value.requires_grad for value in metrics.values())


def test_a_trainer_goes_on_from_its_state(codec, shape, features):
    batch = batch_of(features, codec)
    runs = []
    for cut in (False, True):
        scorer = small(codec, shape)
        trainer = InfoNCE(scorer, Course(updates=2), optimiser=Optimiser(decay="linear"))
        trainer.update(batch)
        if cut:
            state = trainer.state_dict()
            trainer = InfoNCE(scorer, Course(updates=2), optimiser=Optimiser(decay="linear"))
            trainer.load_state_dict(state)
        trainer.update(batch)
        runs.append(scorer.state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_a_scorer_without_towers_is_refused():
    class Blind(Scorer):
        def forward(self, features: Features, words: Tensor) -> Tensor:
            return words.sum(-1)

    with pytest.raises(ComponentError, match="Blind: does not embed"):
        InfoNCE(Blind(), Course(updates=1))
    with pytest.raises(ComponentError, match="make it a child of Scorer"):
        make_scorer(Component("torch.nn:Bilinear", {"out_features": 1}), None, 4, 4)


def two_colours(codec, images: int, seed: int) -> tuple[Features, list[list[int]]]:
    """A colour on the left and another on the right; the caption says them in this order."""
    random = np.random.default_rng(seed)
    pairs = [random.permutation(4)[:2] for _ in range(images)]
    values = torch.zeros(images, 2, 6)
    for image, colours in enumerate(pairs):
        for side, colour in enumerate(colours):
            values[image, side, colour] = values[image, side, 4 + side] = 1.0
    values += 0.1 * torch.from_numpy(random.standard_normal(values.shape)).float()
    captions = [[*codec.encode([COLOURS[colour] for colour in colours]), codec.end] for colours in pairs]
    return Features(values, torch.ones(images, 2, dtype=torch.bool)), captions


def test_it_learns_which_colour_stands_where():
    codec = Vocabulary(COLOURS)
    torch.manual_seed(0)
    scorer = Contrastive(codec, FeatureShape(2, 6), width=32, embedding=32, dropout=0.0)
    trainer = InfoNCE(scorer, Course(updates=80), optimiser=Optimiser(lr=1e-2))
    for update in range(80):
        features, captions = two_colours(codec, 12, seed=update)
        words = pad([[caption] for caption in captions], codec.pad)
        trainer.update(Batch(torch.arange(12), features, words, torch.ones_like(words, dtype=torch.bool)))
    features, captions = two_colours(codec, 64, seed=1000)
    swapped = [[[first, second, end], [second, first, end]] for first, second, end in captions]
    right, wrong = scorer.eval()(features, pad(swapped, codec.pad)).unbind(1)
    assert (right > wrong).all(), "words without their order would leave every pair undecided"


@pytest.fixture
def references(codec) -> References:
    tokens = [[["a", "red", "ball"]]] * 3
    frequencies = DocumentFrequencies.build(tokens, "made up")
    return References(["0", "1", "2"], tokens, [["A red ball."]] * 3, codec, frequencies, dtype=torch.float64)


@pytest.fixture
def run(codec, shape, tmp_path):
    """What training leaves of a scorer."""
    folder = tmp_path / "run"
    settings = "{name: contrastive, width: 16, embedding: 8, gazes: 2}"
    recipe = f"name: made\nscorer: {settings}\ntrainer: contrastive\ntraining: {{updates: 1}}\n"
    (folder / "checkpoints" / "best").mkdir(parents=True)
    (folder / "config.yaml").write_text(recipe)
    codec.save(folder / "vocabulary.json")
    Sight("grid", shape, None).save(folder)
    scorer = small(codec, shape, dropout=0.1)
    save_weights(folder / "checkpoints" / "best" / "weights.safetensors", {"scorer": scorer}, codec.fingerprint)
    return folder, scorer.eval()


def candidates_of(batch: Batch, features: Features | None) -> Candidates:
    return Candidates(batch.words, batch.mask.sum(-1), batch.images, 2, features)


def test_a_trained_run_is_a_reward(run, references, features, codec):
    folder, scorer = run
    batch = batch_of(features, codec)
    reward = Learned(references, run=str(folder))
    candidates = candidates_of(batch, features)
    scores = reward(candidates)
    with torch.no_grad():
        assert torch.equal(scores, scorer(features, batch.words).double())
    assert not scores.requires_grad
    assert not any(parameter.requires_grad for parameter in reward.scorer.parameters())
    assert reward.state_dict() == {}
    shorter = Candidates(batch.words, candidates.lengths.clamp_max(1), batch.images, 2, features)
    one_word = Candidates(batch.words[..., :1], shorter.lengths, batch.images, 2, features)
    assert torch.allclose(reward(shorter), reward(one_word), atol=1e-6)  # float32, blocks of another size


def test_a_run_that_does_not_fit_is_refused(run, references, features, shape, codec, tmp_path):
    folder, _ = run
    candidates = candidates_of(batch_of(features, codec), None)
    with pytest.raises(ComponentError, match="without features"):
        Learned(references, run=str(folder))(candidates)
    wide = Features(torch.zeros(3, 6, 9), features.mask)
    with pytest.raises(ConfigError, match=r"run: its scorer looks at grid 2x3 of width 5, not at features of width 9"):
        Learned(references, run=str(folder))(candidates_of(batch_of(features, codec), wide))
    with pytest.raises(ConfigError, match="pictures"):
        Learned(references, run=str(folder))(
            candidates_of(batch_of(features, codec), Features.of_pixels(torch.zeros(3, 3, 8, 8)))
        )
    with pytest.raises(CheckpointError, match="is no run"):
        Learned(references, run=str(tmp_path))
    with pytest.raises(CheckpointError, match="no checkpoint 'last'"):
        Learned(references, run=str(folder), checkpoint="last")
    other = References(["0"], [[["a"]]], [["a"]], Vocabulary(["cat"]), references.frequencies)
    with pytest.raises(ConfigError, match=f"vocabulary {codec.fingerprint}"):
        Learned(other, run=str(folder))
    recipe = folder / "config.yaml"
    recipe.write_text(recipe.read_text().replace("scorer: {name: contrastive, width: 16, embedding: 8, gazes: 2}",
                                                 "policy: soft_attention"))  # fmt: skip
    with pytest.raises(CheckpointError, match="trained no scorer"):
        Learned(references, run=str(folder))


def test_a_module_of_ones_own_is_a_reward(references, features, codec):
    class Long(nn.Module):
        """The number of words, noisy while it is trained."""

        def __init__(self) -> None:
            super().__init__()
            self.noise = nn.Dropout(0.5)
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, features: Features, words: Tensor) -> Tensor:
            return self.weight * self.noise((words != codec.pad).float().sum(-1))

    class Wide(nn.Module):
        def forward(self, features: Features, words: Tensor) -> Tensor:
            return words.float().flatten(1)

    batch = batch_of(features, codec)
    rubbish = Batch(batch.images, features, batch.words.masked_fill(~batch.mask, 7), batch.mask)
    scores = ScorerReward(references, Long().train())(candidates_of(rubbish, features))
    assert scores.tolist() == batch.mask.sum(-1).tolist()
    assert not scores.requires_grad
    with pytest.raises(ComponentError, match=r"Wide: its scores must be \(3, 2\).*not shape"):
        ScorerReward(references, Wide())(candidates_of(batch, features))


def test_pixels_reach_the_towers_through_an_encoder(codec):
    section = Component("contrastive", {"width": 16, "embedding": 8, "gazes": 2, "dropout": 0.0})
    encoder = Component("small_cnn", {"size": 16, "width": 32})
    scorer = make_scorer(section, encoder, codec, FeatureShape(0, 0))
    assert isinstance(scorer, SeeingTowers)
    pixels = Features.of_pixels(torch.rand(3, 3, 16, 16))
    before = scorer.encoder.last[0].weight.clone()
    InfoNCE(scorer, Course(updates=1)).update(batch_of(pixels, codec))
    assert not torch.equal(scorer.encoder.last[0].weight, before)
