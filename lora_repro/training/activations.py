"""The inputs of a model's matrices, measured with hooks on its modules during forward passes of the base."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lora_repro.config.schema import Dtype, Run
from lora_repro.config.settings import Settings
from lora_repro.models.arch import Site
from lora_repro.models.load import load_model
from lora_repro.tasks.batches import scoring_batches
from lora_repro.tasks.encoding import encode
from lora_repro.terminal import progress
from lora_repro.training import device


def measure(
    run: Run, settings: Settings, sites: Sequence[Site], examples: int, vectors: int
) -> dict[str, Float[np.ndarray, "d_in d_in"]]:
    """Returns E[x x^T] of each site's inputs x, by the forward passes of training; second_moments.py caches them.

    Args:
        run: Which model and task.
        settings: Device, paths and cache.
        sites: The matrices.
        examples: How many training examples all sites read.
        vectors: How many inputs a dimension each must see; sites that saw fewer read more examples.

    Raises:
        MissingInputError: If weights or data are missing or damaged.
    """
    on = device.prepare(settings.compute)
    run = replace(run, train=replace(run.train, packing=False))
    split = encode(run, settings)["train"]
    lengths = split.objective.lengths_read(split)
    model = load_model(run, settings.paths.model, settings.paths.cache, on).eval().to(on)
    moments, begin, end = _Moments(), 0, examples
    unmet = {site.module for site in sites}
    with torch.inference_mode():
        while unmet and begin < len(lengths):
            with moments.of(model, unmet):
                batches = scoring_batches(lengths[begin:end], on.type == "cpu")
                for positions in progress(batches, "reading the inputs of each matrix", len(batches)):
                    split.loss(model, [begin + position for position in positions], Dtype.fp32, on)
            unmet = {site.module for site in sites if moments.tokens[site.module] < vectors * site.d_in}
            begin, end = end, end + examples
    return {site.name: moments.mean(site.module) for site in sites}


class _Moments:
    """Sums of x x^T by module, in float64, while a model runs."""

    def __init__(self) -> None:
        self.sums: dict[str, Float[Tensor, "d d"]] = {}
        self.tokens: dict[str, int] = {}
        self.mask: Tensor | None = None
        """Which positions of the batch are no padding."""
        self._last: tuple[Tensor, Tensor] | None = None
        """An input and its product: q, k and v read the same tensor, one after the other."""

    @contextmanager
    def of(self, model: nn.Module, modules: set[str]) -> Iterator[None]:
        """Watches these modules."""
        body: Any = model.base_model
        hooks = [model.get_submodule(name).register_forward_pre_hook(partial(self._add, name)) for name in modules]
        hooks.append(body.register_forward_pre_hook(self._keep_mask, with_kwargs=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def mean(self, module: str) -> Float[np.ndarray, "d_in d_in"]:
        """Returns E[x x^T]."""
        return (self.sums[module] / self.tokens[module]).cpu().numpy()

    def _keep_mask(self, body: nn.Module, inputs: object, given: dict[str, Any]) -> None:
        self.mask = given["attention_mask"].bool()

    def _add(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert self.mask is not None
        x = inputs[0] if inputs[0].dim() == 3 else inputs[0].unflatten(0, self.mask.shape)
        mask = self.mask[:, : x.shape[1]]
        if self._last is None or self._last[0] is not inputs[0]:
            tokens = x[mask].double()
            self._last = inputs[0], tokens.T @ tokens
        self.sums[name] = self.sums.get(name, 0) + self._last[1]
        self.tokens[name] = self.tokens.get(name, 0) + int(mask.sum())
