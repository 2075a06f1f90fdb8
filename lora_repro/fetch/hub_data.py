"""Brings a data set from the Hugging Face hub into the hub's local cache. No torch."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lora_repro.errors import MissingInputError, shown
from lora_repro.tasks.own_data.hub_cache import names_of


class Listing(NamedTuple):
    """What the hub says about one configuration of a data set."""

    commit: str
    files: list[str]
    """Its files, relative to the repository."""


class NotThereError(Exception):
    """The hub has no such repository, or does not show it."""


def download(dataset: str, subset: str | None, revision: str | None) -> Path:
    """Downloads the files of one configuration.

    Args:
        dataset: The repository, or name/configuration.
        subset: The configuration, or None.
        revision: A commit, branch or tag; None: main as it is now.

    Returns:
        The folder of the commit in the hub's local cache.

    Raises:
        MissingInputError: If the hub does not answer, or has no such data set.
    """
    for repository, of in names_of(dataset, subset):
        try:
            listing = ask(repository, of, revision)
        except NotThereError:
            continue
        print(f"{repository}: {len(listing.files)} files at {listing.commit[:7]} ...", file=sys.stderr)
        return bring(repository, revision, listing)
    raise MissingInputError(
        f"task.dataset: the hub has no data set {dataset}, or access to it is restricted.\n"
        "Give it as the hub spells it: task.dataset=nyu-mll/glue task.subset=rte"
    )


def ask(repository: str, subset: str | None, revision: str | None) -> Listing:
    """Asks the hub which commit a revision is, and datasets which files a configuration has there.

    Raises:
        NotThereError: If the hub has no such repository.
        MissingInputError: If it does not answer, or has no such revision or configuration.
    """
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]  (httpx's or httpx2's)
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        commit = str(HfApi().dataset_info(repository, revision=revision, timeout=10.0).sha)
    except RepositoryNotFoundError:
        raise NotThereError from None
    except RevisionNotFoundError:
        raise MissingInputError(f"task.revision: {repository} has no {revision} on the hub.") from None
    except OfflineModeIsEnabled:
        raise MissingInputError(
            f"task.dataset: {repository} is not in the hub's local cache, and HF_HUB_OFFLINE is set, so that the hub "
            "is not asked.\nUnset it, or fetch the data set on another machine and copy the cache (HF_HOME)."
        ) from None
    except (HTTPError, OSError, ValueError) as error:
        raise MissingInputError(
            f"task.dataset: the hub does not answer ({shown(error)}).\n"
            "Fetch the data set on a machine with a network and copy the cache (HF_HOME), or give files: "
            "task=table paths.data=DIR"
        ) from None
    try:
        files = datasets.load_dataset_builder(repository, subset, revision=commit).config.data_files
    except Exception as error:  # of many kinds
        raise MissingInputError(f"task.dataset: datasets cannot read {repository} ({shown(error)}).") from None
    return Listing(commit, sorted(_relative(files or {}, commit)))


def _relative(files: object, commit: str) -> Iterable[str]:
    """Returns paths inside the repository for hf://datasets/ORG/NAME@COMMIT/PATH."""
    assert isinstance(files, dict)
    for paths in files.values():
        for path in paths:
            yield str(path).partition(f"@{commit}/")[2]


def bring(repository: str, revision: str | None, listing: Listing) -> Path:
    """Downloads the files of a listing, and the data set's card.

    Raises:
        MissingInputError: If the connection breaks.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]  (httpx's or httpx2's)

    try:
        # By the name of the branch, so that the cache knows which commit it is; main is what an unnamed one means.
        folder = Path(
            snapshot_download(
                repository, repo_type="dataset", revision=revision, allow_patterns=["README.md", *listing.files]
            )
        )
    except (HTTPError, OSError, ValueError) as error:
        raise MissingInputError(
            f"the download of {repository} broke off ({shown(error)}).\nThe same command continues it."
        ) from None
    if folder.name != listing.commit:
        raise MissingInputError(f"{repository}: changed while it was read.\nGive the same command again.")
    return folder
