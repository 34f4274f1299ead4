"""A tiny language of 40 captions, a LeakGAN that writes it, and text to learn from: for the tests of both."""

from itertools import product

import torch
from torch import Tensor
from toy_policies import ToyCodec

from rlcap.agents.adversarial import Turns
from rlcap.agents.optimisers import Optimiser
from rlcap.contracts import Batch, Candidates, Features, FeatureShape, Judgement, caption_mask
from rlcap.models.discriminators import Discriminating, Discriminator
from rlcap.models.leakgan import LeakGAN

END, WORDS, LENGTH = 1, (3, 4, 5), 3
SMALL = Discriminating(embedding=4, hidden=6, layers=2, dropout=0.0)
STILL = Optimiser(lr=1e-30, clip=0)  # weights do not move
NOW = Turns(pretraining=0, adversarial=1, likelihood=0)


class Silent(ToyCodec):
    def encode(self, words):  # none of the English words that captions should not end on
        return []


def policy(manager: int = 5, sees: bool = False, loud: float = 2.0) -> LeakGAN:
    torch.manual_seed(3)
    made = LeakGAN(
        Silent(),
        FeatureShape(4, 3) if sees else FeatureShape(0, 0),
        embedding=4,
        hidden=5,
        manager=manager,
        goal=3,
        horizon=2,
        attention=4,
        dropout=0.0,
        discriminator=SMALL,
    ).double()
    with torch.no_grad():
        for weight in [*made.parameters(), *made.discriminator.parameters()]:
            weight.mul_(loud)
    return made


def batch(lines: int, words: Tensor | None = None) -> Batch:
    """Text without images."""
    words = torch.tensor([3, 5, END]) if words is None else words
    words = words.expand(lines, 1, -1)
    features = Features(torch.zeros(lines, 0, 0).double(), torch.zeros(lines, 0, dtype=torch.bool))
    return Batch(torch.arange(lines), features, words, caption_mask(words, END))


def all_captions() -> Tensor:
    rows = set()
    for row in product((END, *WORDS), repeat=LENGTH):
        end = row.index(END) + 1 if END in row else LENGTH
        rows.add((*row[:end], *[0] * (LENGTH - end)))
    return torch.tensor(sorted(rows))


ALL = all_captions()


def log_probs(of: LeakGAN) -> Tensor:
    """(40, 3) under the legal words, 0 behind the end."""
    logits = of(batch(1).features, ALL[None], want=["logits"]).logits[0]
    legal = logits[..., [END, *WORDS]].log_softmax(-1)
    place = torch.tensor([0, 0, 0, 1, 2, 3])[ALL]
    return legal.gather(-1, place[..., None])[..., 0] * caption_mask(ALL, END)


def nothing(candidates: Candidates) -> Judgement:
    return Judgement(torch.zeros(candidates.words.shape[:2]), {})


def worth_of(discriminator: Discriminator) -> Tensor:
    """(40,) of each caption of the language."""
    return discriminator.judge_captions(ALL[None], caption_mask(ALL, END).sum(-1)[None], None)[0].sigmoid()
