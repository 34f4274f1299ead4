"""The SRU against its equations, each form of its scan against the plain one, the weights as the package lays them."""

import importlib.util
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from rlcap.errors import CheckpointError, ComponentError
from rlcap.models.sru import SRU
from rlcap.models.sru_package import load_package, packaged, to_package
from rlcap.models.sru_scan import Scan, fused_scan, plain_scan

ROWS, WORDS, D, H = 3, 5, 4, 6
ROUNDING = 1e-12  # of sums of a few numbers about 1 in float64
VARIANTS = {
    "default": {},
    "v1": {"v1": True},
    "tanh": {"activation": "tanh"},
    "relu, v1": {"activation": "relu", "v1": True},
    "equal sizes": {"input_size": H},
    "rescaled": {"input_size": H, "rescale": True},
    "rescaled, another size": {"rescale": True},
    "projected highway": {"input_size": H, "project_highway": True, "v1": True, "activation": "tanh"},
    "layer norm": {"layer_norm": True, "input_size": H},
    "both directions": {"bidirectional": True},
    "three layers": {"num_layers": 3, "layer_norm": True, "rescale": True},
    "everything": {"num_layers": 2, "bidirectional": True, "layer_norm": True, "rescale": True, "input_size": 2 * H},
}
SCANNED = [(3, False, "identity"), (3, True, "tanh"), (4, True, "identity"), (4, False, "tanh"), (4, True, "relu")]


def made(name: str, **others: object) -> SRU:
    """In float64, with biases that are not 0."""
    torch.manual_seed(3)
    model = SRU(**{"input_size": D, "hidden_size": H} | VARIANTS[name] | others).double()
    for key, value in model.named_parameters():
        if key.endswith("bias"):
            nn.init.normal_(value)
    return model


def inputs(model: SRU, words: int = WORDS) -> tuple[Tensor, Tensor]:
    """x and the cells before it."""
    torch.manual_seed(4)
    x = torch.randn(ROWS, words, model.input_size, dtype=torch.float64)
    return x, torch.randn(ROWS, len(model.layers), model.width, dtype=torch.float64)


