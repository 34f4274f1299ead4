"""Captions drawn from a policy and judged: what every policy-gradient trainer learns from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlcap.contracts import Batch, Candidates, Judge, Judgement, Policy
from rlcap.decoding.choosing import Sampling
from rlcap.decoding.loop import Captions, write
from rlcap.decoding.uniforms import keyed_uniforms


@dataclass(frozen=True)
class Rollout:
    """N drawn captions of each image and, if asked for, a greedy one behind them, all judged."""

    captions: Captions  # (B, N or N + 1, T)
    judgement: Judgement  # (B, N or N + 1)
    drawn: int  # N

    @property
    def rewards(self) -> Tensor:
        """(B, N), of the drawn captions."""
        return self.judgement.total[:, : self.drawn]

    @property
    def greedy(self) -> Tensor:
        """(B,), of the greedy ones."""
        return self.judgement.total[:, self.drawn]


@torch.no_grad()
def roll_out(
    policy: Policy,
    batch: Batch,
    judge: Judge,
    *,
    samples: int,
    length: int,
    seed: int,
    update: int,
    greedy: bool = False,
    sampling: Sampling = Sampling(),  # noqa: B008  frozen
) -> Rollout:
    """Draws and judges. The greedy caption rides in the same decode: its uniforms are NaN."""
    coins = 1 + policy.coins
    uniforms = keyed_uniforms(seed, update, batch.images, samples, length, coins)
    if greedy:
        riding = torch.full_like(uniforms[:, :1], torch.nan)
        uniforms = torch.cat((uniforms, riding), 1)
    captions = write(
        policy,
        policy.remember(batch.features),
        images=len(batch.images),
        n=samples + greedy,
        length=length,
        sampling=sampling,
        uniforms=uniforms,
    )
    candidates = Candidates(captions.words, captions.mask.sum(-1), batch.images, samples, batch.features)
    return Rollout(captions, judge(candidates), samples)
