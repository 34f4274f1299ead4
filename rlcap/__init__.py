"""rlcap: image captioners trained with sequence-level objectives.

run = rlcap.train("soft_attention"); run.caption("photo.jpg"); rlcap.load("runs/soft_attention").evaluate()
"""

from typing import TYPE_CHECKING, Any

from rlcap.version import __version__ as __version__

if TYPE_CHECKING:
    from rlcap.run import Run as Run
    from rlcap.run import load as load
    from rlcap.run import train as train

_HOMES = {"Run": "rlcap.run", "load": "rlcap.run", "train": "rlcap.run"}
__all__ = ["Run", "__version__", "load", "train"]


# Looked up when first used, so that `rlcap --help` imports no torch.
def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rlcap' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
