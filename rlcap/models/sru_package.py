"""To and from the `sru` package (2.6.0, https://pypi.org/project/sru): the weights, and its module as a backend.

Its matrices lie side by side for every channel, (D, W · matrices), ours one below the other, (matrices · W, D). Its
`v1` keeps recurrent weights that are zero, ours has none. Importing it compiles an extension: only `packaged` does so.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rlcap.errors import CheckpointError, ComponentError
from rlcap.models.sru import SRU


def to_package(module: SRU) -> dict[str, Tensor]:
    """Its weights as the state_dict of the package's SRU with the same settings, in memory of their own."""
    if module.project_highway and (module.input_size == module.width or len(module.layers) > 1):
        raise ComponentError(
            f"SRU: project_highway with {module.width} channels in and out is ours alone, the sru package has none"
        )
    state = {}
    for key, value in module.state_dict().items():
        if _is_matrix(key, value):
            value = value.unflatten(0, (-1, module.width)).permute(2, 1, 0).flatten(1)
        state[key.replace("layers.", "rnn_lst.", 1)] = value.clone()
        if module.v1 and key.endswith(".bias") and "layer_norm" not in key:
            state[key.replace("layers.", "rnn_lst.", 1).replace(".bias", ".weight_c")] = torch.zeros_like(value)
    return state


def load_package(module: SRU, state: Mapping[str, Tensor]) -> None:
    """Fills `module` with the state_dict of the package's SRU, which must have the same settings."""
    _compare({key: tuple(value.shape) for key, value in state.items()}, to_package(module))
    ours = {}
    for key, value in state.items():
        if key.endswith(".weight_c") and module.v1:
            if value.any():
                raise CheckpointError(f"{key}: has recurrent weights; make the SRU with v1=False")
            continue
        if key.endswith(".scale_x") and not module.rescale and (value != 1).any():
            raise CheckpointError(f"{key}: is {value.item():.3g}, not 1; make the SRU with rescale=True")
        if _is_matrix(key, value):
            value = value.unflatten(1, (module.width, -1)).permute(2, 1, 0).flatten(0, 1)
        ours[key.replace("rnn_lst.", "layers.", 1)] = value
    module.load_state_dict(ours)


def packaged(module: SRU) -> nn.Module:
    """The package's own SRU with the same settings and weights. Its words come first: (T, rows, D)."""
    if module.activation not in ("identity", "tanh"):
        raise ComponentError(f"SRU: the activation '{module.activation}' is ours alone (the package's: identity, tanh)")
    state = to_package(module)
    try:
        import sru
    except (ImportError, OSError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ComponentError(
            f"the sru package cannot be imported ({reason}): it needs a C++ compiler, and ninja on the PATH"
        ) from error
    theirs = sru.SRU(
        module.input_size,
        module.hidden_size,
        len(module.layers),
        dropout=module.dropout,
        bidirectional=module.bidirectional,
        use_tanh=module.activation == "tanh",
        layer_norm=module.layer_norm,
        rescale=module.rescale,
        v1=module.v1,
    )
    made: nn.Module = theirs.to(next(iter(state.values()))).train(module.training)
    made.load_state_dict(state)
    return made


def _is_matrix(key: str, value: Tensor) -> bool:
    return key.endswith(".weight") and value.dim() == 2


def _compare(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor]) -> None:
    shapes = {key: tuple(value.shape) for key, value in expected.items()}
    for key in sorted(shapes.keys() | found.keys()):
        if shapes.get(key) != found.get(key):
            there, here = (sizes.get(key, "missing") for sizes in (found, shapes))
            raise CheckpointError(
                f"{key}: {there} in the sru package's weights, {here} in this SRU: not the same settings"
            )
