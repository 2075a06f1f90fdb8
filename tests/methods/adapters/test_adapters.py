"""Adapters are trained, saved, scored again, counted, solved from budgets, and refused where they are impossible."""

import subprocess
import sys
from itertools import product
from typing import Any

import pytest
import torch
from helpers.architectures import PAPER_ARCHS
from helpers.computed_runs import computed
from helpers.fixture_types import Compose
from safetensors.torch import load_file
from torch import nn

from lora_repro.config.compose import compose
from lora_repro.config.resolve import resolve
from lora_repro.costs import budget
from lora_repro.errors import InputError
from lora_repro.methods import METHODS, AdapterConfig
from lora_repro.methods.adapters.layers import Adapter
from lora_repro.training.train import build

CPU = torch.device("cpu")
NAMES = ["adapter_h", "adapter_l", "adapter_p", "adapter_d"]
LLAMA = ("model=tiny_llama", "preset@train=tiny_llama")
KINDS: dict[str, tuple[str, ...]] = {
    "encoder": (),
    "decoder": LLAMA,
    "label words": (*LLAMA, "task.form=text"),
    "text to write": (*LLAMA, "task=reverse"),
}


def adapters_of(model: nn.Module) -> list[Adapter]:
    return [module for module in model.modules() if isinstance(module, Adapter)]


def configured(name: str, bottleneck: int, **more: Any) -> AdapterConfig:
    dropped = {"dropped": 1} if name == "adapter_d" else {}
    method = METHODS[name](name, bottleneck=bottleneck, **{**dropped, **more})  # pyright: ignore[reportCallIssue]
    assert isinstance(method, AdapterConfig)
    return method


def of_the_quick_tests(name: str, kind: str, dtype: str) -> bool:
    """Tells whether a case is another path than the others: each adapter once, and each kind of model and task once."""
    return dtype == "bf16" and (name == "adapter_h" or kind == "encoder")


@pytest.mark.parametrize(
    ("name", "kind", "dtype"),
    [
        pytest.param(*case, marks=[] if of_the_quick_tests(*case) else pytest.mark.long)
        for case in product(NAMES, KINDS, ("fp32", "bf16"))
    ],
)
def test_a_run_moves_every_adapter_and_scores_again_as_it_did(name: str, kind: str, dtype: str, tiny: Compose) -> None:
    same = (*KINDS[kind], f"method={name}", f"train.dtype={dtype}", "train.epochs=1")
    record, result = computed(tiny(*same, "method.nonlinearity=gelu", "method.train_norms=true"))
    assert not result["flags"]["unmoved"] and not result["flags"]["b_zero"]
    saved = load_file(record.folder / "trained.safetensors")
    assert sum(tensor.numel() for tensor in saved.values()) == result["params"]["trainable"]
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    again = ("train.epochs=0", f"train.init_from={record.run_id}", "train.batch_size=3")
    _, scored = computed(tiny(*same, "method.nonlinearity=gelu", "method.train_norms=true", *again))
    for key, value in result["metrics"].items():  # in other batches, so with other padding
        assert scored["metrics"][key] == pytest.approx(value, abs=1e-5 if dtype == "fp32" else 0.05), key


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_starts_near_the_identity_the_same_in_every_run_of_a_seed(name: str, tiny: Compose) -> None:
    one, same, other = (
        adapters_of(build(resolve(tiny(f"method={name}", *more)), CPU))
        for more in ((), ("train.learning_rate=1", "method.nonlinearity=gelu"), ("seed=1",))
    )
    assert len(one) == {"adapter_h": 4, "adapter_d": 1}.get(name, 2)
    for a, b, c in zip(one, same, other, strict=True):
        assert torch.equal(a.down.weight, b.down.weight) and torch.equal(a.up.weight, b.up.weight)
        assert not torch.equal(a.down.weight, c.down.weight) and not torch.equal(a.up.weight, c.up.weight)
        assert not a.down.bias.any() and not a.up.bias.any()
        for weight in (a.down.weight, a.up.weight):
            assert 0.015 < weight.std() < 0.025 and abs(weight.mean()) < 0.005
    assert len({adapter.up.weight.sum().item() for adapter in one}) == len(one)
    (wide, *_) = adapters_of(build(resolve(tiny(f"method={name}", "method.init_std=0.5")), CPU))
    assert 0.4 < wide.up.weight.std() < 0.6


