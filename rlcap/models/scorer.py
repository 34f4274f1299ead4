"""What judges captions by looking at the image: a pair of towers, a discriminator, a network of your own."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from rlcap.contracts import Codec, Features, caption_mask


class Scorer(nn.Module, ABC):
    """Says how well captions fit their images. It is made as `Class(codec, shape, **settings_of_the_recipe)`."""

    codec: Codec

    @abstractmethod
    def forward(self, features: Features, words: Tensor) -> Tensor:
        """words (B, N, T), N captions of each of B images -> (B, N), more where they fit better.

        Only `counted` words count: a caption may have an end token, or be cut and padded.
        """


class Towers(Scorer):
    """Embeds images and captions apart; a caption fits by the cosine of the two, in [-1, 1]."""

    @abstractmethod
    def embed_images(self, features: Features) -> Tensor:
        """-> (B, E), float32, of length 1."""

    @abstractmethod
    def embed_captions(self, words: Tensor) -> Tensor:
        """(rows, T) -> (rows, E), float32, of length 1."""

    @property
    @abstractmethod
    def scale(self) -> Tensor:
        """What cosines are multiplied with before a softmax, a learned scalar: one over the temperature."""

    def forward(self, features: Features, words: Tensor) -> Tensor:
        captions = self.embed_captions(words.flatten(0, 1)).unflatten(0, words.shape[:2])
        return torch.einsum("be,bne->bn", self.embed_images(features), captions).clamp(-1, 1)


def counted(words: Tensor, codec: Codec) -> Tensor:
    """(…, T) ids -> (…, T) bool: the words of a caption, its end token among them, up to the first padding."""
    return caption_mask(words, codec.end) & (words != codec.pad).cumprod(-1).bool()
