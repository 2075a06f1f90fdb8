"""Brings a corpus of texts from the Hugging Face hub, written as its official files are. No torch."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_repro.errors import MissingInputError, shown
from lora_repro.fetch.download import move, staging

if TYPE_CHECKING:
    from lora_repro.tasks.corpora.base import CorpusConfig

SPLITS = {"train": ("train",), "eval": ("validation", "dev"), "test": ("test",)}
"""The hub's names of splits."""
REVISIONS = (None, "refs/convert/parquet")
"""The repository itself, and the hub's own copy of it in Parquet, which alone can be read where it holds a script."""


def download(task: "CorpusConfig", cache: str) -> Path:
    """Downloads a corpus, checks what it holds, and puts its files in the cache.

    No revision of the repository is pinned: the task's digest and numbers of entries say what is taken.

    Returns:
        The folder.

    Raises:
        MissingInputError: If the hub does not answer, or holds others than the task declares.
    """
    print(f"downloading {task.hub} ...", file=sys.stderr)
    found = _dataset(str(task.hub), task.hub_subset)
    with staging(cache) as stage:
        folder = stage / task.folders[0]
        folder.mkdir(parents=True)
        for split in task.all_splits:
            there = next((name for name in SPLITS[split] if name in found), None)
            if there is None:
                raise MissingInputError(f"{task.hub}: the hub has no split {SPLITS[split][0]} of it.")
            for name, content in task.from_hub(split, found[there]).items():
                (folder / name).write_text(content, encoding="utf-8")
        task.load(str(stage), cache)
        target = task.cached(cache)
        move(folder, target)
    return target


def _dataset(repository: str, subset: str | None) -> Any:
    import datasets

    problems = []
    for revision in REVISIONS:
        try:
            return datasets.load_dataset(repository, subset, revision=revision)
        except (OSError, ValueError, RuntimeError) as error:
            problems.append(f"{type(error).__name__}: {shown(error)}")
    raise MissingInputError(
        f"{repository}: the hub does not give it ({'; '.join(dict.fromkeys(problems))}).\n"
        "Check the network and HF_HUB_OFFLINE, or give the official files: paths.data=DIR"
    )
