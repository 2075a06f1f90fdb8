"""The LoRA layers: a frozen layer and its low-rank updates (paper, Section 4.1)."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from lora_repro import draw
from lora_repro.methods.lora.config import Start
from lora_repro.models.arch import Part, Site
from lora_repro.models.embeddings import scale_of
from lora_repro.models.fused import as_linear, is_plain
from lora_repro.models.linears import LinearWeights, Update, multiply
from lora_repro.models.parts import features_of, outputs_of, rows_in
from lora_repro.models.precision import dtype_of_products, in_stream


class LoRAUpdate(nn.Module):
    """One update s B A of one weight matrix, in fp32, whatever type the frozen weights have.

    B starts at zero, so the model starts unchanged; of the token embedding it is A that starts at zero and B that is
    drawn from N(0, 1), as in loralib, since A is looked up row by row.

    Args:
        d_in: Width of the input (of the embedding: the number of tokens).
        d_out: Width of the output.
        r: Rank, from 1 to min(d_in, d_out).
        scaling: s, the scale of the update: alpha / r, or alpha / sqrt(r) in rsLoRA.
        start: How A is drawn.
        name: What the draws are keyed by, beside seed and shape: the site's name.
        dropout: Dropout on the input of A.
        freeze_A: Train B alone.

    Raises:
        ValueError: If r is out of range.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        r: int,
        scaling: float,
        start: Start,
        name: str,
        dropout: float = 0.0,
        freeze_A: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= r <= min(d_in, d_out):
            raise ValueError(f"r must be from 1 to {min(d_in, d_out)} for {name} (given: {r}).")
        if name == "embed":
            A, B = torch.zeros(r, d_in), torch.from_numpy(draw.normal(start.seed, f"{name}.lora_B", (d_out, r), 1.0))
        else:
            A, B = initial_A(start, name, r, d_in), torch.zeros(d_out, r)
        self.lora_A = nn.Parameter(A, requires_grad=not freeze_A)
        self.lora_B = nn.Parameter(B)
        self.scaling = scaling
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    @property
    def has_dropout(self) -> bool:
        """Tells whether A reads another input than the frozen weight."""
        return isinstance(self.dropout, nn.Dropout)

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Returns s B A x. The scale is applied to the r-wide vector, where it costs least."""
        return F.linear(F.linear(self.dropout(x), self.lora_A) * self.scaling, self.lora_B)

    def look_up(self, tokens: Int[Tensor, "*batch"], padding: int | None) -> Float[Tensor, "*batch d_out"]:
        """Returns s B a for the column a of A of each token."""
        return F.linear(F.embedding(tokens, self.lora_A.T, padding) * self.scaling, self.lora_B)

    def delta_W(self) -> Float[Tensor, "d_out d_in"]:
        """Returns the update as a matrix, s B A."""
        return self.scaling * (self.lora_B @ self.lora_A)


def initial_A(start: Start, name: str, r: int, d_in: int) -> Float[Tensor, "r d_in"]:
    """Draws A_0, as `Start.draw_A` does, as a tensor."""
    return torch.from_numpy(start.draw_A(name, r, d_in))


class LoRALinear(nn.Module):
    """A frozen linear layer (or GPT-2's Conv1D) and one update for each adapted matrix in it, by its role.

    Args:
        base: The layer, x -> x W^T + b.
        updates: The updates.
        parts: Where the output features of each matrix lie (None: they are the whole output).
    """

    def __init__(
        self, base: nn.Linear | Conv1D, updates: Mapping[str, LoRAUpdate], parts: Mapping[str, Part | None]
    ) -> None:
        super().__init__()
        self.base = base
        self.updates: Any = nn.ModuleDict(dict(updates))
        self.parts = dict(parts)

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Returns W_0 x + b + s B A x, each update added to its own features."""
        dtype, linear = dtype_of_products(x), self.as_linear()
        if dtype is None or linear is None:
            return self._in_steps(x)
        return multiply(x.to(dtype), [linear])[0]

    def as_linear(self) -> LinearWeights | None:
        """Returns what it multiplies with; None if its base must be called, or an update has a dropout of its own."""
        if self.training and any(update.has_dropout for update in self.updates.values()):
            return None
        linear = as_linear(self.base)
        if linear is None or not all(map(is_plain, self.updates.values())):
            return None
        updates = [Update(u.lora_A, u.lora_B, u.scaling, self.parts[role]) for role, u in self.updates.items()]
        return linear._replace(updates=[*linear.updates, *updates])

    def _in_steps(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Returns the same where products are rounded one by one, or each update has a dropout of its own."""
        out = self.base(x)
        for role, update in self.updates.items():
            part = self.parts[role]
            out = out + update(x) if part is None else _added(out, update(x), part)
        return out

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Returns the plain layer with W_0 + s B A, in W_0's dtype; this one stays as it is."""
        layer = deepcopy(self.base)
        W = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
        for role, update in self.updates.items():
            assert isinstance(update, LoRAUpdate)
            features_of(W, self.parts[role]).add_(rows_in(update.delta_W(), self.parts[role]).to(W.dtype))
        return layer


class LoRAEmbedding(nn.Module):
    """The frozen token embedding and its update; W is the table transposed."""

    def __init__(self, base: nn.Embedding, update: LoRAUpdate) -> None:
        super().__init__()
        scale_of(base)  # refuses what is more than a scaled look-up
        self.base = base
        self.updates = nn.ModuleDict({"embed": update})

    @property
    def weight(self) -> Tensor:
        """The frozen table: what ties an output layer to it, or asks for its dtype, sees it as it was."""
        return self.base.weight

    def forward(self, tokens: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch d"]:
        """Returns the rows of the table, with the update."""
        update = self.updates["embed"]
        assert isinstance(update, LoRAUpdate)
        change, scale = update.look_up(tokens, self.base.padding_idx), scale_of(self.base)
        return in_stream(self.base(tokens) + (change if scale is None else change * scale))

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """Returns the plain embedding, with a table of its own: a tied output layer keeps the frozen one."""
        layer, update = deepcopy(self.base), self.updates["embed"]
        assert isinstance(update, LoRAUpdate)
        layer.weight.add_(update.delta_W().T.to(layer.weight.dtype))
        return layer


def _added(out: Float[Tensor, "*batch d"], change: Float[Tensor, "*batch part"], part: Part) -> Tensor:
    """Adds an update to its features of a fused layer's output, in place: the layer's product needs no second look."""
    outputs_of(out, part).add_(change.unflatten(-1, (part.groups, -1)))
    return out


def attach_update(model: nn.Module, site: Site, update: LoRAUpdate) -> None:
    """Puts an update on a site, in place; several updates of one fused layer share the LoRALinear around it."""
    module = model.get_submodule(site.module)
    if isinstance(module, LoRALinear):
        module.updates[site.role] = update
        module.parts[site.role] = site.part
    elif isinstance(module, nn.Embedding):
        replace(model, site.module, LoRAEmbedding(module, update))
    else:
        assert isinstance(module, nn.Linear | Conv1D), f"{site.module} is no linear layer"
        replace(model, site.module, LoRALinear(module, {site.role: update}, {site.role: site.part}))


def merge(model: nn.Module) -> None:
    """Folds every update into its weights, in place: the model has no LoRA layer afterwards (Section 4.1).

    An output layer that is tied to an adapted embedding no longer is, and the model says so.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear | LoRAEmbedding):
            replace(model, name, module.merged())
        if isinstance(module, LoRAEmbedding):
            _untie(model, f"{name}.weight")


def _untie(model: Any, table: str) -> None:
    """Lets a model of transformers know that nothing shares this table any more, if something did."""
    tied = getattr(model, "all_tied_weights_keys", {})
    if table in tied.values():
        model.all_tied_weights_keys = {key: source for key, source in tied.items() if source != table}
        model.config.tie_word_embeddings = False


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Sets the submodule of a dotted name."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
