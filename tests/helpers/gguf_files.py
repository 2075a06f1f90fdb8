"""A GGUF file of a tiny Gemma 3 as llama.cpp's converter writes them, and what it says in transformers' names."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter

TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "▁", "a", "b", "ab", "▁a", "▁ab")
D, D_FF, HEADS, WIDTH = 8, 12, 2, 4
NAMES: dict[str, tuple[str, tuple[int, ...]]] = {
    "token_embd": ("embed_tokens", (len(TOKENS), D)),
    "output_norm": ("norm", (D,)),
    "blk.0.attn_q": ("layers.0.self_attn.q_proj", (HEADS * WIDTH, D)),
    "blk.0.attn_k": ("layers.0.self_attn.k_proj", (WIDTH, D)),
    "blk.0.attn_v": ("layers.0.self_attn.v_proj", (WIDTH, D)),
    "blk.0.attn_output": ("layers.0.self_attn.o_proj", (D, HEADS * WIDTH)),
    "blk.0.attn_q_norm": ("layers.0.self_attn.q_norm", (WIDTH,)),
    "blk.0.attn_k_norm": ("layers.0.self_attn.k_norm", (WIDTH,)),
    "blk.0.attn_norm": ("layers.0.input_layernorm", (D,)),
    "blk.0.post_attention_norm": ("layers.0.post_attention_layernorm", (D,)),
    "blk.0.ffn_norm": ("layers.0.pre_feedforward_layernorm", (D,)),
    "blk.0.post_ffw_norm": ("layers.0.post_feedforward_layernorm", (D,)),
    "blk.0.ffn_gate": ("layers.0.mlp.gate_proj", (D_FF, D)),
    "blk.0.ffn_up": ("layers.0.mlp.up_proj", (D_FF, D)),
    "blk.0.ffn_down": ("layers.0.mlp.down_proj", (D, D_FF)),
}
"""By the GGUF's name of a tensor transformers' name and its shape."""


def write_gemma(path: Path) -> dict[str, np.ndarray]:
    """Writes the file and returns the weights that a model of transformers must get from it.

    llama.cpp multiplies by what it finds as a norm's weight, and Gemma by 1 + w: the file holds 1 + w.
    """
    writer = GGUFWriter(str(path), "gemma3")
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(D)
    writer.add_block_count(1)
    writer.add_feed_forward_length(D_FF)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(WIDTH)
    writer.add_value_length(WIDTH)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_sliding_window(5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([-1000.0] * 4 + [-float(i) for i in range(len(TOKENS) - 4)])
    writer.add_token_types([3] * 4 + [1] * (len(TOKENS) - 4))
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    generator = np.random.default_rng(0)
    weights = {}
    for name, (theirs, shape) in NAMES.items():
        weight = generator.integers(-8, 8, shape).astype(np.float32) / 8  # 1 + w is exact
        weights[f"model.{theirs}.weight"] = weight
        writer.add_tensor(f"{name}.weight", weight + 1 if "norm" in name else weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights
