"""Where adapters stand in a model, by the names of its modules. No torch."""

from lora_repro.errors import InputError
from lora_repro.models.arch import Arch

PROJECTIONS = {"attention": "o", "mlp": "down"}
"""The matrix that a sublayer ends with, as the paper calls it."""

DROPOUTS = {
    "attention.output.dense": "attention.output.dropout",  # BERT, RoBERTa, DeBERTa, ELECTRA
    "attention.attn.o": "attention.dropout",  # MPNet
    "output.dense": "output.dropout",  # all of these
    "attn.c_proj": "attn.resid_dropout",  # GPT-2
    "mlp.c_proj": "mlp.dropout",
    "attention.dense": "post_attention_dropout",  # GPT-NeoX
    "mlp.dense_4h_to_h": "post_mlp_dropout",
    "attn.out_proj": "attn.resid_dropout",  # GPT-J, CodeGen
    "mlp.fc_out": "mlp.dropout",
    "attention.out_lin": "attention.out_lin",  # DistilBERT, which drops nothing here
    "ffn.lin2": "ffn.dropout",
    "attn.Wo": "attn.out_drop",  # ModernBERT
    "mlp.Wo": "mlp.Wo",  # it drops what this reads
}
"""The dropout that a block applies to what a projection returns, and to nothing else; the projection, if none."""

ELSEWHERE = ("att", "emb", "classif", "cls", "pooler", "summary")
"""Parts of the names of dropouts that are not behind a sublayer: those of attention's weights, embedding and head."""

OUTPUT_NORMS = {"attention": "post_attention_layernorm", "mlp": "post_feedforward_layernorm"}
"""The norms of what a sublayer returns, before it is added to the residual stream, where a block has the second of them
(Gemma 2 and 3). Llama's `post_attention_layernorm` is the norm before its feed-forward layers."""

NORMS_OF_SUMS = ("output.LayerNorm", "output_layer_norm")
"""The norm that an encoder's block applies to the residual stream behind its feed-forward layers (DistilBERT has the
second). A block without one ends with the sum."""


def projections(arch: Arch, place: str) -> dict[int, str]:
    """Returns by layer the module that ends a sublayer.

    Args:
        arch: The model's shapes.
        place: `attention` or `mlp`.

    Raises:
        InputError: If there is no such matrix, as in a mixture of experts, or not one in each block.
    """
    role = PROJECTIONS[place]
    found = {site.layer: site.module for site in arch.select([role]) if site.layer is not None}
    if lacking := sorted({*range(arch.num_layers)} - found.keys()):
        raise InputError(
            f"model: no matrix {role!r} in block {lacking[0]} of this {arch.model_type}, behind which adapters stand.\n"
            "Choose another method or model."
        )
    return found
