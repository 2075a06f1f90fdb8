"""Token embeddings that compute more than a look-up: Gemma's multiply each row by the root of d_model."""

from torch import Tensor, nn

from lora_repro.errors import InputError


def is_look_up(table: nn.Embedding) -> bool:
    """Tells whether an embedding looks rows up, scaled or not, and does nothing else."""
    return type(table).forward is nn.Embedding.forward or isinstance(_scale(table), Tensor | float | int)


def scale_of(table: nn.Embedding) -> Tensor | float | None:
    """Returns what an embedding multiplies its rows by; None of a plain look-up.

    Raises:
        InputError: If it computes something else, so that its rows are not those of its weight.
    """
    if type(table).forward is nn.Embedding.forward:
        return None
    if not is_look_up(table):
        raise InputError(
            f"the token embedding of this model, {type(table).__name__}, computes more than a look-up and a scale, so "
            "it cannot be changed by a method.\nLeave out embed."
        )
    return _scale(table)


def _scale(table: nn.Embedding) -> Tensor | float | None:
    return getattr(table, "embed_scale", None)
