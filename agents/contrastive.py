"""A contrastive image-caption scorer: captions find their image, images find their captions.

The curves that it logs:
- `loss/contrastive`: symmetric InfoNCE, nats. Of B images with N captions each it begins near the mean of log(B) and
  log(1 + N(B - 1)); more images a batch make it harder and teach more.
- `match/image_of_caption`: the share of captions that are closer to their own image than to any other of the batch.
  It begins near 1/B; near 1 the batch has nothing more to teach.
- `match/caption_of_image`: the share of images whose closest caption in the batch is one of their own.
- `match/margin`: the mean cosine of right pairs minus that of wrong ones. It should keep above 0.
- `match/scale`: one over the temperature, 14.3 at first. It usually grows as the scorer becomes sure.
- `optimiser/gradient_norm` (before clipping), `optimiser/rate`: as for every trainer.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlcap import losses
from rlcap.agents.optimisers import Descent, Optimiser
from rlcap.contracts import Batch, Course
from rlcap.errors import ComponentError
from rlcap.models.scorer import Scorer, Towers


class InfoNCE:
    """Trains two towers over the images of a batch and their captions (Radford et al. 2021, arXiv:2103.00020)."""

    shares_batches = False  # with other processes

    def __init__(
        self,
        scorer: Scorer,
        course: Course,
        *,
        optimiser: Optimiser = Optimiser(lr=1e-3),  # noqa: B008  frozen
    ) -> None:
        if not isinstance(scorer, Towers):
            raise ComponentError(
                f"{type(scorer).__name__}: does not embed images and captions apart (a Towers does), so this trainer "
                "cannot compare all of a batch; train the scorer 'contrastive' with it"
            )
        self.scorer, self.course = scorer, course
        self.descent = Descent(scorer, optimiser, course.updates)

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        return {"scorer": self.scorer}

    def update(self, batch: Batch) -> dict[str, Tensor]:
        self.scorer.train()
        words = batch.words.masked_fill(~batch.mask, self.scorer.codec.pad)
        with self.course.autocast():
            images, captions = self.scorer.embed_images(batch.features), self.scorer.embed_captions(words.flatten(0, 1))
        cosines = (images @ captions.T).unflatten(1, words.shape[:2])  # (B, B, N)
        loss = losses.info_nce(self.scorer.scale * cosines)
        metrics = {"loss/contrastive": loss.detach(), "match/scale": self.scorer.scale.detach()}
        return metrics | _matches(cosines.detach()) | self.descent.step(loss)

    def state_dict(self) -> dict[str, Any]:
        return {"descent": self.descent.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.descent.load_state_dict(state["descent"])


def _matches(cosines: Tensor) -> dict[str, Tensor]:
    images, _, n = cosines.shape
    index = torch.arange(images, device=cosines.device)
    right = cosines.diagonal().mean()
    wrong = (cosines.mean() * images - right) / max(1, images - 1)
    return {
        "match/image_of_caption": (cosines.argmax(0) == index[:, None]).float().mean(),
        "match/caption_of_image": (cosines.flatten(1).argmax(1) // n == index).float().mean(),
        "match/margin": right - wrong,
    }
