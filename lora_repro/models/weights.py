"""The files of a model's weights, in the forms that transformers and the hub use. No torch."""

from collections.abc import Collection
from fnmatch import filter as matching
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lora_repro.errors import MissingInputError
from lora_repro.models.arch import Shape
from lora_repro.store.reading import parse_foreign_json

WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"
FORMS = {WEIGHTS: "model-*.safetensors", PICKLED: "pytorch_model-*.bin"}
"""The whole file and its shards, in the order in which transformers looks for them. Only tensors are read from a pickle
(torch.load with weights_only), never code."""


def one_form(names: Collection[str]) -> list[str]:
    """Returns, of the files of a repository or a folder, those that hold the weights once; none when there are none."""
    for whole, shards in FORMS.items():
        if whole in names:
            return [whole]
        if f"{whole}.index.json" in names:
            return [f"{whole}.index.json", *sorted(matching(names, shards))]
    return []


def weight_files(folder: Path) -> list[Path]:
    """Returns the files that hold a folder's weights: the whole one, or the shards that its index names.

    Raises:
        MissingInputError: If there are none, the index is damaged, or a shard is missing.
    """
    form = one_form([path.name for path in folder.iterdir() if path.is_file()])
    if not form:
        raise MissingInputError(f"{folder / WEIGHTS} is missing (as is {PICKLED}, whole or in shards)")
    index = folder / form[0]
    if not index.name.endswith(".index.json"):
        return [index]
    try:
        shards = sorted({str(name) for name in parse_foreign_json(index.read_bytes())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MissingInputError(f"{index} is damaged ({error!r})") from error
    if outside := [name for name in shards if Path(name).name != name]:
        raise MissingInputError(f"{index} names a file outside its folder ({outside[0]!r})")
    if not shards:
        raise MissingInputError(f"{index} names no file")
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise MissingInputError(f"{folder / missing[0]} is missing ({len(missing)} of {len(shards)})")
    return [folder / name for name in shards]


def shapes_in(files: Collection[Path]) -> dict[str, Shape] | None:
    """Returns the shapes of all tensors from the headers of safetensors files; None of pickles, which have no header.

    Raises:
        MissingInputError: If a file is damaged.
    """
    shapes: dict[str, Shape] = {}
    for path in files:
        if path.suffix != ".safetensors":
            return None
        shapes |= {name: tuple(shape) for name, (_, shape) in _header(path).items()}
    return shapes


def kinds_in(path: Path) -> dict[str, str]:
    """Returns the kind of each tensor's numbers in a safetensors file, such as F32 or I8.

    Raises:
        MissingInputError: If the file is damaged.
    """
    return {name: kind for name, (kind, _) in _header(path).items()}


def _header(path: Path) -> dict[str, tuple[str, list[int]]]:
    try:
        with safe_open(path, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            return {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}
    except SafetensorError as error:
        raise MissingInputError(f"{path} is damaged ({error}).\nCopy or download it again.") from error
