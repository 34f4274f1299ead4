"""What a discriminator makes of captions that are not finished: they are finished several times, and these are judged.

Monte Carlo search as in SeqGAN (Yu et al. 2017, https://arxiv.org/abs/1609.05473, eq. 4). All prefixes of all captions
are finished in one decode.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlcap.agents.rollout import Rollout
from rlcap.config import Positive
from rlcap.contracts import Memory, Policy
from rlcap.decoding.loop import write
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
    words, drawing = rollout.words, rollout.drawing
    n, length = words.shape[1:]
    seen = discriminator.remember(rollout.features)
    whole = judged(discriminator, seen, words, rollout.mask).sigmoid()[..., None]
    cut = torch.tensor(settings.prefixes(length)[:-1], device=words.device)
    if not len(cut):
        return whole
    stands = torch.arange(length, device=words.device) < cut[:, None]  # (P - 1, T)
    forced = words[:, :, None].masked_fill(~stands, -1)  # (B, N, P - 1, T)
    forced = forced[:, :, :, None].expand(-1, -1, -1, settings.count, -1).flatten(1, 3)
    uniforms = keyed_uniforms(seed, update, images, forced.shape[1], drawing.length, 1 + policy.coins)
    finished = write(
        policy,
        rollout.memory,
        images=len(images),
        n=forced.shape[1],
        length=drawing.length,
        sampling=drawing.sampling,
        uniforms=uniforms,
        forced=forced,
    )
    found = judged(discriminator, seen, finished.words, finished.mask).sigmoid()
    return torch.cat((found.unflatten(1, (n, len(cut), settings.count)).mean(-1), whole), -1)


def judged(discriminator: Discriminator, seen: Memory, words: Tensor, mask: Tensor) -> Tensor:
    """Whole captions (B, N, T) -> (B, N) logits."""
    leaked = discriminator.leak(words.flatten(0, 1)).unflatten(0, words.shape[:2])
    return discriminator.judge(at_end(leaked, mask.sum(-1)), seen)


def at_end(leaked: Tensor, lengths: Tensor) -> Tensor:
    """(B, N, T + 1, F), (B, N) -> (B, N, F): behind the last word that counts."""
    return leaked.gather(2, lengths[..., None, None].expand(-1, -1, 1, leaked.shape[-1]))[:, :, 0]
