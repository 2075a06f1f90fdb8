"""The weights that a run starts from, as arrays: W_0 of each matrix, for analyses without training."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float

from lora_repro.config.schema import Run
from lora_repro.config.settings import Settings
from lora_repro.models.arch import Site
from lora_repro.models.load import load_model


def base_parameters(run: Run, settings: Settings, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns these parameters of a run's model as they are before training, in fp32.

    Raises:
        MissingInputError: If the weights are missing or damaged.
    """
    paths = settings.paths
    model = load_model(run, paths.model, paths.cache, torch.device("cpu"))
    return {name: model.get_parameter(name).detach().numpy() for name in names}


def base_matrices(run: Run, settings: Settings, sites: Sequence[Site]) -> dict[str, Float[np.ndarray, "d_out d_in"]]:
    """Returns W_0 of each site, by its name: the module's weight, or the rows of one matrix in a fused layer.

    Raises:
        MissingInputError: If the weights are missing or damaged.
    """
    found = base_parameters(run, settings, {f"{site.module}.weight" for site in sites})
    return {site.name: np.ascontiguousarray(site.matrix_in(found[f"{site.module}.weight"])) for site in sites}
