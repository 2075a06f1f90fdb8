"""What the classes of transformers draw their matrices from, as they do it: no table of theirs tells."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from transformers.initialization import TORCH_INIT_FUNCTIONS

from lora_repro import draw


class Normal(NamedTuple):
    """A normal distribution around 0, whole or cut on both sides."""

    std: float
    limit: float | None = None
    """The largest magnitude."""

    def draw(self, seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Draws as `draw.normal` does; what lies beyond the limit is drawn again, keyed by how often it was."""
        found, times = draw.normal(seed, name, shape, self.std), 0
        while self.limit is not None and (beyond := np.abs(found) > self.limit).any():
            times += 1
            found = np.where(beyond, draw.normal(seed, f"{name}, again {times}", shape, self.std), found)
        return found


@contextmanager
def recorded_normals() -> Iterator[list[tuple[Tensor, Normal]]]:
    """Collects which tensors transformers draws from a normal distribution meanwhile, and from which."""
    found: list[tuple[Tensor, Normal]] = []

    def record(original: Callable[..., Tensor], tensor: Tensor, **given: Any) -> Tensor:
        found.append((tensor, Normal(given["std"], given.get("b"))))
        return original(tensor, **given)

    changed = {name: partial(record, TORCH_INIT_FUNCTIONS[name]) for name in ("normal_", "trunc_normal_")}
    with patch.dict(TORCH_INIT_FUNCTIONS, changed):
        yield found


def normals_of(
    model: nn.Module, names: Collection[str], recorded: Sequence[tuple[Tensor, Normal]]
) -> dict[str, Normal]:
    """Returns by name what some parameters of a model were drawn from at last."""
    last = {id(tensor): normal for tensor, normal in recorded}
    return {name: last[id(p)] for name, p in model.named_parameters() if name in names and id(p) in last}


def draw_weight(seed: int, name: str, shape: tuple[int, ...], normal: Normal) -> Tensor:
    """Draws a matrix of the head, keyed by name; a bias starts at 0, the weight of a norm at 1."""
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    return torch.from_numpy(normal.draw(seed, name, shape))
