"""Adapters on disk, whoever wrote them: `read` recognises the format from the files, and gives each matrix's update.

A matrix is read when it is asked for, so that adapters larger than the memory can be inspected.
"""

from pathlib import Path

from analysis.adapters.backbone import Backbone, arch_in, open_backbone
from analysis.adapters.base import Adapter, Loaded, Matrix, Options, Origin
from analysis.adapters.checkpoints import read_checkpoint
from analysis.adapters.diffusion import read_diffusion
from analysis.adapters.layouts import find
from analysis.adapters.loralib import read_loralib
from analysis.adapters.peft import EPOCHS, is_peft
from analysis.adapters.runs import is_run, read_run
from analysis.adapters.tensors import open_folder, open_tensors
from analysis.adapters.toolkits import read_settings_folder
from lora_repro.errors import InputError, MissingInputError, did_you_mean, shown
from lora_repro.store.adapter_identity import adapter_folder
from lora_repro.store.digests import as_written
from lora_repro.store.finished_runs import find_run

__all__ = ["Adapter", "Loaded", "Matrix", "Options", "Origin", "read"]

_KINDS = (
    "Give a run id (its store with --runs DIR), a run directory, a PEFT folder, a file of loralib, diffusers or kohya, "
    "or a full checkpoint with --base MODEL."
)
_FILES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


def read(given: str, options: Options | None = None) -> Adapter:
    """Opens an adapter: a run, a PEFT folder, a file of loralib, diffusers or kohya, or a full checkpoint.

    Args:
        given: A path, or the id of a run in the store.
        options: What the files do not say.

    Raises:
        MissingInputError: If there is nothing of that name, or it is damaged.
        InputError: If it is of no format that is known here, adds no B A to a weight, or is a run's and was changed.
    """
    options = options if options is not None else Options()
    path = adapter_folder(given)
    if not path.exists():
        path = _run_of_store(given, options.store)
    if path.is_dir():
        return _read_folder(path, given, options)
    if not path.is_file():
        raise InputError(f"{shown(given)}: neither a file nor a folder.\n{_KINDS}")
    as_written(path)
    if path.parent.name == "snapshots" and is_run(path.parent.parent):
        return read_run(path.absolute().parent.parent, options, weights=path)
    if is_peft(path.parent) and path.match(EPOCHS):
        return read_settings_folder(path.parent, given, open_backbone(options.base), options, path)
    if is_peft(path.parent) and path.name.startswith(("adapter_model.", "adapters.", "adapter.", "pytorch_adapter.")):
        return read_settings_folder(path.parent, given, open_backbone(options.base), options)
    return _read_file(path, given, options)


def _read_folder(folder: Path, given: str, options: Options) -> Adapter:
    if is_run(folder):
        return read_run(folder, options)
    if is_peft(folder):
        return read_settings_folder(folder, given, open_backbone(options.base), options)
    if (tensors := open_folder(folder)) is not None:
        backbone = open_backbone(options.base)
        if backbone.arch is None:
            backbone = Backbone(arch_in(folder), backbone.open_weights)
        return read_checkpoint(tensors, given, backbone, options)
    files = sorted(path for path in folder.iterdir() if path.suffix in _FILES)
    if len(files) == 1:
        return _read_file(files[0], given, options)
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir() and (is_peft(path) or is_run(path)))
    held = [path.name for path in files] or inside
    what = f"it holds {len(held)}: {shown(', '.join(held))}" if held else "it holds none"
    raise InputError(f"{given}: a folder of no adapter that is known here ({what}).\n{_KINDS}")


def _read_file(path: Path, given: str, options: Options) -> Adapter:
    tensors = open_tensors(path)
    found, backbone = find(tensors), open_backbone(options.base)
    if found is None:
        return read_checkpoint(tensors, given, backbone, options)
    if found.layout == "loralib":
        return read_loralib(tensors, given, found, backbone, options)
    return read_diffusion(tensors, given, found, backbone, options)


def _run_of_store(given: str, store: str) -> Path:
    """Returns the directory of a run that is named by its id."""
    folder = find_run(given, store)
    if folder is None:
        near = did_you_mean(given, [path.name for path in Path(store).glob("runs/*")]) if "/" not in given else ""
        raise MissingInputError(
            f"{shown(given)}: no such file or folder, and no run of that id in {Path(store, 'runs')}.{near}\n{_KINDS}"
        )
    return folder
