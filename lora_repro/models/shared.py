"""The weights that the runs of a process share: they are read once, and only what a run trains is copied for it."""

import hashlib
from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn

COLUMNS = 1024
"""Words in a row of the matrix that `digest` sums."""


def digest(tensor: Tensor) -> str:
    """Returns a digest of a tensor's type, shape and bytes, four times as fast as a sha256 of them.

    The bytes are read as 64-bit words of a matrix, and the sums of its rows and columns, modulo 2**64, are hashed. One
    changed word changes two sums; several go unseen only if they cancel in every row and in every column.
    """
    data = tensor.detach().contiguous().flatten().view(torch.uint8)
    if data.storage_offset() % 8:
        data = data.clone()
    size = data.numel() // 8 * 8
    words = data[:size].view(torch.int64)
    size = words.numel() // COLUMNS * COLUMNS
    matrix = words[:size].view(-1, COLUMNS)
    found = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    for part in (matrix.sum(0), matrix.sum(1), words[size:], data[words.numel() * 8 :]):
        found.update(part.cpu().numpy().tobytes())
    return found.hexdigest()


class Shared:
    """A model in fp32 that is lent to one run after another, with its frozen weights in bf16 as the last run had them.

    Args:
        model: The model, which is nobody else's.
    """

    def __init__(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()  # it may lie in a mapped file, which others can write to
        self.model = model
        self._is_lent = False
        self._in_bf16: dict[str, Tensor] = {}
        self._digests = {key: digest(tensor) for key, tensor in self._tensors().items()}

    def lend(self) -> nn.Module:
        """Returns a model with modules and buffers of its own, whose parameters lie in the shared memory.

        Nobody may write to them: what a run trains or changes, `own` copies first.
        """
        self._is_lent = True
        own = {id(old): nn.Parameter(old.data, old.requires_grad) for old in self.model.parameters()}
        return deepcopy(self.model, own)

    def take_back(self) -> None:
        """Ends a loan after which `digests` were found again: the next one need not look for them."""
        self._is_lent = False

    def changed(self) -> list[str]:
        """Returns the shared tensors that are not as they were read, unless the last loan was taken back."""
        if not self._is_lent:
            return []
        return [
            name for (name, dtype), tensor in self._tensors().items() if digest(tensor) != self._digests[name, dtype]
        ]

    def own(self, parameters: Iterable[nn.Parameter]) -> None:
        """Copies parameters, in place, that lie in the shared memory."""
        places = self._places()
        for parameter in parameters:
            if _place(parameter) in places:
                parameter.data = parameter.data.clone()

    def names(self, model: nn.Module) -> dict[nn.Parameter, str]:
        """Returns the parameters of a model that lie in the shared memory, with their names here."""
        places = self._places()
        return {p: places[place][0] for p in model.parameters() if (place := _place(p)) in places}

    def keep_in_bf16(self, names: dict[nn.Parameter, str]) -> None:
        """Shares parameters that were rounded to bf16, in place; those that only earlier runs had are forgotten.

        Args:
            names: What `names` returned before the rounding.
        """
        kept: dict[str, Tensor] = {}
        for parameter, name in names.items():
            if parameter.dtype is torch.bfloat16:
                parameter.data = kept[name] = self._in_bf16.get(name, parameter.data)
                if name not in self._in_bf16:
                    self._digests[name, torch.bfloat16] = digest(parameter)
        self._in_bf16 = kept

    def digests(self, model: nn.Module) -> dict[str, str]:
        """Returns the digests, as they must be, of those parameters of a model that lie in the shared memory."""
        places = self._places()
        found = {name: places.get(_place(parameter)) for name, parameter in model.named_parameters()}
        return {name: self._digests[key] for name, key in found.items() if key is not None}

    def _tensors(self) -> dict[tuple[str, torch.dtype], Tensor]:
        in_fp32 = {(name, tensor.dtype): tensor.data for name, tensor in self.model.named_parameters()}
        return in_fp32 | {(name, tensor.dtype): tensor for name, tensor in self._in_bf16.items()}

    def _places(self) -> dict[int, tuple[str, torch.dtype]]:
        return {_place(tensor): key for key, tensor in self._tensors().items() if tensor.numel()}


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
