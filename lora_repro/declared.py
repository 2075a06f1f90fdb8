"""What transformers may read of a model's folder: the files that are known by a digest, and none that lies beside."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lora_repro.arch import ModelConfig
from lora_repro.errors import InputError, MissingInputError
from lora_repro.inputs import TOKENIZER_FILES, is_commit
from lora_repro.weights import one_form


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


def weight_names(folder: Path) -> tuple[str, ...]:
    """Returns the files of a folder's weights, an index before its shards."""
    return tuple(one_form([path.name for path in folder.iterdir() if path.is_file()]))


@contextmanager
def told(what: str) -> Iterator[None]:
    """Puts into words what a library raises while it reads a file of the user's: of any class, as nothing is checked.

    Raises:
        MissingInputError: Naming the file, and the first line of the library's own words.
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
