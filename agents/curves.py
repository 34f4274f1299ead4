"""What every policy-gradient trainer shows of the captions that it drew.

- `reward/total`: the weighted sum of all rewards, mean over the drawn captions. It should rise.
- `reward/LABEL/raw` and `/weighted`: each reward as it judges, and as it counts.
- `reward/greedy`: the same sum for the greedy captions, at every tenth update, or always if they are the baseline. It
  should rise too, and stay above.
- `caption/length`: words of the drawn captions, the end token among them.
- `caption/bad_ending`: the share that was cut, or ends on a word such as "with" or "a". A rise is the classic sickness.
- `caption/repetition`: the share of a caption's word pairs that it has said before.
- `caption/distinct_2`: of all word pairs in an image's captions, the share that differ. It falls as the policy
  narrows; near the least, all samples are equal, and there is nothing left to compare.
- `gaze/entropy`, `gaze/moved`: of policies that choose where to look; see rlcap.agents.hard_attention.
- `time/share_decoding`, `/share_reward`, `/share_update`: of an update's time, on a CPU. Drawing with its graph kept
  is decoding and the forward pass in one.
"""

import torch
from torch import Tensor

from rlcap import losses
from rlcap.agents.rollout import Rollout
from rlcap.contracts import Candidates, Codec
from rlcap.metrics.diversity import BAD_ENDINGS
from rlcap.metrics.packed_words import number_ngrams, said_words, tabulate

NO_WORD = -3  # the end token of a codec that has none


class CaptionCurves:
    def __init__(self, codec: Codec) -> None:
        self.end = NO_WORD if codec.end is None else codec.end
        spelt = [codec.encode([word]) for word in BAD_ENDINGS]
        self.bad = torch.tensor([ids[0] for ids in spelt if len(ids) == 1 and ids[0] not in codec.banned])

    @torch.no_grad()
    def __call__(self, rollout: Rollout) -> dict[str, Tensor]:
        lengths = rollout.mask.sum(-1)
        said = said_words(Candidates(rollout.words, lengths, lengths[:, 0], rollout.drawn), self.end)
        ends = (said >= 0).sum(-1)  # without the end token
        last = said.gather(-1, (ends - 1).clamp_min(0)[..., None])
        self.bad = self.bad.to(said.device)
        cut = (ends == lengths) & (self.end != NO_WORD)
        numbers, there = number_ngrams(said, 2)[-1]
        counts = tabulate(numbers, there.float())  # (B, N, N·T)
        pairs = counts.sum(-1)
        again = (counts - 1).clamp_min(0).sum(-1) / pairs.clamp_min(1)
        differing = (counts.sum(1) > 0).sum(-1) / pairs.sum(1).clamp_min(1)
        greedy = rollout.judgement.total.shape[1] > rollout.drawn
        return {
            **rollout.judgement.curves(rollout.drawn),
            **({"reward/greedy": rollout.greedy.mean()} if greedy else {}),
            "caption/length": lengths.float().mean(),
            "caption/bad_ending": (cut | (last == self.bad).any(-1)).float().mean(),
            "caption/repetition": again.mean(),
            "caption/distinct_2": differing.mean(),
        }


def gaze_curves(attention: Tensor | None, mask: Tensor) -> dict[str, Tensor]:
    """attention (B, N, T, R), the distributions of gazes; mask (B, N, T)."""
    if attention is None:
        return {}
    gaze = attention.detach().float()
    moved = (gaze[..., 1:, :] - gaze[..., :-1, :]).abs().sum(-1) / 2
    return {
        "gaze/entropy": losses.masked_mean(torch.special.entr(gaze).sum(-1), mask),
        "gaze/moved": losses.masked_mean(moved, mask[..., 1:]),
    }
