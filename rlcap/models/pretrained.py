"""Weights that others trained: found, read, and compared with the network that is to take them."""

from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

import torch
from safetensors.torch import load_file as load_safetensors
from torch import Tensor, nn

from rlcap.errors import ConfigError, DataError
from rlcap.models.encoder_parts import one_line


def fetch_weights(network: str, version: str, what: str) -> Path:
    """Where torch.hub keeps torchvision's weights of a network; they are downloaded if they are not there."""
    from torchvision import models

    url: str = models.get_model_weights(network)[version].url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rpartition("-")[2])
        except (OSError, HTTPException, RuntimeError) as error:
            raise DataError(
                f"the {what} weights cannot be downloaded ({one_line(error)}); fetch {url} "
                f"elsewhere and put it there as {file}, or set weights to its path, or to 'none'"
            ) from error
    return file


def read_weights(file: Path, name: str) -> dict[str, Tensor]:
    """A state_dict; `name` is what the weights are called that need no file."""
    if not file.is_file():
        raise ConfigError(f"weights={file}: no such file; give {name}, none, or a .pth or .safetensors file")
    try:
        if file.suffix == ".safetensors":
            state = load_safetensors(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip, torch and safetensors each have errors of their own
        raise DataError(
            f"{file}: cannot be read as weights ({type(error).__name__}); it may be cut short, or hold more "
            "than tensors: save the network's state_dict() with torch.save or safetensors"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise DataError(f"{file}: holds more than tensors; save the network's state_dict() alone")
    return state


def check_weights(state: Mapping[str, Tensor], body: nn.Module, whole: nn.Module, problem: str) -> None:
    """Weights that `whole` has beyond `body` are passed over; old files count no batches."""
    own, known = body.state_dict(), whole.state_dict()
    unknown = [name for name in state if name not in known]
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unlike = [name for name in own if name in state and own[name].shape != state[name].shape]
    for what, names in (("unknown", unknown), ("missing", missing), ("of another shape", unlike)):
        if names:
            raise DataError(f"{problem}: {len(names)} weights are {what}, such as '{names[0]}'; name the right encoder")
