"""Two towers that meet on a sphere, as in CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020), but small."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlcap.config import Positive, Rate
from rlcap.contracts import Codec, Features, FeatureShape, at_least_float32
from rlcap.errors import ComponentError
from rlcap.models.scorer import Towers, counted

FIRST_SCALE, LARGEST_SCALE = 1 / 0.07, 100.0  # section 2.5


class Contrastive(Towers):
    """Regions are pooled by a few learned gazes; words are read by a GRU in each direction, and averaged.

    The scale is held below 100 by a sigmoid, not by cutting it off: its gradient never ends.
    """

    def __init__(
        self,
        codec: Codec,
        shape: FeatureShape,
        *,
        width: Positive = 256,
        embedding: Positive = 256,
        gazes: Positive = 4,
        dropout: Rate = 0.1,
    ) -> None:
        super().__init__()
        if shape.width == 0:
            raise ComponentError("Contrastive: there are no features to compare captions with; train it on images")
        self.codec = codec
        self.see = nn.Sequential(
            nn.LayerNorm(shape.width), nn.Linear(shape.width, width), nn.GELU(), nn.Dropout(dropout)
        )
        self.gaze = nn.Linear(width, gazes)
        self.of_image = nn.Linear(gazes * width, embedding)
        self.embed = nn.Sequential(nn.Embedding(codec.size, width), nn.Dropout(dropout))
        self.forwards = nn.GRU(width, width, batch_first=True)
        self.backwards = nn.GRU(width, width, batch_first=True)
        self.of_caption = nn.Linear(2 * width, embedding)
        share = FIRST_SCALE / LARGEST_SCALE
        self.raw_scale = nn.Parameter(torch.tensor(math.log(share / (1 - share))))

    @property
    def scale(self) -> Tensor:
        return LARGEST_SCALE * self.raw_scale.sigmoid()

    def embed_images(self, features: Features) -> Tensor:
        seen = self.see(features.values)  # (B, R, width)
        gazes = self.gaze(seen).masked_fill(~features.mask[..., None], -torch.inf).softmax(1)  # (B, R, gazes)
        pooled = torch.einsum("brg,brw->bgw", gazes, seen.masked_fill(~features.mask[..., None], 0))
        return F.normalize(at_least_float32(self.of_image(pooled.flatten(1))), dim=-1)

    def embed_captions(self, words: Tensor) -> Tensor:
        mask = counted(words, self.codec)
        words = words.masked_fill(~mask, self.codec.pad)
        length = mask.sum(-1, keepdim=True)
        # Each caption turned around in its own place: no packing, so the device need not wait for the host.
        places = (length - 1 - torch.arange(words.shape[-1], device=words.device)).clamp_min(0)
        read = torch.cat(
            [self.forwards(self.embed(words))[0], self.backwards(self.embed(words.gather(-1, places)))[0]], -1
        )
        mean = at_least_float32(read).masked_fill(~mask[..., None], 0).sum(1) / length.clamp_min(1)
        return F.normalize(at_least_float32(self.of_caption(mean)), dim=-1)
