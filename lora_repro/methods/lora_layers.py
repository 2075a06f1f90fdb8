"""The LoRA layer: a frozen linear and its low-rank updates (paper, Section 4.1)."""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lora_repro import draw
from lora_repro.arch import Site


class LoRAUpdate(nn.Module):
    """One update (alpha / r) B A of one weight matrix, kept in fp32 whatever the frozen weights are kept in.

    A starts Kaiming-uniform as in loralib (`layers.py`, `kaiming_uniform_(a=sqrt(5))`, bound 1 / sqrt(d_in)); the
    paper's Section 4.1 says Gaussian. B starts at zero, so the model starts unchanged.

    Args:
        d_in: Width of the input.
        d_out: Width of the output.
        r: Rank, from 1 to min(d_in, d_out).
        alpha: Scale of the update; the paper sets it to the first r tried and does not tune it.
        dropout: Dropout on the input of A.
        seed: The run's seed.
        name: What the draws are keyed by, beside seed and shape: the site's name.

    Raises:
        ValueError: If r is out of range.
    """

    def __init__(self, d_in: int, d_out: int, r: int, alpha: float, dropout: float, seed: int, name: str) -> None:
        super().__init__()
        if not 1 <= r <= min(d_in, d_out):
            raise ValueError(f"r must be from 1 to {min(d_in, d_out)} for {name} (given: {r}).")
        self.lora_A = nn.Parameter(initial_A(seed, name, r, d_in))
        self.lora_B = nn.Parameter(torch.zeros(d_out, r))
        self.scaling = alpha / r
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Returns (alpha / r) B A x. The scale is applied to the r-wide vector, where it costs least."""
        return F.linear(F.linear(self.dropout(x), self.lora_A) * self.scaling, self.lora_B)

    def delta_W(self) -> Float[Tensor, "d_out d_in"]:
        """Returns the update as a matrix, (alpha / r) B A."""
        return self.scaling * (self.lora_B @ self.lora_A)


def initial_A(seed: int, name: str, r: int, d_in: int) -> Float[Tensor, "r d_in"]:
    """Draws A_0, the start of A at a site; it can be drawn again at any time."""
    return torch.from_numpy(draw.uniform(seed, f"{name}.lora_A", (r, d_in), bound=1 / math.sqrt(d_in)))


class LoRALinear(nn.Module):
    """A frozen linear layer and one update for each adapted matrix in it, by letter."""

    def __init__(self, base: nn.Linear, updates: dict[str, LoRAUpdate]) -> None:
        super().__init__()
        self.base = base
        self.updates = nn.ModuleDict(updates)

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Returns W_0 x + b + (alpha / r) B A x."""
        out = self.base(x)
        for update in self.updates.values():
            out = out + update(x)
        return out

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Returns one linear layer with W_0 + (alpha / r) B A, in W_0's dtype; this layer stays as it is."""
        linear = nn.Linear(self.base.in_features, self.base.out_features, self.base.bias is not None)
        linear.to(self.base.weight.device, self.base.weight.dtype)
        linear.load_state_dict(self.base.state_dict())
        for update in self.updates.values():
            assert isinstance(update, LoRAUpdate)
            linear.weight += update.delta_W().to(linear.weight.dtype)
        return linear


def attach_lora(model: nn.Module, sites: Iterable[Site], r: int, alpha: float, dropout: float, seed: int) -> None:
    """Puts a LoRALinear around the linear layer of every site, in place."""
    for site in sites:
        base = model.get_submodule(site.module)
        assert isinstance(base, nn.Linear), f"{site.module} is no linear layer"
        update = LoRAUpdate(site.d_in, site.d_out, r, alpha, dropout, seed, site.name)
        replace(model, site.module, LoRALinear(base, {site.letter: update}))


def merge(model: nn.Module) -> None:
    """Folds every update into its weights, in place: the model has no LoRALinear afterwards (Section 4.1)."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoRALinear):
            replace(model, name, module.merged())


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Sets the submodule of a dotted name."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
