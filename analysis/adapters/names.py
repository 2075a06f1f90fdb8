"""What the names of foreign files say: which layer and which matrix. Where a base is given, its Sites say it instead.

Names are compared with every separator as an underscore, since kohya's files write `to_q` and `attn1.to_q` so.
"""

import re
from typing import NamedTuple

FUSED = ("q", "k", "v")
BLOCKS, BY_HEAD = "q, k, v", "q, k, v by head"
"""In place of a role, for layers that compute q, k and v at once: in three blocks of rows, or a block for each head."""

_LAYERS: dict[str, dict[str, str]] = {
    "layer": {  # BERT, RoBERTa, ELECTRA; DeBERTa; MPNet; ViT; DistilBERT
        **{f"attention.self.{name}": name[0] for name in ("query", "key", "value")},
        **{f"attention.self.{name}_proj": name[0] for name in ("query", "key", "value")},
        **{f"attention.attention.{name}": name[0] for name in ("query", "key", "value")},
        **{f"attention.attn.{role}": role for role in "qkvo"},
        "attention.output.dense": "o",
        "intermediate.dense": "up",
        "output.dense": "down",
        **{f"attention.{role}_lin": role for role in "qkv"},
        "attention.out_lin": "o",
        "ffn.lin1": "up",
        "ffn.lin2": "down",
    },
    "h": {  # GPT-2, GPT-J
        "attn.c_attn": BLOCKS,
        "attn.c_proj": "o",
        "mlp.c_fc": "up",
        "mlp.c_proj": "down",
        **{f"attn.{role}_proj": role for role in "qkv"},
        "attn.out_proj": "o",
        "mlp.fc_in": "up",
        "mlp.fc_out": "down",
    },
    "layers": {  # Llama and its like; OPT, BART, CLIP, Phi; GPT-NeoX
        **{f"self_attn.{role}_proj": role for role in "qkvo"},
        "self_attn.out_proj": "o",
        "self_attn.dense": "o",
        "self_attn.W_pack": BLOCKS,  # Baichuan: its output is cut into three equal blocks
        "attn.Wqkv": BLOCKS,  # ModernBERT and flash-attention's BERT: viewed as (3, heads, head_dim)
        **{f"mlp.{role}_proj": role for role in ("gate", "up", "down")},
        **{f"attn.{role}_proj": role for role in "qkv"},  # torchtune
        "attn.output_proj": "o",
        **{f"mlp.w{number}": role for number, role in ((1, "gate"), (2, "down"), (3, "up"))},
        **{f"{prefix}fc{number}": role for prefix in ("", "mlp.") for number, role in ((1, "up"), (2, "down"))},
        "attention.query_key_value": BY_HEAD,
        "attention.dense": "o",
        "mlp.dense_h_to_4h": "up",
        "mlp.dense_4h_to_h": "down",
    },
    "blocks": {  # MPT: chunk(3)
        "attn.Wqkv": BLOCKS,
        "attn.out_proj": "o",
        "ffn.up_proj": "up",
        "ffn.down_proj": "down",
    },
    "block": {  # T5
        **{f"layer.0.SelfAttention.{role}": role for role in "qkvo"},
        **{f"layer.1.EncDecAttention.{role}": role for role in "qkvo"},
        **{
            f"layer.{n}.DenseReluDense.{name}": role
            for n in (1, 2)
            for name, role in (("wi", "up"), ("wi_0", "gate"), ("wi_1", "up"), ("wo", "down"))
        },
    },
}  # fmt: skip
"""By what stands before a layer's number: the names below it."""

_NUMBERED = [_name for _name in _LAYERS if _name != "blocks"]
"""What numbers a layer whose other names are not known; U-Nets have blocks within blocks."""

_ANYWHERE = {
    **{f"to_{role}": role for role in "qkv"},  # diffusers' attention
    "to_out": "o",
    **dict.fromkeys(
        ("img_attn_qkv", "txt_attn_qkv"), BLOCKS
    ),  # Flux and HunyuanVideo: chunk(3) on the way to diffusers
    **dict.fromkeys(("word_embeddings", "wte", "embed_tokens", "embed_in", "token_embedding"), "embed"),
}
"""By the end of a name, wherever it stands."""

