"""What a run trained, on disk: LoRA in PEFT's layout, other methods as plain tensors. Written and read here."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lora_repro.config.schema import Run
from lora_repro.errors import InputError, MissingInputError
from lora_repro.methods import FullConfig, LoRAConfig, MethodConfig
from lora_repro.methods.lora.names import FACTORS, PEFT_PREFIX, factor_name
from lora_repro.methods.lora.peft import check_settings, settings
from lora_repro.models.arch import Arch, Site
from lora_repro.models.load import label_order, output_of, put_labels_in_order
from lora_repro.models.parts import features_of, rows_in
from lora_repro.models.pickled import PLAIN
from lora_repro.store.adapter_identity import PEFT_CONFIG, PEFT_WEIGHTS, adapter_folder, identify_adapter
from lora_repro.store.digests import as_written, sha256_of
from lora_repro.store.files import write_atomically
from lora_repro.store.record import TRAINED, read_result

PEFT_COPIES = ("modules_to_save", "original_module")
"""Names below a module of the head under which PEFT saves its biases once more where all biases are trained, and under
which it does not read them."""

log = logging.getLogger(__name__)


def save_adapter(model: nn.Module, run: Run, folder: Path, keep_full: bool) -> None:
    """Writes the trained tensors into a run's directory.

    LoRA goes to `adapter/`. Of other methods `trained.safetensors` holds what was trained, of full fine-tuning only
    where `keep_full` asks.
    """
    if isinstance(run.method, LoRAConfig):
        (folder / "adapter").mkdir(exist_ok=True)
        base, order = run.model.hub or run.model.name, label_order(run)
        write_adapter(model, run.arch, run.method, folder / "adapter", base, order)
    elif keep_full or not isinstance(run.method, FullConfig):
        write_atomically(folder / TRAINED, save(trained_tensors(model, run.arch, run.method)))


def write_adapter(
    model: nn.Module, arch: Arch, method: LoRAConfig, folder: Path, base: str | None, order: list[int] | None = None
) -> None:
    """Writes LoRA as a folder that PEFT opens on the same base, the head in its `modules_to_save`.

    PEFT has one update for a fused layer: there its A is ours stacked, its B ours block by block, and our own factors
    lie beside.

    Args:
        model: The model that has LoRA attached.
        arch: Its shapes.
        method: What is attached.
        folder: An existing folder.
        base: The base as the hub names it.
        order: At which output of the base's head each label stands, so that the file's head counts as the base does;
            None leaves the head as it is.
    """
    tensors = trained_tensors(model, arch, method)
    if order is not None:
        rows = [order.index(output) for output in range(len(order))]
        for key in {PEFT_PREFIX + name for name in _output_names(arch)} & tensors.keys():
            tensors[key] = tensors[key][rows].contiguous()
    if fused := _fused(method, arch):
        write_atomically(folder / FACTORS, save(tensors))
        tensors = _stacked(tensors, fused, method)
    write_atomically(folder / PEFT_WEIGHTS, save(tensors))
    write_atomically(folder / PEFT_CONFIG, json.dumps(settings(arch, method, base), indent=2) + "\n")


def save_snapshot(model: nn.Module, run: Run, path: Path, step: int) -> None:
    """Writes the trained tensors as they are now, under the names that `trained_tensors` gives them.

    The metadata has one key: safetensors writes several in random order.
    """
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, save(trained_tensors(model, run.arch, run.method), {"step": str(step)}))


def trained_tensors(model: nn.Module, arch: Arch, method: MethodConfig) -> dict[str, Tensor]:
    """Returns what is trained (and a frozen A), by the names of files: PEFT's for LoRA, else the model's own.

    The factors of a fused layer's matrices, which PEFT does not know, have the letter in their name.
    """
    names = _peft_names(method, arch) if isinstance(method, LoRAConfig) else {}
    return {
        names.get(name, name): parameter.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or name in names
    }


class Start(NamedTuple):
    """What was taken over from an adapter."""

    files: dict[str, str]
    """The sha256 of each file that was read, by name."""
    head: str
    """Where the head comes from, in words."""
    base: str | None
    """What the adapter calls its base, if it does."""
    taken: frozenset[str]
    """The parameters that came from it."""


def load_adapter(model: nn.Module, run: Run, given: str, outputs: str, drawn: Collection[str]) -> Start:
    """Copies an adapter, and its head, into a model that has the run's method attached, in place.

    Args:
        model: The model to fill.
        run: Its run; method and shapes must be the adapter's.
        given: A run id (looked for in `outputs`), a run directory, or a PEFT folder.
        outputs: The store.
        drawn: The parameters of the model's head that were drawn, and not read from the base's checkpoint.

    Raises:
        MissingInputError: If there is no such adapter.
        InputError: If it is of another method, rank or scale, or a run on other weights, or was changed; or if the
            run trains nothing, and the head would be one that nobody trained.
    """
    folder = adapter_folder(given)
    if not folder.is_dir():
        folder = Path(outputs) / "runs" / given
    if not folder.is_dir():
        raise MissingInputError(
            f"train.init_from: no run {given} in {outputs}/runs. Compute it first, or give its directory."
        )
    is_run, result = (folder / "config.yaml").is_file(), {}
    if is_run:
        result, problem, _ = read_result(folder)
        if result is None:
            why = problem if problem is not None else f"the run {folder.name} is not finished."
            raise MissingInputError(f"train.init_from: {why} Compute it first.")
        base = result["config"]["model"]
        if base["digest"] != run.model.digest:
            raise InputError(
                f"train.init_from: the run {folder.name} adapts other weights: {base['name']}, {base['digest'][:10]} "
                f"(here: {run.model.name}, {run.model.digest[:10]}).\nGive the run's own: model={base['name']}"
                + (" and its paths.model" if base["name"] == "local" else "")
            )
        folder = folder / "adapter" if (folder / "adapter").is_dir() else folder
    elif identify_adapter(given) != run.train.init_from:
        raise InputError(
            f"train.init_from: {folder} was changed after this run got its id from it.\nGive the same command again."
        )
    start = fill(model, run.arch, run.method, folder, drawn, is_trained=run.train.epochs > 0)
    counts_as_base = isinstance(run.method, LoRAConfig) and (not is_run or "digests" in result)
    if counts_as_base and start.taken.intersection(_output_names(run.arch)):
        put_labels_in_order(model, run, str(folder))
    names = [PurePosixPath(name).name.lower() for name in (start.base, run.model.hub) if name is not None]
    if len(set(names)) == 2 and start.base != run.model.name:  # organisations differ: gpt2, openai-community/gpt2
        log.warning(
            "%s says that its base is %s, and this run's is %s: on other weights an adapter computes something else.",
            folder, start.base, run.model.hub,
        )  # fmt: skip
    return start


def fill(
    model: nn.Module, arch: Arch, method: MethodConfig, folder: Path, drawn: Collection[str], is_trained: bool
) -> Start:
    """Copies what a folder holds into a model that has the method attached, in place.

    Args:
        model: The model to fill.
        arch: Its shapes.
        method: The method that is attached.
        folder: A PEFT folder, or the directory of a run without an adapter.
        drawn: The parameters of the model's head that were drawn.
        is_trained: Whether the model will be trained, so that a head that nobody trained may stand in it.

    Raises:
        MissingInputError: If files are missing or damaged.
        InputError: As `load_adapter` does.
    """
    files = [folder / TRAINED]
    names = {name: name for name, parameter in model.named_parameters() if parameter.requires_grad}
    fused: dict[str, list[Site]] = {}
    base = None
    if isinstance(method, LoRAConfig):
        names, fused = _peft_names(method, arch), _fused(method, arch)
        own = fused and (folder / FACTORS).is_file()
        files = [folder / PEFT_WEIGHTS, folder / PEFT_CONFIG, *([folder / FACTORS] if own else [])]
        base = check_settings(as_written(folder / PEFT_CONFIG), arch, method, stacked=len(files) == 3)
    if not files[0].is_file():
        raise MissingInputError(
            f"{folder} holds no {files[0].name}, which method={method.name} would start from.\n"
            "Full fine-tuning keeps no weights; give the run of another method, or choose that run's method."
        )
    path = files[0]
    tensors = _read(path)
    if isinstance(method, LoRAConfig) and len(files) == 3:
        stacked, path = tensors, files[2]
        tensors = _read(path)
        _refuse_other_factors(stacked, tensors, fused, method, path)
    elif isinstance(method, LoRAConfig) and fused:
        tensors = _split(tensors, fused, path)
    found = {name: tensors.pop(key) for name, key in names.items() if key in tensors}
    head = _take_head(found, arch, names, dict(model.named_parameters()), drawn, path, is_trained)
    _copy(model, found, arch, names, path)
    copies = tuple(f"{PEFT_PREFIX}{module}.{kind}." for module in arch.head_modules for kind in PEFT_COPIES)
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(copies)}
    if tensors:
        raise InputError(
            f"{path} holds {len(tensors)} tensors that method={method.label} has no place for, "
            f"first {next(iter(tensors))}.\nIt belongs to other targets or another base."
        )
    return Start({path.name: sha256_of(path) for path in files}, head, base, frozenset(found))


def _output_names(arch: Arch) -> list[str]:
    """Returns the parameters with a row for each label."""
    output = output_of(arch)
    return [name for name in arch.parameters if output is not None and name.startswith(f"{output}.")]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(as_written(path))
    except (SafetensorError, OSError) as error:
        raise MissingInputError(f"{path} is damaged ({error}).\nGive a whole copy of it.") from error


def _take_head(
    found: dict[str, Tensor],
    arch: Arch,
    names: Mapping[str, str],
    parameters: Mapping[str, nn.Parameter],
    drawn: Collection[str],
    path: Path,
    is_trained: bool,
) -> str:
    """Leaves the adapter's head out, in place, where it is of another number of labels; says where the head comes from.

    What the adapter lacks of the head is the base's, as in PEFT, where the base's checkpoint holds it.

    Raises:
        InputError: If nothing is trained, and a part of the head was drawn.
    """
    wanted = [name for name in names if arch.is_head(name)]
    if not wanted:
        return "there is none"
    held = [name for name in wanted if name in found]
    theirs = {name: found[name].shape for name in held if found[name].shape != parameters[name].shape}
    is_of_other_labels = theirs and all(shape[1:] == parameters[name].shape[1:] for name, shape in theirs.items())
    is_left_out = bool(is_of_other_labels) and len(held) < len(found)
    what = f"the adapter holds {'a part of the' if held else 'no'} head"
    if is_left_out:
        name, shape = next(iter(theirs.items()))
        what = f"the adapter's head is of {shape[0]} labels, the task's of {parameters[name].shape[0]}"
        for each in held:
            del found[each]
        held = []
    absent = [name for name in wanted if name not in held]
    anew = [name for name in absent if name in drawn]
    if (anew or is_left_out) and not is_trained:
        raise InputError(
            f"{path} holds no trained head for this task ({what}), so there is nothing to score.\n"
            "Train from it (train.epochs=1 or more), which takes the updates over and draws the head; or save it with "
            "all of the head in modules_to_save."
        )
    if anew:
        kept = f"; {', '.join(held)} are the adapter's" if held else ""
        log.warning("%s: %s, so %s start anew%s.", path, what, ", ".join(anew), kept)
        return f"drawn anew: {', '.join(anew)} ({what})"
    if absent:
        log.info("%s: %s; %s are the base's.", path, what, ", ".join(absent))
        return f"the base's: {', '.join(absent)} ({what})"
    return "the adapter's"


def _refuse_other_factors(
    stacked: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    fused: Mapping[str, Sequence[Site]],
    method: LoRAConfig,
    path: Path,
) -> None:
    """Refuses factors of fused layers that are not those of the file beside, by which the adapter is identified."""
    try:
        expected = _stacked(own, fused, method)
        is_same = expected.keys() == stacked.keys() and all(expected[key].equal(stacked[key]) for key in expected)
    except (KeyError, RuntimeError):  # a factor is missing, or of another shape
        is_same = False
    if not is_same:
        raise InputError(
            f"{path} does not hold the same adapter as {PEFT_WEIGHTS} beside it.\n"
            f"Give a whole copy of the folder, or one without {FACTORS}."
        )


def _copy(model: nn.Module, tensors: Mapping[str, Tensor], arch: Arch, names: Mapping[str, str], path: Path) -> None:
    parameters = dict(model.named_parameters())
    absent = [name for name in names if name not in tensors and not arch.is_head(name)]
    if absent:
        raise InputError(
            f"{path}: the adapter lacks {len(absent)} tensors, first {names[absent[0]]}.\n"
            "Give method.targets as the adapter has them, or a whole copy of it."
        )
    for name, tensor in tensors.items():
        if tensor.shape != parameters[name].shape:
            raise InputError(
                f"{path}: {names[name]} has shape {tuple(tensor.shape)}, this model needs "
                f"{tuple(parameters[name].shape)}. Choose the adapter's own base, task and method."
            )
        if tensor.dtype not in PLAIN.values():
            raise InputError(
                f"{path}: {names[name]} is kept as {str(tensor.dtype).removeprefix('torch.')}; only "
                f"{', '.join(PLAIN)} are read.\nGive an adapter that is not quantised."
            )
        if not tensor.isfinite().all():
            raise InputError(f"{path}: {names[name]} holds values that are not finite.\nGive one that did not diverge.")
        with torch.no_grad():
            parameters[name].copy_(tensor)


def _fused(method: LoRAConfig, arch: Arch) -> dict[str, list[Site]]:
    """Returns the adapted sites of each layer that computes several matrices at once, by module."""
    fused: dict[str, list[Site]] = {}
    for site in arch.select(method.targets):
        if site.part is not None:
            fused.setdefault(site.module, []).append(site)
    return fused


def _peft_names(method: LoRAConfig, arch: Arch) -> dict[str, str]:
    """Maps our parameters' names to those of files."""
    names = {name: PEFT_PREFIX + name for name in arch.parameters if arch.is_head(name)}
    adapted = set()
    for site in arch.select(method.targets):
        adapted.add(site.module)
        for matrix in ("lora_A", "lora_B"):
            names[f"{site.module}.updates.{site.role}.{matrix}"] = factor_name(site, matrix, site.part is not None)
    for name in method.unfrozen(arch):
        module = name.removesuffix(".bias")
        if module in adapted:
            names[f"{module}.base.bias"] = f"{PEFT_PREFIX}{module}.base_layer.bias"
        else:
            names[name] = PEFT_PREFIX + name
    return names