def test_flags_say_that_an_adapter_does_nothing(tiny: Compose) -> None:
    given = resolve(tiny("method=adapter_h"))
    model = build(given, CPU)
    assert given.run.method.flags(model) == {"b_zero": False}
    adapter = adapters_of(model)[1]
    adapter.up.weight.data.zero_()
    assert given.run.method.flags(model) == {"b_zero": True}
    adapter.up.bias.data.fill_(0.1)
    assert given.run.method.flags(model) == {"b_zero": False}


def test_the_first_blocks_can_have_none(tiny: Compose) -> None:
    one, none_dropped, all_blocks = (
        {name for name, module in build(resolve(tiny(*given)), CPU).named_modules() if isinstance(module, Adapter)}
        for given in (["method=adapter_d"], ["method=adapter_d", "method.dropped=0"], ["method=adapter_p"])
    )
    assert one == {"bert.encoder.layer.1.output.LayerNorm.adapter"}
    assert none_dropped == all_blocks == one | {"bert.encoder.layer.0.output.LayerNorm.adapter"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("model", "norms"), [("tiny_bert", 5), ("tiny_llama", 5)])
def test_norms_are_counted_where_they_are_trained(model: str, norms: int, name: str, tiny: Compose) -> None:
    """Houlsby et al. train every LayerNorm, the embeddings' too: adapter-bert#8."""
    frozen, trained = (resolve(tiny(f"model={model}", f"method={name}", f"method.train_norms={on}")) for on in (0, 1))
    one, other = (each.run.method.count(each.run.arch) for each in (frozen, trained))
    assert other.method - one.method == norms * 32 * (2 if model == "tiny_bert" else 1)
    assert (other.total, other.head) == (one.total, one.head) and sum(other.by_module.values()) == other.method
    model_ = build(trained, CPU)  # refuses other counts
    moved = [n for n, p in model_.named_parameters() if p.requires_grad and "norm" in n.lower() and "adapter" not in n]
    assert len(moved) == norms * (2 if model == "tiny_bert" else 1)


@pytest.mark.parametrize(
    ("name", "bottleneck", "model"),
    [
        ("adapter_h", 1, "gpt3_175b"),
        ("adapter_h", 64, "roberta_large"),
        ("adapter_p", 16, "roberta_large"),
        ("adapter_l", 224, "gpt2_medium"),
        ("adapter_d", 48, "roberta_base"),
        ("adapter_h", 8, "deberta_v2_xxlarge"),
    ],
)
@pytest.mark.parametrize("train_norms", [False, True])
def test_a_budget_is_solved_for_the_bottleneck(name: str, bottleneck: int, model: str, train_norms: bool) -> None:
    arch, method = PAPER_ARCHS[model], configured(name, bottleneck, train_norms=train_norms)
    count = method.count(arch).method
    for given in (count, f"{count / 10**6:.4f}M"):
        asked = configured(name, 1, train_norms=train_norms, budget=given)
        assert budget.solve(asked, arch) == bottleneck
    if bottleneck > 1:
        below = configured(name, 1, train_norms=train_norms, budget=count - 1)
        assert budget.solve(below, arch) == bottleneck - 1


