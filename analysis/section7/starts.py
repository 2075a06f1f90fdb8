"""Where updates began: A_0 drawn again, how far a run has moved from it, and what starts share by chance.

The control of permuted labels is a run of its own: task.permute_labels=true and all else equal. It may learn faster or
slower than the run on true labels, so it is compared at the snapshot whose A has moved about as far.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from analysis.section7.nulls import DRAWS, Left, Statistic, pair_of_directions
from analysis.section7.subspace import moved, phi_grid
from analysis.section7.update import Update
from lora_repro.config.schema import Run
from lora_repro.errors import InputError, MissingInputError
from lora_repro.methods import LoRAConfig
from lora_repro.methods.lora import Start
from lora_repro.methods.lora.names import FACTORS, factor_name
from lora_repro.models.arch import Site
from lora_repro.store.adapter_identity import PEFT_WEIGHTS
from lora_repro.store.digests import as_written
from lora_repro.store.finished_runs import finished, run_of

FIRST_SEED = 2**31
"""Of the pictures drawn as a null, so that none of them is a run's own."""

FACTOR_FILES = (FACTORS, PEFT_WEIGHTS)
"""The files of `adapter/` that may hold each matrix's own A: the first for fused layers, if it is there."""


class Snapshot(NamedTuple):
    """A run at a point of its training."""

    path: Path
    fraction: float
    """Of the training, in [0, 1]."""
    moved: float
    """||A - A_0||_F / ||A_0||_F over all adapted matrices together."""


def start_of(run: Run) -> Start:
    """Returns the seed and the law by which a run's A_0 was drawn.

    Raises:
        InputError: If they were not drawn: another method, or a run that starts from another's adapter.
    """
    if not isinstance(run.method, LoRAConfig):
        raise InputError(f"A_0: method={run.method.name} has none.\nGive a run of method=lora.")
    if run.train.init_from is not None:
        raise InputError(
            f"A_0: the run starts from {run.train.init_from}, not from a draw.\n"
            "Give a run without train.init_from, or take its snapshot at 0."
        )
    return Start(run.seed, run.method.init, run.method.init_std)


def initial_A(run: Run, update: Update) -> Float[np.ndarray, "r d_in"]:
    """Draws the A_0 of one update of a run again, from seed, name and shape.

    Raises:
        InputError: If it was not drawn; that of an adapted embedding is zero.
    """
    if update.layer is None:
        raise InputError(f"A_0: that of {update.module} is not drawn: it starts at zero.\nGive a matrix of a layer.")
    return start_of(run).draw_A(f"layers.{update.layer}.{update.weight}", *update.A.shape)


def start_pictures(
    start: Start,
    sites: Sequence[Site],
    i: int,
    j: int,
    draws: int = DRAWS,
    statistic: Statistic = phi_grid,
    left: Left | None = None,
) -> Iterator[list[np.ndarray]]:
    """Draws pictures of untrained runs, for `analysis.section7.nulls.bands`, by the code that starts every run.

    Runs of two ranks have one seed, as in Figure 3; runs of one rank have two, as in Figure 4.

    Args:
        start: How A is drawn; its seed is not used.
        sites: The matrices in the picture.
        i: Rank of the one run.
        j: Rank of the other.
        draws: How many pictures.
        statistic: What is asked of the right singular vectors of the two.
        left: What A is multiplied by at each site to compare B A; None compares A.
    """
    for seed in range(FIRST_SEED, FIRST_SEED + draws):
        one, other = start._replace(seed=seed), start._replace(seed=seed + (draws if i == j else 0))
        picture = []
        for position, site in enumerate(sites):
            pair = one.draw_A(site.name, i, site.d_in), other.draw_A(site.name, j, site.d_in)
            picture.append(statistic(*pair_of_directions(*pair, left[position] if left is not None else None)))
        yield picture


def final(folder: Path) -> Snapshot:
    """Returns how far a finished run has moved in the end.

    Raises:
        InputError: If its A_0 was not drawn, or it is damaged.
        MissingInputError: If it is not finished.
    """
    run = _run(folder)
    path = next((path for name in FACTOR_FILES if (path := folder / "adapter" / name).is_file()), None)
    if path is None:
        raise MissingInputError(f"{folder} holds no adapter.\nGive the directory of a finished run of method=lora.")
    return Snapshot(path, 1.0, _moved(path, run))


def snapshots(folder: Path) -> list[Snapshot]:
    """Returns the snapshots of a finished run in the order of training, and how far it had moved at each.

    Raises:
        InputError: If its A_0 was not drawn, or a file is damaged.
        MissingInputError: If it is not finished, or has no snapshots.
    """
    run = _run(folder)
    found = [
        Snapshot(path, float(path.stem), _moved(path, run)) for path in (folder / "snapshots").glob("*.safetensors")
    ]
    if not found:
        raise MissingInputError(
            f"{folder} holds no snapshots.\n"
            "Compute the run again with: 'log.snapshots=[0,0.125,0.25,0.5,1]' log.rebuild=true"
        )
    return sorted(found, key=lambda snapshot: snapshot.fraction)


def nearest_snapshot(folder: Path, moved: float) -> Snapshot:
    """Returns the snapshot of a run whose ||A - A_0|| / ||A_0|| is nearest to that of another; see `final`.

    The snapshot says how far it has moved: with few snapshots even the nearest may be far away.

    Raises:
        InputError: As `snapshots` does.
    """
    return min(snapshots(folder), key=lambda snapshot: abs(snapshot.moved - moved))


def _run(folder: Path) -> Run:
    return run_of(finished(folder))


def _moved(path: Path, run: Run) -> float:
    start, method = start_of(run), run.method
    assert isinstance(method, LoRAConfig)
    sites = [site for site in method.sites(run.arch) if site.layer is not None]
    if not sites:
        raise InputError(f"{path}: only the embedding is adapted, whose A starts at zero.\nGive other targets.")
    names = [factor_name(site, "lora_A", own=site.part is not None) for site in sites]
    as_written(path)
    try:
        with safe_open(path, framework="numpy") as tensors:
            factors = zip(sites, map(tensors.get_tensor, names), strict=True)
            return moved((A, start.draw_A(site.name, *A.shape)) for site, A in factors)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}).\nCompute the run again.") from error
