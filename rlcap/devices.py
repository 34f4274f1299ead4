"""The device that a person names, tried before any work begins."""

import torch

from rlcap.errors import ConfigError

KINDS = ("cpu", "cuda", "mps")


def choose_device(name: str) -> torch.device:
    """ "auto" is the GPU where there is one."""
    if name != "auto" and name.partition(":")[0] not in KINDS:
        raise ConfigError(f"device={name}: should be auto, cpu, cuda, cuda:0 (or another number) or mps")
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # an AssertionError where torch was built without CUDA
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise ConfigError(f"device={name}: torch cannot use it here ({reason}); try cpu") from error
    return device
