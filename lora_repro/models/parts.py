"""Which rows of a fused layer's weight, and which of its outputs, belong to one matrix, as views of tensors."""

from jaxtyping import Float
from torch import Tensor

from lora_repro.models.arch import Part


def features_of(W: Float[Tensor, "d_out ..."], part: Part | None) -> Tensor:
    """Returns the view of a weight, or of its gradient, that holds the rows of one matrix: (groups, width, ...)."""
    return W if part is None else W.unflatten(0, (part.groups, part.of, -1))[:, part.position]


def rows_in(W: Float[Tensor, "d_out ..."], part: Part | None) -> Tensor:
    """Brings the rows of one matrix into the shape of `features_of`."""
    return W if part is None else W.unflatten(0, (part.groups, -1))


def outputs_of(out: Float[Tensor, "*batch d_out"], part: Part) -> Float[Tensor, "*batch groups width"]:
    """Returns the view of a fused layer's output, or of its gradient, that holds the features of one matrix."""
    return out.unflatten(-1, (part.groups, part.of, -1))[..., part.position, :]
