"""Files of trained tensors: read with an error that says what to do, and the one file of methods without a layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from lora_repro.errors import MissingInputError
from lora_repro.store.digests import as_written
from lora_repro.store.files import write_atomically
from lora_repro.store.layout import TRAINED


class Saved(NamedTuple):
    """What a folder holds of a method."""

    tensors: dict[str, Tensor]
    """By the names that `MethodConfig.file_names` gives them."""
    path: Path
    """The file that is named where a tensor does not fit."""
    files: tuple[Path, ...]
    """All files that were read."""
    base: str | None = None
    """What the files call the base, if they do."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a file of tensors.

    Raises:
        MissingInputError: If it is missing or damaged.
        InputError: If it is not what its run wrote.
    """
    if not path.is_file():
        raise MissingInputError(
            f"{path.parent} holds no {path.name}, which holds what was trained.\nGive a whole copy of the folder."
        )
    try:
        return load_file(as_written(path))
    except (SafetensorError, OSError) as error:
        raise MissingInputError(f"{path} is damaged ({error}).\nGive a whole copy of it.") from error


def write_plain(tensors: Mapping[str, Tensor], folder: Path) -> list[Path]:
    """Writes all tensors into one file, and returns it."""
    write_atomically(folder / TRAINED, save(dict(tensors)))
    return [folder / TRAINED]


def read_plain(folder: Path) -> Saved:
    """Reads what `write_plain` wrote, with the errors of `read_tensors`."""
    path = folder / TRAINED
    return Saved(read_tensors(path), path, (path,))
