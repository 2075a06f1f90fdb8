"""What a run trained, on disk: written under the names and in the layout of its method, and read back."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from lora_repro.config.schema import InitHead, Run
from lora_repro.errors import InputError, MissingInputError
from lora_repro.methods import MethodConfig
from lora_repro.models import labels
from lora_repro.models.arch import Arch
from lora_repro.models.load import label_order, put_labels_in_order, reorder_outputs
from lora_repro.models.pickled import PLAIN
from lora_repro.store.adapter_identity import identify_adapter, is_run
from lora_repro.store.digests import sha256_of, trained_files
from lora_repro.store.files import write_atomically
from lora_repro.store.finished_runs import find_run
from lora_repro.store.result import read_result
from lora_repro.tasks.base import TaskConfig, order_of_outputs
from lora_repro.tasks.recorded import task_of

log = logging.getLogger(__name__)


def save_adapter(model: nn.Module, run: Run, folder: Path, keep_full: bool) -> list[Path]:
    """Writes the trained tensors into a run's directory, and returns the files.

    Args:
        model: The trained model.
        run: Its run.
        folder: The run's directory.
        keep_full: Whether to write those that are as large as the model, too.
    """
    if not run.method.is_trained or (run.method.is_saved_on_request and not keep_full):
        return []
    folder = folder / run.method.folder
    folder.mkdir(exist_ok=True)
    order = label_order(run) if run.method.has_label_order_of_base else None
    return write_adapter(model, run.arch, run.method, folder, run.model.hub or run.model.name, order)


def write_adapter(
    model: nn.Module, arch: Arch, method: MethodConfig, folder: Path, base: str | None, order: list[int] | None = None
) -> list[Path]:
    """Writes the trained tensors in the method's layout, and returns the files.

    Args:
        model: The model that has the method attached.
        arch: Its shapes.
        method: What is attached.
        folder: An existing folder.
        base: The base as the hub names it.
        order: At which output of the base's head each label is, so that the file's head counts as the base does;
            None leaves the head as it is.
    """
    tensors, names = trained_tensors(model, arch, method), method.file_names(model, arch)
    if order is not None:
        rows = [order.index(output) for output in range(len(order))]
        for key in {names[name] for name in _output_names(arch)} & tensors.keys():
            tensors[key] = tensors[key][rows].contiguous()
    return method.write(tensors, arch, folder, base)


def save_snapshot(model: nn.Module, run: Run, path: Path, step: int) -> None:
    """Writes the trained tensors as they are now, under the names that `trained_tensors` gives them.

    The metadata has one key: safetensors writes several in random order.
    """
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, save(trained_tensors(model, run.arch, run.method), {"step": str(step)}))


def trained_tensors(model: nn.Module, arch: Arch, method: MethodConfig) -> dict[str, Tensor]:
    """Returns what the method saves, by the names of files."""
    names = method.file_names(model, arch)
    return {
        names[name]: parameter.detach().cpu().contiguous()
        for name, parameter in _tensors(model).items()
        if name in names
    }


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Returns parameters and buffers by name: a method may save what it has drawn and does not train."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


class TakenOver(NamedTuple):
    """What a run took over from `train.init_from`."""

    files: dict[str, str]
    """The sha256 of each file that was read, by name."""
    head: str
    """Where the head comes from, in words."""
    base: str | None
    """What the adapter calls its base, if it does."""
    taken: frozenset[str]
    """The parameters that came from it."""


def load_adapter(model: nn.Module, run: Run, given: str, outputs: str, drawn: Collection[str]) -> TakenOver:
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
    folder = find_run(given, outputs)
    if folder is None:
        raise MissingInputError(
            f"train.init_from: no run {given} in {outputs}/runs. Compute it first, or give its directory."
        )
    result = None
    if is_run(folder):
        result = _result_of_start(folder, run)
        folder = folder / run.method.folder
    elif identify_adapter(given) != run.train.init_from:
        raise InputError(
            f"train.init_from: {folder} was changed after this run got its id from it.\nGive the same command again."
        )
    head = _head_of(result, run)
    start = fill(model, run.arch, run.method, folder, drawn, run.train.epochs > 0, head.without)
    output = run.arch.output
    if output is not None and start.taken.intersection(_output_names(run.arch)):
        if head.is_in_other_order:
            start = start._replace(
                head=f"{start.head}, its labels put into the order {', '.join(run.task.label_names)}"
            )
            log.info("%s: the head is %s.", folder, start.head)
            reorder_outputs(model, output, head.order)
        elif head.counts_as_base:
            put_labels_in_order(model, run, str(folder))
    names = [PurePosixPath(name).name.lower() for name in (start.base, run.model.hub) if name is not None]
    if len(set(names)) == 2 and start.base != run.model.name:  # organisations differ: gpt2, openai-community/gpt2
        log.warning(
            "%s says that its base is %s, and this run's is %s: on other weights an adapter computes something else.",
            folder, start.base, run.model.hub,
        )  # fmt: skip
    return start


def _result_of_start(folder: Path, run: Run) -> Mapping[str, Any]:
    """Returns the result of a run from whose folder another one starts.

    Raises:
        MissingInputError: If it is not finished, or has no weights there.
        InputError: If it is of other weights or another method.
    """
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
    trained_by = result["config"]["method"]["name"]
    if trained_by != run.method.name:
        raise InputError(
            f"train.init_from: the run {folder.name} was trained with method={trained_by}, and this run has method="
            f"{run.method.name}.\nGive method={trained_by}, or a run of method={run.method.name}."
        )
    trained = trained_files(folder, result)
    if run.method.is_saved_on_request and "digests" in result and not trained:
        raise MissingInputError(
            f"train.init_from: the run {folder.name} saved no weights: method={trained_by} does only with "
            "log.save_full=true.\nAdd them: the run's own command with log.save_full=true log.rebuild=true"
        )
    if trained and not any(path.exists() for path in trained):
        raise MissingInputError(
            f"train.init_from: the run {folder.name} has no weights here, as a store that was made of a ledger.\n"
            "Add them: the run's own command with log.save_full=true log.rebuild=true"
        )
    return result


class _Head(NamedTuple):
    """What is to be done with the head of a start."""

    without: str
    """Why it is left out although it would fit; empty where it is taken."""
    order: list[int]
    """At which of its outputs each label of the task is; empty where that is not known."""
    counts_as_base: bool
    """Whether its outputs are those of the base's head, in the base's order."""

    @property
    def is_in_other_order(self) -> bool:
        """Whether its outputs have to be put into the task's order."""
        return self.order != sorted(self.order)


