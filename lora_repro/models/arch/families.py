"""The architectures that are counted: one function each, from the keys of a config.json to shapes and sites.

To add one, write a function with `Plan` and give it a line in FAMILIES and a row in tests/helpers/architectures.py,
which is compared with the class of transformers. Write conf/model/NAME.yaml to choose it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from lora_repro.errors import InputError
from lora_repro.models.arch.base import Arch, Part, Shape, Site

_LARGEST = {
    "vocabulary": 10**7,
    "layers": 1000,
    "heads": 10**4,
    "width": 10**7,
    "positions": 10**7,
    "rows": 10**4,
}
"""What no model reaches, by kind of number: an absurd one is refused before memory is asked for."""


class Plan:
    """Collects shapes and sites while a family's function walks through its model in the order of its modules."""

    def __init__(self, config: Mapping[str, Any], num_labels: int | None) -> None:
        self.config = config
        self.num_labels = num_labels
        self.shapes: dict[str, Shape] = {}
        self.sites: list[Site] = []

    def whole(self, key: str, kind: str, default: int | None = None, least: int = 1) -> int:
        """Reads a whole number of the configuration.

        Raises:
            InputError: If it is none, or absurd.
            KeyError: If it is absent and has no default.
        """
        value = self.config[key] if default is None else self.config.get(key)
        value = default if value is None and default is not None else value
        if type(value) is not int or not least <= value <= _LARGEST[kind]:
            raise InputError(
                f"model: {key} must be a whole number from {least} to {_LARGEST[kind]} (given: {value}).\n"
                "Give the config.json that belongs to the weights."
            )
        return value

    def heads(self, key: str, width_key: str, width: int) -> int:
        """Reads the number of attention heads.

        Raises:
            InputError: If they do not divide the width.
        """
        heads = self.whole(key, "heads")
        if width % heads:
            raise InputError(
                f"model: {width_key} {width} is no multiple of {heads} attention heads.\n"
                "Give the config.json that belongs to the weights."
            )
        return heads

    def linear(self, module: str, d_in: int, d_out: int, bias: bool = True, transposed: bool = False) -> None:
        """Adds a linear layer."""
        self.shapes[f"{module}.weight"] = (d_in, d_out) if transposed else (d_out, d_in)
        if bias:
            self.shapes[f"{module}.bias"] = (d_out,)

    def norm(self, module: str, d: int, bias: bool = True) -> None:
        """Adds a LayerNorm, or without bias an RMSNorm."""
        self.shapes[f"{module}.weight"] = (d,)
        if bias:
            self.shapes[f"{module}.bias"] = (d,)

    def table(self, module: str, rows: int, d: int) -> None:
        """Adds an embedding."""
        self.shapes[f"{module}.weight"] = (rows, d)

    def tokens(self, module: str, rows: int, d: int) -> None:
        """Adds the token embedding, which can be adapted."""
        self.table(module, rows, d)
        self.sites.append(Site(None, "embed", module, rows, d))

    def matrix(
        self, layer: int, role: str, module: str, d_in: int, d_out: int, bias: bool = True, transposed: bool = False
    ) -> None:
        """Adds a linear layer that is one matrix."""
        self.linear(module, d_in, d_out, bias, transposed)
        self.sites.append(Site(layer, role, module, d_in, d_out, transposed=transposed))

    def fused_qkv(self, layer: int, module: str, d: int, groups: int, bias: bool, transposed: bool) -> None:
        """Adds a linear layer that computes q, k and v at once."""
        self.linear(module, d, 3 * d, bias, transposed)
        for index, role in enumerate("qkv"):
            self.sites.append(Site(layer, role, module, d, d, Part(index, 3, groups), transposed))

    def arch(self, d: int, layers: int, heads: int, positions: int, head: tuple[str, ...], decoder: bool) -> Arch:
        """Returns the architecture."""
        family = str(self.config["model_type"])
        return Arch(family, d, layers, heads, positions, self.shapes, head, tuple(self.sites), decoder)

    def end_of_decoder(self, d: int, tokens: str, tied: bool) -> tuple[str, ...]:
        """Adds what reads the last hidden states: a bias-free score of the labels, or the language model's logits."""
        if self.num_labels is not None:
            self.linear("score", d, self.num_labels, bias=False)
            return ("score",)
        if not tied:
            self.shapes["lm_head.weight"] = self.shapes[f"{tokens}.weight"]
        return ()