def by_hand(model: SRU, x: Tensor, state: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The equations, for one row, direction and word after the other, with a matrix for each symbol."""
    last, g = state.clone(), {"identity": lambda c: c, "tanh": torch.tanh, "relu": torch.relu}[model.activation]
    for number, layer in enumerate(model.layers):
        matrices, h = layer.weight.chunk(layer.matrices), x.new_zeros(*x.shape[:2], model.width)
        for half in range(2 if model.bidirectional else 1):
            here = slice(half * H, (half + 1) * H)
            of_forget, of_reset = layer.bias.chunk(2)
            v_forget, v_reset = (0 * layer.bias if layer.weight_c is None else layer.weight_c).chunk(2)
            for row in range(len(x)):
                c = state[row, number, here]
                for t in range(x.shape[1]) if half == 0 else reversed(range(x.shape[1])):
                    if not mask[row, t]:
                        continue
                    seen = x[row, t]
                    if model.layer_norm:
                        seen = (seen - seen.mean()) / (seen.var(correction=0) + 1e-5).sqrt()
                        seen = seen * layer.layer_norm.weight + layer.layer_norm.bias
                    f = torch.sigmoid(matrices[1][here] @ seen + v_forget[here] * c + of_forget[here])
                    r = torch.sigmoid(matrices[2][here] @ seen + v_reset[here] * c + of_reset[here])
                    c = f * c + (1 - f) * (matrices[0][here] @ seen)
                    if layer.matrices == 4:
                        highway = matrices[3][here] @ seen
                    else:
                        highway = x[row, t, here] * (3**0.5 if model.rescale else 1)
                    h[row, t, here] = r * g(c) + (1 - r) * highway
                last[row, number, here] = c
        x = h
    return x, last


def assert_same(ours: tuple[Tensor, ...], expected: tuple[Tensor, ...], atol: float = ROUNDING) -> None:
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=atol)


@pytest.mark.parametrize("scan", ["fused", "plain"])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_equations(name: str, scan: str) -> None:
    model = made(name, scan=scan)
    x, state = inputs(model)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 1, 1, 0]]).bool()
    assert_same(model(x, state, mask), by_hand(model, x, state, mask), 1e-6)  # √3 is kept in float32
    everything = torch.ones_like(mask)
    assert_same(model(x), by_hand(model, x, 0 * state, everything), 1e-6)


def scanned(
    parts: int, recurrent: bool, *, rows: int = ROWS, width: int = H, dtype: torch.dtype = torch.float64
) -> list[Tensor | None]:
    """What a scan is given: parts, highway, bias, recurrent weights, first cell."""
    torch.manual_seed(5)
    shapes = [(rows, WORDS, parts, width), (rows, WORDS, width), (2, width), (2, width), (rows, width)]
    given, highway, bias, weights, first = (torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes)
    return [given, highway if parts == 3 else None, bias, weights if recurrent else None, first]


def values_and_gradients(scan: Scan, tensors: list[Tensor | None], activation: str) -> tuple[Tensor, ...]:
    torch.manual_seed(6)
    results = scan(*tensors, activation)
    pulls = [torch.randn_like(result) for result in results]
    return (*results, *torch.autograd.grad(results, [each for each in tensors if each is not None], pulls))


@pytest.mark.parametrize(("parts", "recurrent", "activation"), SCANNED)
def test_the_fused_scan_is_the_plain_one(parts: int, recurrent: bool, activation: str) -> None:
    tensors = scanned(parts, recurrent)
    expected = values_and_gradients(plain_scan, tensors, activation)
    assert_same(values_and_gradients(fused_scan, tensors, activation), expected)
    assert torch.autograd.gradcheck(
        lambda *each: fused_scan(*each, activation), scanned(parts, recurrent, rows=2, width=2)
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_reach_every_weight(name: str) -> None:
    x, state = inputs(made(name))
    mask = torch.arange(WORDS) < torch.tensor([[WORDS], [2], [4]])
    gradients = []
    for scan in ("fused", "plain"):
        model = made(name, scan=scan)
        leaves = [x.requires_grad_(), state.requires_grad_(), *model.parameters()]
        h, last = model(x, state, mask)
        gradients.append(torch.autograd.grad(h.square().sum() + last.sin().sum(), leaves))
    assert_same(*gradients, 1e-10)  # float64, of sums over all words
    assert all(gradient.any() for gradient in gradients[0])


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The Triton kernels as Triton's own interpreter reads them; a copy, since real ones may be used elsewhere."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    spec = importlib.util.find_spec("rlcap.models.sru_triton")
    copy = importlib.util.spec_from_file_location("interpreted_sru_triton", spec.origin)
    module = importlib.util.module_from_spec(copy)
    copy.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("parts", "recurrent", "activation"), SCANNED)
def test_the_triton_kernels_say_the_same(interpreted, parts: int, recurrent: bool, activation: str) -> None:
    """50 channels: more than one block of pairs, the last of them not full."""
    tensors = scanned(parts, recurrent, width=50)
    expected = values_and_gradients(plain_scan, tensors, activation)
    assert_same(values_and_gradients(interpreted.triton_scan, tensors, activation), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("parts", "recurrent", "activation"), SCANNED)
def test_the_scan_on_a_gpu(parts: int, recurrent: bool, activation: str, dtype: torch.dtype) -> None:
    tensors = scanned(parts, recurrent, width=300, dtype=dtype)
    expected = values_and_gradients(plain_scan, tensors, activation)
    there = [None if each is None else each.detach().cuda().requires_grad_() for each in tensors]
    torch.manual_seed(6)
    results = fused_scan(*there, activation)
    pulls = [torch.randn(result.shape, dtype=dtype).cuda() for result in results]
    ours = (*results, *torch.autograd.grad(results, [each for each in there if each is not None], pulls))
    # float32: its exponential is good to 2 units in the last place, and the sums run over 15 words
    assert_same(tuple(each.cpu() for each in ours), expected, 1e-12 if dtype == torch.float64 else 2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("chip", "kind"), [(75, "fp32"), (80, "fp64"), (90, "bf16")])
def test_the_triton_kernels_compile(chip: int, kind: str, tmp_path, monkeypatch) -> None:
    """To machine code, which needs no GPU: the interpreter forgives what the compiler does not."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from rlcap.models import sru_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    exact = triton.language.float64 if kind == "fp64" else triton.language.float32
    for kernel in (sru_triton._forward, sru_triton._backward):
        for parts, recurrent, activation in SCANNED:
            settings = {"parts": parts, "has_recurrent": recurrent, "activation": activation, "exact": exact}
            settings["block"] = sru_triton.BLOCK
            names = [each.name for each in kernel.params]
            kinds = dict.fromkeys(names, f"*{kind}") | dict.fromkeys(("pairs", "words", "width"), "i32")
            kinds |= dict.fromkeys(settings, "constexpr")
            source = ASTSource(kernel, kinds, {(names.index(name),): value for name, value in settings.items()})
            assert "cubin" in triton.compile(source, target=GPUTarget("cuda", chip, 32)).asm


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_changes_nothing(name: str) -> None:
    model = made(name)
    x, state = inputs(model)
    mask = torch.arange(WORDS) < torch.tensor([[2]] * ROWS)
    h, last = model(x, state, mask)
    assert_same((h[:, :2], last), model(x[:, :2], state))
    assert not h[:, 2:].any()
    assert_same((h, last), model(x.masked_fill(~mask.unsqueeze(-1), 7.0), state, mask))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("both directions", "everything")])
def test_word_by_word_is_all_at_once(name: str) -> None:
    model = made(name)
    x, _ = inputs(model)
    whole, last = model(x)
    state, outputs = model.start(ROWS), []
    for t in range(WORDS):
        h, state = model.step(x[:, t], state)
        outputs.append(h)
    assert_same((torch.stack(outputs, 1), state), (whole, last))
    assert state.shape == (ROWS, len(model.layers), H)


