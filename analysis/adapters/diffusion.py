"""Files of Stable Diffusion and its like: diffusers' and kohya's names, linear layers and convolutions.

Modules of a U-Net stand in no numbered layer: down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q. So layer is
None and the module tells. A convolution is taken as a matrix of (out, in x kernel height x kernel width).
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from analysis.adapters.backbone import Backbone
from analysis.adapters.base import Adapter, Factors, Options, from_law, matrices
from analysis.adapters.layouts import Found, Pair, alpha_of, factors, refuse_misfits, widths
from analysis.adapters.peft_config import checked, scaling, start_variance
from analysis.adapters.tensors import Tensors
from analysis.words import shown
from lora_repro.config import PEFT_CONFIG
from lora_repro.errors import MissingInputError

_METADATA = "lora_adapter_metadata"
"""The key in a file's header under which diffusers keeps PEFT's settings of each component."""

_FORMATS = {
    "kohya": "Stable Diffusion file in kohya's names",
    "diffusers": "Stable Diffusion file in diffusers' names",
    "PEFT": f"file in PEFT's names without {PEFT_CONFIG}",
    "down and up": "file of lora_down and lora_up",
}


def read_diffusion(tensors: Tensors, given: str, found: Found, backbone: Backbone, options: Options) -> Adapter:
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
        variance = start_variance(configs[key], r, d_in) if key in configs else None
        if pair.alpha is not None:
            read = partial(_with_alpha, tensors, pair, r)
        elif key in configs:
            read = partial(factors, tensors, pair, scaling(configs[key], module, r, tensors.path))
        else:
            takes.add("alpha")
            without += 1
            read = partial(factors, tensors, pair, None if options.alpha is None else options.alpha / r)
        members += [from_law(m, variance) for m in matrices(pair.module, d_in, d_out, read, backbone)]
    notes = []
    if takes and options.alpha is None:
        whose = "" if without == len(found.pairs) else f" for {without} of {len(found.pairs)} matrices"
        notes.append(f"Holds no alpha{whose}: there B A stands as it is, without a scale (--alpha gives it).")
    return Adapter(given, _FORMATS[found.layout], members, found.unknown, notes, frozenset(takes))


def _with_alpha(tensors: Tensors, pair: Pair, r: int) -> Factors:
    alpha = alpha_of(tensors, pair)
    assert alpha is not None
    return factors(tensors, pair, alpha / r)


def _configs(tensors: Tensors) -> dict[str, Mapping[str, Any]]:
    """Returns PEFT's settings by component (unet, text_encoder); of a file of one component under the empty name."""
    if _METADATA not in tensors.metadata:
        return {}
    try:
        flat = dict(json.loads(tensors.metadata[_METADATA]))
    except (ValueError, TypeError) as error:
        raise MissingInputError(
            f"{tensors.path}: {_METADATA} in its header is damaged ({shown(error)}).\nGive a whole copy of the file."
        ) from error
    grouped: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        component, _, name = key.rpartition(".")
        grouped.setdefault(component, {})[name] = value
    return {component: checked(json.dumps(config), tensors.path) for component, config in grouped.items()}
