"""On every architecture an adapter changes what it should, as a plain model of transformers with hooks shows.

Reported of others: hooks that a compiled model ignores (pytorch#117758), an adapter without its residual connection
(NOAH#14), blocks that normalise first (adapter-bert#7), other types of trained and frozen weights (adapters#766).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.architectures import MODELS, OPT, SHAPE
from helpers.fixture_types import Compose
from helpers.local_models import words_tokenizer, write
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from lora_repro.config.resolve import Resolved, resolve
from lora_repro.config.schema import Dtype
from lora_repro.errors import InputError
from lora_repro.methods import AdapterConfig
from lora_repro.methods.adapters.layers import Adapter
from lora_repro.models.fused import is_fused
from lora_repro.models.precision import Products, computing_as, products
from lora_repro.training.train import build

CPU = torch.device("cpu")
POST = ("attention.output.dense", "output.dense", "output.LayerNorm")
DECODER = ("self_attn", "mlp", None)
BY_FAMILY: dict[str, tuple[str, str, str, str | None]] = {
    "bert": ("bert.encoder.layer", *POST),
    "roberta": ("roberta.encoder.layer", *POST),
    "mpnet": ("mpnet.encoder.layer", "attention.attn", *POST[1:]),
    "deberta-v2": ("deberta.encoder.layer", *POST),
    "electra": ("electra.encoder.layer", *POST),
    "xlm-roberta": ("roberta.encoder.layer", *POST),
    "distilbert": ("distilbert.transformer.layer", "attention", "ffn", "output_layer_norm"),
    "modernbert": ("model.layers", "attn", "mlp", None),
    "gpt2": ("transformer.h", "attn", "mlp", None),
    "gpt_neox": ("gpt_neox.layers", "attention", "mlp", None),
    "gptj": ("transformer.h", "attn", "mlp", None),
    "opt": ("model.decoder.layers", "self_attn", "fc2", None),
    "opt-350m": ("model.decoder.layers", "self_attn", "fc2", "final_layer_norm"),
    "gemma3_text": ("model.layers", "post_attention_layernorm", "post_feedforward_layernorm", None),
    **{family: ("model.layers", *DECODER) for family in ("llama", "qwen2", "qwen3", "mistral", "gemma", "phi")},
}
"""The blocks, the modules in them that return what attention and the feed-forward layers do, the norm of the sum."""
WIDE = SHAPE | dict(hidden_size=32, vocab_size=64, initializer_range=0.1)
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "mpnet": ("mpnet", MODELS["mpnet"][1] | WIDE | dict(max_position_embeddings=130)),
    "deberta-v2": ("deberta-v2", MODELS["deberta-v2"][1] | WIDE | dict(max_position_embeddings=130)),
    "roberta": ("roberta", dict(max_position_embeddings=130)),
    "gptj": ("gptj", dict(n_embd=32, n_layer=2, n_head=4, n_positions=128, rotary_dim=4)),
    "opt": ("opt", OPT | WIDE | dict(max_position_embeddings=128)),
    "opt-350m": ("opt", MODELS["opt-350m"][1] | WIDE | dict(max_position_embeddings=128)),
}
METHODS = ["adapter_h", "adapter_l", "adapter_p"]
OTHER_READS = [("adapter_l", "output"), ("adapter_l", "sum"), ("adapter_p", "output"), ("adapter_p", "block")]
ENCODED = torch.arange(3, 27).reshape(2, 12)
MASK = torch.ones_like(ENCODED)
MASK[0, 7:] = 0


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes each model once."""
    root, tokenizer = tmp_path_factory.mktemp("models"), words_tokenizer(pad_token="<unk>")

    def folder(name: str) -> Path:
        family, sizes = SIZES.get(name, (name, {}))
        sizes = {"initializer_range": 0.1, "pad_token_id": 0, **sizes}
        return root / name if (root / name).exists() else write(root / name, family, tokenizer, **sizes)

    return folder


def resolved(tiny: Compose, folder: Path, *overrides: str) -> Resolved:
    given = (f"paths.model={folder}", "preset@train=tiny_llama", "train.dtype=fp32", "method.bottleneck=4")
    return resolve(tiny("model=local", *given, *overrides))


def filled(model: nn.Module, std: float = 0.3) -> list[Adapter]:
    """Puts numbers into everything that adapters train."""
    adapters = [module for module in model.modules() if isinstance(module, Adapter)]
    generator = torch.Generator().manual_seed(0)
    for adapter in adapters:
        for parameter in adapter.parameters():
            parameter.data = std * torch.randn(parameter.shape, generator=generator)
    return adapters


def logits(model: nn.Module) -> Tensor:
    return model(input_ids=ENCODED, attention_mask=MASK).logits


