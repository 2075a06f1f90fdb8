"""Finds weights on this machine and checks them against their digests. No torch."""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache as memoize
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lora_repro.errors import MissingInputError
from lora_repro.models.arch import Arch, ModelConfig, Source
from lora_repro.models.json_files import read_keys, unreadable
from lora_repro.models.weights import WEIGHTS, shapes_in, weight_files
from lora_repro.store.reading import parse_foreign_json, parse_json

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spm.model",
)
VOCABULARIES = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"), ("spm.model",))
"""The files of which one set makes a tokenizer."""
_FORM = f"Give a folder as transformers' save_pretrained writes it: config.json, {WEIGHTS}, the tokenizer."
_GIVE = "Give a folder as transformers' save_pretrained writes it."
NOT_FUNCTION = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache")
"""Keys of config.json that change nothing that is computed here."""
CLOCK_TICK_NS = 2_000_000_000
"""The coarsest clock of the file systems in use (FAT's)."""


def default_cache() -> str:
    """Returns $LORA_REPRO_CACHE or ~/.cache/lora_repro."""
    return str(Path(os.environ.get("LORA_REPRO_CACHE", "~/.cache/lora_repro")).expanduser())


def folder_of(config: ModelConfig, model_path: str | None, cache_dir: str) -> Path | None:
    """Returns the folder of a model's files; None of a model whose weights are drawn."""
    return None if config.source is Source.random else find_model(config, model_path, cache_dir)


def find_model(config: ModelConfig, model: str | None, cache: str) -> Path:
    """Returns the folder that holds a model's verified weights.

    Looks into `model` when it is given; else into the installed package, the cache and the hub's local cache, and
    takes the first that is complete and undamaged. Of weights that are known by the hub's commit no digest is at hand:
    their folder must be called by the commit, as in the hub's cache, whose client has checked what it loaded.

    Args:
        config: The model, with the digests of its files.
        model: A folder of the user's (paths.model), or None.
        cache: The folder that this module fills (paths.cache).

    Raises:
        MissingInputError: If the weights are nowhere, or damaged.
    """
    refuse_shapes(config)
    if config.name == "local":
        identify_local(model)
        return Path(model or "").expanduser()
    if model is not None:
        folder = Path(model).expanduser()
        problem = problem_of(config, folder) if folder.is_dir() else f"no folder {folder}"
        if problem is not None:
            raise MissingInputError(
                f"paths.model: {problem}.\nGive the folder of {config.name}, or leave paths.model out and fetch it: "
                f"{fetch_command(config.name, cache)}\n"
                "Any other weights are a model of your own: model=local paths.model=DIR"
            )
        return folder
    problems = []
    for folder in _folders(config, cache):
        problem = problem_of(config, folder)
        if problem is None:
            return folder
        problems.append(problem)
    what = "; ".join(problems) or f"no weights in {cached_model(config, cache)}, nor in an installed package"
    if is_commit(config.digest) and not problems:
        what = f"no snapshot of {config.hub} at commit {config.digest[:7]} in the hub's local cache"
    raise MissingInputError(f"model {config.name}: {what}.\nFetch it: {fetch_command(config.name, cache)}")


def refuse_shapes(config: ModelConfig) -> None:
    """Refuses a model of which there are only shapes.

    Raises:
        MissingInputError: With what can be done with it.
    """
    if config.source is Source.shapes:
        raise MissingInputError(
            f"model {config.name}: only its shapes are here, there are no weights to fetch or load.\n"
            f"Count and plan with it (python -m analysis budget --model {config.name}), and train another model."
        )


def identify_local(model: str | None) -> tuple[dict[str, Any], str]:
    """Reads what a folder of the user's (paths.model) holds: its config.json, and a digest of all that counts.

    The digest is over weights, configuration and tokenizer: the same weights with other files give other numbers.

    Raises:
        MissingInputError: If no folder is given, or one of the two files is not in it.
    """
    config = read_config(model)
    with _readable(Path(model or "").expanduser()):
        return config, _digest_of(Path(model or "").expanduser(), config)


def _digest_of(folder: Path, config: Mapping[str, Any]) -> str:
    try:
        files = weight_files(folder)
    except MissingInputError as error:
        raise MissingInputError(f"paths.model: {error}.\n{_FORM}") from error
    _refuse_code(folder / "config.json", config)
    _refuse_quantised(folder / "config.json", config)
    if (folder / "adapter_config.json").exists():
        raise MissingInputError(
            f"paths.model: {folder} holds an adapter beside the model (adapter_config.json), which is not read.\n"
            "Merge it into the weights, or move it away and give it as train.init_from=DIR"
        )
    _check_tokenizer(folder)
    tokenizer = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    digests = {path.name: sha256_of(path) for path in (*files, *tokenizer)}
    about = {key: value for key, value in config.items() if key not in NOT_FUNCTION}
    return sha256_of_bytes(json.dumps([digests, about], sort_keys=True).encode())


def read_config(model: str | None) -> dict[str, Any]:
    """Reads the config.json of a folder of the user's (paths.model), which tells the shapes.

    Raises:
        MissingInputError: If no folder is given, or it has none, or a damaged one.
    """
    if model is None:
        raise MissingInputError("paths.model: model=local needs a folder (given: none).\nGive it: paths.model=DIR")
    path = Path(model).expanduser() / "config.json"
    with _readable(path):
        if not path.is_file():
            raise MissingInputError(f"paths.model: {path} is missing.\n{_FORM}")
    return _keys(path, parse_json)


