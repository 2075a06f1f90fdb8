"""Brings a set of GLUE from the Hugging Face hub, written as the official files are. No torch."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_repro.errors import MissingInputError
from lora_repro.fetch.download import move, staging

if TYPE_CHECKING:
    from lora_repro.tasks.glue import GlueConfig

REPOSITORY = "nyu-mll/glue"
BREAK = re.compile(r"[\t\r\n]")
"""What no field of the official files can hold."""
SPLITS = {"train": "train", "eval": "validation"}
"""The hub's names of splits. mnli has two of dev, `validation_matched` and `validation_mismatched`."""


def download(task: "GlueConfig", cache: str) -> Path:
    """Downloads a set, checks its examples, and puts its files in the cache's folder of GLUE.

    No revision of the repository is pinned: the task's digest and numbers of rows say what is taken.

    Returns:
        The folder.

    Raises:
        MissingInputError: If the hub does not answer, or holds other examples than the task declares.
    """
    print(f"downloading {REPOSITORY}, {task.hub} ...", file=sys.stderr)
    found = _dataset(str(task.hub))
    with staging(cache) as stage:
        folder = stage / task.folder
        folder.mkdir()
        for split, name in task.files.items():
            there = SPLITS.get(split, f"validation_{split}")
            there = there if there in found else f"{there}_matched"
            if there not in found:
                raise MissingInputError(f"{REPOSITORY}, {task.hub}: the hub has no split {there} of it.")
            (folder / name).write_text(_tsv(task, found[there]), encoding="utf-8")
        task.load(str(stage), cache)
        target = task.cached(cache)
        move(folder, target)
    return target


def _dataset(name: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(REPOSITORY, name)
    except (OSError, ValueError, RuntimeError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise MissingInputError(
            f"{REPOSITORY}, {name}: the hub does not give it ({type(error).__name__}: {first[:200]}).\n"
            "Check the network and HF_HUB_OFFLINE, or give the official files: paths.data=DIR"
        ) from error


def _tsv(task: "GlueConfig", rows: Any) -> str:
    """Writes the columns that the task reads, their texts as they stand; tabs and line breaks become spaces.

    SST-2's texts all end in a space, in the official files and on the hub, which tokenizers of the GPT-2 kind see.
    """
    texts = [column for column in rows.column_names if column not in ("label", "idx")]
    columns = task.header or [*task.texts, task.target]
    lines = [] if task.header else [columns]
    for row in rows:
        target = task.classes[row["label"]] if task.classes else repr(round(float(row["label"]), 4))
        values = dict(zip(task.texts, (BREAK.sub(" ", row[text]) for text in texts), strict=True)) | {
            task.target: target
        }
        lines.append([values.get(column, "") for column in columns])
    return "".join("\t".join(line) + "\n" for line in lines)
