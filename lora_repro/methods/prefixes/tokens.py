"""Tokens with trained vectors, put before and behind the input around the forward pass of a base model."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lora_repro import draw
from lora_repro.methods.prefixes.layout import Layout, lay_out
from lora_repro.models.arch import Arch
from lora_repro.models.blocks import blocks
from lora_repro.models.input_lengths import take_input_lengths
from lora_repro.models.pooling import ONE_POSITION, reading_at


class Prefix(nn.Module):
    """The trained vectors, in fp32, of the prefix tokens and then of the infix tokens.

    Args:
        embeddings: What the token embedding would return for them; None: the model's embedding of token 0.
        layers: What enters each block in their places, (tokens, d), or keys and values in its attention, (2, heads,
            tokens, d); none: what the model computes there.
    """

    def __init__(self, embeddings: Float[Tensor, "tokens d"] | None, layers: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.embed = None if embeddings is None else nn.Parameter(embeddings)
        self.layers = nn.ParameterList(map(nn.Parameter, layers))


def body_of(model: Any, arch: Arch) -> nn.Module:
    """Returns the base model, or the decoder in it, which OPT's language model calls itself."""
    decoder = getattr(model.base_model, "decoder", None)
    if not (arch.is_decoder and isinstance(decoder, nn.Module)):
        return model.base_model
    take_input_lengths(model.base_model)
    return decoder


