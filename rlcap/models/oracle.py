"""The synthetic oracle of SeqGAN (Yu et al. 2017, https://arxiv.org/abs/1609.05473): an LSTM with random weights.

It is a language whose true distribution is known, so sentences can be judged by their log-probability under it.
Sentences have a fixed length; words are ids, and word 0 is also what goes before the first one.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlcap.errors import DataError
from rlcap.files import atomic_path

START = 0
GATES = 4  # input, forget, output, candidate
Weights = Sequence[NDArray[np.float32]]  # embedding; W, U, b of each gate; W, b of the output


def drawn_weights(seed: int, words: int = 5000, width: int = 32) -> list[NDArray[np.float32]]:
    """All from a normal distribution of deviation 1, as SeqGAN's were."""
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape, np.float32) for shape in _shapes(words, width)]


def read_weights(path: Path) -> list[NDArray[np.float32]]:
    """From an .npz file that holds the arrays in their order, whatever their names."""
    try:
        with np.load(path, allow_pickle=False) as file:
            weights = [np.asarray(file[name], np.float32) for name in file.files]
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; name an oracle's weights (.npz)") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: is no .npz file of weights ({error}); name an oracle's") from None
    found = [array.shape for array in weights]
    if not found or len(found[0]) != 2 or found != _shapes(*found[0]):
        shown = ", ".join(map(str, found))
        raise DataError(
            f"{path}: holds arrays of shapes {shown}; an oracle has 15: embedding (V, H), for each of four gates "
            "(H, H), (H, H), (H,), and output (H, V), (V,)"
        )
    return weights


def save_weights(path: Path, weights: Weights) -> None:
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez(file, *weights)


def _shapes(words: int, width: int) -> list[tuple[int, ...]]:
    gate: list[tuple[int, ...]] = [(width, width), (width, width), (width,)]
    return [(words, width), *gate * GATES, (width, words), (words,)]


class OracleLSTM(nn.Module):
    """Words are numbers from 0 to V-1, without special tokens."""

    embedding: Tensor
    kernel: Tensor
    bias: Tensor
    output: Tensor
    output_bias: Tensor

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        embedding, *gates, output, bias = map(torch.from_numpy, weights)
        self.register_buffer("embedding", embedding)  # (V, H)
        self.register_buffer("kernel", torch.cat([torch.cat(gates[0::3], 1), torch.cat(gates[1::3], 1)]))  # (2H, 4H)
        self.register_buffer("bias", torch.cat(gates[2::3]))  # (4H,)
        self.register_buffer("output", output)  # (H, V)
        self.register_buffer("output_bias", bias)  # (V,)

    @torch.inference_mode()
    def log_prob(self, words: Tensor) -> Tensor:
        """(rows, T) -> (rows, T) nats, of each word given those before it."""
        state, said, found = self._first(len(words)), torch.full_like(words[:, 0], START), []
        for word in words.unbind(1):
            log_p, state = self._step(said, state)
            found.append(log_p.gather(1, word[:, None]))
            said = word
        return torch.cat(found, 1)

    @torch.inference_mode()
    def sample(self, rows: int, length: int, generator: torch.Generator) -> Tensor:
        """(rows, length), by inverse CDF from the uniforms of a generator on the CPU."""
        state, said, drawn = self._first(rows), torch.full((rows,), START, device=self.bias.device), []
        uniforms = torch.rand(rows, length, generator=generator).to(self.bias.device)
        for t in range(length):
            log_p, state = self._step(said, state)
            cumulative = log_p.exp().cumsum(-1)
            point = uniforms[:, t : t + 1] * cumulative[:, -1:]
            said = torch.searchsorted(cumulative, point, right=True)[:, 0].clamp_max(log_p.shape[1] - 1)
            drawn.append(said)
        return torch.stack(drawn, 1)

    def _first(self, rows: int) -> tuple[Tensor, Tensor]:
        zeros = self.bias.new_zeros(rows, self.embedding.shape[1])
        return zeros, zeros

    def _step(self, said: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(rows,) words -> (rows, V) log-probabilities of the next, and the state (hidden, cell)."""
        hidden, cell = state
        gates = torch.cat([self.embedding[said], hidden], 1) @ self.kernel + self.bias
        inward, forget, outward, candidate = gates.chunk(GATES, 1)
        cell = forget.sigmoid() * cell + inward.sigmoid() * candidate.tanh()
        hidden = outward.sigmoid() * cell.tanh()
        return (hidden @ self.output + self.output_bias).log_softmax(-1), (hidden, cell)
