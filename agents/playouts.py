"""What a discriminator makes of captions that are not finished: they are finished several times, and these are judged.

Monte Carlo search as in SeqGAN (Yu et al. 2017, https://arxiv.org/abs/1609.05473, eq. 4). All prefixes of all captions
are finished in one decode, which the drawn captions lead: at each prefix, copies leave them and go on by themselves.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlcap.agents.rollout import Rollout
from rlcap.config import Positive
from rlcap.contracts import Policy
from rlcap.decoding.loop import Captions, write
from rlcap.decoding.uniforms import keyed_uniforms
from rlcap.models.discriminators import Discriminator


@dataclass(frozen=True)
class Playouts:
    """The recipe's `playouts` section."""

    every: Positive = 4  # words: how far a judged prefix is from the next
    count: Positive = 4  # ends that are drawn for each

    def prefixes(self, length: int) -> list[int]:
        """Words of each judged prefix of captions of `length` words; the last is the whole."""
        return [*range(self.every, length, self.every), length]

    def by_word(self, rewards: Tensor, length: int) -> Tensor:
        """(B, N, P) -> (B, N, T): a word is paid as the first judged prefix that holds it."""
        return rewards.repeat_interleave(self.every, -1)[..., :length]


@torch.no_grad()
def prefix_rewards(
    policy: Policy,
    discriminator: Discriminator,
    rollout: Rollout,
    images: Tensor,
    settings: Playouts,
    *,
    seed: int,
    update: int,
) -> Tensor:
    """(B, N, P): how probably people wrote them, for captions that begin with each prefix of the drawn ones; the mean.

    A prefix that holds a whole caption is judged as it is. `images` (B,): what the draws are keyed by.
    """
    words, drawing, count = rollout.words, rollout.drawing, settings.count
    n, length = words.shape[1:]
    seen = discriminator.remember(rollout.features)
    whole = discriminator.judge_captions(words, rollout.mask.sum(-1), seen).sigmoid()[..., None]
    prefixes = settings.prefixes(length)
    if len(prefixes) == 1:
        return whole
    copies = n * count * (len(prefixes) - 1)
    uniforms = keyed_uniforms(seed, update, images, n + copies, drawing.length, 1 + policy.coins)
    finished: Captions | None = None
    for behind in [*prefixes[:-1], drawing.length]:
        if finished is not None:
            finished = _branched(policy, finished, n, count)
        rows = n if finished is None else finished.words.shape[1]
        forced = torch.full((len(images), rows, length), -1, device=words.device)
        forced[:, :n] = words
        finished = write(
            policy,
            rollout.memory,
            images=len(images),
            n=rows,
            length=drawing.length,
            sampling=drawing.sampling,
            uniforms=uniforms[:, :rows],
            forced=forced,
            after=finished,
            until=behind,
            want=["state"],
        )
    assert finished is not None
    found = discriminator.judge_captions(finished.words[:, n:], finished.mask[:, n:].sum(-1), seen).sigmoid()
    return torch.cat((found.unflatten(1, (-1, n, count)).mean(-1).transpose(1, 2), whole), -1)


def _branched(policy: Policy, captions: Captions, n: int, count: int) -> Captions:
    """With `count` copies more of each image's first n rows, behind all others."""
    images, rows = captions.words.shape[:2]
    device = captions.words.device
    within = torch.cat((torch.arange(rows), torch.arange(n).repeat_interleave(count))).to(device)
    chosen = (torch.arange(images, device=device)[:, None] * rows + within).flatten()
    return Captions(
        captions.words[:, within],
        captions.mask[:, within],
        captions.log_prob[:, within],
        None if captions.choices is None else captions.choices[:, within],
        state=policy.select(captions.state, chosen),
    )
