"""The device that a person names, tried before any work begins."""

import torch

from rlcap.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """ "auto" is the GPU where there is one."""
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # an AssertionError where torch was built without CUDA
        raise ConfigError(f"device={name}: torch cannot use it here ({str(error).splitlines()[0]}); try cpu") from error
    return device
