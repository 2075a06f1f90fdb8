"""Linear layers and their updates as one step of autograd: gradients, roundings, and when it is not taken."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lora_repro.methods.lora.config import Start
from lora_repro.methods.lora.layers import LoRALinear, LoRAUpdate
from lora_repro.models import linears
from lora_repro.models.arch import Part
from lora_repro.models.fused import FusedLinear, fuse_layers, joined
from lora_repro.models.linears import LinearWeights, Update, multiply

PARTS: dict[str, list[Part | None]] = {
    "whole": [None],
    "two updates of the whole": [None, None],
    "v of GPT-2's q, k and v": [Part(2, 3)],
    "q and v, one after the other": [Part(0, 3), Part(2, 3)],
    "q, k and v, interleaved by head": [Part(0, 3, 2), Part(1, 3, 2), Part(2, 3, 2)],
}
D_IN, D_OUT = 5, 12
INPUTS: dict[str, Callable[[], Tensor]] = {
    "matrix": lambda: torch.randn(4, D_IN, dtype=torch.float64),
    "batch": lambda: torch.randn(2, 3, D_IN, dtype=torch.float64),
    "transposed": lambda: torch.randn(3, 2, D_IN, dtype=torch.float64).transpose(0, 1),
    "every other feature": lambda: torch.randn(2, 3, 2 * D_IN, dtype=torch.float64)[..., ::2],
    "one position": lambda: torch.randn(2, 3, D_IN, dtype=torch.float64)[:, :1],
    "one row": lambda: torch.randn(D_IN, dtype=torch.float64),
}


def width(part: Part | None) -> int:
    return D_OUT if part is None else D_OUT // part.of


def expected(x: Tensor, W: Tensor, bias: Tensor | None, lows: list[Update]) -> Tensor:
    """The sum as the paper writes it: W + s B A, its rows at the features of each part."""
    W = W.clone()
    for low in lows:
        dW = low.scaling * low.B @ low.A
        if low.part is None:
            W = W + dW
        else:
            rows = torch.arange(D_OUT).unflatten(0, (low.part.groups, low.part.of, -1))[:, low.part.position].flatten()
            W = W.index_add(0, rows, dW)
    return x @ W.T + (0 if bias is None else bias)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("kind", INPUTS)
def test_product_and_gradients_are_those_of_W_plus_s_B_A(kind: str, parts: str) -> None:
    torch.manual_seed(0)
    x = INPUTS[kind]().requires_grad_()
    W, bias = torch.randn(D_OUT, D_IN, dtype=torch.float64), torch.randn(D_OUT, dtype=torch.float64)
    given = [x, W.requires_grad_(), bias.requires_grad_()]
    for part in PARTS[parts]:
        given += [
            torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, D_IN), (width(part), 2))
        ]

    def lows(AB: tuple[Tensor, ...]) -> list[Update]:
        return [Update(A, B, 0.7, part) for A, B, part in zip(AB[::2], AB[1::2], PARTS[parts], strict=True)]

    def ours(x: Tensor, W: Tensor, bias: Tensor, *AB: Tensor) -> Tensor:
        return multiply(x, [LinearWeights(W, bias, lows(AB))])[0]

    found = ours(*given)
    assert torch.allclose(found, expected(x, W, bias, lows(tuple(given[3:]))), rtol=1e-12)
    assert torch.autograd.gradcheck(ours, given)


JOINED: dict[str, list[tuple[int, list[Part | None]]]] = {
    "q, k and v with LoRA on q and v": [(D_OUT, [None]), (D_OUT, []), (D_OUT, [None])],
    "fewer heads of keys and values": [(D_OUT, []), (6, [None]), (6, [])],
    "one of them fused": [(D_OUT, [Part(0, 3), Part(2, 3)]), (4, [None, None])],
    "all frozen": [(D_OUT, []), (8, [])],
}


@pytest.mark.parametrize("kind", ["batch", "one position", "transposed"])
@pytest.mark.parametrize("layers", JOINED)
def test_layers_that_read_one_input_give_the_sums_and_gradients_of_each(layers: str, kind: str) -> None:
    """Ranks differ, every second layer has no bias, and one gradient reaches an output while another does not."""
    torch.manual_seed(0)
    x = INPUTS[kind]().requires_grad_()
    linears = []
    for index, (d_out, parts) in enumerate(JOINED[layers]):
        widths = [d_out if part is None else d_out // part.of for part in parts]
        lows = [
            Update(drawn(2 + k, D_IN), drawn(width, 2 + k), 0.7 + k, part)
            for k, (width, part) in enumerate(zip(widths, parts, strict=True))
        ]
        linears.append(LinearWeights(drawn(d_out, D_IN), drawn(d_out) if index % 2 == 0 else None, lows))
    given = [x, *(tensor for linear in linears for tensor in tensors_of(linear))]
    ours = multiply(x, linears)
    theirs = [expected(x, *linear) for linear in linears]
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(ours, theirs, strict=True))
    weights = [torch.randn_like(out) for out in ours]
    for counted in (weights, [weights[0], *(torch.zeros_like(weight) for weight in weights[1:])]):
        totals = [
            torch.stack([(out * weight).sum() for out, weight in zip(outs, counted, strict=True)]).sum()
            for outs in (ours, theirs)
        ]
        found, true = (torch.autograd.grad(total, given, retain_graph=True) for total in totals)
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, true, strict=True))


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def tensors_of(linear: LinearWeights) -> list[Tensor]:
    bias = [] if linear.bias is None else [linear.bias]
    return [linear.W, *bias, *(tensor for low in linear.updates for tensor in (low.A, low.B))]


def test_only_what_the_gradients_need_is_kept() -> None:
    """The input is needed for W and A, the weights for the gradient of the input; B alone needs neither."""
    x, frozen = torch.randn(3, D_IN), LinearWeights(torch.randn(D_OUT, D_IN), torch.randn(D_OUT))
    A, B = torch.randn(2, D_IN), torch.randn(D_OUT, 2)
    cases: list[tuple[str, Tensor, LinearWeights, set[str]]] = [
        ("only the input's gradient", x.clone().requires_grad_(), frozen, {"W"}),
        ("W is trained", x, frozen._replace(W=frozen.W.clone().requires_grad_()), {"x"}),
        ("A is trained", x, frozen._replace(updates=[Update(A.requires_grad_(), B, 1.0, None)]), {"x"}),
        ("B is trained", x, frozen._replace(updates=[Update(A.detach(), B.requires_grad_(), 1.0, None)]), set()),
    ]
    for case, given, linear, needed in cases:
        node: Any = multiply(given, [linear])[0].grad_fn
        rows, _, _, W, *_ = node.saved_tensors
        assert {name for name, kept in (("x", rows), ("W", W)) if kept is not None} == needed, case


@pytest.mark.parametrize("given", ["x", "A"])
def test_a_result_may_be_written_to_in_place(given: str) -> None:
    """Falcon adds to it, OLMo clamps it; a view made inside the step of autograd would refuse."""
    torch.manual_seed(0)
    x, A = (torch.randn(3, 2, D_IN, requires_grad=given == "x"), torch.randn(2, D_IN, requires_grad=given == "A"))
    linear = LinearWeights(torch.randn(D_OUT, D_IN), None, [Update(A, torch.randn(D_OUT, 2), 1.0, None)])
    wanted = x if given == "x" else A
    plain = torch.autograd.grad((multiply(x, [linear])[0] + 1).square().sum(), wanted)
    assert torch.equal(*plain, *torch.autograd.grad(multiply(x, [linear])[0].add_(1).square().sum(), wanted))


def test_second_derivatives_are_refused() -> None:
    """What is kept has no graph of its own, so they would be wrong without a word."""
    x, W = torch.randn(3, D_IN, requires_grad=True), torch.randn(D_OUT, D_IN, requires_grad=True)
    (dx,) = torch.autograd.grad(multiply(x, [LinearWeights(W, None)])[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


@pytest.mark.parametrize("trained", ["x", "W", "bias", "A", "B"])
def test_each_gradient_is_computed_alone_and_no_other(trained: str) -> None:
    torch.manual_seed(0)
    tensors = {"x": (3, D_IN), "W": (D_OUT, D_IN), "bias": (D_OUT,), "A": (2, D_IN), "B": (6, 2)}
    made = {
        name: torch.randn(shape, dtype=torch.float64, requires_grad=name == trained) for name, shape in tensors.items()
    }

    def ours(tensor: Tensor) -> Tensor:
        now = made | {trained: tensor}
        return multiply(
            now["x"], [LinearWeights(now["W"], now["bias"], [Update(now["A"], now["B"], 2.0, Part(1, 2))])]
        )[0]

    assert torch.autograd.gradcheck(ours, made[trained])
    ours(made[trained]).sum().backward()
    assert [name for name, tensor in made.items() if tensor.grad is not None] == [trained]


@pytest.mark.parametrize("gradient", ["expanded", "transposed", "every other"])
def test_a_gradient_that_is_not_contiguous_counts_in_full(gradient: str) -> None:
    """Such gradients come from sum(), transposes and slices; kernels that took them for contiguous were wrong."""
    torch.manual_seed(0)
    x, W = torch.randn(2, 3, D_IN, requires_grad=True), torch.randn(D_OUT, D_IN)
    A, B = torch.randn(2, D_IN, requires_grad=True), torch.randn(4, 2, requires_grad=True)
    g = {
        "expanded": torch.randn(()).expand(2, 3, D_OUT),
        "transposed": torch.randn(3, 2, D_OUT).transpose(0, 1),
        "every other": torch.randn(2, 3, 2 * D_OUT)[..., ::2],
    }[gradient]
    assert not g.is_contiguous()
    lows = [Update(A, B, 0.5, Part(1, 3))]
    ours = torch.autograd.grad(multiply(x, [LinearWeights(W, None, lows)])[0], (x, A, B), g)
    theirs = torch.autograd.grad(expected(x, W, None, lows), (x, A, B), g.contiguous())
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


def layer(parts: list[Part | None], dropout: float = 0.0, conv: bool = False, freeze_A: bool = False) -> LoRALinear:
    torch.manual_seed(1)
    base = Conv1D(48, 32) if conv else nn.Linear(32, 48)
    nn.init.normal_(base.bias)
    base.requires_grad_(False)
    updates = {}
    for index, part in enumerate(parts):
        d_out = 48 if part is None else 48 // part.of
        update = LoRAUpdate(32, d_out, 4, 0.5, Start(0), f"layers.{index}.q", dropout, freeze_A)
        nn.init.normal_(update.lora_B, std=0.2)
        updates[f"m{index}"] = update
    return LoRALinear(base, updates, {f"m{index}": part for index, part in enumerate(parts)})


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("freeze_A", [False, True])
def test_in_fp32_the_layer_equals_its_single_steps(parts: str, conv: bool, freeze_A: bool) -> None:
    lora = layer(PARTS[parts], conv=conv, freeze_A=freeze_A)
    lora.base.bias.requires_grad_()
    x = torch.randn(2, 7, 32, requires_grad=True)
    trained = [x, *(parameter for parameter in lora.parameters() if parameter.requires_grad)]
    outs = [lora(x), lora._in_steps(x)]
    assert len(trained) == 2 + len(PARTS[parts]) * (1 if freeze_A else 2)
    assert type(outs[0].grad_fn).__name__ == "_MultiplyBackward" != type(outs[1].grad_fn).__name__
    ours, theirs = (torch.autograd.grad(out.square().sum(), trained) for out in outs)
    assert torch.allclose(*outs, atol=1e-5)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(ours, theirs, strict=True))


SLICES: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x[..., :32].contiguous(),
    "half of the features": lambda x: x[..., :32],
    "every other feature": lambda x: x[..., ::2],
}


@pytest.mark.parametrize("bias_in_product", [True, False])
@pytest.mark.parametrize("kind", SLICES)
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("conv", [False, True])
def test_in_bf16_results_are_within_bf16s_rounding_of_float64(
    parts: str, conv: bool, kind: str, bias_in_product: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operands and results are rounded by 2^-9 at most, sums are in fp32: under 1 % of the norm, every gradient."""
    lora = layer(PARTS[parts], conv=conv)
    lora.base.to(torch.bfloat16)
    exact = deepcopy(lora).double()
    if not bias_in_product:
        monkeypatch.setattr(linears, "HAS_LINEAR_IN_BF16", False)
    x = SLICES[kind](torch.randn(4, 9, 64).bfloat16())
    g = torch.randn(4, 9, 48).bfloat16()
    results = []
    for module, dtype in ((lora, torch.bfloat16), (exact, torch.float64)):
        inner = x.to(dtype).requires_grad_()
        trained = [inner, *(parameter for parameter in module.parameters() if parameter.requires_grad)]
        with torch.autocast("cpu", torch.bfloat16, enabled=module is lora):
            out = module(inner)
        results.append([out, *torch.autograd.grad(out, trained, g.to(dtype))])
    assert {tensor.dtype for tensor in results[0][2:]} == {torch.float32}  # what is trained, and its gradients
    for ours, true in zip(*results, strict=True):
        assert (ours.double() - true).norm() < 0.01 * true.norm()


