"""Tells a model where its input ends and the text that it writes begins, if a method put tokens between the two."""

from jaxtyping import Int
from torch import Tensor, nn

KEY = "input_lengths"
"""The argument of the base model's forward pass."""


def take_input_lengths(body: nn.Module) -> None:
    """Marks a base model whose forward pass takes the lengths of the inputs."""
    body.takes_input_lengths = True  # pyright: ignore[reportArgumentType]


def input_lengths(body: nn.Module, lengths: Int[Tensor, " batch"]) -> dict[str, Tensor]:
    """Returns the argument for a base model that takes it, else none.

    Args:
        body: The base model.
        lengths: Tokens of each input, without what stands behind it.
    """
    return {KEY: lengths} if getattr(body, "takes_input_lengths", False) else {}
