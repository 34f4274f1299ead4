"""Towers together with the encoder that is trained along with them: pixels in, cosines out."""

from torch import Tensor

from rlcap.contracts import Encoder, Features
from rlcap.models.scorer import Towers


class SeeingTowers(Towers):
    """Any two towers, the image's fed by an encoder."""

    def __init__(self, scorer: Towers, encoder: Encoder) -> None:
        super().__init__()
        self.scorer = scorer
        self.encoder = encoder
        self.codec = scorer.codec

    @property
    def scale(self) -> Tensor:
        return self.scorer.scale

    def embed_images(self, features: Features) -> Tensor:
        if features.pixels is None:
            raise ValueError("an encoder that is trained along needs pixels, and these features hold none")
        return self.scorer.embed_images(self.encoder(features.pixels))

    def embed_captions(self, words: Tensor) -> Tensor:
        return self.scorer.embed_captions(words)
