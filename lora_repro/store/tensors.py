"""Files of tensors: read with an error that says what to do, written without a copy, and that of plain methods."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from lora_repro.errors import MissingInputError
from lora_repro.store.digests import as_written
from lora_repro.store.files import write_atomically
from lora_repro.store.layout import TRAINED

BLOCK = 2**20
"""Bytes. A larger tensor is written by itself; smaller ones are gathered, as each write is a call of the system."""

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""How safetensors names them."""


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


def blocks(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[memoryview]:
    """Yields a safetensors file piece by piece, where its `save` would hold a copy of all tensors.

    Source: https://huggingface.co/docs/safetensors, Format: the header's length in eight bytes, the header, the data.
    As in the library the widest types come first and spaces fill the header, so each lies at a multiple of its size.

    Args:
        tensors: On the CPU and contiguous.
        metadata: Texts for the header.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    names, end = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)), 0
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        dtype, shape = DTYPES[tensors[name].dtype], list(tensors[name].shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    gathered = bytearray(len(text).to_bytes(8, "little") + text)
    for data in (raw(tensors[name]) for name in names):
        if len(gathered) + len(data) > BLOCK:
            yield memoryview(gathered)
            gathered = bytearray()
        if len(data) > BLOCK:
            yield data
        else:
            gathered += data
    yield memoryview(gathered)


def raw(tensor: Tensor) -> memoryview:
    """Returns the bytes of a contiguous tensor on the CPU, without a copy."""
    return tensor.flatten().view(torch.uint8).numpy().data


def write_plain(tensors: Mapping[str, Tensor], folder: Path) -> list[Path]:
    """Writes all tensors into one file, and returns it."""
    write_atomically(folder / TRAINED, save(dict(tensors)))
    return [folder / TRAINED]


def read_plain(folder: Path) -> Saved:
    """Reads what `write_plain` wrote, with the errors of `read_tensors`."""
    path = folder / TRAINED
    return Saved(read_tensors(path), path, (path,))
