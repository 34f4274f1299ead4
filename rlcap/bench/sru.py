"""How fast the SRU learns next to torch's LSTM and GRU (cuDNN's on CUDA), and next to itself as a plain loop."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlcap.bench.timing import Competitor, Timing, race
from rlcap.models.sru import SRU

VARIANTS: dict[str, dict[str, Any]] = {
    "sru": {},
    "sru v1, tanh, projected": {"v1": True, "activation": "tanh", "project_highway": True},  # the captioner's equations
}
PLAIN = "plain loop"
OTHERS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"LSTM": nn.LSTM, "GRU": nn.GRU}
SHAPES = ((64, 512, 20), (128, 512, 40), (64, 1024, 20))
Shape = tuple[int, int, int]  # rows, channels of input and output, words
Setting = tuple[torch.device, int]  # where a network learns, and with how many threads


@dataclass(frozen=True)
class Row:
    """One layer forward and backward, to input and weights. Times are medians over rounds, spreads their quartiles."""

    name: str
    device: str
    threads: int
    rows: int
    channels: int
    words: int
    yardstick: str
    ms: float
    spread: tuple[float, float]
    yardstick_ms: float
    yardstick_spread: tuple[float, float]
    ratio: float
    rounds: int
    difference: float | None  # the largest between the outputs of the same weights; None: another network


def measure_sru(settings: Sequence[Setting], *, shapes: Sequence[Shape] = SHAPES, seconds: float = 20) -> list[Row]:
    """`seconds`: of each shape, if that is enough for the fewest rounds."""
    with _products_as_cudnns():
        return [row for shape in shapes for row in _measure(settings, shape, seconds)]


def _measure(settings: Sequence[Setting], shape: Shape, seconds: float) -> Iterator[Row]:
    networks = {device: _networks(device, shape[1]) for device, _ in settings}
    works = {device: {name: _learning(each, shape) for name, each in networks[device].items()} for device in networks}
    competitors = {
        (setting, name): Competitor(work, *setting) for setting in settings for name, work in works[setting[0]].items()
    }
    size = "x".join(map(str, shape))
    times = race(competitors, seconds=seconds, what=f"SRU, {size}")
    for setting in settings:
        device, threads = setting
        for name in VARIANTS:
            ours, spread = _milliseconds(times[setting, name])
            for other, key in {"LSTM": "LSTM", "GRU": "GRU", PLAIN: f"{name}, {PLAIN}"}.items():
                theirs, their_spread = _milliseconds(times[setting, key])
                yield Row(
                    name,
                    str(device),
                    threads,
                    *shape,
                    yardstick=other,
                    ms=ours,
                    spread=spread,
                    yardstick_ms=theirs,
                    yardstick_spread=their_spread,
                    ratio=theirs / ours,
                    rounds=len(times[setting, key].seconds),
                    difference=_difference(networks[device], name, shape) if other == PLAIN else None,
                )


def _networks(device: torch.device, channels: int) -> dict[str, nn.Module]:
    made: dict[str, nn.Module] = {name: other(channels, channels) for name, other in OTHERS.items()}
    for name, variant in VARIANTS.items():
        made[name] = SRU(channels, channels, **variant)
        made[f"{name}, {PLAIN}"] = plain = SRU(channels, channels, scan="plain", **variant)
        plain.load_state_dict(made[name].state_dict())
    return {name: network.to(device) for name, network in made.items()}


def _learning(network: nn.Module, shape: Shape) -> Callable[[int], object]:
    x, pull = _random(network, shape), _random(network, shape)
    leaves = [x.requires_grad_(), *network.parameters()]

    def work(call: int) -> object:
        with torch.inference_mode(False):
            return torch.autograd.grad(network(x)[0], leaves, pull)

    return work


def _random(network: nn.Module, shape: Shape) -> torch.Tensor:
    """Rows first for ours, words first for torch's, as each likes it best."""
    rows, channels, words = shape
    first = (rows, words) if isinstance(network, SRU) else (words, rows)
    return torch.randn(*first, channels, device=next(network.parameters()).device)


def _difference(networks: dict[str, nn.Module], name: str, shape: Shape) -> float:
    fused, plain = networks[name], networks[f"{name}, {PLAIN}"]
    x = _random(fused, shape)
    with torch.no_grad():
        return float((fused(x)[0] - plain(x)[0]).abs().max())


def _milliseconds(timing: Timing) -> tuple[float, tuple[float, float]]:
    low, high = timing.spread
    return timing.median * 1e3, (low * 1e3, high * 1e3)


@contextmanager
def _products_as_cudnns() -> Iterator[None]:
    """cuDNN's networks use TF32 unless told otherwise, other products do not: here all do what cuDNN's do."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