@pytest.mark.parametrize("kind", [None, torch.bfloat16])
def test_dropout_takes_single_steps_in_training_alone_each_update_with_a_mask_of_its_own(
    kind: torch.dtype | None,
) -> None:
    """Two updates of the same A and B differ where their masks do; at p = 1/2 what is kept is doubled."""
    lora = layer([Part(0, 2), Part(1, 2)], dropout=0.5)
    first, second = lora.updates.values()
    second.load_state_dict(first.state_dict())
    lora.base.weight.data.zero_()
    lora.base.bias.data.zero_()
    x = torch.ones(64, 32)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind is not None):
        trained, scored = lora.train()(x), lora.eval()(x)
    assert type(scored.grad_fn).__name__ == "_MultiplyBackward" != type(trained.grad_fn).__name__
    assert torch.equal(scored[:, :24], scored[:, 24:])
    assert not torch.isclose(trained[:, :24], trained[:, 24:]).all(1).any()
    assert not torch.isclose(trained[0], trained[1]).all()
    spread = trained.float().std(0) / 64**0.5
    assert ((trained.float().mean(0) - scored[0].float()).abs() < 4 * spread + 0.02).all()


def test_dropouts_gradient_passes_through_the_mask_of_the_forward_pass() -> None:
    """An input that the mask sets to zero gets no gradient through A (a fused kernel once gave it one)."""
    lora = layer([None], dropout=0.5).train()
    lora.base.weight.data.zero_()
    x = torch.ones(16, 32, requires_grad=True)
    torch.manual_seed(3)
    (dx,) = torch.autograd.grad(lora(x).sum(), x)
    torch.manual_seed(3)
    kept = nn.functional.dropout(torch.ones(16, 32), 0.5)
    through_A = lora.updates["m0"].delta_W().sum(0)
    assert 0.3 < (kept == 0).float().mean() < 0.7 and torch.allclose(dx, kept * through_A, atol=1e-5)


