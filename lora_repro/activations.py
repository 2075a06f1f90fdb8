"""What a model's matrices read: the second moments of their inputs, for the null of Section 7 that only inputs make."""

import hashlib
import io
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lora_repro import device
from lora_repro.arch import Site
from lora_repro.circumstances import Circumstances
from lora_repro.config import Run
from lora_repro.encoding import Encoded, encode
from lora_repro.errors import InputError
from lora_repro.files import write_atomically
from lora_repro.identity import NUMERICS_VERSION, science
from lora_repro.models import load_model

EXAMPLES = 512
"""Training examples whose tokens are read: of minilm's 384 dimensions a site sees some ten thousand inputs."""

BATCH = 64

log = logging.getLogger(__name__)


def second_moments(
    run: Run, circumstances: Circumstances, sites: Sequence[Site], examples: int = EXAMPLES
) -> dict[str, Float[np.ndarray, "d_in d_in"]]:
    """Returns Sigma_x = E[x x^T] of each site's inputs x, over the non-padding tokens of training examples of a run.

    The model is the run's base, untrained and in fp32; labels and seed play no part. A layer that reads only the first
    position (the last one's q and o behind a classifier, see `read_first_position`) counts that position only. Found
    matrices are kept in the cache, keyed by all that decides them.

    Args:
        run: Which model and task.
        circumstances: Device, paths and cache.
        sites: The matrices, by the run's arch; their names are the keys of the result.
        examples: How many training examples, drawn as the run's subset is; all, where there are fewer.

    Raises:
        InputError: If a site is the token embedding, which reads no vectors.
        MissingInputError: If weights or data are missing or damaged.
    """
    if embedded := [site.name for site in sites if site.layer is None]:
        raise InputError(f"second_moments: {embedded[0]} reads tokens, not vectors.\nGive matrices of the layers.")
    folder = Path(circumstances.paths.cache).expanduser() / "second_moments" / _key(run, examples)
    found = {site.name: _read(folder / f"{site.name}.npy", site) for site in sites}
    absent = [site for site in sites if found[site.name] is None]
    for name, matrix in (_collect(run, circumstances, absent, examples) if absent else {}).items():
        found[name] = matrix
        _keep(folder / f"{name}.npy", matrix)
    return {name: matrix for name, matrix in found.items() if matrix is not None}


def _collect(
    run: Run, circumstances: Circumstances, sites: Sequence[Site], examples: int
) -> dict[str, Float[np.ndarray, "d_in d_in"]]:
    where = device.prepare(circumstances.compute)
    split = encode(run, circumstances)["train"]
    model = load_model(run, circumstances.paths.model, circumstances.paths.cache, where).eval().to(where)
    moments = _Moments()
    with moments.of(model, {site.module for site in sites}), torch.inference_mode():
        for indices in _by_length(split, examples):
            inputs, _ = split.batch(indices, where)
            moments.mask = inputs["attention_mask"].bool()
            body: Any = model.base_model
            body(**inputs, **({"use_cache": False} if run.arch.is_decoder else {}))
    return {site.name: moments.mean(site.module) for site in sites}


def _by_length(split: Encoded, examples: int) -> Iterator[list[int]]:
    """Yields the first examples in batches of like length."""
    order = split.lengths[:examples].argsort(stable=True).tolist()
    yield from (order[start : start + BATCH] for start in range(0, len(order), BATCH))


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
        hooks = [model.get_submodule(name).register_forward_pre_hook(partial(self._add, name)) for name in modules]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def mean(self, module: str) -> Float[np.ndarray, "d_in d_in"]:
        """Returns E[x x^T]."""
        return (self.sums[module] / self.tokens[module]).cpu().numpy()

    def _add(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert self.mask is not None
        x = inputs[0] if inputs[0].dim() == 3 else inputs[0].unflatten(0, self.mask.shape)
        mask = self.mask[:, : x.shape[1]]
        if self._last is None or self._last[0] is not inputs[0]:
            tokens = x[mask].double()
            self._last = inputs[0], tokens.T @ tokens
        self.sums[name] = self.sums.get(name, 0) + self._last[1]
        self.tokens[name] = self.tokens.get(name, 0) + int(mask.sum())


def _key(run: Run, examples: int) -> str:
    """Returns a readable folder name: the model, the task and a digest of all that decides the inputs."""
    task = {key: value for key, value in science(run.task).items() if key != "permute_labels"}
    decides = [NUMERICS_VERSION, science(run.model), task, run.train.max_length, examples]
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:10]
    return f"{run.model.name}-{run.task.name}-{digest}"


def _read(path: Path, site: Site) -> Float[np.ndarray, "d_in d_in"] | None:
    """Reads a kept matrix; one that is missing or damaged is collected anew."""
    try:
        matrix = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return matrix if matrix.shape == (site.d_in, site.d_in) and matrix.dtype == np.float64 else None


def _keep(path: Path, matrix: Float[np.ndarray, "d_in d_in"]) -> None:
    """Writes a matrix to the cache; where that cannot be, it is collected again another time."""
    content = io.BytesIO()
    np.save(content, matrix)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content.getvalue())
    except OSError as error:
        log.warning("%s could not be written (%s); nothing else depends on it.", path, error.strerror)