def bert(config: Mapping[str, Any], num_labels: int | None) -> Arch:
    """BERT, RoBERTa and MPNet: post-LayerNorm encoders with learned positions."""
    plan, prefix = Plan(config, num_labels), config["model_type"]
    labels = _labels(plan)
    vocabulary = plan.whole("vocab_size", "vocabulary")
    d, d_ff = plan.whole("hidden_size", "width"), plan.whole("intermediate_size", "width")
    num_layers, positions = (
        plan.whole("num_hidden_layers", "layers"),
        plan.whole("max_position_embeddings", "positions"),
    )
    heads = plan.heads("num_attention_heads", "hidden_size", d)
    plan.tokens(f"{prefix}.embeddings.word_embeddings", vocabulary, d)
    plan.table(f"{prefix}.embeddings.position_embeddings", positions, d)
    if prefix == "mpnet":
        names = {role: f"attention.attn.{role}" for role in "qkvo"}
        attention_norm, first_position = "attention.LayerNorm", 2
    else:
        plan.table(f"{prefix}.embeddings.token_type_embeddings", plan.whole("type_vocab_size", "rows"), d)
        names = {
            "q": "attention.self.query",
            "k": "attention.self.key",
            "v": "attention.self.value",
            "o": "attention.output.dense",
        }
        attention_norm = "attention.output.LayerNorm"
        first_position = plan.whole("pad_token_id", "vocabulary", least=0) + 1 if prefix == "roberta" else 0
    plan.norm(f"{prefix}.embeddings.LayerNorm", d)
    for layer in range(num_layers):
        block = f"{prefix}.encoder.layer.{layer}"
        for role, name in names.items():
            plan.matrix(layer, role, f"{block}.{name}", d, d)
        plan.norm(f"{block}.{attention_norm}", d)
        plan.matrix(layer, "up", f"{block}.intermediate.dense", d, d_ff)
        plan.matrix(layer, "down", f"{block}.output.dense", d_ff, d)
        plan.norm(f"{block}.output.LayerNorm", d)
    if prefix == "mpnet":
        plan.table(
            f"{prefix}.encoder.relative_attention_bias", plan.whole("relative_attention_num_buckets", "rows"), heads
        )
    if prefix == "bert":
        plan.linear("bert.pooler.dense", d, d)
        plan.linear("classifier", d, labels)
        head = ("bert.pooler", "classifier")
    else:
        plan.linear("classifier.dense", d, d)
        plan.linear("classifier.out_proj", d, labels)
        head = ("classifier",)
    return plan.arch(d, num_layers, heads, positions - first_position, head, decoder=False)