def test_a_layer_stored_in_bf16_computes_in_fp32_what_it_computes_merged() -> None:
    lora = layer([Part(0, 3), Part(2, 3)])
    x = torch.randn(5, 32)
    assert torch.allclose(lora(x), lora.merged()(x), atol=1e-5)
    lora.base.to(torch.bfloat16)
    assert lora(x).dtype is torch.float32
    out = lora(x)
    lora.base.float()
    assert torch.allclose(out, lora._in_steps(x), atol=1e-5)


def three_layers() -> list[Any]:
    """Two layers with LoRA and a frozen one between them, as attention has them in bf16."""
    torch.manual_seed(2)
    model = nn.Module()
    model.k = nn.Linear(32, 48).requires_grad_(False)
    fuse_layers(model)
    found: list[Any] = [layer([None]), model.k, layer([None])]
    for each in (found[0].base, found[1], found[2].base):
        each.to(torch.bfloat16)
    return found


def outputs_and_gradient(apply: Callable[[Tensor, list[Any]], Sequence[Tensor]], layers: list[Any]) -> list[Tensor]:
    torch.manual_seed(5)
    x, g = torch.randn(2, 7, 32).bfloat16().requires_grad_(), torch.randn(2, 7, 48).bfloat16()
    A = layers[0].updates["m0"].lora_A
    with torch.autocast("cpu", torch.bfloat16):
        outs = apply(x, layers)
    return [*outs, *torch.autograd.grad(outs, (x, A), [g] * len(outs))]


