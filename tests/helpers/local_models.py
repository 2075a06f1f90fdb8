"""Folders of tiny random models as people give them (model=local), with tokenizers made on the spot."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from helpers.foreign_adapters import SIZES
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from lora_repro.tasks import generated

WORDS = (*generated.POSITIVE, *generated.NEGATIVE, *generated.NEUTRAL)
"""All words of the generated task."""
ROWS = 64
"""Rows of the embedding."""
_D: dict[str, Any] = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=128
)
_GROUPED = _D | dict(num_key_value_heads=2)
DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": SIZES["gpt2"],
    "gpt_neox": SIZES["gpt_neox"],
    "llama": SIZES["llama"],
    "opt": dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64, word_embed_proj_dim=32),
    "qwen2": _GROUPED,
    "gemma3_text": _GROUPED | dict(head_dim=16, sliding_window=7, layer_types=["sliding_attention", "full_attention"]),
}
"""Sizes by model_type."""
READ: dict[str, dict[str, Any]] = {
    "qwen3": _GROUPED | dict(head_dim=16),
    "mistral": _GROUPED,
    "gemma": _GROUPED | dict(head_dim=16),
    "gemma2": _GROUPED | dict(head_dim=16),
    "phi": _D,
    "mixtral": _GROUPED | dict(num_local_experts=4),
    "qwen2_moe": _GROUPED
    | dict(num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=16, decoder_sparse_step=1),
    "distilbert": dict(dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=128),
    "electra": _D | dict(embedding_size=16),
    "modernbert": _D | dict(cls_token_id=1, sep_token_id=2),
    "xlm-roberta": _D,
    "ctrl": dict(n_embd=32, n_layer=2, n_head=4, dff=64),
    "t5": dict(d_model=32, num_layers=2, num_heads=4, d_ff=64, d_kv=8),
}
"""Sizes of the architectures that no function counts, by model_type."""


def words_tokenizer(words: Sequence[str] = WORDS, **special: str) -> PreTrainedTokenizerFast:
    """One token a word: 0 unknown, 1 `<s>`, 2 `</s>`, then the words; what `special` adds comes behind them."""
    vocabulary = {word: index for index, word in enumerate(("<unk>", "<s>", "</s>", *words))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", **special)


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, as GPT-2's has them for what it has no longer token for; it decodes to the text itself."""
    made = Tokenizer(models.BPE({role: i for i, role in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def space_mark_tokenizer(words: Sequence[str], bos: bool = False, eos: bool = False) -> PreTrainedTokenizerFast:
    """Like Llama 2's: a space mark goes before every text and stands for each space; all else is in letters.

    Args:
        words: What is one token together with the space mark before it.
        bos: Put `<s>` before each text.
        eos: Put `</s>` after each text.
    """
    roles = [chr(code) for code in range(33, 127)]
    pieces = ["<unk>", "<s>", "</s>", "▁", *roles, *(f"▁{word}" for word in words)]
    made = Tokenizer(models.Unigram([(piece, 0.0 if len(piece) > 1 else -9.0) for piece in pieces], unk_id=0))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    single = f"{'<s> ' if bos else ''}$A{' </s>' if eos else ''}"
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def write(
    folder: Path,
    family: str,
    tokenizer: PreTrainedTokenizerFast,
    changes: Mapping[str, object] | None = None,
    auto: Any = AutoModelForSequenceClassification,
    **config: Any,
) -> Path:
    """Writes a model, wide in its weights, so that what it says differs from text to text; two labels if it classifies.

    Args:
        folder: A folder that is not there yet.
        family: A model_type.
        tokenizer: Its tokenizer.
        changes: What config.json says in other words than transformers wrote.
        auto: Which of transformers' loaders makes it.
        config: More keys of the configuration.
    """
    torch.manual_seed(0)
    sizes = DECODERS.get(family) or READ.get(family) or SIZES.get(family, {})
    given = (
        dict(vocab_size=ROWS, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.5) | sizes | config
    )
    model = auto.from_config(AutoConfig.for_model(family, **given))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(changes or {})))
    return folder
