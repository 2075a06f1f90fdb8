"""Reads a data set from the hub's local cache, at one commit. No torch, and no network.

`load_dataset` by name would ask the hub, and without a network take whatever commit it has prepared last. So the files
of the commit are read where huggingface_hub keeps them, by datasets as a folder.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lora_repro.errors import InputError, did_you_mean, shown
from lora_repro.tasks.own_data.arrow_rows import Declared, declared


class Snapshot(NamedTuple):
    """A data set's files at one commit."""

    repository: str
    """As the hub calls it: org/name, or a name alone."""
    subset: str | None
    """The configuration that is asked for."""
    folder: Path
    commit: str


def names_of(dataset: str, subset: str | None) -> list[tuple[str, str | None]]:
    """Returns the repositories and configurations that a name may stand for, the likelier first.

    `org/name` is a repository. Some of the oldest have no organisation, so `glue/rte` is also the configuration `rte`
    of `glue`.
    """
    first, _, second = dataset.partition("/")
    return [(dataset, subset), *([(first, second)] if second and subset is None else [])]


def find(dataset: str, subset: str | None, revision: str | None) -> Snapshot | None:
    """Returns what the hub's local cache has of a data set; None if it has nothing of this revision.

    Args:
        dataset: Its name.
        subset: The configuration, or None.
        revision: A commit, branch or tag; None: the commit that is cached for main.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    for repository, of in names_of(dataset, subset):
        try:
            folder = Path(snapshot_download(repository, repo_type="dataset", revision=revision, local_files_only=True))
        except HFValidationError:
            raise InputError(
                f"task.dataset: {dataset!r} is no name of a data set on the hub.\n"
                "Give it as the hub spells it: task.dataset=nyu-mll/glue task.subset=rte"
            ) from None
        except LocalEntryNotFoundError:
            continue
        return Snapshot(repository, of, folder, folder.name)
    return None


def read(found: Snapshot, only: Sequence[str], optional: Sequence[str], label: str | None) -> dict[str, Declared]:
    """Returns the rows of each split, as the data set calls it.

    Args:
        found: The files.
        only: The columns that are kept, and must be there.
        optional: Columns that are kept where they are there.
        label: The column whose class names are asked for.

    Raises:
        InputError: If the configuration or a column is not there, files are missing, or they cannot be read.
    """
    with _prepared(found) as splits:
        return {
            split: declared(part, f"{found.repository}, {split}", only, optional, label)
            for split, part in splits.items()
        }


def describe(found: Snapshot) -> str:
    """Says which splits and columns a data set has."""
    with _prepared(found) as splits:
        sizes = ", ".join(f"{split} {len(part):,}" for split, part in splits.items())
        columns = ", ".join(next(iter(splits.values())).column_names)
        return f"splits: {sizes}; columns: {columns}"


@contextmanager
def _prepared(found: Snapshot) -> Iterator[dict[str, Any]]:
    """Lets datasets read a snapshot, into files that are removed again."""
    import datasets

    was_disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as place:
        try:
            folder = Path(place) / "files"
            _link(found, folder)
            options: dict[str, Any] = {"cache_dir": str(Path(place) / "prepared")}
            builder = datasets.load_dataset_builder(str(folder), **options)
            if hasattr(builder.config, "keep_default_na"):  # CSV, in which pandas takes "None" and "NA" for no text
                builder = datasets.load_dataset_builder(str(folder), keep_default_na=False, **options)
            builder.download_and_prepare()
            whole: Any = builder.as_dataset()
        except InputError:
            raise
        except Exception as error:  # of many kinds, as the files may hold anything
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise InputError(
                f"task.dataset: datasets cannot read {found.repository} at {found.commit[:7]} "
                f"({shown(reason.replace(place, found.repository))}).\n"
                "Files may be missing: fetch it again (python -m lora_repro.fetch task=hub task.dataset=...). "
                "Data sets that are made by a script cannot be read: give the files as task=table paths.data=DIR"
            ) from None
        finally:
            if not was_disabled:
                datasets.enable_progress_bars()
        yield {str(split): part for split, part in whole.items()}


def _link(found: Snapshot, folder: Path) -> None:
    """Makes a folder of the same files, whose card has the one configuration that is asked for.

    datasets looks into all configurations of a card, of which the cache may have one alone.
    """
    folder.mkdir()
    for path in sorted(found.folder.rglob("*")):
        if path.is_file():
            link = folder / path.relative_to(found.folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    card = folder / "README.md"
    about = _card(card) if card.exists() else {}
    chosen = _chosen(found, about)
    if card.exists():
        card.unlink()
    infos = about.get("dataset_info") or []
    infos = infos if isinstance(infos, list) else [infos]
    name = chosen.get("config_name", "default")
    kept = {
        "configs": [chosen] if chosen else [],
        "dataset_info": [info for info in infos if len(infos) == 1 or info.get("config_name", "default") == name],
    }
    card.write_text(f"---\n{yaml.safe_dump({key: each for key, each in kept.items() if each})}---\n", encoding="utf-8")


def _card(path: Path) -> dict[str, Any]:
    """Returns the YAML part of a data set's card."""
    _, _, rest = path.read_text(encoding="utf-8", errors="replace").partition("---\n")
    try:
        found = yaml.safe_load(rest.partition("\n---")[0])
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _chosen(found: Snapshot, about: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration that is asked for, or the one that there is."""
    configs = [each for each in about.get("configs") or [] if isinstance(each, dict)]
    names = [str(each.get("config_name", "default")) for each in configs]
    if found.subset is not None:
        if found.subset in names:
            return configs[names.index(found.subset)]
        here = f"Configurations: {', '.join(names)}." if names else "It has none: leave task.subset out."
        raise InputError(
            f"task.subset: {found.repository} has no configuration {found.subset!r}."
            f"{did_you_mean(found.subset, names)}\n{here}"
        )
    marked = [each for each in configs if each.get("default") or each.get("config_name") == "default"]
    if len(configs) > 1 and len(marked) != 1:
        raise InputError(
            f"task.subset: {found.repository} has several configurations: {shown(', '.join(names))}.\n"
            f"Choose one: task.dataset={found.repository} task.subset={names[0]}"
        )
    return (marked or configs or [{}])[0]
