"""What every reader returns: an adapter's matrices with their shapes, and a way to read each one's update."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.adapters.backbone import Backbone
from analysis.adapters.names import BLOCKS, BY_HEAD, FUSED, computes_several, holder, may_be_conv1d, named
from analysis.foreign_text import grouped
from analysis.section7.rounding import Rounding
from analysis.section7.update import Update
from analysis.store import DEFAULT_STORE
from lora_repro.errors import InputError, shown
from lora_repro.models.arch import ROLES, Part

_LAST = 10**9


class Options(NamedTuple):
    """What the command line adds to what an adapter's files say."""

    base: str | None = None
    """--base: the model that was adapted."""
    alpha: float | None = None
    """--alpha: lora_alpha of the training."""
    enable_lora: Sequence[str] | None = None
    """--enable-lora: which of q, k, v a MergedLinear of loralib adapts."""
    top: int = 64
    """--top: how many directions of dW are kept of full checkpoints."""
    store: str = DEFAULT_STORE
    """--runs: the folder that holds runs/."""


class Factors(NamedTuple):
    """The two factors of a module's update, before they are split by matrix."""

    A: Float[np.ndarray, "r d_in"]
    B: Float[np.ndarray, "d_out r"]
    scaling: float | None
    norm: float | None = None
    """||dW||_F, where the factors hold only the first directions of dW."""
    rounding: Rounding | None = None
    """What rounding alone makes of dW, where it is the difference of two stored weights."""


class Loaded(NamedTuple):
    """A matrix's update, and what is known beside it of a difference of two stored weights."""

    update: Update
    norm: float | None
    """||dW||_F, where the update holds only the first directions of dW."""
    rounding: Rounding | None = None


class Origin(NamedTuple):
    """What A was at the start, as far as it is known."""

    variance: float | None = None
    """Of its entries, independent with mean 0; None where they were not drawn so, or nobody knows from what."""
    draw: Callable[[int, int], Float[np.ndarray, "r d_in"]] | None = None
    """Draws A_0 again, by its shape; None where the seed is not known."""


class Matrix(NamedTuple):
    """A matrix that an adapter changes, as the header of its file describes it."""

    layer: int | None
    weight: str
    module: str
    d_in: int
    d_out: int
    read: Callable[[], Factors]
    frozen: Callable[[], Float[np.ndarray, "d_out d_in"] | None]
    """Reads W_0; None where no base is given, or if it has no such module."""
    origin: Origin = Origin()

    @property
    def name(self) -> str:
        """What people call it: layer 3, q; or the module's name where no layer is known."""
        return shown(self.module) if self.layer is None else f"layer {self.layer}, {shown(self.weight)}"


@dataclass
class Adapter:
    """An adapter on disk."""

    name: str
    """What people call it: a run's id, or what the command line says."""
    format: str
    """In words: PEFT folder, loralib file."""
    matrices: list[Matrix]
    """By layer, then in the order of ROLES."""
    unknown: Sequence[str] = ()
    """Names of tensors that are no part of an update: heads, biases, what is not known here."""
    notes: Sequence[str] = ()
    """What was assumed, and which figures need care."""
    takes: frozenset[str] = frozenset()
    """Which options of the command line have an effect on it: alpha, enable_lora, top."""
    base: str | None = None
    """The name of the model that was adapted, where the files say it."""

    def __post_init__(self) -> None:
        """Sorts the matrices, and notes which modules compute several matrices at once."""
        self.matrices = sorted(self.matrices, key=_order)
        several = [m.module for m in self.matrices if m.weight not in ROLES and computes_several(m.module)]
        if several:
            self.notes = [*self.notes, f"Computes several matrices at once, not split: {grouped(several)}."]

    def load(self, matrix: Matrix) -> Update:
        """Reads one matrix's update."""
        return self.loaded(matrix).update

    def loaded(self, matrix: Matrix) -> Loaded:
        """Reads one matrix's update. One of rank 0 means that this matrix was left as it is.

        Raises:
            InputError: If it is stored in a type without fractions, or its values are not finite.
        """
        A, B, scaling, norm, rounding = matrix.read()
        return Loaded(Update(matrix.layer, matrix.weight, matrix.module, A, B, scaling), norm, rounding)


def _order(matrix: Matrix) -> tuple[int, list[tuple[int, str]], int]:
    """Orders by layer and role, the embedding first, and matrices outside of layers last, by module."""
    order = ROLES.index(matrix.weight) if matrix.weight in ROLES else len(ROLES)
    if matrix.layer is None and matrix.weight != "embed":
        parts = re.split(r"[._]", holder(matrix.module))
        return _LAST, [(int(part), "") if re.fullmatch(r"\d{1,18}", part) else (-1, part) for part in parts], order
    return -1 if matrix.layer is None else matrix.layer, [(order, matrix.module)], order


def matrices(
    module: str,
    d_in: int,
    d_out: int,
    read: Callable[[], Factors],
    backbone: Backbone,
    is_embedding: bool = False,
) -> list[Matrix]:
    """Returns the matrices in a module that has one pair of factors: one, or q, k and v of a fused layer.

    Args:
        module: The module's name in the file.
        d_in: Columns of A.
        d_out: Rows of B.
        read: Reads the factors.
        backbone: The base, as far as it is known: its Sites say what the module is.
        is_embedding: The file says that it is one, whatever its name.

    Raises:
        InputError: As `sites_in` does.
    """
    return [
        place.matrix(module, d_in, d_out, _part_of(read, place.part), backbone, is_embedding)
        for place in sites_in(module, d_in, d_out, backbone)
    ]


