"""Which adapter `train.init_from` names: a run by its id or directory, or a PEFT folder by its contents. No torch."""

import hashlib
import json
from pathlib import Path

from lora_repro.config.identity import RUN_ID, run_name
from lora_repro.errors import MissingInputError
from lora_repro.store.digests import trained_files
from lora_repro.store.layout import ADAPTER
from lora_repro.store.reading import parse_foreign_json
from lora_repro.store.result import read_result

PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""The files of an adapter in PEFT's layout."""
PEFT_PREFIX = "base_model.model."
"""What PEFT puts before the names of a model's tensors."""


def identify_adapter(given: str) -> str:
    """Returns the identity of an adapter: its run's id, or the sha256 of a foreign file.

    Args:
        given: A run id, a run directory, or a PEFT folder.

    Raises:
        MissingInputError: If it is neither a run id nor a folder that holds an adapter.
    """
    folder = adapter_folder(given)
    name = run_name(folder) if is_run(folder) or "/" not in given else ""
    if RUN_ID.fullmatch(name):
        return name
    weights, settings = folder / PEFT_WEIGHTS, folder / PEFT_CONFIG
    if not (weights.is_file() and settings.is_file()):
        raise MissingInputError(
            f"train.init_from: neither a run id, nor a run directory, nor a PEFT folder (given: {given}).\n"
            f"A PEFT folder holds {PEFT_CONFIG} and {PEFT_WEIGHTS}; "
            "run ids are the folders' names under outputs/runs/."
        )
    try:
        config = parse_foreign_json(settings.read_bytes())
        settings_that_count = {key: value for key, value in config.items() if key != "base_model_name_or_path"}
        text = json.dumps(settings_that_count, sort_keys=True).encode()
    except (ValueError, AttributeError, RecursionError) as error:
        raise MissingInputError(
            f"train.init_from: {settings} is damaged ({error}).\nGive it as PEFT's save_pretrained writes it."
        ) from error
    return "sha256:" + hashlib.sha256(text + weights.read_bytes()).hexdigest()


def adapter_folder(given: str) -> Path:
    """Returns the folder that is meant: of a run's folder of trained weights the run's, else the one that is given."""
    folder = Path(given).expanduser()
    run = folder.parent
    if not is_run(run):
        return folder
    result = read_result(run).result
    is_of_run = result is not None and folder in {path.parent for path in trained_files(run, result)} - {run}
    return run if is_of_run or folder.name == ADAPTER else folder


def is_run(folder: Path) -> bool:
    """Tells whether a folder is a run's: it holds its configuration or, as one of a ledger, has an id as name."""
    return (folder / "config.yaml").is_file() or (folder.is_dir() and RUN_ID.fullmatch(run_name(folder)) is not None)