def alone(model: nn.Module) -> Tensor:
    """The logits of each example without padding."""
    return torch.cat(
        [model(input_ids=row[shown.bool()][None]).logits for row, shown in zip(ENCODED, MASK, strict=True)]
    )


def plain(folder: Path, ours: nn.Module) -> PreTrainedModel:
    """Loads a model as a user of transformers does, with the head of ours."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    model.config.pad_token_id = None
    head = {name: value for name, value in ours.named_parameters() if name in dict(model.named_parameters())}
    model.load_state_dict(head, strict=False)
    return model


def change(adapter: Adapter, x: Tensor, nonlinearity: Callable[[Tensor], Tensor]) -> Tensor:
    """The formula, with the numbers of an adapter."""
    weights = dict(adapter.named_parameters())
    if "norm.weight" in weights:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        x = x * weights["norm.weight"] + weights["norm.bias"]
    low = nonlinearity(x @ weights["down.weight"].T + weights["down.bias"])
    return low @ weights["up.weight"].T + weights["up.bias"]


def first(output: Any, changed: Callable[[Tensor], Tensor]) -> Any:
    return changed(output) if isinstance(output, Tensor) else (changed(output[0]), *output[1:])


def hook(model: nn.Module, name: str, method: AdapterConfig, adapters: list[Adapter]) -> None:
    """Lets a plain model of transformers compute with the adapters, by the definitions of `Reads`."""
    stack, *sublayers, norm_name = BY_FAMILY[name]
    remaining = iter(adapters)
    nonlinearity = {"relu": F.relu, "swish": F.silu}[method.nonlinearity.value]

    def behind(module: nn.Module, adapter: Adapter) -> None:
        module.register_forward_hook(
            lambda _, __, output: first(output, lambda h: h + change(adapter, h, nonlinearity))
        )

    for block in model.get_submodule(stack).children():
        norm: Any = block.get_submodule(norm_name) if norm_name is not None else None
        for place in method.places:
            adapter = next(remaining)
            if method.reads.value == "output":
                behind(block.get_submodule(sublayers[("attention", "mlp").index(place)] or ""), adapter)
            elif method.reads.value == "block" or norm is None:
                behind(block, adapter)
            else:

                def before_norm(norm: Any, args: Any, adapter: Adapter = adapter) -> Tensor:
                    (s,) = args
                    normed = F.layer_norm(s, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
                    return s + change(adapter, normed, nonlinearity)

                norm.register_forward_pre_hook(before_norm)
    assert not [*remaining]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", BY_FAMILY)
def test_logits_are_those_of_a_plain_model_with_hooks(
    name: str, method: str, tiny: Compose, folders: Callable[[str], Path]
) -> None:
    refuse_difference(name, tiny, folders(name), f"method={method}")


@pytest.mark.parametrize(("method", "reads"), OTHER_READS)
@pytest.mark.parametrize("name", ["bert", "distilbert", "opt-350m", "gpt_neox"])
def test_the_other_readings_are_what_they_say(
    name: str, method: str, reads: str, tiny: Compose, folders: Callable[[str], Path]
) -> None:
    refuse_difference(name, tiny, folders(name), f"method={method}", f"method.reads={reads}")


def refuse_difference(name: str, tiny: Compose, folder: Path, *overrides: str) -> None:
    given = resolved(tiny, folder, *overrides)
    method = given.run.method
    assert isinstance(method, AdapterConfig)
    ours = build(given, CPU).eval()
    theirs = plain(folder, ours)
    with torch.inference_mode():
        without = alone(theirs)
        adapters = filled(ours, std=0.0)
        assert torch.allclose(logits(ours), without, atol=1e-5)  # an adapter that adds nothing leaves the model alone
        filled(ours)
        hook(theirs, name, method, adapters)
        found, expected = logits(ours), alone(theirs)
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
        for adapter in adapters:  # each of them is in the path
            before, adapter.up.bias.data = adapter.up.bias.data, adapter.up.bias.data + torch.arange(32) / 8
            assert not torch.allclose(logits(ours), found, atol=1e-4)
            adapter.up.bias.data = before


@pytest.mark.parametrize("kind", [Products.bf16, Products.rounded])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["bert", "mpnet", "gpt2", "llama", "opt"])
def test_products_in_bf16_are_near_those_in_fp32_and_train_every_adapter(
    name: str, method: str, kind: Products, tiny: Compose, folders: Callable[[str], Path]
) -> None:
    """In bf16 on CPUs the fused layers compute."""
    folder = folders(name)
    exact, rounded = (
        build(resolved(tiny, folder, f"method={method}", "method.nonlinearity=gelu", f"train.dtype={dtype}"), CPU)
        for dtype in ("fp32", "bf16")
    )
    for model in (exact, rounded):
        filled(model)
    with computing_as(kind), products(Dtype.bf16, CPU):
        assert is_fused(torch.zeros(1)) == (kind is Products.bf16)
        found = logits(rounded)
    expected = logits(exact)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    found.float().square().sum().backward()
    expected.square().sum().backward()
    theirs = dict(exact.named_parameters())
    for parameter_name, parameter in rounded.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None
        elif "adapter" in parameter_name:
            assert parameter.dtype is torch.float32 and parameter.grad is not None
            exact_grad = theirs[parameter_name].grad
            assert exact_grad is not None
            cosine = F.cosine_similarity(parameter.grad.flatten(), exact_grad.flatten(), 0)
            assert cosine > 0.95, parameter_name


@pytest.mark.parametrize(
    "name", ["bert", "mpnet", "deberta-v2", "gpt2", "gpt_neox", "gptj", "opt", "phi", "distilbert", "modernbert"]
)
def test_an_adapter_stands_behind_the_dropout_of_its_sublayer(
    name: str, tiny: Compose, folders: Callable[[str], Path]
) -> None:
    """Where a sublayer returns zeros, each adapter adds its bias to every number, and none of them is dropped."""
    given = resolved(tiny, folders(name), "method=adapter_h", "model.dropout=0.5")
    model = build(given, CPU).train()
    for site in given.run.arch.select(["o", "down"]):
        for parameter in module_of(model, site.module).parameters():
            parameter.data = torch.zeros_like(parameter)
    for adapter in filled(model, std=0.0):
        adapter.up.bias.data = torch.arange(1.0, 33.0)
    stack, *_, norm = BY_FAMILY[name]
    seen: list[tuple[Tensor, Tensor]] = []
    block: Any = model.get_submodule(f"{stack}.0")
    if norm is None:
        block.register_forward_hook(lambda _, args, output: seen.append((args[0], first_of(output))), with_kwargs=False)
    else:
        inputs: list[Tensor] = []
        ffn_input = {"distilbert": "ffn"}.get(name, "intermediate")
        block.get_submodule(ffn_input).register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        block.get_submodule(norm).register_forward_pre_hook(lambda _, args: seen.append((inputs[-1], args[0])))
    model(input_ids=ENCODED, attention_mask=MASK)
    ((before, after),) = seen
    times = 2 if norm is None else 1
    assert torch.allclose(after - before, times * torch.arange(1.0, 33.0).expand_as(after), atol=1e-4)


def test_a_dropout_that_no_adapter_can_stand_behind_is_refused(tiny: Compose, tmp_path: Path) -> None:
    """Falcon drops its sublayers' outputs by a function, with the sum; Mixtral's attention alone has a dropout."""
    sizes: dict[str, Any] = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, initializer_range=0.1)
    folder = write(tmp_path / "m", "falcon", words_tokenizer(pad_token="<unk>"), **sizes)
    given = resolved(tiny, folder, "method=adapter_h", "model.dropout=0.1")
    message = r"no module for it behind transformer\.h\.0\.self_attention\.dense \(hidden_dropout=0\.1\)"
    with pytest.raises(InputError, match=message):
        build(given, CPU)
    assert filled(build(resolved(tiny, folder, "method=adapter_h", "model.dropout=0"), CPU))
    assert filled(build(resolved(tiny, folder, "method=adapter_p", "model.dropout=0.1"), CPU))


@pytest.mark.parametrize("family", ["qwen3", "mistral"])
def test_a_model_without_dropouts_behind_its_sublayers_takes_one(
    family: str, tiny: Compose, folders: Callable[[str], Path]
) -> None:
    """Attention's weights alone are dropped."""
    assert filled(build(resolved(tiny, folders(family), "method=adapter_h", "model.dropout=0.1"), CPU))


def first_of(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def module_of(model: nn.Module, name: str) -> nn.Module:
    """The projection of this name, or what is around it now."""
    module = model.get_submodule(name)
    while not hasattr(module, "weight"):
        module = module.get_submodule("base")
    return module


def test_of_a_mixture_of_experts_the_sublayer_has_no_one_end(tiny: Compose, folders: Callable[[str], Path]) -> None:
    folder = folders("mixtral")
    with pytest.raises(InputError, match=r"no matrix 'down' in mixtral"):
        resolved(tiny, folder, "method=adapter_h")
    given = resolved(tiny, folder, "method=adapter_l")
    model = build(given, CPU).eval()
    with torch.inference_mode():
        before = logits(model)
        assert len(filled(model)) == 2 and not torch.allclose(logits(model), before, atol=1e-3)
