"""Memory by a step without data, against what torch really holds of tiny models of the real classes, to the byte."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.architectures import ENCODERS, MODELS
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import AutoConfig

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import load_group
from lora_repro.costs import memory
from lora_repro.costs.memory import Batch, Case, Memory, estimate
from lora_repro.costs.trace import IN_FP32_ON_GPUS, build, trace
from lora_repro.methods import (
    AdapterHConfig,
    AdapterLConfig,
    AdapterPConfig,
    BitFitConfig,
    Count,
    FTTop2Config,
    FullConfig,
    HeadOnlyConfig,
    LoRAConfig,
    MethodConfig,
    PeftConfig,
    PrefixEmbedConfig,
    PrefixLayerConfig,
)
from lora_repro.methods.prefixes.config import Form
from lora_repro.models import load
from lora_repro.models.arch import Arch, arch_of
from lora_repro.models.load import without_weights
from lora_repro.models.precision import Products, store_in_bf16
from lora_repro.store.adapter import save_adapter
from lora_repro.tasks.encoding import Encoded
from lora_repro.tasks.objectives import language
from lora_repro.training.train import build as build_run

CPU = torch.device("cpu")
BATCH = Batch(5, 28, on_gpu=False)
FUSED = BATCH._replace(max_length=512)
LORA = LoRAConfig("lora", ["q", "v"], 4, 8.0, 0.0)
METHODS: dict[str, MethodConfig] = {
    "lora": LORA,
    "lora everywhere": LoRAConfig("lora", ["q", "k", "v", "o", "up", "down"], 4, 8.0, 0.1),
    "lora on o, A frozen": LoRAConfig("lora", ["o"], 4, 8.0, 0.0, freeze_A=True),
    "lora on the embedding": LoRAConfig("lora", ["embed"], 4, 8.0, 0.0),
    "full": FullConfig("full"),
    "bitfit": BitFitConfig("bitfit"),
    "ft_top2": FTTop2Config("ft_top2"),
    "head_only": HeadOnlyConfig("head_only"),
    "adapter_h": AdapterHConfig("adapter_h", bottleneck=4),
    "adapter_l": AdapterLConfig("adapter_l", bottleneck=4, train_norms=True),
    "adapter_p": AdapterPConfig("adapter_p", bottleneck=4),
    "prefix_embed": PrefixEmbedConfig("prefix_embed", l_p=4, l_i=2),
    "prefix_layer": PrefixLayerConfig("prefix_layer", l_p=4, l_i=2),
    "keys and values": PrefixLayerConfig("prefix_layer", l_p=4, l_i=0, form=Form.key_value),
}
CASES = [
    *((name, "full", Products.bf16) for name in MODELS),
    *((name, "lora", Products.bf16) for name in ("bert", "gpt2", "opt", "llama")),
    *(("bert", "lora everywhere", products) for products in Products),
    *((name, "full", Products.rounded) for name in ("gpt2", "llama")),
    *(("gpt2", method, Products.bf16) for method in ("bitfit", "ft_top2", "lora on the embedding")),
    ("bert", "lora on o, A frozen", Products.rounded),
    ("bert", "head_only", Products.fp32),
    *((name, "adapter_h", Products.bf16) for name in ("bert", "gpt2", "llama")),
    ("bert", "adapter_p", Products.rounded),
    *((name, "adapter_l", Products.bf16) for name in ("mpnet", "opt")),
    *((name, method, Products.bf16) for name in ("bert", "llama") for method in ("prefix_embed", "prefix_layer")),
    ("roberta", "keys and values", Products.rounded),
    ("llama", "keys and values", Products.bf16),
]


class UntraceableConfig(MethodConfig):
    """A method that asks for the values of weights, which the estimate does not have, as some of PEFT's do."""

    def attach(self, model: nn.Module, arch: Arch, seed: int) -> None:
        assert next(model.parameters()).sum().item() is not None

    def count(self, arch: Arch) -> Count:
        return Count(100, arch.head_size, arch.size() + 100, {"somewhere": 100})


