"""Sets the dropouts of a model: the backbone's by keys of its configuration, the head's in the model itself."""

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from lora_repro.errors import InputError

DROPOUTS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob"),  # encoders
    *("resid_pdrop", "embd_pdrop", "attn_pdrop"),  # GPT-2
    *("dropout", "hidden_dropout", "attention_dropout"),  # OPT, GPT-NeoX, Llama
)
"""The keys of config.json that model.dropout sets, where a model has them."""


def set_dropout(config: PretrainedConfig, dropout: float, is_counted: bool) -> None:
    """Sets every dropout of a model, the head's too.

    Args:
        config: The model's configuration.
        dropout: The probability.
        is_counted: The architecture is known here, so its keys are those of DROPOUTS.
    """
    for key in DROPOUTS if is_counted else dropouts_of(config):
        if hasattr(config, key):
            setattr(config, key, dropout)
    for key in ("classifier_dropout", "cls_dropout"):
        if getattr(config, key, None) is not None:
            setattr(config, key, dropout)
    if getattr(config, "pooler_dropout", None):  # 0 in DeBERTa as it is published, and the authors leave it so
        config.pooler_dropout = dropout


def dropouts_of(config: PretrainedConfig) -> list[str]:
    """Returns the keys of a configuration that are a dropout; leaving out whole layers (layerdrop) is none."""
    values = config.to_dict().items()
    return [key for key, value in values if "drop" in key and "layerdrop" not in key and type(value) in (int, float)]


def set_head_dropout(model: PreTrainedModel, dropout: float) -> None:
    """Sets the dropout in front of the head's layers. A pooler keeps its own, as under DeBERTa's `cls_dropout`.

    Raises:
        InputError: If there is none: the classes of transformers put it in different places, or leave it out.
    """
    backbone = f"{model.base_model_prefix}."
    found = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Dropout) and not name.startswith((backbone, "pooler."))
    ]
    if not found:
        raise InputError(
            f"model.head_dropout: {model.config.model_type} has no dropout in front of its head (given: {dropout}).\n"
            "Leave it out: model.head_dropout=null"
        )
    for module in found:
        module.p = dropout
