"""Brings a model from the Hugging Face hub into the hub's local cache, and says first what that takes. No torch."""

import shutil
import sys
from collections.abc import Collection
from pathlib import Path

from lora_repro.errors import MissingInputError
from lora_repro.models.arch import ModelConfig, arch_of
from lora_repro.models.inputs import TOKENIZER_FILES, is_commit, needed_files
from lora_repro.models.weights import one_form

TIMEOUT_S = 10.0
"""Seconds to wait for the hub's first answer; its client alone would try for half a minute."""
GB = 10**9


def download(config: ModelConfig) -> None:
    """Downloads what a run needs of a model's repository: configuration, tokenizer, and the weights in one form.

    Args:
        config: The model; its `hub` and `revision` name the repository and the commit.

    Raises:
        MissingInputError: If the hub does not answer, has no such commit or no weights in it, or the disk is too small.
    """
    from huggingface_hub import constants, snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]  (httpx's or httpx2's)

    repository = str(config.hub)
    sizes = _listing(config)
    names = _wanted(config, sizes)
    cached = {name: try_to_load_from_cache(repository, name, revision=config.revision) for name in names}
    needed = sum(sizes[name] for name in names if not isinstance(cached[name], str))
    folder = Path(constants.HF_HUB_CACHE).absolute()
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    print(f"{config.name}: {_cost(config, needed)}, into {folder} ({free / GB:.1f} GB free) ...", file=sys.stderr)
    if free < needed:
        raise MissingInputError(
            f"{repository} takes {needed / GB:.1f} GB, and {folder} has {free / GB:.1f} GB free.\n"
            "Make room, or name a larger disk: HF_HOME=DIR"
        )
    try:
        snapshot_download(repository, revision=config.revision, allow_patterns=names)
    except (HTTPError, OSError, ValueError) as error:  # the connection broke, or a file is not what the hub said
        raise MissingInputError(
            f"the download of {repository} broke off ({_first_line(error)}).\nThe same command continues it."
        ) from error


def _listing(config: ModelConfig) -> dict[str, int]:
    """Asks the hub once which files the model's commit has, and returns their sizes in bytes.

    Raises:
        MissingInputError: If it does not answer, or knows no such repository or commit.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]  (httpx's or httpx2's)
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository = str(config.hub)
    try:
        found = HfApi().model_info(repository, revision=config.revision, files_metadata=True, timeout=TIMEOUT_S)
    except OfflineModeIsEnabled:
        why = f"HF_HUB_OFFLINE is set, so {constants.ENDPOINT} is not contacted"
    except RevisionNotFoundError:
        why = f"{repository} has no commit {config.revision} at {constants.ENDPOINT}"
    except RepositoryNotFoundError:
        why = f"{constants.ENDPOINT} has no repository {repository}, or access to it is restricted"
    except HfHubHTTPError as error:
        why = f"{constants.ENDPOINT} refuses ({_first_line(error)})"
    except (HTTPError, OSError, ValueError) as error:
        why = f"{constants.ENDPOINT} does not answer ({_first_line(error)})"
    else:
        return {sibling.rfilename: sibling.size or 0 for sibling in found.siblings or ()}
    raise MissingInputError(f"{why}.")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _wanted(config: ModelConfig, names: Collection[str]) -> list[str]:
    """Returns the files to download: those with digests of their own, or of a pinned commit what transformers reads.

    Raises:
        MissingInputError: If the commit does not have them.
    """
    if not is_commit(config.digest):
        wanted = list(needed_files(config))
    else:
        weights = one_form(names) or ["weights"]
        wanted = ["config.json", *(name for name in TOKENIZER_FILES if name in names), *weights]
    if absent := [name for name in wanted if name not in names]:
        raise MissingInputError(f"{config.hub} holds no {absent[0]} at {config.revision or 'its newest commit'}.")
    return wanted


def _cost(config: ModelConfig, download: int) -> str:
    """Says what a model takes, from its shapes: they are read in fp32, and frozen weights are stored in bf16."""
    arch = arch_of(config.config, num_labels=2)
    weights = arch.size() - arch.head_size
    return (
        f"{weights / 1e6:,.0f} million weights, about {4 * weights / GB:.1f} GB of memory while a run reads them and "
        f"{2 * weights / GB:.1f} GB then (train.dtype=bf16, frozen); {download / GB:.1f} GB to download from "
        f"{config.hub}{f' at {config.revision[:7]}' if config.revision is not None else ''}"
    )
