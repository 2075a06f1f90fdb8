"""Limits what transformers reads in a model's folder to the files whose digests are checked."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, PretrainedConfig

from lora_repro.errors import InputError, MissingInputError
from lora_repro.models.arch import ModelConfig
from lora_repro.models.inputs import TOKENIZER_FILES, is_commit
from lora_repro.models.weights import one_form


def tokenizer_names(config: ModelConfig, folder: Path) -> tuple[str, ...]:
    """Returns the tokenizer's files: those that conf/model names, or all known ones of a folder that is known whole."""
    if config.name == "local" or is_commit(config.digest):
        return tuple(name for name in TOKENIZER_FILES if (folder / name).is_file())
    return tuple(config.files)


@contextmanager
def only(folder: Path, names: tuple[str, ...], config: Mapping[str, Any]) -> Iterator[Path]:
    """Gives a folder that holds links to these files alone, and the configuration that is declared as config.json.

    transformers also reads what it finds beside: `is_decoder` in another config.json, added_tokens.json, an adapter.
    """
    with tempfile.TemporaryDirectory(prefix="lora_repro-") as made:
        for name in names:
            (Path(made) / name).symlink_to((folder / name).resolve())
        (Path(made) / "config.json").write_text(json.dumps(dict(config)))
        yield Path(made)


def read_config(path: Path, config: Mapping[str, Any]) -> PretrainedConfig:
    """Reads a model's configuration as transformers understands it.

    Args:
        path: The file that holds it, to be named.
        config: Its keys and values.

    Raises:
        MissingInputError: Naming the key whose value transformers does not take.
    """
    try:
        return _parsed(config)
    except MemoryError:
        raise
    except Exception as error:  # of any class: nothing is checked before
        key, cause = next(_refused(config), (None, error))
        last = next((line.strip() for line in reversed(str(cause).splitlines()) if line.strip()), "")
        what = "transformers cannot read it" if key is None else f"{key} is {json.dumps(config[key])}"[:200]
        raise MissingInputError(
            f"{path}: {what} ({type(cause).__name__}{f': {last[:200]}' if last else ''}).\n"
            "Give the config.json that belongs to the weights, as save_pretrained writes it."
        ) from error


def _parsed(config: Mapping[str, Any]) -> PretrainedConfig:
    with only(Path(), (), config) as made:
        return AutoConfig.from_pretrained(made)


def _refused(config: Mapping[str, Any]) -> Iterator[tuple[str, Exception]]:
    """Yields the keys that transformers refuses also where all others have their defaults, each with the error."""
    for key in sorted(config, key=lambda name: name != "model_type"):  # without a sound one all are refused
        try:
            _parsed({"model_type": config.get("model_type"), key: config[key]})
        except Exception as error:
            yield key, error


def weight_names(folder: Path) -> tuple[str, ...]:
    """Returns the files of a folder's weights, an index before its shards."""
    return tuple(one_form([path.name for path in folder.iterdir() if path.is_file()]))


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turns whatever a library raises while it reads a user's file into an error that a person can mend.

    Raises:
        MissingInputError: Naming the file, with the first line of the library's message.
    """
    try:
        yield
    except (InputError, MemoryError, SafetensorError):
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise MissingInputError(
            f"{what} cannot be read: {type(error).__name__}{f': {first}' if first else ''}.\n"
            "Give a folder as transformers' save_pretrained writes it, whole."
        ) from error