def deberta(config: Mapping[str, Any], num_labels: int | None) -> Arch:
    """DeBERTa v2 and v3: content and relative positions attend apart; a convolution beside the first layer in v2."""
    plan = Plan(config, num_labels)
    labels = _labels(plan)
    vocabulary = plan.whole("vocab_size", "vocabulary")
    d, d_ff = plan.whole("hidden_size", "width"), plan.whole("intermediate_size", "width")
    num_layers, positions = (
        plan.whole("num_hidden_layers", "layers"),
        plan.whole("max_position_embeddings", "positions"),
    )
    heads = plan.heads("num_attention_heads", "hidden_size", d)
    inner = heads * plan.whole("attention_head_size", "width", default=d // heads)
    embedded = plan.whole("embedding_size", "width", default=d)
    plan.tokens("deberta.embeddings.word_embeddings", vocabulary, embedded)
    if config.get("position_biased_input", True):
        plan.table("deberta.embeddings.position_embeddings", positions, embedded)
    if types := plan.whole("type_vocab_size", "rows", default=0, least=0):
        plan.table("deberta.embeddings.token_type_embeddings", types, embedded)
    if embedded != d:
        plan.linear("deberta.embeddings.embed_proj", embedded, d, bias=False)
    plan.norm("deberta.embeddings.LayerNorm", d)
    relative = bool(config.get("relative_attention"))
    attends = config.get("pos_att_type") or ()
    attends = attends.lower().split("|") if isinstance(attends, str) else attends
    for layer in range(num_layers):
        block = f"deberta.encoder.layer.{layer}"
        for role, name in (("q", "query"), ("k", "key"), ("v", "value")):
            plan.matrix(layer, role, f"{block}.attention.self.{name}_proj", d, inner)
        if relative and not config.get("share_att_key", False):
            if "c2p" in attends:
                plan.linear(f"{block}.attention.self.pos_key_proj", d, inner)
            if "p2c" in attends:
                plan.linear(f"{block}.attention.self.pos_query_proj", d, inner)
        plan.matrix(layer, "o", f"{block}.attention.output.dense", d, d)
        plan.norm(f"{block}.attention.output.LayerNorm", d)
        plan.matrix(layer, "up", f"{block}.intermediate.dense", d, d_ff)
        plan.matrix(layer, "down", f"{block}.output.dense", d_ff, d)
        plan.norm(f"{block}.output.LayerNorm", d)
    if relative:
        farthest = plan.whole("max_relative_positions", "positions", default=-1, least=-1)
        buckets = plan.whole("position_buckets", "positions", default=-1, least=-1)
        plan.table(
            "deberta.encoder.rel_embeddings",
            2 * (buckets if buckets > 0 else farthest if farthest > 0 else positions),
            d,
        )
    if "layer_norm" in str(config.get("norm_rel_ebd", "none")).lower():
        plan.norm("deberta.encoder.LayerNorm", d)
    if kernel := plan.whole("conv_kernel_size", "rows", default=0, least=0):
        plan.shapes["deberta.encoder.conv.conv.weight"] = (
            d,
            d // plan.whole("conv_groups", "width", default=1),
            kernel,
        )
        plan.shapes["deberta.encoder.conv.conv.bias"] = (d,)
        plan.norm("deberta.encoder.conv.LayerNorm", d)
    plan.linear("pooler.dense", d, d)
    plan.linear("classifier", d, labels)
    return plan.arch(d, num_layers, heads, positions, ("pooler", "classifier"), decoder=False)


def gpt2(config: Mapping[str, Any], num_labels: int | None) -> Arch:
    """GPT-2, Cerebras-GPT, and GPT-3 by its shapes: q, k, v in one transposed layer (Conv1D), one after the other."""
    plan = Plan(config, num_labels)
    vocabulary, positions = plan.whole("vocab_size", "vocabulary"), plan.whole("n_positions", "positions")
    d, num_layers = plan.whole("n_embd", "width"), plan.whole("n_layer", "layers")
    heads = plan.heads("n_head", "n_embd", d)
    d_ff = plan.whole("n_inner", "width", default=4 * d)
    plan.tokens("transformer.wte", vocabulary, d)
    plan.table("transformer.wpe", positions, d)
    for layer in range(num_layers):
        block = f"transformer.h.{layer}"
        plan.norm(f"{block}.ln_1", d)
        plan.fused_qkv(layer, f"{block}.attn.c_attn", d, groups=1, bias=True, transposed=True)
        plan.matrix(layer, "o", f"{block}.attn.c_proj", d, d, transposed=True)
        plan.norm(f"{block}.ln_2", d)
        plan.matrix(layer, "up", f"{block}.mlp.c_fc", d, d_ff, transposed=True)
        plan.matrix(layer, "down", f"{block}.mlp.c_proj", d_ff, d, transposed=True)
    plan.norm("transformer.ln_f", d)
    head = plan.end_of_decoder(d, "transformer.wte", config.get("tie_word_embeddings", True))
    return plan.arch(d, num_layers, heads, positions, head, decoder=True)


def opt(config: Mapping[str, Any], num_labels: int | None) -> Arch:
    """OPT; its smallest but one normalises after the blocks and embeds in half the width."""
    plan = Plan(config, num_labels)
    vocabulary, positions = plan.whole("vocab_size", "vocabulary"), plan.whole("max_position_embeddings", "positions")
    d, d_ff = plan.whole("hidden_size", "width"), plan.whole("ffn_dim", "width")
    num_layers = plan.whole("num_hidden_layers", "layers")
    heads = plan.heads("num_attention_heads", "hidden_size", d)
    embedded = plan.whole("word_embed_proj_dim", "width", default=d)
    bias, has_norms = config.get("enable_bias", True), config.get("layer_norm_elementwise_affine", True)
    decoder = "model.decoder"
    plan.tokens(f"{decoder}.embed_tokens", vocabulary, embedded)
    plan.table(f"{decoder}.embed_positions", positions + 2, d)
    if embedded != d:
        plan.linear(f"{decoder}.project_out", d, embedded, bias=False)
        plan.linear(f"{decoder}.project_in", embedded, d, bias=False)
    if has_norms and config.get("do_layer_norm_before", True) and not config.get("_remove_final_layer_norm", False):
        plan.norm(f"{decoder}.final_layer_norm", d)
    for layer in range(num_layers):
        block = f"{decoder}.layers.{layer}"
        for role, name in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", "out_proj")):
            plan.matrix(layer, role, f"{block}.self_attn.{name}", d, d, bias)
        plan.matrix(layer, "up", f"{block}.fc1", d, d_ff, bias)
        plan.matrix(layer, "down", f"{block}.fc2", d_ff, d, bias)
        if has_norms:
            plan.norm(f"{block}.self_attn_layer_norm", d)
            plan.norm(f"{block}.final_layer_norm", d)
    head = plan.end_of_decoder(embedded, f"{decoder}.embed_tokens", config.get("tie_word_embeddings", True))
    return plan.arch(d, num_layers, heads, positions, head, decoder=True)


def gpt_neox(config: Mapping[str, Any], num_labels: int | None) -> Arch:
    """GPT-NeoX and Pythia: q, k, v in one layer, interleaved head by head."""
    plan = Plan(config, num_labels)
    vocabulary, positions = plan.whole("vocab_size", "vocabulary"), plan.whole("max_position_embeddings", "positions")
    d, d_ff = plan.whole("hidden_size", "width"), plan.whole("intermediate_size", "width")
    num_layers = plan.whole("num_hidden_layers", "layers")
    heads, bias = plan.heads("num_attention_heads", "hidden_size", d), config.get("attention_bias", True)
    plan.tokens("gpt_neox.embed_in", vocabulary, d)
    for layer in range(num_layers):
        block = f"gpt_neox.layers.{layer}"
        plan.norm(f"{block}.input_layernorm", d)
        plan.norm(f"{block}.post_attention_layernorm", d)
        plan.fused_qkv(layer, f"{block}.attention.query_key_value", d, groups=heads, bias=bias, transposed=False)
        plan.matrix(layer, "o", f"{block}.attention.dense", d, d, bias)
        plan.matrix(layer, "up", f"{block}.mlp.dense_h_to_4h", d, d_ff)
        plan.matrix(layer, "down", f"{block}.mlp.dense_4h_to_h", d_ff, d)
    plan.norm("gpt_neox.final_layer_norm", d)
    head = plan.end_of_decoder(d, "gpt_neox.embed_in", config.get("tie_word_embeddings", False))
    return plan.arch(d, num_layers, heads, positions, head, decoder=True)


def llama(config: Mapping[str, Any], num_labels: int | None) -> Arch:
    """Llama and SmolLM2: RMSNorm, a gate, and fewer heads for k and v than for q (grouped), so k and v are narrower."""
    bias = config.get("attention_bias", False)
    return _of_llamas_kind(Plan(config, num_labels), bias, bias, config.get("mlp_bias", False))


def qwen2(config: Mapping[str, Any], num_labels: int | None) -> Arch:
    """Qwen 2 and 2.5: as Llama, with biases of q, k and v."""
    return _of_llamas_kind(Plan(config, num_labels), qkv_bias=True)


def gemma3(config: Mapping[str, Any], num_labels: int | None) -> Arch:
    """Gemma 3 as a model of text: norms on queries and keys, and before and behind both halves of a block.

    Raises:
        InputError: If it shall write, and caps its logits or sees what follows (EmbeddingGemma).
    """
    for key in ("final_logit_softcapping", "use_bidirectional_attention"):
        if num_labels is None and config.get(key):
            raise InputError(
                f"model: a Gemma 3 with {key} is not supported for tasks that are answered in words (given: "
                f"{config[key]}).\nChoose a task with a head, or another model."
            )
    bias = config.get("attention_bias", False)
    around = ("post_attention", "pre_feedforward", "post_feedforward")
    return _of_llamas_kind(
        Plan(config, num_labels), bias, bias, norms=around, normed_heads=True, head_width=256, tied=True
    )


def _of_llamas_kind(
    plan: Plan,
    qkv_bias: bool = False,
    o_bias: bool = False,
    mlp_bias: bool = False,
    norms: tuple[str, ...] = ("post_attention",),
    normed_heads: bool = False,
    head_width: int | None = None,
    tied: bool = False,
) -> Arch:
    """Lays out a decoder whose modules are called as Llama's.

    Args:
        plan: The plan to fill.
        qkv_bias: q, k and v have biases.
        o_bias: o has one.
        mlp_bias: gate, up and down have them.
        norms: The norms of a block behind its first one.
        normed_heads: Queries and keys are normed, head by head.
        head_width: Width of a head where the configuration does not say it (None: the width's share).
        tied: The output layer is the embedding where the configuration does not say it.
    """
    vocabulary, positions = plan.whole("vocab_size", "vocabulary"), plan.whole("max_position_embeddings", "positions")
    d, d_ff = plan.whole("hidden_size", "width"), plan.whole("intermediate_size", "width")
    num_layers = plan.whole("num_hidden_layers", "layers")
    heads = plan.heads("num_attention_heads", "hidden_size", d)
    width = plan.whole("head_dim", "width", default=d // heads if head_width is None else head_width)
    q_width, kv_width = heads * width, plan.whole("num_key_value_heads", "heads", default=heads) * width
    plan.tokens("model.embed_tokens", vocabulary, d)
    for layer in range(num_layers):
        block = f"model.layers.{layer}"
        for role, d_out in (("q", q_width), ("k", kv_width), ("v", kv_width)):
            plan.matrix(layer, role, f"{block}.self_attn.{role}_proj", d, d_out, qkv_bias)
        plan.matrix(layer, "o", f"{block}.self_attn.o_proj", q_width, d, o_bias)
        for name in ("q_norm", "k_norm") if normed_heads else ():
            plan.norm(f"{block}.self_attn.{name}", width, bias=False)
        for role in ("gate", "up"):
            plan.matrix(layer, role, f"{block}.mlp.{role}_proj", d, d_ff, mlp_bias)
        plan.matrix(layer, "down", f"{block}.mlp.down_proj", d_ff, d, mlp_bias)
        for name in ("input", *norms):
            plan.norm(f"{block}.{name}_layernorm", d, bias=False)
    plan.norm("model.norm", d, bias=False)
    head = plan.end_of_decoder(d, "model.embed_tokens", plan.config.get("tie_word_embeddings", tied))
    return plan.arch(d, num_layers, heads, positions, head, decoder=True)


def _labels(plan: Plan) -> int:
    """Returns the number of labels of an encoder's head.

    Raises:
        InputError: If the task is answered in words.
    """
    if plan.num_labels is None:
        raise InputError(
            f"model: {plan.config['model_type']} is an encoder and writes no text, which the task needs.\n"
            "Choose a decoder (model=smollm2), or a task with a head, as classes with task.form=label."
        )
    return plan.num_labels


FAMILIES: dict[str, Callable[[Mapping[str, Any], int | None], Arch]] = {
    "bert": bert,
    "roberta": bert,
    "mpnet": bert,
    "deberta-v2": deberta,
    "gpt2": gpt2,
    "opt": opt,
    "gpt_neox": gpt_neox,
    "llama": llama,
    "qwen2": qwen2,
    "gemma3_text": gemma3,
}
"""By model_type of config.json."""