def _stacked(
    tensors: Mapping[str, Tensor], fused: Mapping[str, Sequence[Site]], method: LoRAConfig
) -> dict[str, Tensor]:
    """Makes one update of each fused layer's: A stacked, B in blocks; scales that differ go into B."""
    stacked = dict(tensors)
    for sites in fused.values():
        first = method.scaling_of(sites[0])
        A, blocks = [], []
        ranks = [method.r_of(site) for site in sites]
        for position, site in enumerate(sites):
            A.append(stacked.pop(factor_name(site, "lora_A", own=True)))
            B = stacked.pop(factor_name(site, "lora_B", own=True)) * (method.scaling_of(site) / first)
            assert site.part is not None
            columns = torch.zeros(site.features, sum(ranks))
            begin = sum(ranks[:position])
            features_of(columns, site.part)[..., begin : begin + ranks[position]] = rows_in(B, site.part)
            blocks.append(columns)
        stacked[factor_name(sites[0], "lora_A", own=False)] = torch.cat(A)
        stacked[factor_name(sites[0], "lora_B", own=False)] = torch.stack(blocks).sum(0)
    return stacked


def _split(tensors: Mapping[str, Tensor], fused: Mapping[str, Sequence[Site]], path: Path) -> dict[str, Tensor]:
    """Makes updates of q, k, v from PEFT's one update of a fused layer: the same A for all, the rows of B for each.

    Raises:
        InputError: If it also changes a matrix that is not adapted here.
    """
    split = dict(tensors)
    for module, sites in fused.items():
        A, B = (split.pop(factor_name(sites[0], matrix, own=False), None) for matrix in ("lora_A", "lora_B"))
        if A is None or B is None:
            continue  # told by whoever looks for the factors
        rest = B.clone()
        for site in sites:
            if len(B) != site.features:
                raise InputError(
                    f"lora_B of {module} in {path} has {len(B)} rows, this model's layer "
                    f"{site.features} features.\nGive an adapter of this base."
                )
            split[factor_name(site, "lora_A", own=True)] = A.clone()
            split[factor_name(site, "lora_B", own=True)] = features_of(B, site.part).flatten(0, 1).contiguous()
            features_of(rest, site.part).zero_()
        if rest.any():
            raise InputError(
                f"PEFT's update of {module} in {path} changes q, k and v.\nGive them all: method.targets=[q,k,v]"
            )
    return split