class MatrixSite(NamedTuple):
    """The place of a matrix in a model: a module, or a part of one that computes several."""

    layer: int | None
    weight: str
    part: Part | None = None

    def matrix(
        self,
        module: str,
        d_in: int,
        d_out: int,
        read: Callable[[], Factors],
        backbone: Backbone,
        is_embedding: bool = False,
    ) -> Matrix:
        """Returns the matrix, of a module with d_out outputs."""
        rows = d_out if self.part is None else d_out // self.part.of
        W_0 = partial(frozen, backbone, module, self.part, (rows, d_in), is_embedding)
        return Matrix(self.layer, self.weight, module, d_in, rows, read, W_0)


def sites_in(module: str, d_in: int, d_out: int, backbone: Backbone) -> list[MatrixSite]:
    """Returns which matrices a module holds: by the base's Sites, else by the module's name.

    Raises:
        InputError: If the widths are not the base's, or a fused layer cannot be split without the base.
    """
    sites = backbone.sites(module)
    if not sites:
        return _by_name(module, d_in, d_out)
    if (d_in, d_out) != (sites[0].d_in, sites[0].features):
        raise InputError(
            f"{shown(module)}: the update is of {d_out} x {d_in}, the base has {sites[0].features} x "
            f"{sites[0].d_in} there.\nGive the base that the adapter was trained on."
        )
    return [MatrixSite(site.layer, site.role, site.part) for site in sites]


def from_law(matrix: Matrix, variance: float | None) -> Matrix:
    """Adds the variance by which A's entries were drawn. An embedding's A starts at zero, in loralib as in PEFT."""
    return matrix if matrix.weight == "embed" else matrix._replace(origin=Origin(variance))


def is_transposed(module: str, backbone: Backbone, shape: tuple[int, int], d_out: int | None) -> bool:
    """Returns whether a module stores W transposed: GPT-2's Conv1D, and the token embedding, a table of W's columns.

    Args:
        module: The module's name.
        backbone: The base: its Sites say it, and of a square weight its other layers.
        shape: The shape of the weight as it is stored.
        d_out: Width of the module's output; None where it is not known.
    """
    if sites := backbone.sites(module):
        return sites[0].transposed or sites[0].role == "embed"
    if not may_be_conv1d(module):
        return named(module).role == "embed"
    if d_out in shape and shape[0] != shape[1]:
        return shape[1] == d_out
    return backbone.has_conv1d is not False


def frozen(
    backbone: Backbone, module: str, part: Part | None, shape: tuple[int, int], is_embedding: bool = False
) -> Float[np.ndarray, "d_out d_in"] | None:
    """Reads the W_0 of a matrix; None where the base is not given, or has no such module.

    Raises:
        InputError: If it is of another shape than the update.
    """
    weights = backbone.weights
    name = backbone.find_weight(f"{backbone.module_of(module)}.weight")
    if weights is None or name is None:
        return None
    W = weights.read(name)
    W = W.reshape(len(W), -1)
    rows, columns = W.shape
    d_out = shape[0] * (part.of if part is not None else 1)
    transposed = is_embedding or is_transposed(module, backbone, (rows, columns), d_out)
    found = rows_of(W.T if transposed else W, part)
    if found.shape != shape:
        raise InputError(
            f"{shown(module)}: the update is of {shape[0]} x {shape[1]}, {shown(name)} in {weights.path} of "
            f"{found.shape[0]} x {found.shape[1]}.\nGive the base that the adapter was trained on, or leave --base out."
        )
    return found


def _by_name(module: str, d_in: int, d_out: int) -> list[MatrixSite]:
    """Reads layer and role from the module's name alone."""
    layer, role = named(module)
    if role not in (BLOCKS, BY_HEAD):
        return [MatrixSite(layer, role)]
    if d_out != 3 * d_in:  # another architecture's layer of the same name
        return [MatrixSite(layer, module.rpartition(".")[2])]
    if role == BY_HEAD:
        raise InputError(
            f"{shown(module)} computes q, k and v at once, head by head, and the file does not say how many heads "
            "there are.\nGive the base: --base MODEL, a folder with its config.json or a model of conf/model."
        )
    return [MatrixSite(layer, each, Part(index, len(FUSED))) for index, each in enumerate(FUSED)]


def _part_of(read: Callable[[], Factors], part: Part | None) -> Callable[[], Factors]:
    """Returns the reader of one matrix in a fused layer: its rows of B, and of A what they use.

    An update that changes only some of q, k and v has zeros in the others' rows; one that was made of several (A
    stacked, B in blocks) has them in the others' columns. Left out, they leave this matrix's own factors.
    """
    if part is None:
        return read

    def split() -> Factors:
        A, B, scaling, norm, _ = read()
        rows = rows_of(B, part)
        untrained = not B.any()  # which terms belong to which matrix cannot be seen
        used = np.ones(len(A), bool) if untrained else np.any(rows, axis=0)
        return Factors(A[used], rows[:, used], scaling, norm)

    return split


def rows_of(W: Float[np.ndarray, "d_out d_in"], part: Part | None) -> Float[np.ndarray, "rows d_in"]:
    """Returns the rows of one matrix of a fused layer."""
    if part is None:
        return W
    return W.reshape(part.groups, part.of, -1, W.shape[1])[:, part.position].reshape(-1, W.shape[1])
