"""Writes what AdapterHub's library computes with adapters and prefixes, as small files beside this script.

The library needs an older transformers than this project, so it has an environment of its own, which no test needs:

    python -m venv VENV && VENV/bin/pip install adapters==1.3.0 torch safetensors
    VENV/bin/python tests/data/adapters_library/write_expectations.py

Each file, FAMILY-METHOD.safetensors, holds a tiny random model and one computation, all in fp32 (computed in fp64, and
rounded once). Its metadata has one key, `about`: JSON with the model's `config` (keys of config.json), the library's
`settings` and the `versions`. The tensors, by the beginning of their names:

- `base.*`: the weights, under the names of the model without a head (BertModel, GPT2Model, LlamaModel).
- `input_ids`, `attention_mask`: three examples, of which the first two are padded on the right.
- `weights.*`: what the method trains, random.
- `output`: the last hidden states, of a decoder behind its final norm; `hidden.0` to `hidden.N`: the states behind the
  embeddings and behind each block, but the last is `output`.
- `cotangent`: the gradient of a loss, sum(cotangent * output), with respect to `output`; zero at padding.
- `gradients.*`: the gradient of that loss with respect to each of `weights.*`.

METHOD is one of

- `houlsby`: `double_seq_bn`; `pfeiffer`: `seq_bn`; `lin`: an adapter with a LayerNorm of its own behind the block, by
  the library's switches. Weights: `layers.I.PLACE.{down,up,norm}.{weight,bias}`, PLACE `attention` or `mlp`.
- `prefix`: `PrefixTuningConfig(flat=True)`. Weights: `layers.I.{key,value}` of shape (heads of keys, tokens, width of a
  head): they stand before the keys and values of the input, behind the rotation by positions, and every token sees
  them. Here the positions of the input begin at 0 as if no prefix were there (PEFT lets them begin behind it).
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adapters  # pyright: ignore[reportMissingImports]  (in an environment of its own)
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

SIZES: dict[str, dict[str, Any]] = {
    "bert": dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, type_vocab_size=2),
    "gpt2": dict(n_embd=16, n_layer=2, n_head=4, n_positions=24, n_inner=24),
    "llama": dict(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=24
    ),
}
NO_DROPOUT = dict(
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
)
METHODS: dict[str, Any] = {
    "houlsby": adapters.DoubleSeqBnConfig(reduction_factor=4),
    "pfeiffer": adapters.SeqBnConfig(reduction_factor=4),
    "lin": adapters.BnConfig(
        mh_adapter=False,
        output_adapter=True,
        ln_before=True,
        original_ln_before=True,
        original_ln_after=False,
        residual_before_ln=False,
        non_linearity="relu",
        reduction_factor=4,
    ),
    "prefix": adapters.PrefixTuningConfig(flat=True, prefix_length=3),
}
TOKENS, ROWS, LENGTHS = 30, 24, (4, 6, 7)


def main() -> None:
    """Writes a file for each family and method."""
    for family, sizes in SIZES.items():
        for method in METHODS:
            config = AutoConfig.for_model(
                family, vocab_size=TOKENS, max_position_embeddings=ROWS, pad_token_id=0, **NO_DROPOUT, **sizes
            )
            tensors = computed(config, method)
            known = {key: getattr(config, key) for key in ("model_type", "vocab_size", "pad_token_id", *sizes)}
            about = {
                "config": known | {"max_position_embeddings": ROWS},
                "settings": METHODS[method].to_dict(),
                "versions": {"adapters": adapters.__version__, "torch": torch.__version__},
            }
            save_file(
                {name: tensor.detach().float().contiguous() if tensor.is_floating_point() else tensor
                 for name, tensor in tensors.items()},
                Path(__file__).parent / f"{family}-{method}.safetensors",
                {"about": json.dumps(about, sort_keys=True)},
            )  # fmt: skip


def computed(config: Any, method: str) -> dict[str, Tensor]:
    """Returns the tensors of one file."""
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = AutoModel.from_config(config)
    generator = torch.Generator().manual_seed(1)
    fill(model, generator)
    base = {f"base.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    adapters.init(model)
    model.add_adapter("a", config=METHODS[method], set_active=True)
    added = [parameter for name, parameter in model.named_parameters() if f"base.{plain(name)}" not in base]
    for parameter in added:
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    model.train_adapter("a")
    model = model.double().eval()
    ids = torch.randint(1, TOKENS, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    out = model(input_ids=ids * mask, attention_mask=mask, output_hidden_states=True)
    cotangent = torch.randn(out.last_hidden_state.shape, generator=generator) * mask[..., None]
    (out.last_hidden_state * cotangent.double()).sum().backward()
    weights = dict(named(model, method, lambda parameter: parameter.data))
    gradients = dict(named(model, method, lambda parameter: parameter.grad))
    if sum(tensor.numel() for tensor in weights.values()) != sum(parameter.numel() for parameter in added):
        raise RuntimeError("A weight of the method has no name here.")
    return {
        **base,
        "input_ids": ids * mask,
        "attention_mask": mask,
        **{f"hidden.{index}": states for index, states in enumerate(out.hidden_states)},
        "output": out.last_hidden_state,
        "cotangent": cotangent,
        **{f"weights.{name}": tensor for name, tensor in weights.items()},
        **{f"gradients.{name}": tensor for name, tensor in gradients.items()},
    }


def plain(name: str) -> str:
    """Returns a parameter's name in the model before the library has wrapped its layers."""
    return name.replace(".base_layer.", ".")


def fill(model: nn.Module, generator: torch.Generator) -> None:
    """Draws all weights, of norms around 1, wide enough that every part of the model matters."""
    for name, parameter in model.named_parameters():
        is_norm = parameter.dim() == 1 and name.endswith("weight")
        parameter.data = is_norm + 0.3 * torch.randn(parameter.shape, generator=generator)


def named(model: nn.Module, method: str, read: Any) -> Iterator[tuple[str, Tensor]]:
    """Yields what `read` finds in each parameter of the method, under the names of the files."""
    for name, parameter in model.named_parameters():
        if "prefix_tunings" in name:
            yield from prefixes(model.config, METHODS[method].prefix_length, read(parameter))
        elif ".adapters.a." in name:
            number = re.findall(r"\d+", name)[0]
            place = "attention" if "attention" in name else "mlp"
            kind = name.rsplit(".", 1)[1]
            part = "up" if "adapter_up" in name else "norm" if "norm_before" in name else "down"
            is_norm = METHODS[method].ln_before and name.endswith(f"adapter_down.0.{kind}")
            yield f"layers.{number}.{place}.{'norm' if is_norm else part}.{kind}", read(parameter)


def prefixes(config: Any, length: int, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yields the keys and values of each layer, of shape (heads, tokens, width), from the library's one vector."""
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    layers, width = config.num_hidden_layers, config.hidden_size // config.num_attention_heads
    by_layer = flat.view(length, 2 * layers, heads, width).permute(1, 2, 0, 3)
    for layer in range(layers):
        yield f"layers.{layer}.key", by_layer[2 * layer]
        yield f"layers.{layer}.value", by_layer[2 * layer + 1]


if __name__ == "__main__":
    main()
