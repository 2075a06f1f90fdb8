"""What is left of a run when its update is cut to the first k directions of every matrix, and scored again.

The causal test of "low intrinsic rank": if k directions carry what was learned, a run that keeps them scores as before.
LoRA's updates are cut by projecting A on the first k right singular vectors of dW = (alpha/r) B A, B and the tensors'
shapes staying as they are; full fine-tuning's by taking the first k singular directions of W' - W of every matrix it
trained, embeddings included. All else that was trained, biases and LayerNorms and the head, stays as it was trained.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from analysis.section7.subspace import svd
from analysis.section7.update import Update
from lora_repro.config.identity import NUMERICS_VERSION, numerics_of
from lora_repro.config.schema import Run
from lora_repro.config.settings import Settings
from lora_repro.errors import InputError, MissingInputError, RunFailedError
from lora_repro.methods import LoRAConfig
from lora_repro.models.arch import Arch
from lora_repro.store.finished_runs import finished, run_of
from lora_repro.store.layout import TRAINED
from lora_repro.tasks import Metric
from lora_repro.terminal import progress


class Cut(NamedTuple):
    """The run, cut to the first directions."""

    keep: int
    energy: float
    """The part of the sum of ||dW||_F^2 over all matrices that is kept."""
    metrics: dict[str, float]


class Truncation(NamedTuple):
    """A run's cuts, and what they are measured by."""

    run_id: str
    rank: int
    """Directions of the matrix that has most: with as many, the run is whole."""
    matrices: int
    cuts: list[Cut]
    whole: dict[str, float]
    """The run scored again, without a cut."""
    notes: list[str]
    metric: Metric
    """The one that tables show, by the run's task."""


class CuttableMatrix(NamedTuple):
    """One matrix that training changed, ready to be cut."""

    parameter: str
    """The parameter that is replaced."""
    entries: tuple[np.ndarray | slice, np.ndarray | slice]
    """The rows and columns of the parameter that are this matrix."""
    squares: Float[np.ndarray, " r"]
    """The squared singular values of what training added, in falling order."""
    first: Callable[[int], np.ndarray]
    """Returns, for k, the values of this part of the parameter when the first k directions are kept."""


WHOLE = (slice(None), slice(None))


def truncate(folder: Path, keep: Sequence[int] | None, settings: Settings) -> Truncation:
    """Cuts a run's update and scores it on dev and test, with the run's own dtype, encoding and metrics.

    Args:
        folder: The directory of a finished run.
        keep: How many directions; default 0, 1, 2, 4, ... and all.
        settings: Where weights and data lie, and where it is computed; without `compute.threads` as many threads
            are used as the run had.

    Raises:
        MissingInputError: If the run is not finished, or did not keep its weights.
        InputError: If its method changes no matrix.
        RunFailedError: If the whole run, scored again on the same machine by the same numerics, has other metrics than
            its record.
    """
    result = finished(folder)
    run = run_of(result)
    _refuse_without_matrices(folder, run)
    if settings.compute.threads is None:
        settings.compute.threads = result.get("provenance", {}).get("threads")
    from lora_repro.training.rescore import Rescorer

    rescorer = Rescorer(folder, run, settings)
    if isinstance(run.method, LoRAConfig):
        matrices = _updates(rescorer.parameter, run, run.method)
    else:
        matrices = _changes(rescorer.parameter, rescorer.trained, run, settings)
    rank = max(len(matrix.squares) for matrix in matrices)
    whole = rescorer.score({})
    notes = _check(result, whole, rescorer.machine, numerics_of(run, result["run_id"]))
    total = sum(matrix.squares.sum() for matrix in matrices)
    cuts = []
    keeps = sorted({min(k, rank) for k in keep}) if keep is not None else _default(rank)
    for k in progress(keeps, "cutting and scoring", len(keeps)):
        energy = float(sum(matrix.squares[:k].sum() for matrix in matrices) / total) if total > 0 else 1.0
        metrics = whole if k >= rank else rescorer.score(_cut(matrices, k, rescorer.parameter))
        cuts.append(Cut(k, energy, metrics))
    return Truncation(
        result["run_id"], rank, len(matrices), cuts, whole, [_stays(run), *notes], run.task.targets.metrics[0]
    )


def _refuse_without_matrices(folder: Path, run: Run) -> None:
    if run.method.is_saved_on_request and not (folder / TRAINED).is_file():
        raise MissingInputError(
            f"{folder.name} keeps no {TRAINED}: method={run.method.name} writes it only where log.save_full asks.\n"
            "Compute it again with log.save_full=true log.rebuild=true."
        )
    sites = run.method.sites(run.arch)
    unfrozen = {*run.method.unfrozen(run.arch)}
    if not isinstance(run.method, LoRAConfig) and not any(f"{site.module}.weight" in unfrozen for site in sites):
        raise InputError(
            f"truncate: method={run.method.name} changes no matrix but the head's, or by no update that can be cut.\n"
            "Give a run of method=lora, or of method=full."
        )


