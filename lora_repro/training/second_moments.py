"""Second moments of the inputs of a model's matrices, cached; torch is imported only when one is not in the cache."""

import hashlib
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from lora_repro.config.identity import NUMERICS_VERSION, id_fields
from lora_repro.config.schema import Run
from lora_repro.config.settings import Settings
from lora_repro.errors import InputError
from lora_repro.models.arch import Site
from lora_repro.store.files import write_atomically
from lora_repro.tasks.classes import Form

EXAMPLES = 512
"""Training examples whose tokens are read: of minilm's 384 dimensions a site sees some ten thousand inputs."""

VECTORS = 10
"""Inputs a dimension that a site must see, if there are so many: Sigma_x of fewer is flatter in its samples than it is,
and makes chance too large (with 512 inputs of 384 dimensions phi(8, 64) by chance was 0.27, where it is 0.17)."""

log = logging.getLogger(__name__)


def second_moments(
    run: Run, settings: Settings, sites: Sequence[Site], examples: int = EXAMPLES
) -> dict[str, Float[np.ndarray, "d_in d_in"]]:
    """Returns Sigma_x = E[x x^T] of each site's inputs x, over the non-padding tokens of training examples of a run.

    The model is the run's base, untrained and in fp32. The tokens are those that it reads in training: of an answer in
    words all but the last; else labels and seed play no part. A layer that reads only the first
    position (the last one's q and o behind a classifier, see `read_first_position`) counts that position only; where
    that is too few to know Sigma_x, the training examples are read on. Found matrices are kept in the cache, keyed by
    all that decides them.

    Args:
        run: Which model and task.
        settings: Device, paths and cache.
        sites: The matrices, by the run's arch; their names are the keys of the result.
        examples: How many training examples, drawn as the run's subset is; all, where there are fewer, and more at
            sites that would see fewer than VECTORS inputs a dimension.

    Raises:
        InputError: If a site is the token embedding, which reads no vectors.
        MissingInputError: If weights or data are missing or damaged.
    """
    if embedded := [site.name for site in sites if site.layer is None]:
        raise InputError(f"second_moments: {embedded[0]} reads tokens, not vectors.\nGive matrices of the layers.")
    folder = Path(settings.paths.cache).expanduser() / "second_moments" / _key(run, settings, examples)
    found = {site.name: _cached(folder / f"{site.name}.npy", site) for site in sites}
    if absent := [site for site in sites if found[site.name] is None]:
        from lora_repro.training import activations

        for name, matrix in activations.measure(run, settings, absent, examples, VECTORS).items():
            found[name] = matrix
            _store(folder / f"{name}.npy", matrix)
    return {name: matrix for name, matrix in found.items() if matrix is not None}


def _key(run: Run, settings: Settings, examples: int) -> str:
    """Returns a readable folder name: the model, the task and a digest of all that decides the inputs."""
    task = {key: value for key, value in id_fields(run.task).items() if key != "permute_labels"}
    decides = [NUMERICS_VERSION, id_fields(run.model), task, run.train.max_length, examples, VECTORS]
    if getattr(run.task, "form", Form.text) is not Form.label:  # answers are read too
        decides.append(["with answers", run.seed if run.task.permute_labels else None])
    if "train" in run.task.unchecked:  # another copy may have other examples
        decides.append(str(Path(settings.paths.data).expanduser().absolute()) if settings.paths.data else None)
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:10]
    return f"{run.model.name}-{run.task.name}-{digest}"


def _cached(path: Path, site: Site) -> Float[np.ndarray, "d_in d_in"] | None:
    """Reads a matrix from the cache; None if it is missing or damaged, so that it is measured again."""
    try:
        matrix = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return matrix if matrix.shape == (site.d_in, site.d_in) and matrix.dtype == np.float64 else None


def _store(path: Path, matrix: Float[np.ndarray, "d_in d_in"]) -> None:
    """Writes a matrix to the cache; if that fails, the next caller measures it again."""
    content = io.BytesIO()
    np.save(content, matrix)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content.getvalue())
    except OSError as error:
        log.warning("%s could not be written (%s); nothing else depends on it.", path, error.strerror)
