"""Our SRU against the `sru` package itself, which compiles an extension at its import: opt-in (make test-slow)."""

import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

from rlcap.models.sru import SRU
from rlcap.models.sru_package import load_package, packaged, to_package

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Running SRU on CPU", "ignore:use_tanh"),
]
ROWS, WORDS, W = 3, 6, 8
SWITCHES = ("bidirectional", "layer_norm", "rescale", "v1")


@pytest.fixture(scope="module", autouse=True)
def with_ninja():
    """The package wants it on the PATH; that of a virtual environment need not be active."""
    before = os.environ["PATH"]
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before])
    if shutil.which("ninja") is None or shutil.which(os.environ.get("CXX", "c++")) is None:
        pytest.skip("the sru package needs ninja and a C++ compiler")
    if " " in sys.prefix:
        pytest.skip("torch compiles no extensions where its path holds a blank")
    yield
    os.environ["PATH"] = before


def test_it_is_never_imported_unasked():
    said = "import sys, rlcap.models.sru, rlcap.models.sru_package as p, rlcap.models.sru as s\n"
    said += "p.to_package(s.SRU(2, 3)); s.SRU(2, 3); print('sru' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", said], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("activation", ["identity", "tanh"])
@pytest.mark.parametrize(("size", "layers"), [(5, 1), (W, 1), (5, 3)])
@pytest.mark.parametrize("switches", product([False, True], repeat=4), ids=lambda on: "".join(map(str, map(int, on))))
def test_outputs_and_gradients_are_the_packages(switches, size, layers, activation):
    """Both ways, with cells to begin with, padding, and dropout, which draws the same numbers in the same order."""
    import sru

    torch.manual_seed(1)
    settings = dict(zip(SWITCHES, switches, strict=True))
    hidden = W // 2 if settings["bidirectional"] else W
    theirs = sru.SRU(size, hidden, layers, dropout=0.3, use_tanh=activation == "tanh", **settings)
    for key, value in theirs.named_parameters():
        if key.endswith("bias"):
            nn.init.normal_(value)
    ours = SRU(size, hidden, layers, dropout=0.3, activation=activation, **settings)
    load_package(ours, theirs.state_dict())
    back = packaged(ours)
    assert back.state_dict().keys() == theirs.state_dict().keys()
    for key, value in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key

    x, state = torch.randn(ROWS, WORDS, size).requires_grad_(), torch.randn(ROWS, layers, W).requires_grad_()
    mask = torch.arange(WORDS) < torch.tensor([[6], [2], [4]])
    pulls, results = (torch.randn(ROWS, WORDS, W), torch.randn(ROWS, layers, W)), []
    for model in (ours, theirs, back):
        torch.manual_seed(2)
        if model is ours:
            h, last = ours(x, state, mask)
        else:
            h, last = model(x.transpose(0, 1), state.transpose(0, 1).contiguous(), mask_pad=~mask.t())
            h, last = h.transpose(0, 1), last.transpose(0, 1)
        gradients = torch.autograd.grad((h, last), (x, state), pulls, retain_graph=True)
        model.zero_grad()
        torch.autograd.backward((h, last), pulls, inputs=[each for each in model.parameters() if each.requires_grad])
        results.append((h, last, *gradients))
    for other in results[1:]:
        for mine, their in zip(results[0], other, strict=True):  # float32: values about 1, sums of a few dozen
            torch.testing.assert_close(mine, their, rtol=1e-5, atol=2e-6)
    _compare_gradients(ours, theirs)


def _compare_gradients(ours, theirs):
    """In the package's layout."""
    with torch.no_grad():
        for weight in ours.parameters():
            weight.copy_(weight.grad)
    mine, found = to_package(ours), dict(theirs.named_parameters())
    for key, weight in found.items():
        if weight.requires_grad:
            torch.testing.assert_close(mine[key], weight.grad, rtol=1e-5, atol=1e-5)
        else:
            assert key.endswith(".weight_c")
            assert not weight.any()


@pytest.mark.parametrize("switches", product([False, True], repeat=4), ids=lambda on: "".join(map(str, map(int, on))))
def test_without_gradients_the_package_says_the_same(switches):
    """Its compiled loop, in evaluation mode: under train() and dropout it refuses, where ours goes on."""
    torch.manual_seed(1)
    settings = dict(zip(SWITCHES, switches, strict=True))
    ours = SRU(W, W // 2 if settings["bidirectional"] else W, 2, dropout=0.3, **settings)
    theirs, x = packaged(ours.eval()), torch.randn(ROWS, WORDS, W)
    with torch.no_grad():
        torch.testing.assert_close(theirs(x.transpose(0, 1))[0].transpose(0, 1), ours(x)[0], rtol=0, atol=2e-6)
        with pytest.raises(torch.jit.Error, match="Dropout mask cannot be set"):
            theirs.train()(x.transpose(0, 1))
        assert ours.train()(x)[0].isfinite().all()


def test_weights_begin_as_in_the_package():
    """Deviations of what each draws; of 30,000 numbers, a percent from each other."""
    import sru

    torch.manual_seed(1)
    for size, settings in product([100, 300], [{}, {"v1": True}, {"layer_norm": True, "rescale": True}]):
        ours = to_package(SRU(size, 300, 2, dropout=0.2, **settings))
        theirs = sru.SRU(size, 300, 2, dropout=0.2, **settings).state_dict()
        for key in (key for key in theirs if key.endswith(".weight") and theirs[key].dim() == 2):
            mine, their = (state[key].unflatten(1, (300, -1)).std((0, 1)) for state in (ours, theirs))
            torch.testing.assert_close(mine, their, rtol=0.02, atol=0)
        assert torch.equal(ours["rnn_lst.0.scale_x"], theirs["rnn_lst.0.scale_x"])