def _updates(parameter: Callable[[str], np.ndarray], run: Run, method: LoRAConfig) -> list[CuttableMatrix]:
    """Returns LoRA's updates: B A V_k V_k^T, for the right singular vectors V of dW, is dW cut to k directions."""
    matrices = []
    for site in method.sites(run.arch):
        names = [f"{site.module}.updates.{site.role}.{factor}" for factor in ("lora_A", "lora_B")]
        A, B = map(parameter, names)
        found = svd(Update(site.layer, site.role, site.module, A, B, method.scaling_of(site)))
        matrices.append(CuttableMatrix(names[0], WHOLE, np.square(found.s), partial(_projected, A, found.V)))
    return matrices


def _changes(
    parameter: Callable[[str], np.ndarray], trained: Sequence[str], run: Run, settings: Settings
) -> list[CuttableMatrix]:
    """Returns what training added to every matrix of the model but the head's; of a fused layer's, q, k and v apart."""
    from lora_repro.models.base_weights import base_parameters

    names = [name for name in trained if not run.arch.is_head(name) and parameter(name).ndim == 2]
    before = base_parameters(run, settings, names)
    matrices = []
    for name in names:
        after = parameter(name)
        for index in _indices(run.arch, name):
            start = before[name][index]
            change = after[index] - start
            wide = change if change.shape[0] >= change.shape[1] else change.T
            squares, V = np.linalg.eigh(wide.T.astype(np.float64) @ wide)
            first = partial(_added, start, change, V[:, ::-1])
            matrices.append(CuttableMatrix(name, index, squares[::-1].clip(0), first))
    return matrices


def _projected(A: Float[np.ndarray, "r d"], V: Float[np.ndarray, "d n"], k: int) -> Float[np.ndarray, "r d"]:
    """Returns A V_k V_k^T."""
    return ((A @ V[:, :k]) @ V[:, :k].T).astype(np.float32)


def _added(
    start: Float[np.ndarray, "d_1 d_2"], change: Float[np.ndarray, "d_1 d_2"], V: Float[np.ndarray, "n n"], k: int
) -> Float[np.ndarray, "d_1 d_2"]:
    """Returns the start and the first k directions of the change; V are its singular vectors on the narrower side."""
    if change.shape[1] == len(V):
        return start + _projected(change, V, k)
    return start + _projected(change.T, V, k).T


def _indices(arch: Arch, name: str) -> list[tuple[np.ndarray | slice, np.ndarray | slice]]:
    """Returns where the matrices of a parameter lie: one is all of it, but of fused layers."""
    indices = []
    for site in arch.sites:
        if f"{site.module}.weight" == name and (part := site.part) is not None:
            features = np.arange(site.features).reshape(part.groups, part.of, -1)[:, part.position].ravel()
            indices.append((slice(None), features) if site.transposed else (features, slice(None)))
    return indices or [WHOLE]


def _cut(matrices: Sequence[CuttableMatrix], k: int, parameter: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the parameters in which every matrix keeps its first k directions, or all it has."""
    replaced: dict[str, np.ndarray] = {}
    for matrix in matrices:
        if k < len(matrix.squares):
            replaced.setdefault(matrix.parameter, parameter(matrix.parameter).copy())[matrix.entries] = matrix.first(k)
    return replaced


def _default(rank: int) -> list[int]:
    return [0, *(2**power for power in range((rank - 1).bit_length())), rank]


def _check(
    result: Mapping[str, Any], whole: Mapping[str, float], machine: Mapping[str, Any], numerics: int | None
) -> list[str]:
    """Compares the whole run, scored again here on `machine`, with its record, which `numerics` computed.

    Raises:
        RunFailedError: If they differ where they must be the same to the bit.
    """
    stored = result["metrics"]
    absent = [key for key in whole if key not in stored]
    if len(absent) == len(whole):
        return [f"Its record holds none of {', '.join(whole)}, so the scores are held against nothing."]
    away = {key: abs(value - stored[key]) for key, value in whole.items() if value != stored.get(key, value)}
    if not away:
        but = f", which holds no {', '.join(absent)}" if absent else ""
        return [f"Without a cut it scores exactly as its record says{but}."]
    recorded = result.get("provenance", {})
    then = recorded | recorded.get("versions", {})
    differs = [f"{key} {then.get(key)}, here {value}" for key, value in machine.items() if then.get(key) != value]
    key = max(away, key=lambda key: away[key])
    what = f"{result['run_id']}, scored again without a cut, differs from its record by up to {away[key]:.2g} ({key})"
    made = [] if numerics == NUMERICS_VERSION else [f"by earlier code (numerics {numerics}, here {NUMERICS_VERSION})"]
    made += [f"elsewhere: {'; '.join(differs)}"] if differs else []
    if not made:
        raise RunFailedError(
            f"{what}, on the machine that made it.\nSomebody changed its files, or the code: compute the run again."
        )
    return [f"{what}; it was made {' and '.join(made)}."]


def _stays(run: Run) -> str:
    """Describes what is cut, and what stays as it was trained."""
    if isinstance(run.method, LoRAConfig):
        biases = " and the biases" if run.method.unfrozen(run.arch) else ""
        return f"Cut: LoRA's dW on {', '.join(run.method.targets)}. As trained at every k, 0 too: the head{biases}."
    return "Cut: W' - W of every matrix, embeddings too. As trained at every k, 0 too: the head, biases and LayerNorms."
