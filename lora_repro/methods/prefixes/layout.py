"""Where added tokens stand among the tokens of a batch: l_p before each input and l_i directly behind it.

A row becomes [padding on the left][prefix][input][infix][padding on the right]. So an example stands in a padded batch
as it stands alone, for causal masks and relative positions too, which count places in the row.
"""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor


class Layout(NamedTuple):
    """Rows of a batch with l_p + l_i added tokens each."""

    source: Int[Tensor, "batch longer"]
    """At each place the column of the token that stands there; at the place of an added token any column."""
    added: Int[Tensor, "batch tokens"]
    """The places of the added tokens, the prefix first."""
    kept: Int[Tensor, "batch seq"]
    """For each column of the input the place at which its state is read."""
    mask: Int[Tensor, "batch longer"]
    """The attention mask."""
    positions: Int[Tensor, "batch longer"]
    """Counted from 0 at the first token that is no padding; 0 in padding on the left."""


def lay_out(
    mask: Int[Tensor, "batch seq"], l_p: int, l_i: int, is_decoder: bool, lengths: Int[Tensor, " batch"] | None = None
) -> Layout:
    """Adds tokens to the rows of a batch.

    What reads a decoder's answer reads it at the last token of the input, which sees nothing that stands behind it: so
    there stands the state of the last infix token. What reads an encoder's answer reads the first column: there stands
    the state of the first token of the input, also where padding is on the left.

    Args:
        mask: The attention mask of the input.
        l_p: Tokens before each input.
        l_i: Tokens behind each input.
        is_decoder: A token sees those before it alone.
        lengths: Tokens of each input where more stands behind it, as texts to be written do; None: all that is shown.
    """
    columns = torch.arange(mask.shape[1], device=mask.device)
    places = torch.arange(mask.shape[1] + l_p + l_i, device=mask.device)
    shown = (mask != 0).long()
    first = shown.argmax(1, keepdim=True)
    last = (columns * shown).argmax(1, keepdim=True) if lengths is None else first + lengths[:, None] - 1
    source = places - l_p * (places >= first + l_p).long() - l_i * (places > last + l_p + l_i).long()
    source = source.clamp(max=mask.shape[1] - 1)
    added = torch.cat([first + places[:l_p], last + l_p + 1 + places[:l_i]], 1)
    kept = columns + l_p * (columns >= first).long() + l_i * (columns > last).long()
    if is_decoder:
        kept = torch.where(columns == last, last + l_p + l_i, kept)
    else:
        kept = torch.where(columns == 0, first + l_p, kept)
    longer = mask.gather(1, source).scatter(1, added, torch.ones_like(added, dtype=mask.dtype))
    return Layout(source, added, kept, longer, (places - first).clamp(min=0))