def _head_of(result: Mapping[str, Any] | None, run: Run) -> _Head:
    """Decides on the head of a start by the names of its labels.

    Args:
        result: Of the run that is the start; None of a folder of PEFT.
        run: The run that starts.
    """
    theirs = None if result is None else task_of(result["config"])
    order = None
    if result is not None and theirs is not None:
        saved = _saved_labels(result, theirs, run.method)
        order = order_of_outputs(theirs, saved, run.task)
        if order is not None and (called := [saved[output] for output in order]) != run.task.label_names:
            pairs = (f"{one} for {other}" for one, other in zip(called, run.task.label_names, strict=True))
            log.info("train.init_from: labels are taken by their meaning, %s.", ", ".join(pairs))
    without = ""
    if run.train.init_head is InitHead.anew:
        without = "train.init_head=anew leaves the adapter's head out"
    elif theirs is not None and order is None and theirs.head_width == run.task.head_width:
        without = "the adapter's head is of the labels {} (task={}), the task's are {} (task={})".format(
            *(part for task in (theirs, run.task) for part in (", ".join(task.label_names) or "a score", task.name))
        )
    is_named_nowhere = theirs is None and (result is None or "digests" in result)
    return _Head(without, order or [], is_named_nowhere and run.method.has_label_order_of_base)


def _saved_labels(result: Mapping[str, Any], task: TaskConfig, method: MethodConfig) -> list[str]:
    """Returns the labels of a run in the order in which its files hold the head's outputs, as `save_adapter` does."""
    names = task.label_names
    counts_as_base = method.has_label_order_of_base and "digests" in result  # earlier records count as the task
    base = labels.names_in(result["config"]["model"]["config"].get("id2label")) if counts_as_base else None
    order = labels.order(base, names) if base is not None else None
    return names if order is None else [names[order.index(output)] for output in range(len(order))]


