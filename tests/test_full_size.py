"""Each policy in the size of its COCO recipe: one update and one evaluation on made-up features of the true shapes.

`pytest -m slow -s tests/test_full_size.py` prints the memory and the time of each. A policy needs one line in FULL.
"""

import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from rlcap.agents.cross_entropy import CrossEntropy
from rlcap.components import find
from rlcap.config import Decoding
from rlcap.contracts import Batch, Course, Features, FeatureShape
from rlcap.data.vocabulary import Vocabulary
from rlcap.decoding.decode import decode

# What the encoder gives, and the settings that differ from the policy's own.
FULL = {
    "bottom_up_top_down": (FeatureShape(36, 2048), {}),
}
WORDS, IMAGES, CAPTIONS, LENGTH, BEAM = 10_000, 20, 5, 20, 5


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_fits_a_usual_machine(name):
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:  # its peak of memory is its own
        parameters, loss, captions, update, evaluation, peak = alone.submit(tried, name).result()
    print(
        f"\n{name}: {parameters / 1e6:.1f} M parameters; update of {IMAGES} images x {CAPTIONS} captions "
        f"{update:.1f} s, {IMAGES} captions by beam {BEAM} {evaluation:.1f} s, peak of memory {peak:.1f} GiB"
    )
    assert loss == pytest.approx(torch.tensor(float(WORDS)).log().item(), rel=0.05)  # it knows nothing yet
    assert captions == IMAGES
    assert peak < 8


def tried(name: str) -> tuple[int, float, int, float, float, float]:
    torch.manual_seed(1)
    shape, settings = FULL[name]
    codec = Vocabulary([f"word{number}" for number in range(WORDS)])
    policy = find("policy", name)(codec, shape, **settings)
    values = torch.randn(IMAGES, shape.regions, shape.width).relu()  # half of them 0, as behind a network's last ReLU
    features = Features(values, torch.ones(values.shape[:2], dtype=torch.bool), shape.grid)
    words = torch.randint(4, codec.size, (IMAGES, CAPTIONS, LENGTH))
    batch = Batch(torch.arange(IMAGES), features, words, torch.ones_like(words, dtype=torch.bool))
    trainer = CrossEntropy(policy, Course(updates=1))
    begun = time.perf_counter()
    loss = trainer.update(batch)["loss/cross_entropy"].item()
    updated = time.perf_counter()
    found = decode(policy, features, Decoding(beam=BEAM, length=LENGTH), keys=batch.images)
    evaluated = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    parameters = sum(each.numel() for each in policy.parameters())
    return parameters, loss, len(found), updated - begun, evaluated - updated, peak
