"""Architectures: tiny random models of transformers' classes, and the paper's models by their shapes."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from lora_repro.config.schema import load_group
from lora_repro.models.arch import Arch, arch_of

SHAPE = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40, vocab_size=60)
DEBERTA = SHAPE | dict(
    max_position_embeddings=42, type_vocab_size=0, relative_attention=True, pos_att_type="p2c|c2p", share_att_key=True,
    position_biased_input=False, norm_rel_ebd="layer_norm", position_buckets=16, conv_kernel_size=3,
)  # fmt: skip
GPT2 = dict(vocab_size=60, n_embd=24, n_layer=3, n_head=4, n_positions=40)
OPT = dict(
    vocab_size=60, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, ffn_dim=40, max_position_embeddings=40
)
LLAMA = SHAPE | dict(max_position_embeddings=40, num_key_value_heads=2)
WINDOWS = ["sliding_attention", "full_attention", "sliding_attention"]
GEMMA3 = LLAMA | dict(head_dim=8, query_pre_attn_scalar=12, sliding_window=5, layer_types=WINDOWS)
"""Its windows are shorter than the texts of most tests."""

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", SHAPE | dict(max_position_embeddings=40, type_vocab_size=2, pad_token_id=0)),
    "roberta": ("roberta", SHAPE | dict(max_position_embeddings=42, type_vocab_size=1, pad_token_id=1)),
    "mpnet": ("mpnet", SHAPE | dict(max_position_embeddings=42, relative_attention_num_buckets=32)),
    "deberta-v2": ("deberta-v2", DEBERTA),
    "deberta-v3": ("deberta-v2", DEBERTA | dict(conv_kernel_size=0, position_buckets=-1, share_att_key=False)),
    "deberta-positions": (
        "deberta-v2",
        DEBERTA | dict(position_biased_input=True, type_vocab_size=2, embedding_size=16),
    ),
    "gpt2": ("gpt2", GPT2),
    "cerebras-gpt": ("gpt2", GPT2 | dict(n_inner=52, activation_function="gelu")),
    "opt": ("opt", OPT),
    "opt-350m": ("opt", OPT | dict(word_embed_proj_dim=12, do_layer_norm_before=False)),
    "gpt_neox": ("gpt_neox", SHAPE | dict(max_position_embeddings=40)),
    "llama": ("llama", LLAMA),
    "smollm2": ("llama", LLAMA | dict(tie_word_embeddings=True)),
    "qwen2": ("qwen2", LLAMA),
    "qwen2-tied": ("qwen2", LLAMA | dict(tie_word_embeddings=True)),
    "gemma3": ("gemma3_text", GEMMA3),
    "gemma3-biases": ("gemma3_text", GEMMA3 | dict(attention_bias=True, tie_word_embeddings=False)),
    "llama-head_dim": ("llama", LLAMA | dict(head_dim=8, attention_bias=True, mlp_bias=True)),
}
"""Tiny models of the real classes, of every architecture and form that changes shapes."""

ENCODERS = ("bert", "roberta", "mpnet", "deberta-v2")


PAPER_ARCHS: dict[str, Arch] = {
    name: arch_of(load_group("model", name).config, 3 if name.startswith(("roberta", "deberta")) else None)
    for name in ("roberta_base", "roberta_large", "deberta_v2_xxlarge", "gpt2_medium", "gpt2_large", "gpt3_175b")
}
"""The models of the paper's tables, by their shapes."""


def saved(name: str, num_labels: int | None, folder: Path) -> PreTrainedModel:
    """Writes a tiny random model to disk and loads it as a user would."""
    family, shape = MODELS[name]
    torch.manual_seed(0)
    auto = AutoModelForCausalLM if num_labels is None else AutoModelForSequenceClassification
    tokens = dict(pad_token_id=shape.get("pad_token_id", 1), bos_token_id=0, eos_token_id=2)
    config = AutoConfig.for_model(family, **{"num_labels": num_labels or 2, **shape, **tokens})
    auto.from_config(config).save_pretrained(folder)
    return auto.from_pretrained(folder).eval()