def fill(
    model: nn.Module,
    arch: Arch,
    method: MethodConfig,
    folder: Path,
    drawn: Collection[str],
    is_trained: bool,
    without_head: str = "",
) -> TakenOver:
    """Copies what a folder holds into a model that has the method attached, in place.

    Args:
        model: The model to fill.
        arch: Its shapes.
        method: The method that is attached.
        folder: A folder in the method's layout.
        drawn: The parameters of the model's head that were drawn.
        is_trained: Whether the model will be trained, so that a head that nobody trained may be in it.
        without_head: Why the model keeps its own head although the folder's would fit; empty where it is copied.

    Raises:
        MissingInputError: If files are missing or damaged.
        InputError: As `load_adapter` does.
    """
    saved, names = method.read(arch, folder), method.file_names(model, arch)
    tensors, path = dict(saved.tensors), saved.path
    found = {name: tensors.pop(key) for name, key in names.items() if key in tensors}
    head = _take_head(found, arch, names, _tensors(model), drawn, path, is_trained, without_head)
    _copy(model, found, arch, names, path)
    if tensors:
        raise InputError(
            f"{path} holds {len(tensors)} tensors that method={method.label} has no place for, "
            f"first {next(iter(tensors))}.\nIt belongs to other settings of the method, or to another base."
        )
    return TakenOver({file.name: sha256_of(file) for file in saved.files}, head, saved.base, frozenset(found))


def _output_names(arch: Arch) -> list[str]:
    """Returns the parameters with a row for each label."""
    output = arch.output
    return [name for name in arch.parameters if output is not None and name.startswith(f"{output}.")]


def _take_head(
    found: dict[str, Tensor],
    arch: Arch,
    names: Mapping[str, str],
    parameters: Mapping[str, Tensor],
    drawn: Collection[str],
    path: Path,
    is_trained: bool,
    without_head: str,
) -> str:
    """Leaves the adapter's head out, in place, where it is not wanted or of another number of labels.

    Returns:
        Where the head comes from, in words.

    A part of the head that the adapter does not hold is the base's, as in PEFT, where the base's checkpoint holds it.

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
    elif held and without_head:
        what = without_head
        if len(held) == len(found):
            raise InputError(
                f"{path} holds a head and nothing else, and it is not taken over ({what}), so nothing is.\n"
                "Leave out train.init_head=anew, give a run on the same labels, or give no train.init_from."
            )
        is_left_out = True
    if is_left_out:
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
        others = f"; {', '.join(held)} are the adapter's" if held else ""
        log.warning("%s: %s, so %s start anew%s.", path, what, ", ".join(anew), others)
        return f"drawn anew: {', '.join(anew)} ({what})"
    if absent:
        log.info("%s: %s; %s are the base's.", path, what, ", ".join(absent))
        return f"the base's: {', '.join(absent)} ({what})"
    return "the adapter's"


def _copy(model: nn.Module, tensors: Mapping[str, Tensor], arch: Arch, names: Mapping[str, str], path: Path) -> None:
    parameters = _tensors(model)
    absent = [name for name in names if name not in tensors and not arch.is_head(name)]
    if absent:
        raise InputError(
            f"{path}: the adapter does not hold {len(absent)} tensors, first {names[absent[0]]}.\n"
            "Give the method's settings that it was trained with, or a whole copy of it."
        )
    for name, tensor in tensors.items():
        if tensor.shape != parameters[name].shape:
            raise InputError(
                f"{path}: {names[name]} has shape {tuple(tensor.shape)}, this model needs "
                f"{tuple(parameters[name].shape)}. Choose the adapter's own base, task and method."
            )
        if tensor.dtype not in (*PLAIN.values(), parameters[name].dtype):
            raise InputError(
                f"{path}: {names[name]} is stored as {str(tensor.dtype).removeprefix('torch.')}; only "
                f"{', '.join(PLAIN)} are read.\nGive an adapter that is not quantised."
            )
        if not tensor.isfinite().all():
            raise InputError(f"{path}: {names[name]} holds values that are not finite.\nGive one that did not diverge.")
        with torch.no_grad():
            parameters[name].copy_(tensor)
