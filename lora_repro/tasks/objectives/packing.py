"""Lays several texts into one row of a batch so that none sees another: rows are full where padding would stand."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lora_repro.tasks.batches import LENGTH_STEP, padded_length


class Rows(NamedTuple):
    """Texts in rows. Padding stands at the end of a row, as if it were one text more."""

    tokens: Int[Tensor, "rows width"]
    positions: Int[Tensor, "rows width"]
    """They begin at 0 with each text."""
    sees: Bool[Tensor, "rows 1 width width"]
    """Whether a token (third dimension) attends to another one (fourth): up to itself, in its own text."""
    starts: Int[Tensor, " texts"]
    """Where each text begins in the rows, one behind the other."""


def places(lengths: Sequence[int], width: int) -> list[tuple[int, int]]:
    """Returns the row of each text and where it begins there: the longest first, each into the first row with room.

    Args:
        lengths: Tokens of each text.
        width: Tokens of a row; no text has more.
    """
    used: list[int] = []
    found = [(0, 0)] * len(lengths)
    for text in sorted(range(len(lengths)), key=lambda text: (-lengths[text], text)):
        row = next((row for row, taken in enumerate(used) if taken + lengths[text] <= width), len(used))
        if row == len(used):
            used.append(0)
        found[text] = (row, used[row])
        used[row] += lengths[text]
    return found


def best_width(lengths: Sequence[int]) -> int:
    """Returns how wide rows must be for the fewest tokens with padding: one to two times the longest text."""

    def computed(width: int) -> int:
        return width * (1 + max(row for row, _ in places(lengths, width)))

    longest = padded_length(max(lengths))
    return min(range(longest, 2 * longest + 1, LENGTH_STEP), key=computed)


def pack(tokens: Int[Tensor, "texts seq"], lengths: Int[Tensor, " texts"]) -> Rows:
    """Returns texts in rows as wide as `best_width` says.

    Args:
        tokens: A text a row, padded on the right.
        lengths: Tokens of each text.
    """
    sizes, device = lengths.tolist(), tokens.device
    width = best_width(sizes)
    rows_and_starts = places(sizes, width)
    rows = 1 + max(row for row, _ in rows_and_starts)
    starts = torch.tensor([row * width + start for row, start in rows_and_starts], device=device)
    columns = torch.arange(tokens.shape[1], device=device).expand_as(tokens)
    is_read = columns < lengths[:, None]
    at = (starts[:, None] + columns)[is_read]
    owners = torch.arange(len(sizes), device=device)[:, None].expand_as(tokens)[is_read]
    packed, positions, owner = (tokens.new_full((rows * width,), fill) for fill in (0, 0, -1))
    packed[at], positions[at], owner[at] = tokens[is_read], columns[is_read], owners
    owner = owner.view(rows, 1, width)
    before = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    sees = (owner[..., :, None] == owner[..., None, :]) & before
    return Rows(packed.view(rows, width), positions.view(rows, width), sees, starts)


def mask_of(model: Any, sees: Bool[Tensor, "rows 1 width width"]) -> Tensor | dict[str, Tensor]:
    """Returns a mask as a model of transformers takes it; one for each kind of layer where some see a window alone.

    Args:
        model: The model.
        sees: Which token attends to which, were there no windows.
    """
    config = model.config
    if "sliding_attention" not in (getattr(config, "layer_types", None) or ()):
        return _given(sees, config)
    near = torch.ones_like(sees[0, 0]).triu(1 - config.sliding_window)
    return {"full_attention": _given(sees, config), "sliding_attention": _given(sees & near, config)}


def _given(sees: Tensor, config: Any) -> Tensor:
    """Returns what is added to the scores, or for torch's own attention what is seen."""
    if config._attn_implementation == "sdpa":
        return sees
    return torch.zeros(sees.shape, device=sees.device).masked_fill(~sees, torch.finfo(torch.float32).min)


def unpacked(
    hidden: Float[Tensor, "rows width d"], starts: Int[Tensor, " texts"], at: Int[Tensor, "texts n"]
) -> Float[Tensor, "texts n d"]:
    """Returns the states at positions of each text.

    Args:
        hidden: The states of the rows.
        starts: Where each text begins, as `Rows` says.
        at: Positions in the text, from 0; those beyond it give the state of a token that is not its own.
    """
    flat = hidden.flatten(0, 1)
    return flat[(starts[:, None] + at).clamp(max=len(flat) - 1)]
