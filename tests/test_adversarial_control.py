"""Does adversarial training do more than its control, which is paid by noise? On a small oracle, whose score is exact.

`pytest -m slow -s tests/test_adversarial_control.py` prints what was found, whichever way it goes.
"""

import copy
from statistics import mean

import pytest
import torch
from torch import Tensor

from rlcap.agents.adversarial import Adversarial, Turns
from rlcap.agents.optimisers import Optimiser
from rlcap.agents.playouts import Playouts
from rlcap.agents.rollout import Drawing
from rlcap.contracts import Batch, Course, Features, FeatureShape, entropy_of
from rlcap.data.vocabulary import SPECIALS, Vocabulary
from rlcap.decoding.choosing import Sampling
from rlcap.decoding.loop import write
from rlcap.models.discriminators import Discriminating
from rlcap.models.leakgan import LeakGAN
from rlcap.models.oracle import OracleLSTM, drawn_weights

WORDS, LENGTH, LINES, ROWS, FIRST = 60, 8, 4000, 64, len(SPECIALS)
PRETRAINING, ADVERSARIAL, SEEDS = 400, 100, (1, 2, 3)
ORACLE = OracleLSTM(drawn_weights(seed=5, words=WORDS, width=8))


@pytest.mark.slow
@pytest.mark.parametrize("manager", [0, 16], ids=["SeqGAN", "LeakGAN"])
def test_rewards_of_the_discriminator_against_noise(manager):
    """What must hold: a policy that is paid by a discriminator convinces it more often than one that noise has moved.
    How near it comes to the language itself is printed only.
    """
    own = ORACLE.sample(LINES, LENGTH, torch.Generator().manual_seed(99))
    print(f"\nnats a word under the oracle; its own sentences: {-float(ORACLE.log_prob(own).mean()):.3f}")
    rewards = ("plain" if manager == 0 else "ranked", "random")
    convinced: dict[str, list[float]] = {reward: [] for reward in rewards}
    for seed in SEEDS:
        start = Training(manager, seed)
        start.updates(PRETRAINING)
        print(f"seed {seed}: {start.known()}")
        for reward in rewards:
            run = copy.deepcopy(start)
            run.trainer.reward = reward
            convinced[reward].append(run.updates(ADVERSARIAL)[-10:].mean().item())
            print(f"  paid by {reward}: {run.known()}; convinces in {convinced[reward][-1]:.1%}")
    paid, noise = (mean(each) for each in convinced.values())
    print(f"convinces in the mean: {paid:.1%}, control {noise:.1%}")
    assert paid > noise


class Training:
    """Likelihood for PRETRAINING updates, then adversarial."""

    def __init__(self, manager: int, seed: int) -> None:
        torch.manual_seed(seed)
        codec = Vocabulary([f"w{number}" for number in range(WORDS)], ends=False)
        judge = Discriminating("cnn", embedding=16, hidden=64, dropout=0.25)
        shape = FeatureShape(0, 0)
        self.policy = LeakGAN(
            codec, shape, embedding=16, hidden=16, manager=manager, goal=4, dropout=0.0, discriminator=judge
        )
        self.trainer = Adversarial(
            self.policy,
            Course(PRETRAINING + ADVERSARIAL, seed=seed),
            rollout=Drawing(samples=1, length=LENGTH),
            playouts=Playouts(every=2, count=4),
            turns=Turns(PRETRAINING, ADVERSARIAL, 0),
            intrinsic=0.5,
            optimiser=Optimiser(lr=1e-2),
            adversarial_optimiser=Optimiser(lr=3e-3),
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.lines = ORACLE.sample(LINES, LENGTH, self.generator) + FIRST
        self.held_out = ORACLE.sample(LINES, LENGTH, self.generator) + FIRST

    def updates(self, count: int) -> Tensor:
        """(count,): how probably people wrote its sentences, as the discriminator has it. NaN of likelihood."""
        found = []
        for _ in range(count):
            lines = self.lines[torch.randint(LINES, (ROWS,), generator=self.generator)]
            found.append(self.trainer.update(text(lines)).get("reward/drawn", torch.tensor(torch.nan)))
        return torch.stack(found)

    @torch.no_grad()
    def known(self) -> str:
        """Nats a word: of its sentences under the oracle, of held-out ones under it, and its entropy."""
        of, source = self.policy.eval(), text(self.held_out)
        uniforms = torch.rand(LINES, 1, LENGTH, 1, generator=torch.Generator().manual_seed(7))
        drawn = write(
            of,
            of.remember(source.features),
            images=LINES,
            length=LENGTH,
            sampling=Sampling(),
            uniforms=uniforms,
            want=["distribution"],
        )
        assert drawn.distribution is not None
        oracle = -float(ORACLE.log_prob(drawn.words[:, 0] - FIRST).mean())
        held_out = -float(of(source.features, source.words).log_prob.mean())
        return (
            f"oracle {oracle:.3f}, held-out {held_out:.3f}, entropy {float(entropy_of(drawn.distribution).mean()):.3f}"
        )


def text(lines: Tensor) -> Batch:
    features = Features(torch.zeros(len(lines), 0, 0), torch.zeros(len(lines), 0, dtype=torch.bool))
    words = lines[:, None]
    return Batch(torch.arange(len(lines)), features, words, torch.ones_like(words, dtype=torch.bool))