class Surrounded:
    """A base model whose inputs are surrounded by tokens with trained vectors.

    Its forward pass takes input_ids and attention_mask as before, and returns a state for each of the given tokens.
    Positions are counted from the mask. With a key-value cache the tokens are put in at the first call, and stay in the
    cache.

    Args:
        body: The base model, changed in place.
        arch: Its shapes.
        prefix: The vectors.
        l_p: How many of the tokens stand before the input.
        l_i: How many stand behind it.
        shift: The number of positions that the input's are behind their own, for keys and values before it.
    """

    def __init__(self, body: nn.Module, arch: Arch, prefix: Prefix, l_p: int, l_i: int, shift: int = 0) -> None:
        self.body: Any = body
        self.prefix, self.l_p, self.l_i = prefix, l_p, l_i
        self.is_decoder = arch.is_decoder
        self.must_know_lengths = l_i > 0 and not arch.head_modules
        self.computes_one_position = arch.model_type in ONE_POSITION
        self.first_position = first_position(body) + shift
        self.takes_positions = "position_ids" in inspect.signature(body.forward).parameters
        self._forward: Callable[..., Any] = body.forward
        self._layout: Layout | None = None
        """Of the forward pass that is going on."""
        body.forward = self.forward  # pyright: ignore[reportAttributeAccessIssue]
        take_input_lengths(body)
        for index, block in enumerate(inputs_of_blocks(body, arch) if len(prefix.layers) else []):
            block.register_forward_pre_hook(partial(self._replace, index))

    def forward(
        self,
        input_ids: Int[Tensor, "batch seq"],
        *,
        attention_mask: Tensor | None = None,
        token_type_ids: Int[Tensor, "batch seq"] | None = None,
        position_ids: Int[Tensor, "rows seq"] | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Any = None,
        input_lengths: Int[Tensor, " batch"] | None = None,
        **given: Any,
    ) -> Any:
        """Returns the output of the base model, a state for each given token.

        Args:
            input_ids: The tokens.
            attention_mask: Of the tokens, and of those before them that are in the cache.
            token_type_ids: Of the tokens; added ones are of type 0.
            position_ids: Not read: positions follow from the mask.
            inputs_embeds: Not possible.
            past_key_values: The cache, which holds the added tokens if it is not empty.
            input_lengths: Where something stands behind the input: see `lay_out`.
            given: What else the base model takes.

        Raises:
            ValueError: If embeddings are given, or a mask that is no row of numbers for each example; or if a language
                model cannot know where the input ends.
        """
        if inputs_embeds is not None or (attention_mask is not None and attention_mask.dim() != 2):
            raise ValueError("A model with a prefix takes input_ids, and an attention mask of shape (batch, tokens).")
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        if past:
            return self._go_on(input_ids, attention_mask, past, past_key_values=past_key_values, **given)
        if self.must_know_lengths and past_key_values is None and input_lengths is None:
            raise ValueError(
                "A language model with infix tokens must know where the input ends and its own text begins: give "
                "input_lengths, the tokens of each input, or generate with a cache."
            )
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        layout = lay_out(mask, self.l_p, self.l_i, self.is_decoder, input_lengths)
        tokens = input_ids.gather(1, layout.source)
        inputs: dict[str, Tensor] = {"input_ids": tokens.scatter(1, layout.added, 0)}
        if self.prefix.embed is not None:
            table = self.body.get_input_embeddings()
            inputs = {"inputs_embeds": put_in(table(tokens), self.prefix.embed, layout.added)}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids.gather(1, layout.source).scatter(1, layout.added, 0)
        given |= {} if past_key_values is None else {"past_key_values": past_key_values}
        reading = reading_at(self.body, layout.kept[:, 0]) if self.computes_one_position else nullcontext()
        with self._laid_out(layout), reading:
            output = self._forward(**inputs, attention_mask=layout.mask, **self._positions(layout.positions), **given)
        if not self.computes_one_position:
            states = output.last_hidden_state
            output.last_hidden_state = states.gather(1, layout.kept[:, :, None].expand(-1, -1, states.shape[-1]))
        return output

    def _go_on(self, input_ids: Tensor, attention_mask: Tensor | None, past: int, **given: Any) -> Any:
        """Reads tokens behind those in the cache: the added ones are counted, and nothing is put in."""
        added = self.l_p + self.l_i
        mask = attention_mask
        if mask is None:
            mask = input_ids.new_ones(len(input_ids), past - added + input_ids.shape[1])
        layout = lay_out(mask, added, 0, self.is_decoder)
        positions = self._positions(layout.positions[:, -input_ids.shape[1] :])
        return self._forward(input_ids=input_ids, attention_mask=layout.mask, **positions, **given)

    def _positions(self, counted: Tensor) -> dict[str, Tensor]:
        return {"position_ids": counted + self.first_position} if self.takes_positions else {}

    @contextmanager
    def _laid_out(self, layout: Layout) -> Iterator[None]:
        self._layout = layout
        try:
            yield
        finally:
            self._layout = None

    def _replace(self, index: int, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Puts trained vectors in the places of the added tokens, where they enter a block."""
        if self._layout is None:
            return args
        return put_in(args[0], self.prefix.layers[index], self._layout.added), *args[1:]


def put_in(
    rows: Float[Tensor, "batch longer d"], vectors: Float[Tensor, "tokens d"], places: Int[Tensor, "batch tokens"]
) -> Float[Tensor, "batch longer d"]:
    """Returns rows with the same vectors in each, in places of its own, rounded as the rows are."""
    vectors = vectors.to(rows.dtype).expand(len(rows), -1, -1)
    return rows.scatter(1, places[:, :, None].expand_as(vectors), vectors)


def first_position(body: nn.Module) -> int:
    """Returns the number of the first position: RoBERTa and its kin count from behind the token for padding."""
    tables = [module for name, module in body.named_modules() if name.endswith("position_embeddings")]
    return next((t.padding_idx + 1 for t in tables if isinstance(t, nn.Embedding) and t.padding_idx is not None), 0)


def inputs_of_blocks(body: Any, arch: Arch) -> list[nn.Module]:
    """Returns the modules whose first argument is what enters a block.

    DeBERTa's convolution beside the first block reads what enters the encoder, too.
    """
    found = [body.get_submodule(name) for name in blocks(name for name, _ in body.named_parameters())]
    return [body.encoder, *found[1:]] if arch.model_type == "deberta-v2" else found


def words(seed: int, count: int, rows: int) -> Int[Tensor, " count"]:
    """Draws tokens of the vocabulary, from which vectors start."""
    return torch.from_numpy(draw.generator("words", seed, "prefix", (count,)).integers(rows, size=count))


@torch.no_grad()
def states_of(body: nn.Module, arch: Arch, tokens: Int[Tensor, " count"]) -> list[Float[Tensor, "count d"]]:
    """Returns what enters each block where the input is a text of these tokens."""
    found: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, args: found.append(args[0][0].clone()))
        for module in inputs_of_blocks(body, arch)
    ]
    was_training = body.training
    try:
        body.eval()(input_ids=tokens[None], attention_mask=torch.ones_like(tokens)[None])
    finally:
        body.train(was_training)
        for hook in hooks:
            hook.remove()
    return found