def _keys(path: Path, parse: Callable[[bytes], Any] = parse_foreign_json) -> dict[str, Any]:
    try:
        return read_keys(path, parse)
    except MissingInputError as error:
        raise MissingInputError(f"paths.model: {error}.\n{_GIVE}") from None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Says that a model's folder may not be read, which no other store mends."""
    try:
        yield
    except OSError as error:
        raise MissingInputError(
            f"paths.model: {unreadable(path, error)}.\nMake it readable (chmod -R u+rX), or give a copy that is yours."
        ) from error


def _check_tokenizer(folder: Path) -> None:
    """Refuses a folder without a tokenizer, for which transformers would make up one without words."""
    if (problem := _no_tokenizer(folder)) is not None:
        raise MissingInputError(f"paths.model: {problem}.\n{_GIVE}")
    for path in (folder / name for name in TOKENIZER_FILES if (folder / name).is_file()):
        if path.suffix == ".json":
            _refuse_code(path, _keys(path))


def _no_tokenizer(folder: Path) -> str | None:
    if any(all((folder / name).is_file() for name in names) for names in VOCABULARIES):
        return None
    return f"{folder} holds no tokenizer ({', '.join(' with '.join(names) for names in VOCABULARIES)})"


def _refuse_code(path: Path, keys: Mapping[str, Any]) -> None:
    if "auto_map" in keys:
        raise MissingInputError(
            f"paths.model: {path} names code of its own (auto_map), which is never run here.\n"
            "Give a model of transformers' own classes."
        )


def _refuse_quantised(path: Path, config: Mapping[str, Any]) -> None:
    if (found := config.get("quantization_config")) is not None:
        method = found.get("quant_method", "unknown") if isinstance(found, dict) else found
        raise MissingInputError(
            f"paths.model: {path} says that the weights are quantised (quantization_config: {method}).\n"
            "Give weights in fp32, fp16 or bf16: model.dequantize() of transformers, then save_pretrained."
        )


def refuse_impossible_weights(folder: Path, arch: Arch) -> None:
    """Refuses damaged weights, and shapes that they cannot fill, before memory is asked for; reads only headers.

    Args:
        folder: A folder of the user's, already identified.
        arch: The shapes that follow from its config.json.

    Raises:
        MissingInputError: If a file is damaged, or they have less than a byte for each weight of the backbone.
    """
    files = weight_files(folder)
    try:
        shapes_in(files)
    except MissingInputError as error:
        raise MissingInputError(f"paths.model: {error}") from error
    needed, held = arch.size() - arch.head_size, sum(path.stat().st_size for path in files)
    if held < needed:
        raise MissingInputError(
            f"paths.model: {files[0]} has {held} bytes, too few for the {needed} weights that config.json asks for.\n"
            "Give weights that belong to the config.json beside them."
        )


def needed_files(config: ModelConfig) -> dict[str, str | None]:
    """Returns the model's files and their digests (None: only has to be there), the weights last."""
    return {"config.json": None, **config.files, WEIGHTS: config.digest}


def is_commit(digest: str) -> bool:
    """Tells the hub's commit (40 digits) from a sha256 (64)."""
    return re.fullmatch(r"[0-9a-f]{40}", digest) is not None


def _problem_of_commit(commit: str, folder: Path) -> str | None:
    """Says what is missing in a snapshot of a pinned commit, in which the hub's client has checked what it loaded."""
    if commit not in (folder.name, folder.resolve().name):
        return (
            f"{folder} is no snapshot of commit {commit} (the folder must be named after the commit, as in the hub's "
            "cache)"
        )
    if not (folder / "config.json").is_file():
        return f"{folder / 'config.json'} is missing"
    try:
        weight_files(folder)
    except MissingInputError as error:
        return str(error)
    return _no_tokenizer(folder)


def problem_of(config: ModelConfig, folder: Path) -> str | None:
    """Says what is missing or damaged in a folder of a model; None when it is whole."""
    try:
        return _problem_of_commit(config.digest, folder) if is_commit(config.digest) else _problem_of(config, folder)
    except OSError as error:
        return unreadable(folder, error)


def _problem_of(config: ModelConfig, folder: Path) -> str | None:
    for name, digest in needed_files(config).items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        found = sha256_of(path)
        if digest is not None and found != digest:
            return f"{path} is damaged or another version: sha256 is {found}, expected {digest}"
    return None


def cached_model(config: ModelConfig, cache: str) -> Path:
    """Returns the folder of a fetched model."""
    return Path(cache).expanduser() / "models" / config.name


def sha256_of_bytes(content: bytes) -> str:
    """Returns the sha256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file, computed once for each state of it.

    Size and times tell states apart. What was written within the last tick of the file system's clock may be replaced
    by a file with the same times, so it is read whenever it is asked for.
    """
    status = path.stat()
    settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > CLOCK_TICK_NS
    read = _sha256 if settled else _sha256.__wrapped__
    return read(path.resolve(), status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@memoize
def _sha256(path: Path, size: int, mtime_ns: int, ctime_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _folders(config: ModelConfig, cache: str) -> Iterator[Path]:
    """Yields the existing folders in which weights may be, in the order of search."""
    folders = []
    if config.package_folder is not None:
        package, _, inside = config.package_folder.partition("/")
        spec = find_spec(package)  # finds without importing
        folders += [
            Path(root, inside) for root in (spec.submodule_search_locations if spec is not None else None) or ()
        ]
    folders.append(cached_model(config, cache))
    yield from (folder for folder in folders if folder.is_dir())
    if config.hub is not None:
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(config.hub, "config.json", revision=config.revision)
        if isinstance(path, str):
            yield Path(path).parent


def fetch_command(name: str, cache: str) -> str:
    """Returns the command that brings a model or a task into the cache."""
    return f"python -m lora_repro.fetch {name}" + (
        f" --cache {cache}" if Path(cache).expanduser() != Path(default_cache()) else ""
    )
