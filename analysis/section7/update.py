"""What training added to one weight matrix, in factors: what every reader gives and every analysis takes. No torch."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Update(NamedTuple):
    """What training added to one weight matrix: dW = scaling B A, in factors."""

    layer: int | None
    """0-based, as in the checkpoint; None outside of layers."""
    weight: str
    """q, k, v, o, up, down, gate, embed, or the module's last name where its role is unknown."""
    module: str
    """The module's name in the file."""
    A: Float[np.ndarray, "r d_in"]
    B: Float[np.ndarray, "d_out r"]
    scaling: float | None
    """alpha / r; None where the file does not say (then B A is taken as it is)."""
