"""Our own run directories: the factors of each matrix with the run's own scale; full fine-tuning against its base."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from analysis.adapters.backbone import Backbone, backbone_of, open_backbone, refuse_other_base
from analysis.adapters.base import Adapter, Factors, Matrix, MatrixSite, Options, Origin
from analysis.adapters.checkpoints import first_directions, read_checkpoint
from analysis.adapters.layouts import FactorNames, factors, refuse_misfits, widths
from analysis.adapters.tensors import Tensors, open_tensors
from analysis.section7.starts import start_of
from lora_repro.config.identity import run_name
from lora_repro.config.schema import Run
from lora_repro.errors import InputError, MissingInputError, shown
from lora_repro.methods import LoRAConfig, PeftConfig
from lora_repro.methods.lora import Start
from lora_repro.methods.lora.names import FACTORS, factor_name
from lora_repro.models.arch import Arch, Site
from lora_repro.models.inputs import identify_local, sha256_of
from lora_repro.models.weights import WEIGHTS
from lora_repro.store.adapter_identity import PEFT_WEIGHTS
from lora_repro.store.digests import as_written
from lora_repro.store.finished_runs import finished, run_of
from lora_repro.store.layout import TRAINED


def is_run(folder: Path) -> bool:
    """Returns whether a folder is a run's directory, finished or not."""
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
    run = run_of(finished(folder))
    backbone, notes = _base_of(run, options.base)
    if isinstance(run.method, LoRAConfig):
        return _lora(folder, run, run.method, backbone, weights, notes)
    if isinstance(run.method, PeftConfig):
        raise InputError(
            f"{folder}: what PEFT's {run.method.peft_type} adds is known to PEFT alone.\n"
            "Give a run of method=lora, or an adapter that PEFT's LoRA saved elsewhere."
        )
    path = weights if weights is not None else folder / TRAINED
    if not path.is_file():
        raise MissingInputError(
            f"{folder}: the run keeps no {TRAINED}, as full fine-tuning does unless it is asked to.\n"
            "Compute it with log.save_full=true (a finished run again with log.rebuild=true)."
        )
    tensors = open_tensors(as_written(path))
    sites = run.method.sites(run.arch)
    if not sites:
        raise InputError(
            f"{folder}: a run of {run.method.name} changes no matrix but the head's.\nGive one of another method."
        )
    if all(f"{site.module}.weight" in tensors.shapes for site in sites):
        adapter = read_checkpoint(tensors, run_name(folder), backbone, options)
    else:
        adapter = _changed(run_name(folder), run, tensors, backbone, options.top)
    adapter.format, adapter.notes = _format(run), [*notes, *adapter.notes]
    return adapter


def _changed(name: str, run: Run, tensors: Tensors, backbone: Backbone, top: int) -> Adapter:
    """Returns what a method says that it changed each matrix by."""
    members = []
    for site in run.method.sites(run.arch):
        read = partial(_first_directions, run, site, tensors, backbone, top)
        place = MatrixSite(site.layer, site.role, site.part)
        members.append(place.matrix(site.module, site.d_in, site.features, read, backbone))
    return Adapter(name, "", members, list(tensors.shapes), takes=frozenset({"top"}))


def _first_directions(run: Run, site: Site, tensors: Tensors, backbone: Backbone, top: int) -> Factors:
    base = backbone.weights
    assert base is not None  # a run's base is known
    return first_directions(run.method.delta_W(site, tensors.read, base.read), top)


def _base_of(run: Run, given: str | None) -> tuple[Backbone, list[str]]:
    """Returns the base of a run, and what is not known of one that was given.

    Raises:
        InputError: If another model is given, by its name or by its shapes.
    """
    if given is None:
        return Backbone(run.arch, backbone_of(run.model).open_weights), []
    backbone = open_backbone(given)
    known = run.model if run.model.name != "local" else None
    refuse_other_base(backbone, known, "the run")
    if backbone.arch is not None and _widths(backbone.arch) != _widths(run.arch):
        raise InputError(
            f"--base {shown(given)}: has other layers or widths than {run.model.name}, which the run adapts.\n"
            "Give the model that the run's record names, or leave --base out."
        )
    notes = []
    if backbone.model is None and not _is_recorded(run, Path(given).expanduser()):
        notes.append(
            f"--base {shown(given)}: nobody can tell whether these are the weights that the run's record names "
            f"({run.model.name}, {run.model.digest[:10]}): only their shapes were checked."
        )
    return Backbone(run.arch, backbone.open_weights), notes


def _widths(arch: Arch) -> set[tuple[str, int, int]]:
    return {(site.name, site.d_in, site.d_out) for site in arch.sites}


def _is_recorded(run: Run, given: Path) -> bool:
    """Returns whether a folder holds the weights whose digest the run's record names."""
    if run.model.name == "local":
        return given.is_dir() and identify_local(str(given))[1] == run.model.digest
    path = given / WEIGHTS if given.is_dir() else given
    return path.is_file() and sha256_of(path) == run.model.digest


def _format(run: Run) -> str:
    return f"run of {run.method.name}" + (" on permuted labels" if run.task.permute_labels else "")


def _lora(
    folder: Path, run: Run, method: LoRAConfig, backbone: Backbone, weights: Path | None, notes: Sequence[str]
) -> Adapter:
    apart = folder / "adapter" / FACTORS
    path = weights if weights is not None else apart if apart.is_file() else folder / "adapter" / PEFT_WEIGHTS
    if not path.is_file():
        raise MissingInputError(f"{folder}: {path.name} is missing in its adapter/.\nCompute the run again.")
    tensors = open_tensors(as_written(path))
    start = start_of(run) if run.train.init_from is None else None
    pairs = {site: _pair(site, tensors) for site in method.sites(run.arch)}
    refuse_misfits(tensors, list(pairs.values()))
    taken = {name for pair in pairs.values() for name in (pair.A, pair.B)}
    members = [_matrix(site, pair, tensors, method.scaling_of(site), start, backbone) for site, pair in pairs.items()]
    unknown = [name for name in tensors.shapes if name not in taken]
    return Adapter(run_name(folder), _format(run), members, unknown, notes, base=run.model.hub or run.model.name)


def _pair(site: Site, tensors: Tensors) -> FactorNames:
    A, B = (factor_name(site, matrix, own=site.part is not None) for matrix in ("lora_A", "lora_B"))
    if absent := [name for name in (A, B) if name not in tensors.shapes]:
        raise MissingInputError(f"{tensors.path}: {absent[0]} is missing.\nCompute the run again.")
    return FactorNames(site.module, A, B, None)


def _matrix(
    site: Site, pair: FactorNames, tensors: Tensors, scaling: float, start: Start | None, backbone: Backbone
) -> Matrix:
    d_in, _, _, _ = widths(tensors, pair)
    place = MatrixSite(site.layer, site.role, site.part)
    matrix = place.matrix(site.module, d_in, site.features, partial(factors, tensors, pair, scaling), backbone)
    if start is None or site.layer is None:  # taken over from another run, or an embedding, whose A starts at zero
        return matrix
    return matrix._replace(origin=Origin(draw=partial(start.draw_A, site.name)))
