"""Weights saved as pickles (pytorch_model.bin): refused if they hold anything but tensors. No code in them is run."""

import pickle
import warnings
from collections.abc import Iterable
from pathlib import Path
from zipfile import is_zipfile

import torch

from lora_repro.errors import MissingInputError
from lora_repro.models.weights import WEIGHTS, kinds_in

PLAIN = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""The kinds of numbers that weights are read from, as safetensors call them. Whole numbers and floats of 8 bits are
weights only together with a scale, which is another tensor."""


def refuse_more_than_tensors(files: Iterable[Path]) -> dict[str, str]:
    """Looks through the files of a model's weights, pickles above all, before transformers reads them.

    torch.load with weights_only builds tensors and plain containers, and refuses a pickle that names anything else.
    On the device "meta" it reads no tensor's content (of files older than torch 1.6 it does).

    Returns:
        The kinds of the tensors that are no plain floating-point numbers, by name: masks, counters, quantised weights.

    Raises:
        MissingInputError: If a file names code, is damaged, or holds no mapping of names to tensors.
    """
    kinds: dict[str, str] = {}
    for path in files:
        if path.suffix == ".safetensors":
            kinds |= {name: kind for name, kind in kinds_in(path).items() if kind not in PLAIN}
            continue
        remedy = f"Copy or download it again, or give it as transformers' save_pretrained writes it: {WEIGHTS}."
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a foreign pickle's protocol
                found = torch.load(path, map_location="meta", weights_only=True, mmap=is_zipfile(path))
        except pickle.UnpicklingError as error:
            raise MissingInputError(
                f"{path} is damaged or names code, which is never run here; only tensors are read.\n{remedy}"
            ) from error
        except (RuntimeError, OSError, EOFError, ValueError, LookupError) as error:
            raise MissingInputError(f"{path} is damaged ({str(error) or 'it is too short'}).\n{remedy}") from error
        if not (isinstance(found, dict) and all(isinstance(value, torch.Tensor) for value in found.values())):
            raise MissingInputError(f"{path} holds no mapping of names to tensors alone.\n{remedy}")
        kinds |= {name: str(tensor.dtype) for name, tensor in found.items() if tensor.dtype not in PLAIN.values()}
    return kinds
