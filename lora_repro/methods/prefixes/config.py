"""Prefix tuning (paper, Section 5.1): trained vectors of tokens that are put before and behind the input."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from omegaconf import MISSING

from lora_repro import draw
from lora_repro.errors import InputError
from lora_repro.methods.base import Count, SizedConfig, refuse_outside, refuse_unread
from lora_repro.models.arch import Arch, Site
from lora_repro.models.blocks import blocks

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lora_repro.methods.prefixes.tokens import Prefix


class Start(str, Enum):
    """What the vectors start as. The paper does not say."""

    words = "words"
    """What the model computes for tokens of its vocabulary that are drawn: Li and Liang 2021 and Lester et al. 2021
    found this better than random vectors, most of all where there is little data."""
    normal = "normal"
    """N(0, init_std^2)."""


@dataclass
class PrefixConfig(SizedConfig):
    """Trained vectors of l_p prefix and l_i infix tokens."""

    size_key: ClassVar[str] = "l_p"
    why_not_merged: ClassVar[str | None] = "its vectors are inputs, not weights"

    l_p: int = MISSING
    """Tokens before the input."""
    l_i: int = MISSING
    """Tokens behind the input."""
    init: Start = Start.words
    init_std: float = 0.02
    """Standard deviation of init=normal: that of the embeddings of BERT and GPT-2 when they were drawn."""

    @property
    def label(self) -> str:
        """For example `prefix_embed-p256-i8`."""
        return f"{self.name}-p{self.l_p}-i{self.l_i}"

    @property
    def added_tokens(self) -> int:
        """l_p and l_i."""
        return self.l_p + self.l_i

    @property
    def needs_a_row_of_its_own(self) -> bool:
        """Keys and values in front of an input take no positions, and yet stand in front of a whole row."""
        return True

    def largest(self, arch: Arch) -> int:
        """Returns how many tokens fit in front of the infix and one token of input."""
        return arch.max_length - 1 - self.l_i

    def check(self, arch: Arch) -> None:
        """Refuses numbers of tokens for which there is no room, none at all, and models that cannot take them."""
        arch.select(["embed"])
        refuse_outside("l_i", self.l_i, 0, arch.max_length - 1, "which leaves a token of input")
        refuse_outside("l_p", self.l_p, 0, self.largest(arch), "which leaves a token of input")
        if self.l_p + self.l_i == 0:
            raise InputError("method.l_p: no token is trained (given: 0, with method.l_i=0). Example: method.l_p=8")
        self.check_start()
        if arch.reading is not None and any("." in module for module in arch.head_modules):
            raise InputError(
                f"method={self.name}: this {arch.model_type} pools inside its base model, where a token before the "
                "input would be taken for its first one.\nChoose another method, or another model."
            )

    def check_start(self, keys: str = "") -> None:
        """Refuses a deviation that is none, or that nothing reads.

        Args:
            keys: What stands before the names of the keys, where another method has them.
        """
        if not (math.isfinite(self.init_std) and self.init_std > 0):
            raise InputError(f"method.{keys}init_std: must be a finite number above 0 (given: {self.init_std}).")
        if self.init is not Start.normal:
            given, reader = f"{keys}init={self.init.value}", f"{keys}init=normal"
            refuse_unread(f"{keys}init_std", self.init_std, PrefixConfig.init_std, given, reader)

    def vectors(self, arch: Arch) -> dict[str, int]:
        """Returns the number of weights by place."""
        raise NotImplementedError

    def count(self, arch: Arch) -> Count:
        """Counts the vectors."""
        by_module = self.vectors(arch)
        added = sum(by_module.values())
        return Count(added, arch.head_size, arch.size() + added, by_module)

    def attach(self, model: "nn.Module", arch: Arch, seed: int) -> None:
        """Puts the tokens around the input of the base model."""
        from lora_repro.methods.prefixes.tokens import Surrounded, body_of, words

        (table,) = arch.select(["embed"])
        body = body_of(model, arch)
        model.prefix = self.start(body, arch, seed, words(seed, self.l_p + self.l_i, table.d_in))
        Surrounded(body, arch, model.prefix, self.l_p, self.l_i)

    def start(self, body: "nn.Module", arch: Arch, seed: int, words: "Tensor") -> "Prefix":
        """Returns the vectors as they start.

        Args:
            body: The base model.
            arch: Its shapes.
            seed: What they are drawn from.
            words: Tokens of the vocabulary, for init=words.
        """
        raise NotImplementedError

    def drawn(self, seed: int, name: str, width: int) -> "Tensor":
        """Draws a vector for each token from N(0, init_std^2)."""
        import torch

        return torch.from_numpy(draw.normal(seed, name, (self.l_p + self.l_i, width), self.init_std))


@dataclass
class PrefixEmbedConfig(PrefixConfig):
    """The tokens' embeddings are trained."""

    def vectors(self, arch: Arch) -> dict[str, int]:
        """Counts d (l_p + l_i) weights, d the width of the embeddings."""
        (table,) = arch.select(["embed"])
        return {"embed.prefix": table.d_out * (self.l_p + self.l_i)}

    def start(self, body: "nn.Module", arch: Arch, seed: int, words: "Tensor") -> "Prefix":
        """Returns the words' embeddings, or draws them."""
        from lora_repro.methods.prefixes.tokens import Prefix

        if self.init is Start.normal:
            (table,) = arch.select(["embed"])
            return Prefix(self.drawn(seed, "prefix.embed", table.d_out))
        return Prefix(body.get_input_embeddings()(words).detach().clone())  # pyright: ignore[reportCallIssue]