def test_a_budget_that_no_bottleneck_meets_names_the_nearest() -> None:
    asked = configured("adapter_h", 1, budget="11.09M")
    with pytest.raises(InputError, match=r"bottleneck = 112 trains 11,064,576 .*bottleneck = 113 trains 11,162,928"):
        budget.solve(asked, PAPER_ARCHS["gpt2_medium"])
    with pytest.raises(InputError, match=r"no bottleneck meets 100 .*bottleneck = 1 trains 388"):
        resolve(compose(["model=tiny_bert", "task=generated", "method=adapter_h", "method.budget=100"]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=adapter_h", "method.bottleneck=33"], r"method\.bottleneck: must be from 1 to 32, the model's width"),
        (["method=adapter_p", "method.bottleneck=0"], r"method\.bottleneck: must be from 1 to 32"),
        (["method=adapter_d", "method.dropped=2"], r"method\.dropped: must be from 0 to 1, all blocks but one"),
        (["method=adapter_d", "method.dropped=-1"], r"method\.dropped: must be from 0 to 1"),
        (["method=adapter_h", "method.reads=sum"], r"method\.reads: an adapter behind attention reads its output"),
        (["method=adapter_l", "method.init_std=0"], r"method\.init_std: must be a finite number above 0 \(given: 0"),
        (["method=adapter_l", "method.init_std=inf"], r"method\.init_std: must be a finite number"),
        (["method=adapter_l", "method.nonlinearity=sigmoid"], r"method\.nonlinearity"),
        (["method=adapter_p", "method.r=3"], r"method\.r|Could not override"),
    ],
)
def test_what_is_impossible_is_refused_before_anything_is_loaded(overrides: list[str], message: str) -> None:
    with pytest.raises(Exception, match=message):
        resolve(compose(["model=tiny_bert", "task=generated", *overrides]))


@pytest.mark.parametrize("name", NAMES)
def test_a_text_that_is_written_with_the_cache_is_the_one_without(name: str, tiny: Compose) -> None:
    given = resolve(tiny(*LLAMA, "task=reverse", f"method={name}", "method.init_std=0.5"))
    model: Any = build(given, CPU).eval()
    row = torch.arange(4, 12)[None]
    written = [
        model.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=12, do_sample=False, use_cache=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*written) and written[0].shape[1] > row.shape[1]


@pytest.mark.long
def test_a_compiled_block_is_compiled_anew_for_each_method() -> None:
    """A block that was compiled without adapters would leave them out: torch guards on no hook (pytorch#117758).

    In a process of its own, since the checks of types in tests cannot be compiled.
    """
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["lora", "adapter_h", "adapter_p", "lora"]


COMPILED = """
from functools import partial
import torch
from lora_repro.config.compose import compose
from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Dtype
from lora_repro.methods.adapters.layers import Adapter
from lora_repro.models.precision import Products, computing_as
from lora_repro.tasks.encoding import encode
from lora_repro.training import compiled
from lora_repro.training.train import build

CPU = torch.device("cpu")
compiled._has_compiler = lambda: True
compiled._set_up = lambda folder: None
torch.compile = partial(torch.compile, backend="eager")  # traced and guarded, and not translated to C++
given = ["model=tiny_llama", "task=generated", "train.dtype=bf16", "compute.compile=true"]
with computing_as(Products.bf16):
    for method in ("lora", "adapter_h", "adapter_p", "lora"):
        resolved = resolve(compose([*given, f"method={method}"]))
        split = encode(resolved.run, resolved.settings)["train"]
        found = []
        for compiles in (False, True):
            model = build(resolved, CPU).train()
            for adapter in (module for module in model.modules() if isinstance(module, Adapter)):
                adapter.up.bias.data = torch.arange(32) / 16
            if compiles:
                assert compiled.compile_blocks(model, resolved.run, resolved.settings, 10**4, CPU)
            loss = split.loss(model, [0, 1, 2], Dtype.bf16, CPU)
            loss.backward()
            found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None} | {"": loss})
        plain, traced = found
        assert plain.keys() == traced.keys(), method
        for name in plain:
            torch.testing.assert_close(plain[name], traced[name], rtol=1e-3, atol=1e-5)
        print(method)
"""
"""Each method after another one in the same process, traced and not."""
