"""Tensors in files: names and shapes first, one tensor at a time after that. Nothing from a file is executed."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from analysis.foreign_text import grouped
from lora_repro.errors import InputError, MissingInputError, shown

Shape = tuple[int, ...]

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Of safetensors, and what numpy reads them as; it has no bf16, whose bits are the upper half of a float32's."""

_NUMBERS = {f"{kind}{bits}": f"<{kind.lower()}{bits // 8}" for kind in "IU" for bits in (8, 16, 32, 64)}
"""Types of a single whole number, which is no quantised weight but a setting: alpha."""

_WHOLE = ("BOOL", "I", "U")
"""How the names of safetensors' types without fractions begin."""

_FOREIGN = (
    (
        b"version https://git-lfs",
        "is a Git-LFS pointer: the file itself was not downloaded",
        "git lfs pull",
    ),
    (b"GGUF", "is a GGUF file, llama.cpp's own format", "Give the adapter that it was converted from."),
    (b"\x89HDF", "is an HDF5 file, as Keras writes them", "Give safetensors, or a file of torch.save."),
    (b"\x93NUMPY", "is a single array of numpy's", "Give safetensors, or a file of torch.save."),
    (b"<", "is a web page or XML, not the file that it is called", "Download the file itself."),
    (b"{", "is JSON: settings, not weights", "Give the folder that it stands in, or the file of weights."),
)
"""First bytes of files that hold no tensors, what these files are, and what to do."""

_SHARDS = ("model-*-of-*.safetensors", "pytorch_model-*-of-*.bin")
"""As transformers cuts a checkpoint into pieces."""


class Tensors(NamedTuple):
    """Tensors that stay in their files until they are read."""

    path: Path
    """The file or folder that error messages name."""
    shapes: Mapping[str, Shape]
    readers: Mapping[str, Callable[[], np.ndarray]]
    metadata: Mapping[str, str]
    others: Sequence[str] = ()
    """Names of what is no tensor."""
    whole: frozenset[str] = frozenset()
    """Names of tensors of whole numbers or truth values: positions, masks, or weights that are quantised."""

    def read(self, name: str) -> np.ndarray:
        """Reads one tensor, as float32 or as float64.

        Raises:
            InputError: If it is stored in a type without fractions, or holds values that are not finite.
        """
        values = self.readers[name]()
        if not np.isfinite(values).all():
            raise InputError(
                f"{self.path}: {shown(name)} holds values that are not finite.\nGive one that did not diverge."
            )
        return values


def open_tensors(path: Path) -> Tensors:
    """Opens a file of tensors, whichever of the two formats it has.

    Raises:
        InputError: If it is neither, empty, damaged, or would execute something.
    """
    with path.open("rb") as stream:
        start = stream.read(32)
    if not start:
        raise MissingInputError(f"{path}: the file is empty.\nCopy or download it again.")
    for begin, what, remedy in _FOREIGN:
        if start.startswith(begin) and start[8:9] != b"{":
            raise MissingInputError(f"{path}: {what}.\n{remedy}")
    if path.suffix == ".npz":
        raise InputError(
            f"{path}: is an archive of numpy's, as MLX wrote adapters before safetensors.\n"
            "Write it anew: mlx.core.save_safetensors('adapters.safetensors', dict(mlx.core.load('adapters.npz')))"
        )
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _open_safetensors(path)
    if not start.startswith((b"PK", b"\x80")):  # an archive, as torch.save writes it, or its older pickle
        raise InputError(
            f"{path}: is neither safetensors nor a file of torch.save.\nGive a file of an adapter, or of weights."
        )
    from analysis.adapters.pickled import open_pickle  # imports torch

    return open_pickle(path)


def open_folder(folder: Path) -> Tensors | None:
    """Opens a full checkpoint as transformers saves it, whole or in shards; None where there is none."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return open_tensors(folder / name)
    for pattern in _SHARDS:
        if paths := sorted(folder.glob(pattern)):
            return _joined(folder, [open_tensors(path) for path in paths])
    return None


def refuse_twice(path: Path, names: Sequence[str]) -> None:
    """Refuses a name that two tensors have.

    Raises:
        InputError: Naming them.
    """
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise InputError(
            f"{path}: {len(twice)} names stand there more than once: {grouped(twice)}.\n"
            "Give a folder of one checkpoint, or a file of one adapter."
        )


def _joined(folder: Path, shards: Sequence[Tensors]) -> Tensors:
    refuse_twice(folder, [name for shard in shards for name in shard.shapes])
    joined = Tensors(
        folder,
        {name: shape for shard in shards for name, shape in shard.shapes.items()},
        {name: reader for shard in shards for name, reader in shard.readers.items()},
        {},
        [name for shard in shards for name in shard.others],
        frozenset(name for shard in shards for name in shard.whole),
    )
    index = next(iter(sorted(folder.glob("*.index.json"))), None)
    try:
        expected = list(json.loads(index.read_bytes())["weight_map"]) if index is not None else []
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MissingInputError(f"{index}: is damaged ({shown(repr(error))}).\nCopy or download it again.") from None
    if absent := [name for name in expected if name not in joined.shapes]:
        raise MissingInputError(
            f"{folder}: {len(absent)} tensors that its index names are in no shard: {grouped(absent)}.\n"
            "Copy or download the missing shards."
        )
    return joined


def _open_safetensors(path: Path) -> Tensors:
    """Opens a safetensors file; the library checks the header, the values are read past it, one tensor at a time.

    Memory-mapped pages would count as memory until the whole file is held, and numpy does not know bf16.
    """
    try:
        with safe_open(path, framework="numpy") as checked:
            metadata = dict(checked.metadata() or {})
    except SafetensorError as error:
        raise MissingInputError(f"{path}: is damaged ({shown(error)}).\nCopy or download it again.") from error
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length), object_pairs_hook=lambda pairs: _once(path, pairs))
    header.pop("__metadata__", None)
    begin = 8 + length
    shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
    readers = {
        name: _reader(path, name, entry["dtype"], begin + entry["data_offsets"][0], shapes[name])
        for name, entry in header.items()
    }
    whole = frozenset(name for name, entry in header.items() if entry["dtype"].startswith(_WHOLE))
    return Tensors(path, shapes, readers, metadata, whole=whole)


def _once(path: Path, pairs: list[tuple[str, object]]) -> dict[str, Any]:
    """Makes a dictionary of a header's pairs; the library lets the last of two tensors of one name win."""
    refuse_twice(path, [name for name, _ in pairs])
    return dict(pairs)


def _reader(path: Path, name: str, dtype: str, offset: int, shape: Shape) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        known = {**_DTYPES, **_NUMBERS} if shape in ((), (1,)) else _DTYPES
        if dtype not in known:
            raise InputError(
                f"{path}: {shown(name)} is kept as {dtype}; only {', '.join(_DTYPES)} are read.\n"
                "Give a file that is not quantised."
            )
        stored = np.fromfile(path, known[dtype], int(np.prod(shape, dtype=object)), offset=offset).reshape(shape)
        if dtype == "BF16":
            return np.left_shift(stored, 16, dtype=np.uint32, out=np.empty(shape, np.uint32)).view(np.float32)
        return stored.astype(np.float64 if dtype == "F64" or dtype in _NUMBERS else np.float32, copy=False)

    return read
