"""Our own run directories: the factors of each matrix with the run's own scale; full fine-tuning against its base."""

from functools import partial
from pathlib import Path

from analysis.adapters.backbone import Backbone, backbone_of, open_backbone
from analysis.adapters.base import Adapter, Matrix, Options, Origin, Place
from analysis.adapters.checkpoints import read_checkpoint
from analysis.adapters.layouts import Pair, factors, refuse_misfits, widths
from analysis.adapters.tensors import Tensors, open_tensors
from analysis.starts import start_of
from lora_repro.adapter_names import FACTORS, factor_name
from lora_repro.arch import Site
from lora_repro.config import PEFT_WEIGHTS, Run, run_name
from lora_repro.digests import as_written
from lora_repro.errors import InputError, MissingInputError
from lora_repro.methods import LoRAConfig
from lora_repro.methods.lora import Start
from lora_repro.record import TRAINED
from lora_repro.recorded import run_of
from lora_repro.result import read_result


def is_run(folder: Path) -> bool:
    """Tells whether a folder is a run's directory, finished or not."""
    return (folder / "result.json").exists() or (folder / "status.json").exists()


def read_run(folder: Path, options: Options, weights: Path | None = None) -> Adapter:
    """Opens a finished run.

    Args:
        folder: Its directory.
        options: Of the command line; the base is needed only for full fine-tuning of a model=local.
        weights: A snapshot of it; None for what it ended with.

    Raises:
        MissingInputError: If it is not finished, or has not kept what is asked for.
        InputError: If its record is damaged, or it changed no matrix.
    """
    found = read_result(folder)
    result, problem, _ = found
    if problem is not None:
        raise InputError(f"{problem}\n{found.remedy}")
    if result is None:
        raise MissingInputError(
            f"{folder}: holds no result.json: the run is not finished.\n"
            "Compute it first; python -m analysis status says how the runs of a sweep stand."
        )
    run = run_of(result)
    backbone = open_backbone(options.base) if options.base is not None else backbone_of(run.model)
    backbone = Backbone(run.arch, backbone.open_weights)
    if isinstance(run.method, LoRAConfig):
        return _lora(folder, run, run.method, backbone, weights)
    path = weights if weights is not None else folder / TRAINED
    if not path.is_file():
        raise MissingInputError(
            f"{folder}: the run keeps no {TRAINED}, as full fine-tuning does unless it is asked to.\n"
            "Compute it with log.save_full=true (a finished run again with log.rebuild=true)."
        )
    tensors = open_tensors(as_written(path))
    if all(run.arch.is_head(tensor) for tensor in tensors.shapes):
        raise InputError(
            f"{folder}: a run of {run.method.name} changes no matrix but the head's.\nGive one of another method."
        )
    adapter = read_checkpoint(tensors, run_name(folder), backbone, options)
    adapter.format = _format(run)
    return adapter


def _format(run: Run) -> str:
    return f"run of {run.method.name}" + (" on permuted labels" if run.task.permute_labels else "")


def _lora(folder: Path, run: Run, method: LoRAConfig, backbone: Backbone, weights: Path | None) -> Adapter:
    apart = folder / "adapter" / FACTORS
    path = weights if weights is not None else apart if apart.is_file() else folder / "adapter" / PEFT_WEIGHTS
    if not path.is_file():
        raise MissingInputError(f"{folder}: {path.name} is missing in its adapter/.\nCompute the run again.")
    tensors = open_tensors(as_written(path))
    start = start_of(run) if run.train.init_from is None else None
    pairs = {site: _pair(site, tensors) for site in run.arch.select(method.targets)}
    refuse_misfits(tensors, list(pairs.values()))
    taken = {name for pair in pairs.values() for name in (pair.A, pair.B)}
    members = [_matrix(site, pair, tensors, method.scaling_of(site), start, backbone) for site, pair in pairs.items()]
    unknown = [name for name in tensors.shapes if name not in taken]
    return Adapter(run_name(folder), _format(run), members, unknown, base=run.model.hub or run.model.name)


def _pair(site: Site, tensors: Tensors) -> Pair:
    A, B = (factor_name(site, matrix, own=site.part is not None) for matrix in ("lora_A", "lora_B"))
    if absent := [name for name in (A, B) if name not in tensors.shapes]:
        raise MissingInputError(f"{tensors.path}: {absent[0]} is missing.\nCompute the run again.")
    return Pair(site.module, A, B, None)


def _matrix(
    site: Site, pair: Pair, tensors: Tensors, scaling: float, start: Start | None, backbone: Backbone
) -> Matrix:
    d_in, _, _, _ = widths(tensors, pair)
    place = Place(site.layer, site.letter, site.part)
    matrix = place.matrix(site.module, d_in, site.features, partial(factors, tensors, pair, scaling), backbone)
    if start is None or site.layer is None:  # taken over from another run, or an embedding, whose A starts at zero
        return matrix
    return matrix._replace(origin=Origin(draw=partial(start.draw_A, site.name)))
