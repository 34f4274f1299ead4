"""A small convolutional network for the made-up scenes."""

import torch
from torch import Tensor, nn

from rlcap.contracts import Encoder, Features, FeatureShape
from rlcap.data.images import check_resize
from rlcap.errors import ConfigError
from rlcap.models.encoder_parts import as_features, check_size

SPREAD = 0.05  # keeps the noise of a plain picture from being blown up


class SmallCNN(Encoder):
    """For the made-up scenes, trained along with the captioner: (size/8)² regions.

    Coordinate channels (Liu et al. 2018, arXiv:1807.03247) tell it where things are, for "left of". Each image is
    centred by its own mean and spread, and batch norm follows each convolution: both make shapes, which take far
    longer to learn than colours, come sooner.
    """

    stride = 8

    def __init__(self, *, size: int = 64, width: int = 128, resize: str = "squash") -> None:
        super().__init__()
        self.size, self.resize = check_size(size, self.stride), check_resize(resize)
        if size % self.stride or width < 32 or width % 32:
            raise ConfigError(f"size={size}, width={width}: must be a multiple of {self.stride}, and one of 32")
        side = size // self.stride
        self.shape = FeatureShape(side * side, width, (side, side))
        self.halve = nn.Sequential(
            _conv(3, width // 4, stride=2),
            _conv(width // 4, width // 2, stride=2),
            _conv(width // 2, width, stride=2),
        )
        self.last = _conv(width + 2, width, stride=1)

    def forward(self, images: Tensor) -> Features:
        spread, mean = torch.std_mean(images, (1, 2, 3), keepdim=True)
        centred = (images - mean) / (spread + SPREAD)
        return as_features(self.last(_with_coordinates(self.halve(centred))))


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def _with_coordinates(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C + 2, h, w): how far right and how far down each place lies, from -1 to 1."""
    batch, _, high, wide = maps.shape
    right = torch.linspace(-1, 1, wide, device=maps.device, dtype=maps.dtype).expand(batch, 1, high, wide)
    down = torch.linspace(-1, 1, high, device=maps.device, dtype=maps.dtype)[:, None].expand(batch, 1, high, wide)
    return torch.cat([maps, right, down], 1)