class Form(str, Enum):
    """What of the tokens is trained in every layer."""

    activations = "activations"
    """What enters each block in their places (the LoRA paper, Section 5.1)."""
    key_value = "key_value"
    """Keys and values in each attention (Li and Liang 2021, whose numbers Tables 3, 13 and 14 print)."""


ASKED_ATTENTION = ("bert", "roberta", "gpt2", "opt", "gpt_neox", "llama", "qwen2")
"""Models that ask an interface of transformers for their attention, where keys and values can be put before theirs.

Gemma 3 is none: most of its layers see a window, in which keys before the input would not stay, and it norms its keys.
"""


READ_AS_KEYS = ("bert", "roberta")
"""Models in which trained states of added tokens are read through their keys and values alone, wherever they stand."""


def refuse_other_attention(key: str, arch: Arch) -> None:
    """Refuses models whose attention takes no keys without a position.

    Raises:
        InputError: With those that do.
    """
    if arch.model_type not in ASKED_ATTENTION:
        raise InputError(
            f"{key} needs attention in which keys may have no position, and {arch.model_type} has none here.\n"
            f"Choose another method (method=prefix_layer method.form=activations), or one of the models "
            f"{', '.join(ASKED_ATTENTION)}."
        )


@dataclass
class PrefixLayerConfig(PrefixConfig):
    """Vectors of the tokens are trained in every layer.

    form=activations: what enters the first block, and what leaves each block but the last. So the input of each of the
    L blocks is trained, which makes the paper's L d (l_p + l_i) weights (Section 5.1), with the embeddings among them,
    as Appendix E says. What leaves the last block is not replaced: no block reads it, and an infix token whose state
    there were a constant could not answer.

    form=key_value: keys and values themselves, 2 L d l_p weights. Li and Liang compute them by an MLP while they train
    and drop it afterwards; that is not offered, as the weights that are trained would then not be those that are
    counted and kept. Infix tokens have no place in this form.
    """

    form: Form = Form.activations
    shift_positions: bool = True
    """form=key_value: the positions of the input begin behind the prefix, as in Li and Liang's code and PEFT; false: at
    0, as in AdapterHub's library."""

    @property
    def label(self) -> str:
        """For example `prefix_layer-p8-i8`, `prefix_layer-kv-p8`."""
        return super().label if self.form is Form.activations else f"{self.name}-kv-p{self.l_p}"

    @property
    def added_tokens(self) -> int:
        """l_p and l_i; keys and values take positions only where those of the input are shifted."""
        return super().added_tokens if self.form is Form.activations or self.shift_positions else 0

    @property
    def can_be_compiled(self) -> bool:
        """Tells that attention with more keys and values is not compiled."""
        return self.form is Form.activations

    def check(self, arch: Arch) -> None:
        """Refuses an infix of keys and values, and models whose blocks or attention do not allow it."""
        super().check(arch)
        if self.form is Form.activations:
            refuse_unread("shift_positions", self.shift_positions, True, "form=activations", "form=key_value")
            blocks(arch.backbone)
            return
        if self.l_i:
            raise InputError(
                f"method.l_i: form=key_value has tokens before the input alone (given: {self.l_i}).\n"
                "Leave them out: method.l_i=0"
            )
        refuse_other_attention("method.form: key_value", arch)

    def vectors(self, arch: Arch) -> dict[str, int]:
        """Counts d (l_p + l_i) weights a block; keys and values have the widths of W_k and W_v, grouped or not."""
        if self.form is Form.activations:
            size = arch.d_model * (self.l_p + self.l_i)
            return {f"layers.{layer}.prefix": size for layer in range(arch.num_layers)}
        return {f"layers.{site.layer}.prefix": 2 * site.d_out * self.l_p for site in arch.select(["k"])}

    def attach(self, model: "nn.Module", arch: Arch, seed: int) -> None:
        """Puts the tokens around the input of the base model, or keys and values into every attention."""
        if self.form is Form.activations and arch.model_type not in READ_AS_KEYS:
            return super().attach(model, arch, seed)
        from lora_repro.methods.prefixes import key_value
        from lora_repro.methods.prefixes.tokens import Prefix, Surrounded, body_of, words

        (table,) = arch.select(["embed"])
        body, drawn = body_of(model, arch), words(seed, self.l_p + self.l_i, table.d_in)
        if self.form is Form.activations:
            prefix, attach = self.start(body, arch, seed, drawn), key_value.attach_states
        else:
            if self.init is Start.words:
                pairs = key_value.pairs_of(model, body, arch, drawn)
            else:
                pairs = [self._drawn_pair(arch, seed, site) for site in arch.select(["k"])]
            prefix, attach = Prefix(None, pairs), key_value.attach
        model.prefix = prefix
        attach(model, arch, [*prefix.layers])
        Surrounded(body, arch, Prefix(None), 0, 0, shift=self.l_p if self.added_tokens else 0)

    def _drawn_pair(self, arch: Arch, seed: int, site: Site) -> "Tensor":
        import torch

        (q,) = (other for other in arch.select(["q"]) if other.layer == site.layer)
        width = q.d_out // arch.num_heads
        shape = (2, site.d_out // width, self.l_p, width)
        return torch.from_numpy(draw.normal(seed, f"prefix.layers.{site.layer}", shape, self.init_std))

    def start(self, body: "nn.Module", arch: Arch, seed: int, words: "Tensor") -> "Prefix":
        """Returns what enters the blocks for the words, or draws it."""
        from lora_repro.methods.prefixes.tokens import Prefix, states_of

        if self.init is Start.words:
            return Prefix(None, states_of(body, arch, words))
        return Prefix(None, [self.drawn(seed, f"prefix.layers.{i}", arch.d_model) for i in range(arch.num_layers)])


@dataclass
class LlamaAdapterConfig(SizedConfig):
    """Prompts of l_p tokens beside the input of upper layers, behind gates that start at zero (Zhang et al. 2023).

    A layer's attention returns softmax(Q K^T) V of the input, as ever, plus g softmax(Q K_p^T) V_p of its prompt, which
    W_o reads together. So the model starts unchanged. There is one gate a layer, as in PEFT.
    """

    size_key: ClassVar[str] = "l_p"
    why_not_merged: ClassVar[str | None] = "its prompts are inputs, not weights"

    l_p: int = MISSING
    """Tokens of each prompt."""
    top_layers: int | None = None
    """The number of layers, from the top, that have one (null: all). The authors take 30 of 32."""
    init_std: float = 1.0
    """The prompts start from N(0, init_std^2), as in the authors' code."""

    @property
    def label(self) -> str:
        """For example `llama_adapter-p10`, `llama_adapter-p10-top4`."""
        top = "" if self.top_layers is None else f"-top{self.top_layers}"
        return f"{self.name}-p{self.l_p}{top}"

    @property
    def can_be_compiled(self) -> bool:
        """Tells that attention with prompts is not compiled."""
        return False

    def largest(self, arch: Arch) -> int:
        """Returns the longest input: prompts take no positions, and more than that would not be one."""
        return arch.max_length

    def check(self, arch: Arch) -> None:
        """Refuses prompts and layers that do not exist, and models whose attention is computed by themselves."""
        refuse_outside("l_p", self.l_p, 1, self.largest(arch), "the longest input")
        if self.top_layers is not None:
            refuse_outside("top_layers", self.top_layers, 1, arch.num_layers, "all layers")
        if not (math.isfinite(self.init_std) and self.init_std > 0):
            raise InputError(f"method.init_std: must be a finite number above 0 (given: {self.init_std}).")
        refuse_other_attention(f"method={self.name}", arch)

    def layers(self, arch: Arch) -> range:
        """Returns the layers that have a prompt."""
        top = arch.num_layers if self.top_layers is None else self.top_layers
        return range(arch.num_layers - top, arch.num_layers)

    def count(self, arch: Arch) -> Count:
        """Counts l_p d weights and a gate for each layer."""
        by_module = {f"layers.{layer}.prompt": self.l_p * arch.d_model + 1 for layer in self.layers(arch)}
        added = sum(by_module.values())
        return Count(added, arch.head_size, arch.size() + added, by_module)

    def attach(self, model: "nn.Module", arch: Arch, seed: int) -> None:
        """Draws the prompts and lets the layers read them."""
        import torch

        from lora_repro.methods.prefixes import llama_adapter

        shape = (self.l_p, arch.d_model)
        names = {layer: f"llama_adapter.{layer}.prompt" for layer in self.layers(arch)}
        drawn = {layer: draw.normal(seed, name, shape, self.init_std) for layer, name in names.items()}
        llama_adapter.attach(model, arch, {layer: torch.from_numpy(prompt) for layer, prompt in drawn.items()})

    def has_no_gradient_at_first(self, parameter: str) -> bool:
        """Tells that a prompt has none while its gate is closed."""
        return parameter.startswith("llama_adapter.") and parameter.endswith(".prompt")

    def flags(self, model: "nn.Module") -> dict[str, bool]:
        """Returns `b_zero`: a gate is still at zero, so its prompt does nothing."""
        gates = [
            p for name, p in model.named_parameters() if name.startswith("llama_adapter.") and name.endswith("gate")
        ]
        return {"b_zero": any(not gate.any() for gate in gates)}