def one_by_one(x: Tensor, layers: list[Any]) -> list[Tensor]:
    return [each(x) for each in layers]


def test_joined_layers_give_what_each_gives_by_itself() -> None:
    ours, theirs = (outputs_and_gradient(apply, three_layers()) for apply in (joined, one_by_one))
    assert all(torch.equal(a, b) for a, b in zip(ours[:3], theirs[:3], strict=True))
    assert all((a.double() - b.double()).norm() < 0.01 * b.double().norm() for a, b in zip(ours, theirs, strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        outs = joined(torch.randn(2, 7, 32).bfloat16(), three_layers())
    assert len({out.grad_fn for out in outs}) == 1  # one step of autograd


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_a_layer_with_a_hook_is_called_so_that_the_hook_runs(kind: str) -> None:
    """Where fused code reads weights past the layer's own call, hooks are lost without a word."""
    layers, seen = three_layers(), []
    getattr(layers[1], f"register_{kind}_hook")(lambda *_: seen.append(kind))
    outputs_and_gradient(joined, layers)
    assert seen == [kind]


@pytest.mark.parametrize("where", ["frozen layer", "layer under LoRA"])
def test_a_forward_that_was_set_on_a_layer_is_called(where: str) -> None:
    layers = three_layers()
    changed = layers[1] if where == "frozen layer" else layers[0].base
    before, _ = (outputs_and_gradient(joined, layers)[index] for index in (1 if changed is layers[1] else 0, 1))
    plain = changed.forward
    changed.forward = lambda x: plain(x) + 100
    after = outputs_and_gradient(joined, layers)[1 if changed is layers[1] else 0]
    assert torch.allclose(after.float(), before.float() + 100, atol=0.5)


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * nn.functional.linear(input, self.weight, self.bias)


def doubled(module: nn.Module, inputs: Any, out: Tensor) -> Tensor:
    return 2 * out


def test_lora_on_a_layer_of_another_kind_starts_as_that_layer() -> None:
    """B starts at zero: what a subclass or a hook does to the product must still be there."""
    torch.manual_seed(0)
    x = torch.randn(5, 32)
    for base in (Doubled(32, 48), nn.Linear(32, 48)):
        if type(base) is nn.Linear:
            base.register_forward_hook(doubled)
        lora = LoRALinear(base, {"q": LoRAUpdate(32, 48, 4, 0.5, Start(0), "layers.0.q")}, {"q": None})
        assert torch.equal(lora(x), base(x)) and torch.allclose(lora(x), 2 * (x @ base.weight.T + base.bias), atol=1e-5)


def test_a_fused_layer_in_a_model_of_ours_trains_with_dropout_on_its_parts() -> None:
    """As gpt_neox has it: the updates are written into the frozen layer's result."""
    lora = layer([Part(0, 3), Part(2, 3)], dropout=0.5).train()
    lora.base.to(torch.bfloat16)
    fuse_layers(lora)
    with torch.autocast("cpu", torch.bfloat16):
        out = lora(torch.randn(2, 7, 32).bfloat16())
    out.float().sum().backward()
    assert type(lora.base) is FusedLinear and all(update.lora_A.grad.any() for update in lora.updates.values())


def test_layers_of_another_kind_and_with_dropout_are_called_themselves() -> None:
    torch.manual_seed(0)
    layers = [*three_layers()[:1], Doubled(32, 48), layer([None], dropout=0.5).train()]
    with torch.autocast("cpu", torch.bfloat16):
        x = torch.randn(2, 7, 32).bfloat16()
        _, doubled, dropped = joined(x, layers)
        plain = nn.functional.linear(x, layers[1].weight, layers[1].bias)
        assert torch.equal(doubled, 2 * plain)
        assert not torch.equal(dropped, layers[2].eval()(x))
