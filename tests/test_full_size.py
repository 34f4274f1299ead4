"""Each policy in the size of its COCO recipe: one update and one evaluation on made-up features of the true shapes.

`pytest -m slow -s tests/test_full_size.py` prints the memory and the time of each. A policy needs one line in FULL.
"""

import math
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, NamedTuple

import pytest
import torch

from rlcap.components import find
from rlcap.config import Decoding
from rlcap.contracts import Batch, Course, Features, FeatureShape
from rlcap.data.vocabulary import Vocabulary
from rlcap.decoding.decode import decode


class Size(NamedTuple):
    shape: FeatureShape  # what the encoder gives
    settings: dict[str, Any]  # that differ from the policy's own
    words: int = 10_000
    length: int = 20
    trainer: str = "cross_entropy"
    spread: float = 0.0  # the variance of the first logits, where it is not next to nothing


VGG, XU = FeatureShape(196, 512, (14, 14)), {"hidden": 1800}  # evaluate_coco.py of Xu et al.'s own code
FULL = {
    "show_tell": Size(FeatureShape(64, 2048, (8, 8)), {}, words=36_303, length=51),  # ResNet-101, pictures of 256x256
    "soft_attention": Size(VGG, XU),
    "hard_attention": Size(VGG, XU, trainer="hard_attention"),
    "bottom_up_top_down": Size(FeatureShape(36, 2048), {}),
    "transformer": Size(
        FeatureShape(36, 2048),
        # Tied, it would begin by saying the word before again: sqrt(512) times a cosine is more than log V.
        {"width": 512, "heads": 8, "layers": 6, "encoder_layers": 6, "inner": 2048, "tied": False},
        spread=1 / 3,  # a layer norm's output, of variance 1, times weights of variance 1 / (3 * 512)
    ),
}
IMAGES, CAPTIONS, BEAM = 20, 5, 5


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_fits_a_usual_machine(name):
    """The first loss is log V, and half the variance of the logits where they are normal. What a cell says is near 0
    at first. The mean over 2,000 words and more is known to some 0.015.
    """
    size = FULL[name]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:  # its peak of memory is its own
        parameters, loss, captions, update, evaluation, peak = alone.submit(tried, size, name).result()
    print(
        f"\n{name}: {parameters / 1e6:.1f} M parameters; update of {IMAGES} images x {CAPTIONS} captions "
        f"{update:.1f} s, {IMAGES} captions by beam {BEAM} {evaluation:.1f} s, peak of memory {peak:.1f} GiB; "
        f"first loss {loss:.3f} nats a word"
    )
    assert loss == pytest.approx(math.log(size.words) + size.spread / 2, abs=0.05)  # it knows nothing yet
    assert captions == IMAGES
    assert peak < 8


def tried(size: Size, name: str) -> tuple[int, float, int, float, float, float]:
    torch.manual_seed(1)
    shape = size.shape
    codec = Vocabulary([f"word{number}" for number in range(size.words)])
    policy = find("policy", name)(codec, shape, **size.settings)
    values = torch.randn(IMAGES, shape.regions, shape.width).relu()  # half of them 0, as behind a network's last ReLU
    features = Features(values, torch.ones(values.shape[:2], dtype=torch.bool), shape.grid)
    words = torch.randint(4, codec.size, (IMAGES, CAPTIONS, size.length))
    batch = Batch(torch.arange(IMAGES), features, words, torch.ones_like(words, dtype=torch.bool))
    trainer = find("trainer", size.trainer)(policy, Course(updates=1))
    begun = time.perf_counter()
    loss = trainer.update(batch)["loss/cross_entropy"].item()
    updated = time.perf_counter()
    found = decode(policy, features, Decoding(beam=BEAM, length=size.length), keys=batch.images)
    evaluated = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    parameters = sum(each.numel() for each in policy.parameters())
    return parameters, loss, len(found), updated - begun, evaluated - updated, peak
