"""How captions grow, a word at a time: pure functions of tensors, of static shapes, that never ask the host.

A captured CUDA graph can hold them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlcap.contracts import Codec
from rlcap.decoding.uniforms import keyed_uniforms

_SPREAD = 0x9E3779B9  # seeds that follow one another, as those of a vector environment, share no episodes
_STREAM = 0x1A6E  # sets these draws apart from those of other parts


@dataclass(frozen=True)
class Written:
    """Where each row's caption stands."""

    words: Tensor  # (rows, T) ids, padding behind them
    step: Tensor  # (rows,) how many words there are, the end token among them
    ended: Tensor  # (rows,) bool: the end was said; without an end token, that the length is full

    @staticmethod
    def empty(rows: int, length: int, pad: int, device: torch.device) -> "Written":
        words = torch.full((rows, length), pad, dtype=torch.long, device=device)
        step = torch.zeros(rows, dtype=torch.long, device=device)
        return Written(words, step, torch.zeros_like(step, dtype=torch.bool))

    @property
    def over(self) -> Tensor:
        """(rows,) bool: no further word can follow."""
        return self.ended | (self.step >= self.words.shape[1])


def transition(captions: Written, said: Tensor, codec: Codec) -> Written:
    """One more word in each row, (rows,); a caption that is over stays as it is."""
    grows = ~captions.over
    here = torch.arange(captions.words.shape[1], device=said.device) == captions.step[:, None]
    words = torch.where(here & grows[:, None], said[:, None], captions.words)
    step = captions.step + grows.long()
    end = step >= words.shape[1] if codec.end is None else grows & (said == codec.end)
    return Written(words, step, captions.ended | end)


def restarted(captions: Written, rows: Tensor, pad: int) -> Written:
    """The same with some rows, (rows,) bool, empty again."""
    return Written(
        captions.words.masked_fill(rows[:, None], pad),
        captions.step.masked_fill(rows, 0),
        captions.ended & ~rows,
    )


def legal_words(captions: Written, legal: Tensor, pad: int) -> Tensor:
    """(rows, V) bool: the `legal` words (V,), and padding alone once a caption is over."""
    padding = torch.arange(len(legal), device=legal.device) == pad
    return torch.where(captions.over[:, None], padding, legal)


def drawn_images(seeds: Tensor, episodes: Tensor, count: int) -> Tensor:
    """(rows,) seeds and numbers of episodes -> (rows,) images: the same on every device, alone or among others."""
    uniforms = keyed_uniforms(_STREAM, 0, seeds * _SPREAD + episodes, 1, 1)[:, 0, 0, 0]
    return (uniforms.double() * count).long()