def test_both_directions_have_no_step() -> None:
    model = made("both directions")
    with pytest.raises(ComponentError, match="bidirectional"):
        model.step(torch.zeros(ROWS, D).double(), model.start(ROWS))


def test_dropout_is_between_layers_and_the_same_for_all_words() -> None:
    """What is dropped of a layer's h is its gate: the highway is left, here the input itself."""
    seen: list[Tensor] = []
    model = SRU(50, 50, 2, dropout=0.4).double()
    model.layers[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = torch.randn(20, WORDS, 50, dtype=torch.float64)
    with torch.no_grad():  # as captions are drawn
        h, _ = model.train()(x)
        model.eval()(x)
    dropped = seen[0] == x
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert dropped[:, 0].double().mean() == pytest.approx(0.4, abs=0.08)  # 5 deviations of 1,000 draws
    kept = ~dropped
    torch.testing.assert_close((seen[0] - x)[kept] * 0.6, (seen[1] - x)[kept], rtol=0, atol=ROUNDING)
    alone = model.layers[1](seen[0], model.start(20)[:, 1], None)[0]
    torch.testing.assert_close(h, alone, rtol=0, atol=ROUNDING)  # the last layer drops nothing


def test_autocast_leaves_the_recurrence_exact() -> None:
    torch.manual_seed(1)
    model = SRU(16, 16, 2, layer_norm=True)
    x = torch.randn(ROWS, WORDS, 16)
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        h, last = model(x)
    assert (h.dtype, last.dtype) == (torch.float32, torch.float32)
    assert_same((h, last), expected, 0.02)  # bfloat16 has 8 bits
    assert not torch.equal(h, expected[0])
    h.sum().backward()
    assert all(weight.grad.dtype == torch.float32 for weight in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    model = SRU(D, H, 2, layer_norm=True, rescale=True).to(dtype)
    h, last = model(torch.randn(ROWS, WORDS, D, dtype=dtype))
    (h.sum() + last.sum()).backward()
    assert {h.dtype, last.dtype, *(weight.grad.dtype for weight in model.parameters())} == {dtype}


def test_how_weights_begin() -> None:
    """Deviations of the matrices and of the recurrent weights; 30,000 draws of each matrix, 600 of the others."""
    torch.manual_seed(1)
    for settings, expected in [
        ({}, (1, 0.5**0.5, 0.5**0.5, 1)),
        ({"v1": True, "rescale": True}, (1, 1, 1, 3**0.5)),
        ({"layer_norm": True}, (0.1, 0.05**0.5 / 10**0.5, 0.05**0.5 / 10**0.5, 0.1)),
    ]:
        layer = SRU(100, 300, **settings).layers[0]
        deviations = [10 * matrix.std().item() for matrix in layer.weight.chunk(4)]
        assert deviations == pytest.approx(expected, rel=0.02)
        assert not layer.bias.any()
        if layer.weight_c is not None:
            assert layer.weight_c.std().item() == pytest.approx(0.5**0.5, rel=0.1)
    first, last = SRU(300, 300, 2, dropout=0.36).layers
    assert (first.weight[:300].std() / last.weight[:300].std()).item() == pytest.approx(0.8, rel=0.02)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("projected highway", "relu, v1")])
def test_weights_go_to_the_package_and_back(name: str) -> None:
    model, other = made(name), made(name)
    for weight in other.parameters():
        nn.init.zeros_(weight)
    state = to_package(model)
    matrix = model.layers[0].weight
    theirs = state["rnn_lst.0.weight"].view(model.input_size, model.width, -1)
    assert theirs[1, 2, 0] == matrix[2, 1]
    assert theirs[3, 4, 2] == matrix[2 * model.width + 4, 3]
    load_package(other, state)
    assert other.state_dict().keys() == model.state_dict().keys()
    for key, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


def test_weights_of_other_settings_are_refused() -> None:
    state = to_package(made("equal sizes"))
    for name, said in [
        ("default", r"rnn_lst.0.weight: \(6, 18\) .* \(4, 24\)"),
        ("three layers", "layer_norm.bias: missing"),
    ]:
        with pytest.raises(CheckpointError, match=said):
            load_package(made(name), state)
    with pytest.raises(CheckpointError, match=r"rnn_lst\.0\.weight_c: has recurrent weights"):
        load_package(made("equal sizes", v1=True), state)
    with pytest.raises(CheckpointError, match=r"rnn_lst\.0\.scale_x: is 1\.73"):
        load_package(made("equal sizes"), to_package(made("rescaled")))


def test_what_is_ours_alone_does_not_go_to_the_package() -> None:
    with pytest.raises(ComponentError, match="project_highway"):
        to_package(made("projected highway"))
    with pytest.raises(ComponentError, match="'relu' is ours alone"):
        packaged(made("relu, v1"))
