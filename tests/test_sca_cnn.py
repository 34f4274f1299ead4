"""Channels and regions weighed as the paper says, over one map or several, and an encoder that gives several."""

import math

import pytest
import torch

import rlcap
from rlcap.cli import main
from rlcap.contracts import Features, FeatureShape
from rlcap.data.vocabulary import Vocabulary
from rlcap.models.sca_cnn import SCACNN

CODEC = Vocabulary(["a", "red", "ball"])
FINE, COARSE = FeatureShape(6, 5, (2, 3)), FeatureShape(2, 4, (1, 2))
SMALL = {"hidden": 7, "embedding": 6, "attention": 5, "channel_attention": 3, "dropout": 0.0}


def features_of(*shapes: FeatureShape) -> Features:
    """Of three images, the last shape's with the others before it; of the second image, a region is missing."""
    made: tuple[Features, ...] = ()
    for shape in shapes:
        values = torch.randn(3, shape.regions, shape.width, dtype=torch.float64)
        mask = torch.ones(3, shape.regions, dtype=torch.bool)
        mask[1, -1] = False
        made = (*made, Features(values, mask, shape.grid))
    return Features(made[-1].values, made[-1].mask, made[-1].grid, earlier=made[:-1])


def softmax(energies: list[float]) -> list[float]:
    powers = [math.exp(energy) for energy in energies]
    return [power / sum(powers) for power in powers]


def additive(attention, value, state) -> float:
    mixed = attention.of_values.weight @ value + attention.of_values.bias + attention.of_query.weight @ state
    return (attention.energy.weight[0] @ mixed.tanh()).item()


@pytest.mark.parametrize("order", ["channel_first", "spatial_first"])
@torch.no_grad()
def test_what_is_seen_is_as_written_out(order):
    """One map at one state, number by number: each attention on what the other has weighed before it."""
    torch.manual_seed(0)
    policy = SCACNN(CODEC, FINE, order=order, **SMALL).double().eval()
    features, look = features_of(FINE), policy.look[0]
    state = torch.randn(3, 2, 7, dtype=torch.float64)
    seen, where = look(state, look.remember(features.values, features.mask))
    for image, row in ((0, 0), (1, 1)):
        regions = features.values[image][features.mask[image]]
        now = state[image, row]

        def by_region(maps, now=now):
            return softmax([additive(look.where, region, now) for region in maps])

        def by_channel(means, now=now):
            return [5 * share for share in softmax([additive(look.what, mean[None], now) for mean in means])]

        if order == "channel_first":
            weighed = regions * torch.tensor(by_channel(regions.mean(0)), dtype=torch.float64)
            weights = by_region(weighed)
            total = sum(share * region for share, region in zip(weights, weighed, strict=True))
        else:
            weights = by_region(regions)
            total = sum(share * region for share, region in zip(weights, regions, strict=True))
            total = total * torch.tensor(by_channel(total), dtype=torch.float64)
        # float64: only the order of the sums differs
        torch.testing.assert_close(seen[image, row], total, rtol=0, atol=1e-12)
        assert where[image, row, : len(regions)].tolist() == pytest.approx(weights, abs=1e-12)
        assert where[image, row, len(regions) :].sum() == 0


@pytest.mark.parametrize("settings", [{}, {"order": "spatial_first", "cell": "gru", "project": 16}])
def test_two_layers_word_by_word_and_at_once(settings):
    torch.manual_seed(0)
    shape = FeatureShape(COARSE.regions, COARSE.width, COARSE.grid, (FINE,))
    policy = SCACNN(CODEC, shape, **SMALL, **settings).double().eval()
    features = features_of(FINE, COARSE)
    words = torch.randint(4, CODEC.size, (3, 2, 4))
    memory = policy.remember(features)
    scores = policy.score(memory, words, want=["attention"])
    plain = super(SCACNN, policy).score(memory, words, want=["attention"])  # the loop over `step`
    torch.testing.assert_close(scores.log_prob, plain.log_prob, rtol=0, atol=1e-9)  # float64
    torch.testing.assert_close(scores.attention, plain.attention, rtol=0, atol=1e-9)
    assert scores.attention.shape == (3, 2, 4, 2), "of the last layer"
    for layer in features.layers:
        layer.values.requires_grad_()
    policy(features, words).log_prob.sum().backward()
    for layer in features.layers:
        reached = layer.values.grad.abs().sum(-1) > 0
        assert torch.equal(reached, layer.mask), "every region of every layer counts, and no other"


def test_the_layer_study_runs(tmp_path):
    """Its recipe at small size, from pictures to a caption; the run is loaded as any other."""
    data = tmp_path / "scenes"
    assert main(["--quiet", "prepare", "scenes", "--out", str(data), "--count", "40", "--min-count", "1"]) == 0
    small = {"policy__hidden": 8, "policy__embedding": 8, "policy__attention": 8, "decoding__length": 4}
    training = {"training__updates": 2, "training__images": 4, "training__evaluate_every": "2 updates"}
    run = rlcap.train("layer_study", tmp_path / "run", data__path=str(data), **training, **small)
    encoder = run.policy.encoder
    assert [layer.grid for layer in encoder.shape.layers] == [(8, 8), (4, 4)]
    (picture,) = run.look([torch.zeros(64, 64, 3, dtype=torch.uint8).numpy()])
    assert picture.grid == (4, 4)
    assert picture.captions[0].attention.shape[-1] == 16