_SEVERAL = re.compile(
    r"(?:^|_)(?:(?:w|to_)?qkv(?:_proj)?|query_key_value|w_pack|c_attn|(?:to_)?kv(?:_proj)?|gate_up_proj"
    r"|single_blocks_\d+_linear1)$",
    re.IGNORECASE,
)
"""Ends of names of layers that compute several matrices. Where such a name stands in no table above, its parts have
other orders: BLOOM, Falcon and Persimmon interleave q, k and v by head, CodeGen by group of heads, with v before k."""

_CONV1D = re.compile(r"(?:^|_)h_\d{1,6}_(?:attn_c_attn|attn_c_proj|mlp_c_fc|mlp_c_proj)$")
"""GPT-2's layers that keep their weight as (d_in, d_out); GPT-Neo's and GPT-BigCode's of these names are linear."""


class Named(NamedTuple):
    """What a module's name says."""

    layer: int | None
    role: str
    """A role, or BLOCKS or BY_HEAD, or the module's last name where its role is unknown."""


def named(module: str) -> Named:
    """Reads a module's name."""
    flat = canonical(module)
    for before, below in _LAYERS.items():
        for name, role in below.items():
            if found := re.search(rf"(?:^|_){before}_(\d{{1,6}})_{name.replace('.', '_')}$", flat):
                return Named(int(found[1]), role)
    for name, role in _ANYWHERE.items():
        if flat == name or flat.endswith(f"_{name}"):
            return Named(None, role)
    layer = re.search(rf"(?:^|_)(?:{'|'.join(_NUMBERED)})_(\d{{1,6}})_", flat)
    return Named(int(layer[1]) if layer else None, _last(module))


def may_be_conv1d(module: str) -> bool:
    """Tells whether a module has the name of one of GPT-2's Conv1D."""
    return _CONV1D.search(canonical(module)) is not None


def computes_several(module: str) -> bool:
    """Tells whether a module's name says that it computes several matrices at once."""
    return _SEVERAL.search(canonical(module)) is not None


def canonical(module: str) -> str:
    """Returns a module's name as all layouts would write it: one separator, no prefix of a tool's own."""
    flat = re.sub(r"[^0-9A-Za-z]+", "_", module).strip("_")
    flat = re.sub(r"^lora_(?=unet_|te\d?_|transformer_)", "", flat)  # kohya
    flat = re.sub(r"^te1?_", "text_encoder_", flat)
    flat = re.sub(r"^te2_", "text_encoder_2_", flat)
    flat = re.sub(r"_processor_(to_\w+)$", r"_\1", flat)  # diffusers before PEFT
    return re.sub(r"^unet_|(?<=_to_out)_0$", "", flat)


def stack_of(module: str) -> str:
    """Returns which of a model's stacks a module stands in, as far as the name says: encoder, text_encoder_2 ..."""
    found = re.search(r"(?:^|_)(text_encoder(?:_2)?|encoder|decoder)_", canonical(module))
    return found[1] if found else ""


def holder(module: str) -> str:
    """Returns the name of what a matrix stands in: ...transformer_blocks.0.attn1 of its to_q and of its to_out.0."""
    whole = re.sub(r"[._]0$", "", module) if re.search(r"to_out[._]0$", module) else module
    if "." in whole:
        return whole.rpartition(".")[0].removesuffix(".processor")
    return re.sub(r"_(?:to_(?:[qkv]|out)|[qkvo]_proj|out_proj|fc[12]|conv\d?|proj_in|proj_out)$", "", whole)


def _last(module: str) -> str:
    """Returns the last name, with the one before where it is a number: net.2."""
    if "." in module:
        before, _, last = module.rpartition(".")
        return f"{before.rpartition('.')[2]}.{last}" if re.fullmatch(r"\d+", last) else last
    tail = re.search(r"\d_([A-Za-z][A-Za-z_]*\d*)$", module)  # kohya's names have no dots
    return tail[1] if tail else re.sub(r"^lora_[a-z0-9]+_(?=.)", "", module)
