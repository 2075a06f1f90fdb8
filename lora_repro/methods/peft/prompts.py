"""PEFT's prompt tuning and p-tuning: virtual tokens in front of the input, around a model's own forward pass.

PEFT does it in the forward pass of a model of its own. Here hooks of the base model do the same, so that the heads, the
objectives and generation are those of every method.
"""

from collections.abc import Mapping
from typing import Any

import torch
from peft import PromptEmbedding, PromptEncoder, PromptEncoderConfig, PromptTuningConfig
from torch import Tensor, nn

from lora_repro import draw
from lora_repro.errors import InputError
from lora_repro.methods.base import Count
from lora_repro.methods.peft.config import PeftConfig
from lora_repro.models.arch import Arch

MODULE = "prompt_encoder.default."
"""What PEFT's model puts before the names of what is trained."""
PARAMETER = f"{MODULE}embedding.weight"
"""The trained embeddings."""
KEY = "prompt_embeddings"
"""What PEFT's file calls them."""
HEAD_PREFIX = "base_model."
"""What PEFT puts before the names of the head: a model with virtual tokens has no tuner around its layers."""


def prompt_config(method: PeftConfig, arch: Arch) -> PromptTuningConfig | PromptEncoderConfig:
    """Returns PEFT's own configuration object, with what PEFT takes from the model."""
    sizes = dict(token_dim=_width(arch), num_layers=arch.num_layers, num_attention_heads=arch.num_heads)
    given: dict[str, Any] = {**sizes, "num_transformer_submodules": 1, **method.keys}
    if not method.has_encoder:
        return PromptTuningConfig(**given)
    if given.get("encoder_hidden_size") is None:
        given["encoder_hidden_size"] = _width(arch)
    return PromptEncoderConfig(**given)


def count(method: PeftConfig, arch: Arch) -> Count:
    """Counts a vector for each virtual token, and the encoder that they run through.

    Raises:
        InputError: If PEFT refuses the encoder.
    """
    added = method.added_tokens * _width(arch)
    if method.has_encoder:
        try:
            with torch.device("meta"):
                encoder = PromptEncoder(prompt_config(method, arch))
        except Exception as error:
            raise InputError(
                f"method.peft_type={method.peft_type}: PEFT refuses it: {' '.join(str(error).split())}\n"
                "Give other keys in method.config."
            ) from error
        added = sum(parameter.numel() for parameter in encoder.parameters())
    return Count(added, arch.head_size, arch.size() + added, {"prompt": added})


def file_names(method: PeftConfig, model: nn.Module, arch: Arch) -> dict[str, str]:
    """Returns names in files: PEFT's, and our own of an encoder, of which PEFT's file holds only what it says."""
    heads = {name: HEAD_PREFIX + name for name in arch.parameters if arch.is_head(name)}
    if not method.has_encoder:
        return {PARAMETER: KEY} | heads
    return {name: name for name, _ in model.named_parameters() if name.startswith(MODULE)} | heads


@torch.no_grad()
def encoded(tensors: Mapping[str, Tensor], method: PeftConfig, arch: Arch) -> Tensor:
    """Returns the embeddings that an encoder of these tensors makes: what PEFT's file holds."""
    encoder = PromptEncoder(prompt_config(method, arch)).eval()
    encoder.load_state_dict({name.removeprefix(MODULE): tensor for name, tensor in tensors.items()})
    return encoder(torch.arange(method.added_tokens)).contiguous()


def attach(method: PeftConfig, model: nn.Module, arch: Arch, seed: int) -> None:
    """Puts virtual tokens in front of every input, in place.

    As in PEFT an encoder's head reads its first position, which is then the first virtual token. Of a decoder's states
    the virtual tokens' are cut off, so that heads read each text's own last token. PEFT's model, to which transformers
    knows no tokens, reads the last position even where that is padding.
    """
    body: Any = model.base_model
    table = body.get_input_embeddings()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(draw.generator("peft", seed).integers(2**62)))
        config = prompt_config(method, arch)
        encoder = PromptEncoder(config) if method.has_encoder else PromptEmbedding(config, table)
    model.prompt_encoder = nn.ModuleDict({"default": encoder.requires_grad_(True)})
    added = method.added_tokens

    def put_in(_: nn.Module, args: tuple[Tensor, ...], given: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
        tokens = args[0] if args else given.pop("input_ids")
        cache = given.get("past_key_values")
        past = 0 if cache is None else cache.get_seq_length()
        mask = given.get("attention_mask")
        if mask is None:
            mask = tokens.new_ones(len(tokens), max(past - added, 0) + tokens.shape[1])
        mask = given["attention_mask"] = _extended(mask, added, 1)
        if given.get("position_ids") is not None:
            given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, past:]
        if past:  # the cache holds the virtual tokens
            return (), given | {"input_ids": tokens}
        embedded = table(tokens)
        prompt = encoder(torch.arange(added, device=tokens.device)) if method.has_encoder else encoder.embedding.weight
        prompt = prompt.to(embedded.dtype).expand(len(tokens), -1, -1)
        given["inputs_embeds"] = torch.cat([prompt, embedded], 1)
        if (types := given.get("token_type_ids")) is not None:
            given["token_type_ids"] = _extended(types, added, 0)
        return (), given

    def take_off(_: nn.Module, __: object, given: dict[str, Any], output: Any) -> Any:
        if given.get("inputs_embeds") is not None:
            output.last_hidden_state = output.last_hidden_state[:, added:]
        return output

    body.register_forward_pre_hook(put_in, with_kwargs=True)
    if arch.is_decoder:
        body.register_forward_hook(take_off, with_kwargs=True)


def _extended(values: Tensor, tokens: int, value: int) -> Tensor:
    return torch.cat([values.new_full((len(values), tokens), value), values], 1)


def _width(arch: Arch) -> int:
    """Returns the width of the token embedding, which need not be that of the layers."""
    (table,) = arch.select(["embed"])
    return table.d_out
