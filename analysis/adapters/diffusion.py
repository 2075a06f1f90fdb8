"""Files of Stable Diffusion and its like: diffusers' and kohya's names, linear layers and convolutions.

Modules of a U-Net stand in no numbered layer: down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q. So layer is
None and the module identifies it. A convolution is taken as a matrix of (out, in x kernel height x kernel width).
"""

from functools import partial
from typing import Any

from analysis.adapters.backbone import Backbone
from analysis.adapters.base import Adapter, Factors, Options, from_law, matrices
from analysis.adapters.beside import vector_note
from analysis.adapters.layouts import (
    FactorNames,
    FileContents,
    alpha_of,
    factors,
    number,
    refuse_misfits,
    rotary_note,
    widths,
)
from analysis.adapters.peft_config import refuse_other_kind, scaling, start_variance
from analysis.adapters.products import matrices_of, names, rank_of
from analysis.adapters.tensors import Tensors
from lora_repro.methods.lora.peft_settings import PeftLoRA, lora_settings, settings_of
from lora_repro.store.adapter_identity import PEFT_CONFIG

_METADATA = "lora_adapter_metadata"
"""The key in a file's header under which diffusers keeps PEFT's settings of each component."""

_FORMATS = {
    "kohya": "Stable Diffusion file in kohya's names",
    "diffusers": "Stable Diffusion file in diffusers' names",
    "PEFT": f"file in PEFT's names without {PEFT_CONFIG}",
    "down and up": "file of lora_down and lora_up",
    "AdapterHub": "file of AdapterHub's without its settings",
    "torchtune": "torchtune file",
    "MLX": "MLX file without its settings",
    "products": "file of {}",
}


def read_diffusion(tensors: Tensors, given: str, found: FileContents, backbone: Backbone, options: Options) -> Adapter:
    """Opens a file that stands alone: alpha is a tensor beside the factors, or in the file's header, or nowhere.

    Raises:
        InputError: If factors do not fit, or the header's settings are no LoRA's.
    """
    refuse_misfits(tensors, found.pairs)
    configs = _configs(tensors)
    members, takes = [], set[str]()
    without = 0
    for pair in found.pairs:
        d_in, r, _, d_out = widths(tensors, pair)
        component, _, inside = pair.module.partition(".")
        key, module = (component, inside) if component in configs else ("", pair.module)
        variance = start_variance(configs[key], r, d_in) if key in configs and not pair.is_embedding else None
        if pair.alpha is not None:
            read = partial(_with_alpha, tensors, pair, r)
        elif key in configs:
            read = partial(factors, tensors, pair, scaling(configs[key], module, r))
        else:
            takes.add("alpha")
            without += 1
            read = partial(factors, tensors, pair, None if options.alpha is None else options.alpha / r)
        found_here = matrices(pair.module, d_in, d_out, read, backbone, pair.is_embedding)
        members += [from_law(m, variance) for m in found_here]
    for product in found.products.values():
        takes.add("top")
        r, alpha = rank_of(tensors, product), options.alpha
        if r is not None and product.alpha is not None:
            alpha = number(tensors, product.alpha)
        elif r is not None:
            takes.add("alpha")
            without += alpha is None
        scale = 1.0 if r is None else None if alpha is None else alpha / r
        members += matrices_of(tensors, product, scale, options.top, backbone)
    notes = [*vector_note(found.vectors), *rotary_note(found)]
    if without and options.alpha is None:
        total = len(found.pairs) + len(found.products)
        whose = "" if without == total else f" for {without} of {total} matrices"
        notes.append(f"Holds no alpha{whose}: there dW stands as it is, without a scale (--alpha gives it).")
    words = _FORMATS[found.layout].format(names(found.products))
    return Adapter(given, words, members, found.unknown, notes, frozenset(takes))


def _with_alpha(tensors: Tensors, pair: FactorNames, r: int) -> Factors:
    alpha = alpha_of(tensors, pair)
    assert alpha is not None
    return factors(tensors, pair, alpha / r)


def _configs(tensors: Tensors) -> dict[str, PeftLoRA]:
    """Returns PEFT's settings by component (unet, text_encoder); of a file of one component under the empty name."""
    if _METADATA not in tensors.metadata:
        return {}
    where = f"{tensors.path}: {_METADATA} in its header"
    grouped: dict[str, dict[str, Any]] = {}
    for key, value in settings_of(tensors.metadata[_METADATA], where).items():
        component, _, name = key.rpartition(".")
        grouped.setdefault(component, {})[name] = value
    configs = {component: lora_settings(config, where) for component, config in grouped.items()}
    for config in configs.values():
        refuse_other_kind(config.kind, where)
    return configs
