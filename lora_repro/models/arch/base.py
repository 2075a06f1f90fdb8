"""What an architecture is: every parameter's shape, and the one map from W_q to a module or a slice of it."""

from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from lora_repro.errors import InputError

if TYPE_CHECKING:
    from lora_repro.models.arch.names import Reading

ROLES = ("q", "k", "v", "o", "up", "down", "gate", "embed")
"""The paper's names of the attention matrices (Section 4.2), then the feed-forward ones and the token embedding."""

OUTPUTS = ("classifier.out_proj", "classifier", "score")
"""The layers whose outputs are the labels; the first that a model has."""

Shape = tuple[int, ...]


class Part(NamedTuple):
    """Which output features of a fused layer belong to one matrix: `[:, position]` of (groups, of, width).

    GPT-2 keeps q, k and v one after the other (one group of three); GPT-NeoX interleaves them (a group a head).
    """

    position: int
    of: int
    groups: int = 1


class Site(NamedTuple):
    """One weight matrix that can be adapted: W of shape (d_out, d_in), in `module` or in a part of it."""

    layer: int | None
    """None for the token embedding, which is before the layers."""
    role: str
    module: str
    d_in: int
    """Width of the input; for the token embedding the number of tokens."""
    d_out: int
    part: Part | None = None
    """Set where the module computes several matrices at once."""
    transposed: bool = False
    """The module keeps its weight as (d_in, d_out): GPT-2's Conv1D."""

    @property
    def name(self) -> str:
        """The name that draws and records use, whatever the module is called: `layers.0.q`."""
        return self.role if self.layer is None else f"layers.{self.layer}.{self.role}"

    @property
    def weight_shape(self) -> Shape:
        """The shape of the module's weight, of which W is all or a part."""
        if self.layer is None:
            return (self.d_in, self.d_out)
        return (self.d_in, self.features) if self.transposed else (self.features, self.d_in)

    def matrix_in(self, weight: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "d_out d_in"]:
        """Returns this matrix in the weight of its module: the whole of it, transposed, or the rows of a part."""
        W = weight.T if self.transposed or self.layer is None else weight
        if self.part is None:
            return W
        return W.reshape(self.part.groups, self.part.of, -1, self.d_in)[:, self.part.position].reshape(-1, self.d_in)

    @property
    def features(self) -> int:
        """Width of the module's output, of which this matrix computes all or a part."""
        return self.d_out * (self.part.of if self.part is not None else 1)


class Arch(NamedTuple):
    """Every parameter of a model: names and shapes as transformers has them."""

    model_type: str
    d_model: int
    num_layers: int
    num_heads: int
    max_length: int
    """The longest input, in tokens."""
    parameters: Mapping[str, Shape]
    head_modules: tuple[str, ...]
    """Modules that every method trains (as the authors do): classifier and BERT's pooler; none in a language model."""
    sites: tuple[Site, ...]
    is_decoder: bool
    reading: "Reading | None" = None
    """Which matrices were found by their names, of a model that no function here counts."""

    def is_head(self, parameter: str) -> bool:
        """Tells whether a parameter belongs to the head."""
        return bool(self.head_modules) and parameter.startswith(tuple(f"{module}." for module in self.head_modules))

    @property
    def has_bare_embeddings(self) -> bool:
        """No norm is known to follow the embeddings, so they are the beginning of the residual stream."""
        return self.is_decoder or self.reading is not None

    @property
    def output(self) -> str | None:
        """The layer whose outputs are the labels; None of a language model."""
        return next((name for name in OUTPUTS if f"{name}.weight" in self.parameters), None)

    @property
    def head_size(self) -> int:
        """Number of weights of the head."""
        return self.size(name for name in self.parameters if self.is_head(name))

    @property
    def backbone(self) -> list[str]:
        """Every parameter but the head's."""
        return [name for name in self.parameters if not self.is_head(name)]

    @property
    def biases(self) -> list[str]:
        """The biases of the backbone, LayerNorms' too."""
        return [name for name in self.backbone if name.endswith((".bias", "_bias")) and len(self.parameters[name]) == 1]

    def layer_of(self, parameter: str) -> int | None:
        """Returns the block that a parameter of the backbone belongs to, counted from 0; None outside the blocks."""
        return next((int(part) for part in parameter.split(".") if part.isdigit()), None)

    @property
    def roles(self) -> list[str]:
        """The matrices that there are."""
        here = {site.role for site in self.sites}
        return [role for role in ROLES if role in here]

    def select(self, roles: list[str], key: str | None = None) -> list[Site]:
        """Returns the sites of these roles, layer by layer.

        Args:
            roles: Names of matrices.
            key: The key of the configuration that names them, for the message.

        Raises:
            InputError: If this architecture has no matrix of a role.
        """
        here = self.roles
        for role in roles:
            if role not in here:
                named = f" (given: [{', '.join(roles)}])" if key is not None else ""
                advice = f"Example: {key}=[q,v]" if key is not None else "Choose another method or model."
                raise InputError(
                    f"{key or 'model'}: no matrix {role!r} in {self.model_type}{named}.\n"
                    f"Matrices here: {', '.join(here) or 'none'}. "
                    f"{advice if self.reading is None else chr(10) + self.reading.advice()}"
                )
        return [site for site in self.sites if site.role in roles]

    def misfits(self, found: Mapping[str, Shape]) -> list[str]:
        """Returns the parameters that a model has in another shape than here, or not at all, or too many, in words."""
        ours = self.parameters
        return [
            f"{name} is {found.get(name, 'absent')}, expected {ours.get(name, 'absent')}"
            for name in sorted(found.keys() | ours.keys())
            if found.get(name) != ours.get(name)
        ]

    def size(self, parameters: Iterable[str] | None = None) -> int:
        """Counts the weights of these parameters (default: of all)."""
        return sum(prod(self.parameters[name]) for name in (self.parameters if parameters is None else parameters))