def tiny(name: str, **changes: Any) -> tuple[dict[str, Any], Arch]:
    """Returns the configuration of a tiny model, and its shapes; decoders have no head."""
    family, shape = MODELS[name]
    labels = 2 if family in ENCODERS else None
    tokens = dict(pad_token_id=shape.get("pad_token_id", 1), bos_token_id=0, eos_token_id=2)
    config = AutoConfig.for_model(family, **{**shape, **tokens, **changes}).to_dict()
    return config, arch_of(config, labels)


def real(method: MethodConfig, arch: Arch, config: dict[str, Any], batch: Batch, dropout: float = 0.0) -> nn.Module:
    """Returns the same model with data in its tensors."""
    model = without_weights(config, arch, 2 if arch.head_modules else None, dropout, batch.attention)
    method.attach(model, arch, seed=0)
    if batch.products is not Products.fp32:
        store_in_bf16(model, method, arch.is_decoder)
    return model.train()


def loss(model: nn.Module, arch: Arch, batch: Batch) -> Tensor:
    return memory.loss(model, Case(LORA, arch, {}, batch))


def saved_by_torch(model: nn.Module, arch: Arch, batch: Batch) -> int:
    """Returns the bytes of the storages that autograd keeps for the backward pass, the weights themselves apart."""
    weights = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    storages: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages.setdefault(storage.data_ptr(), storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(model, arch, batch)
    return sum(storage.nbytes() for storage in storages.values())


def missed(model: nn.Module, arch: Arch, batch: Batch) -> int:
    """Returns the bytes of what a LayerNorm of bf16 with weights in fp32 keeps in fp32, and on fake tensors in bf16.

    These are the mean and the deviation of each position.
    """
    positions = []
    for module in model.modules():
        if isinstance(module, nn.LayerNorm) and torch.float32 in (module.weight.dtype, module.bias.dtype):
            module.register_forward_hook(lambda _, __, out: positions.append(out.numel() // out.shape[-1]))
    loss(model, arch, batch)
    return 0 if batch.products is Products.fp32 else 2 * 2 * sum(positions)


@pytest.mark.parametrize(("name", "method", "products"), CASES)
def test_a_step_without_data_holds_what_a_real_step_holds(name: str, method: str, products: Products) -> None:
    config, arch = tiny(name)
    batch = BATCH._replace(products=products)
    found = memory._traced(Case(METHODS[method], arch, config, batch)).step
    model = real(METHODS[method], arch, config, batch)
    other = missed(model, arch, batch)
    assert found.saved == saved_by_torch(model, arch, batch) - other
    whole = trace(model, lambda model: loss(model, arch, batch), on_gpu=False)
    assert found._replace(early=0, late=0) == whole._replace(saved=whole.saved - other, early=0, late=0)
    assert whole.early - other <= found.early <= whole.early
    assert found.late == pytest.approx(whole.late, rel=0.06)  # gradients of fake tensors are not added in place


@pytest.mark.parametrize(("name", "method"), [("bert", "lora"), ("gpt2", "full"), ("llama", "lora"), ("opt", "lora")])
def test_the_fused_kernel_is_the_one_that_a_real_step_takes(name: str, method: str) -> None:
    config, arch = tiny(name)
    found = memory._traced(Case(METHODS[method], arch, config, FUSED)).step
    model = real(METHODS[method], arch, config, FUSED)
    assert found.saved == saved_by_torch(model, arch, FUSED) - missed(model, arch, FUSED)
    assert found.saved < memory._traced(Case(METHODS[method], arch, config, BATCH)).step.saved


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_dropout_keeps_its_masks_and_none_where_there_is_none(dropout: float) -> None:
    config, arch = tiny("bert")
    found = memory._traced(Case(LORA, arch, config, BATCH, dropout)).step
    assert found.saved == saved_by_torch(real(LORA, arch, config, BATCH, dropout), arch, BATCH)
    assert (found.saved > memory._traced(Case(LORA, arch, config, BATCH)).step.saved) is (dropout > 0)


def test_a_gpu_keeps_no_scores() -> None:
    config, arch = tiny("gpt2")
    sizes = {
        on_gpu: [
            memory._traced(Case(LORA, arch, config, Batch(4, length, on_gpu=on_gpu))).step.saved for length in (32, 64)
        ]
        for on_gpu in (False, True)
    }
    assert sizes[True][1] == pytest.approx(2 * sizes[True][0], rel=0.1)  # but for the mask, linear in the length
    assert sizes[False][1] > 2.2 * sizes[False][0]


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_a_gpu_computes_nothing_by_what_is_fused_for_cpus(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is traced on the CPU; counted with what is fused there, GPT-2 would seem to need half its memory."""
    config, arch = tiny(name)
    case = Case(LORA, arch, config, BATCH._replace(on_gpu=True))
    found = memory._traced(case)
    monkeypatch.setattr(load, "fuse", lambda model: None)
    assert found == memory._traced(case)


def test_a_gpu_computes_softmax_in_fp32() -> None:
    class Softmax(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(16, 32))

        def forward(self) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return (torch.ones(8, 16) @ self.w).softmax(-1).float().sum()

    on_gpu, on_cpu = (trace(build(Softmax), lambda model: model(), gpu).saved for gpu in (True, False))
    assert on_gpu - on_cpu == 8 * 32 * 2


def test_what_is_raised_on_gpus_is_what_autocast_raises_there_alone() -> None:
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    overloads = {"softmax": "softmax.int", "log_softmax": "log_softmax.int", "pow": "pow.Tensor_Scalar",
                 "cross_entropy": "nll_loss", "__pow__": "pow.Tensor_Scalar", "norm": "norm.Scalar",
                 "cross_entropy_loss": "nll_loss"}  # fmt: skip
    for name in IN_FP32_ON_GPUS:
        assert has(f"aten::{overloads.get(name, name)}", "AutocastCUDA"), name
    for name in ("softmax.int", "pow.Tensor_Scalar", "layer_norm", "rsqrt", "sum"):
        assert not has(f"aten::{name}", "AutocastCPU"), name


@pytest.mark.parametrize(
    ("name", "method"),
    [*(("gpt2", method) for method in ("lora", "full", "ft_top2")), ("bert", "lora"), ("llama", "full")],
)
def test_few_blocks_say_what_many_hold(name: str, method: str) -> None:
    config, _ = tiny(name)
    key = next(key for key in memory.LAYERS if key in config)
    config |= {key: 7}
    arch = arch_of(config, 2 if name == "bert" else None)
    found = memory._extrapolated(Case(METHODS[method], arch, config, BATCH))
    whole = memory._traced(Case(METHODS[method], arch, config, BATCH))
    assert (found.step.weights, found.step.saved, found.checkpoint) == (
        whole.step.weights,
        whole.step.saved,
        whole.checkpoint,
    )
    assert max(found.step.early, found.step.late) == pytest.approx(max(whole.step.early, whole.step.late), rel=0.01)


@pytest.mark.parametrize("only", [{"r_pattern": {"layers.5": 16}}, {"layers": [4, 5, 6]}, {"layers": [0, 5]}])
def test_what_is_of_single_layers_is_traced_block_by_block(only: dict[str, Any]) -> None:
    config, _ = tiny("gpt2", n_layer=7)
    arch = arch_of(config, None)
    method = LoRAConfig("lora", ["q"], 4, 8.0, 0.0, **only)
    found = memory._extrapolated(Case(method, arch, config, BATCH))
    assert found == memory._traced(Case(method, arch, config, BATCH))


def test_a_frozen_backbone_keeps_nothing_of_its_own() -> None:
    config, arch = tiny("bert")
    found = estimate(Case(METHODS["head_only"], arch, config, BATCH))
    assert found.activations is not None and found.activations < BATCH.size * 8 * arch.d_model * 4


def test_a_tied_output_layer_counts_once() -> None:
    config, arch = tiny("smollm2")
    assert config["tie_word_embeddings"] and "lm_head.weight" not in arch.parameters
    found = estimate(Case(METHODS["full"], arch, config, BATCH._replace(products=Products.fp32)))
    assert found.weights - 4 * arch.size() < 1024  # buffers: rotary frequencies


def test_gradients_of_a_frozen_embedding_are_not_kept() -> None:
    """Before the first update nothing flows: LoRA on the last block keeps less than on the first."""
    config, _ = tiny("gpt2", n_layer=4)
    arch = arch_of(config, None)
    first, last = (
        memory._traced(Case(_OnLayer("lora", ["q"], 4, 8.0, 0.0, layer=layer), arch, config, BATCH)).step.saved
        for layer in (0, 3)
    )
    assert last < 0.5 * first


class _OnLayer(LoRAConfig):
    """LoRA on one block."""

    def __init__(self, *arguments: Any, layer: int) -> None:
        super().__init__(*arguments)
        self.layer = layer

    def attach(self, model: nn.Module, arch: Arch, seed: int) -> None:
        sites = tuple(site for site in arch.sites if site.layer == self.layer)
        super().attach(model, arch._replace(sites=sites), seed)


def test_views_of_one_storage_count_once_and_what_is_freed_is_not_held() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(8))

        def forward(self) -> Tensor:
            x = self.w * 2.0  # 32 bytes, saved by both products as views of it
            for _ in range(10):
                x.detach().clone()  # freed at once
            return (x[:4] * x[4:]).sum()

    found = trace(build(Views), lambda model: model(), on_gpu=False)
    assert (found.weights, found.trained, found.saved) == (32, 32, 32)
    assert found.early <= 32 + 32 + 16 + 16


def test_a_repeated_row_counts_as_the_row_that_it_is() -> None:
    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(64, 8))

        def forward(self) -> Tensor:
            row = torch.ones(8) + 0.0
            return (row.expand(64, 8) * self.w).sum()

    assert trace(build(Repeated), lambda model: model(), on_gpu=False).saved == 8 * 4


def test_gradients_that_stay_until_the_step_are_in_the_peak() -> None:
    config, arch = tiny("gpt2")
    found = memory._traced(Case(METHODS["full"], arch, config, BATCH._replace(size=1, length=2))).step
    assert found.late >= found.trained and found.early < found.late


def test_an_architecture_that_no_function_here_counts_is_traced_all_the_same() -> None:
    block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    x = torch.randn(2, 8, 32)
    found = trace(build(lambda: nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)),
                  lambda model: model(x).sum(), on_gpu=False)  # fmt: skip
    assert found == trace(block, lambda model: model(x).sum(), on_gpu=False)


@pytest.mark.parametrize("products", Products)
@pytest.mark.parametrize(
    ("name", "method"),
    [
        *(("bert", method) for method in ("lora", "lora on o, A frozen", "full", "head_only")),
        *(("gpt2", method) for method in ("lora", "full", "bitfit")),
        ("llama", "full"),
    ],
)
def test_weights_gradients_and_moments_are_counted_to_the_byte(name: str, method: str, products: Products) -> None:
    config, arch = tiny(name)
    batch = BATCH._replace(products=products)
    found = estimate(Case(METHODS[method], arch, config, batch))
    model = real(METHODS[method], arch, config, batch)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = AdamW(trained, fused=True)
    loss(model, arch, batch).backward()
    assert found.gradients == sum(p.grad.nbytes for p in trained if p.grad is not None)
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.dim() > 0]
    assert found.optimizer == sum(moment.nbytes for moment in moments)
    assert found.weights == sum(t.nbytes for t in [*model.parameters(), *model.buffers()])
    assert found.source == 4 * arch.size()


def test_two_text_tasks_on_one_model_are_both_estimated(tiny: Callable[..., Any]) -> None:
    shared = ("model=tiny_llama", "preset@train=tiny_llama")
    tasks = (("task=reverse",), ("task=generated", "task.form=text"), ("task=generated", "task.form=text", "seed=1"))
    runs = [resolve(tiny(*shared, *task)).run for task in tasks]
    assert memory.heaviest(runs) == runs[:2]


def test_prompt_and_text_together_are_as_long_as_an_input_may_be(
    tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []
    states = language.states

    def seen(model: nn.Module, split: Encoded, *arguments: Any, **options: Any) -> Tensor:
        found = states(model, split, *arguments, **options)
        widths.append(split.inputs["input_ids"].shape[1] + found.shape[1])
        return found

    monkeypatch.setattr(language, "states", seen)
    run = resolve(tiny("model=tiny_llama", "preset@train=tiny_llama", "task=reverse", "train.max_length=32")).run
    memory.estimate_run(run, CPU)
    assert set(widths) == {32}


def test_of_a_method_that_cannot_be_traced_the_step_is_unknown() -> None:
    config, arch = tiny("bert")
    found = estimate(Case(UntraceableConfig("untraceable"), arch, config, BATCH))
    assert found.activations is None and found.step is None and found.training is None and found.on_cpu is None
    assert found.gradients == found.checkpoint == 4 * (100 + arch.head_size)


@pytest.mark.parametrize("overrides", [["method=lora"], ["method=lora", "method.freeze_A=true"], ["method=head_only"]])
def test_the_checkpoint_weighs_what_the_file_weighs(
    tiny: Callable[..., Any], overrides: list[str], tmp_path: Path
) -> None:
    resolved = resolve(tiny(*overrides))
    run = resolved.run
    save_adapter(build_run(resolved, CPU), run, tmp_path, keep_full=False)
    (file,) = tmp_path.rglob("*.safetensors")
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert file.stat().st_size - header == memory.estimate_run(run, CPU).checkpoint


def test_a_cpu_holds_the_process_the_weights_as_read_and_the_larger_of_loading_and_training() -> None:
    parts = Memory(
        weights=100, source=40, loaded=40, gradients=30, optimizer=60, activations=500, step=530, checkpoint=30
    )
    assert parts.training == 100 + 60 + 530
    assert parts.on_cpu == memory.PROCESS + 40 + 100 + 60 + 30 + int(memory.HEAP * 500)
    assert parts._replace(loaded=10**6).on_cpu == memory.PROCESS + 40 + 10**6


def test_a_model_too_large_to_be_copied_is_held_once() -> None:
    for name, copies in (("mpnet", 1), ("cerebras_13b", 0)):
        config = load_group("model", name).config
        arch = arch_of(config, 2)
        found = estimate(Case(UntraceableConfig("untraceable"), arch, config, BATCH))
        assert (found.source, found.loaded) == (copies * 4 * arch.size(), 4 * arch.size())


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_peak_of_a_process_is_estimated_within_a_tenth(method: str) -> None:
    """Weights that are not fetched are no failure: this measures, it does not fetch."""
    line = [sys.executable, "-m", "lora_repro.bench.memory", "--json", "model=minilm", "task=movies"]
    line += [f"method={method}", "compute.device=cpu"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    if "lora_repro.fetch" in done.stderr:
        pytest.skip("minilm or movies is not fetched")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0.9 <= found["estimate"] / found["peak"] <= 1.1, found


@pytest.mark.filterwarnings("ignore::UserWarning")  # what PEFT says of layers
@pytest.mark.parametrize(
    ("kind", "given"),
    [("LORA", {"r": 4}), ("LORA", {"r": 4, "use_dora": True}), ("FOURIERFT", {"n_frequency": 20}), ("IA3", None)],
)
def test_a_tuner_of_peft_is_estimated_like_a_method_of_ours(kind: str, given: dict[str, int] | None) -> None:
    config, arch = tiny("bert")
    theirs = estimate(Case(PeftConfig("peft", kind, given, ["q", "v"]), arch, config, BATCH))
    ours = estimate(Case(LoRAConfig("lora", ["q", "v"], 4, 8.0, 0.0), arch, config, BATCH))
    assert theirs.step is not None and ours.step is not None and 0.8 < theirs.step / ours.step < 1.6
    if given == {"r": 4}:
        assert (theirs.weights, theirs.checkpoint) == (ours.weights, ours.checkpoint)
