"""The best captions of a beam search in the place of draws (Anderson et al. 2018, arXiv 1707.07998, section 3.2.3).

They score higher than draws do, so rewards rise sooner. But they are no sample of the policy: the gradient is no
longer that of the mean reward (it is biased), and only captions that are likely already are ever compared. With
scst, take `baseline: leave_one_out` or `mean`: captions of the beam against one another. The paper's `greedy` pushes
the whole beam down wherever it is worse than the greedy caption. `minimum_risk` descends on the expected reward among
the beam's captions, and is exact for that.
"""

import torch
from torch import Tensor

from rlcap.contracts import Memory, Policy
from rlcap.decoding.beam import beam_search
from rlcap.decoding.constraints import Constraints


@torch.no_grad()
def beam_captions(policy: Policy, memory: Memory, *, images: int, n: int, length: int) -> Tensor:
    """(B, N, T) words, best first. Where fewer different captions exist, the best one comes again."""
    beams = beam_search(policy, memory, images=images, beams=n, length=length, constraints=Constraints())
    return torch.where((beams.score == -torch.inf)[..., None], beams.words[:, :1], beams.words)
