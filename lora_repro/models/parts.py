"""Which rows of a fused layer's weight belong to one matrix, as views of tensors."""

from jaxtyping import Float
from torch import Tensor

from lora_repro.models.arch import Part


def features_of(W: Float[Tensor, "d_out ..."], part: Part | None) -> Tensor:
    """Returns the view of a weight, or of its gradient, that holds the rows of one matrix: (groups, width, ...)."""
    return W if part is None else W.unflatten(0, (part.groups, part.of, -1))[:, part.position]


def rows_in(W: Float[Tensor, "d_out ..."], part: Part | None) -> Tensor:
    """Brings the rows of one matrix into the shape of `features_of`."""
    return W if part is None else W.unflatten(0, (part.groups, -1))
