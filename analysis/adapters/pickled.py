"""Files of torch.save: the one place of the analysis where torch is imported, for who gives such a file."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from analysis.adapters.tensors import Tensors
from lora_repro.errors import InputError, MissingInputError, shown
from lora_repro.models.pickled import PLAIN

_NESTS = ("model_state_dict", "state_dict", "model", "module")
"""Under which training scripts keep the weights beside other things; the first is that of the authors' GPT-2 code."""

_NUMBERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""Types of a single whole number, which is no quantised weight but a setting: alpha."""


def open_pickle(path: Path) -> Tensors:
    """Opens a file of torch.save. Only tensors and plain containers are unpickled, and the values stay in the file.

    Raises:
        InputError: If it is none, is damaged, or holds anything that would have to be executed.
    """
    content = _load(path)
    if not isinstance(content, Mapping):
        raise InputError(
            f"{path}: holds a {type(content).__name__}, no tensors by name.\nGive a file of torch.save(state_dict)."
        )
    beside: list[str] = []
    nest = next((key for key in _NESTS if isinstance(content.get(key), Mapping)), None)
    if nest is not None:
        beside = [str(key) for key in content if key != nest]
        content = content[nest]
    tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise InputError(f"{path}: holds no tensors by name.\nGive a file of torch.save(state_dict).")
    size = path.stat().st_size
    for name, tensor in tensors.items():
        if _is_unusual(tensor) or tensor.numel() * tensor.element_size() > size:
            raise InputError(
                f"{path}: {shown(name)} says to be larger than the file, or is no plain tensor.\n"
                "Give a file of torch.save(state_dict)."
            )
    others = [*(str(name) for name in content if str(name) not in tensors), *beside]
    readers = {name: _reader(path, name, tensor) for name, tensor in tensors.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    whole = frozenset(name for name, tensor in tensors.items() if not tensor.is_floating_point())
    return Tensors(path, shapes, readers, {}, others, whole)


def _is_unusual(tensor: torch.Tensor) -> bool:
    """Tells what holds no plain values: sparse, nested, quantised, complex, on no device (meta)."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    return not plain or tensor.is_nested or tensor.is_quantized or tensor.is_complex() or tensor.device.type != "cpu"


def _load(path: Path) -> object:
    remedy = "Give safetensors, or a file of torch.save that holds tensors only."
    with path.open("rb") as stream:
        mapped = stream.read(2) == b"PK"  # else written before torch 1.6, and read whole
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a foreign file makes torch say of its own past
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged or hostile pickle can make the reader fail in any way
        if "weights_only" in str(error).lower() or "Unsupported" in str(error):
            raise InputError(
                f"{path}: holds more than tensors, and what it holds would have to be executed; nothing was.\n{remedy}"
            ) from error
        raise MissingInputError(
            f"{path}: is damaged, or neither safetensors nor a file of torch.save ({type(error).__name__}).\n{remedy}"
        ) from error


def _reader(path: Path, name: str, tensor: torch.Tensor) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        if tensor.shape in ((), (1,)) and tensor.dtype in _NUMBERS:
            return tensor.to(torch.float64).numpy()
        if tensor.dtype not in PLAIN.values():
            raise InputError(
                f"{path}: {shown(name)} is kept as {str(tensor.dtype).removeprefix('torch.')}, which is not read.\n"
                "Give a file that is not quantised."
            )
        wide = torch.float64 if tensor.dtype is torch.float64 else torch.float32
        return tensor.detach().to(wide).contiguous().numpy()

    return read
