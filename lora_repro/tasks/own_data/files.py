"""Finds the files of one's own data, and which split each belongs to. No torch.

A folder holds files by the names of their splits, as `train.csv`, `validation.csv`, `test.csv`, in shards as
`data/train-00000-of-00002.parquet`, or in folders `train/`, `test/`; or it is what `save_to_disk` of datasets wrote.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lora_repro.errors import InputError, MissingInputError, did_you_mean, shown
from lora_repro.tasks.own_data.shares import SPLITS
from lora_repro.tasks.rows import SUFFIXES

NAMES = {
    "train": ("train", "training"),
    "eval": ("validation", "valid", "val", "dev", "eval", "development"),
    "test": ("test", "testing"),
}
"""What the files of a split may be called."""
WITHOUT_LABELS = ("unsupervised", "unlabeled", "unlabelled")
"""What data sets call a split of texts alone, as IMDb does on the hub: it is no split of a task."""
_SPLIT_OF = {name: split for split, names in NAMES.items() for name in names}
_SHARD = re.compile(r"(?P<name>.+?)-(?P<number>\d{5})-of-(?P<of>\d{5})(?:-[0-9a-f]+)?")
EXAMPLE_OF_SPLITS = "Example: 'task.splits={train: a.csv, eval: b.csv, test: c.csv}'"
SAVED = ("dataset_dict.json", "state.json")
"""What tells a folder that datasets has saved: several splits, or a single one."""


class Found(NamedTuple):
    """The files of the data."""

    root: Path
    """The folder that names in messages are relative to."""
    files: dict[str, list[Path]]
    """By split; under "" where one file holds all rows."""
    is_saved: bool = False
    """A folder that datasets has saved: read by it, and `files` holds what tells whether it has changed."""


def find_files(data: str | None, splits: Mapping[str, str], any_name: bool = False) -> Found:
    """Returns the files of each split.

    Args:
        data: The file or folder of the user's (paths.data).
        splits: The files of the splits, relative to the folder (task.splits); empty to go by their names.
        any_name: Files may end in anything, as their format is given.

    Raises:
        MissingInputError: If something is not there.
        InputError: If the names do not say which split a file belongs to.
    """
    if data is None:
        raise MissingInputError(
            "paths.data: task=table needs a file or folder of yours (given: none).\nGive it: paths.data=mine.csv"
        )
    root = Path(data).expanduser()
    if not root.exists():
        raise MissingInputError(
            f"paths.data: there is no {root}.\nGive a file (CSV, TSV, JSONL, Parquet) or a folder. Plans and tables "
            "need no more than a finished run on the same data: paths.data=outputs/runs/RUN"
        )
    if root.is_file():
        if splits:
            raise InputError(
                f"task.splits: names files of a folder, and paths.data is one file ({root}).\n"
                f"Give the folder: paths.data={root.parent}"
            )
        return Found(root.parent, {"": [root]})
    if any((root / name).is_file() for name in SAVED):  # whose splits `split_names` finds
        return Found(root, {"": sorted(path for path in root.rglob("*") if path.is_file())}, is_saved=True)
    if splits and "train" not in splits:
        raise InputError(
            f"task.splits: needs train, and may have eval and test (given: {dict(splits)}).\n{EXAMPLE_OF_SPLITS}"
        )
    if splits:
        return Found(root, {split: [_given(root, split, name, any_name)] for split, name in splits.items()})
    return Found(root, _by_name(root, any_name))


def split_names(data: str, there: Sequence[str], given: Mapping[str, str | None], told: list[str]) -> dict[str, str]:
    """Returns what a data set calls each split that it has; its only one under "" where that has no usual name.

    Args:
        data: What messages call it.
        there: Its splits.
        given: task.splits: what train, eval and test are called; None: as usual.
        told: Takes a sentence on the splits that are not read.

    Raises:
        InputError: If a split is not there, one stands for two, or it is not clear which one is meant.
    """
    found: dict[str, str] = {}
    for split in SPLITS:
        name = given[split]
        if name is not None and name not in there:
            raise InputError(
                f"task.splits.{split}: {data} has no split {name!r}.{did_you_mean(name, there)}\n"
                f"Its splits: {', '.join(there)}."
            )
        usual = [each for each in there if each.lower() in NAMES[split]]
        if name is None and len(usual) > 1:
            raise InputError(
                f"task.splits: {data} has several splits for {split}: {', '.join(usual)}.\n"
                f"Choose one: 'task.splits={{{split}: {usual[0]}}}'"
            )
        if name is not None or usual:
            found[split] = name if name is not None else usual[0]
    if len(set(found.values())) < len(found):
        raise InputError(f"task.splits: one split is taken for two ({found}).")
    if "train" not in found:
        if len(there) == 1 and not found:
            return {"": there[0]}
        example = next((each for each in there if each.lower() not in WITHOUT_LABELS), "NAME")
        raise InputError(
            f"task.splits: {data} has no split that is called train (its splits: {', '.join(there)}).\n"
            f"Say which one it is: 'task.splits={{train: {example}}}'"
        )
    unread = [each for each in there if each not in found.values()]
    may_be_dev = [each for each in unread if each.lower() not in WITHOUT_LABELS]
    if "test" in found:  # then only what is called like dev: validation_matched
        may_be_dev = [each for each in may_be_dev if each.lower().startswith(NAMES["eval"])]
    if "eval" not in found and may_be_dev:
        raise InputError(
            f"task.splits: which split of {data} is eval? It has {', '.join(there)}.\n"
            f"Choose one: 'task.splits={{eval: {may_be_dev[0]}}}'"
        )
    if unread:
        told.append(f"{', '.join(unread)} of {data} {'is' if len(unread) == 1 else 'are'} not read.")
    return found


def versions(files: Mapping[str, list[Path]]) -> str:
    """Returns the names, sizes and times of files: another value when their content may have changed."""
    stats = [(str(path.absolute()), path.stat()) for paths in files.values() for path in paths]
    return json.dumps([(path, stat.st_size, stat.st_mtime_ns, stat.st_ino) for path, stat in stats])


def refuse_split_names(splits: Mapping[str, str]) -> None:
    """Refuses names of files that task.splits cannot have.

    Raises:
        InputError: If a split is unknown, a file lies elsewhere, or one is given twice.
    """
    if not set(splits) <= set(SPLITS):
        raise InputError(f"task.splits: may have train, eval and test (given: {dict(splits)}).\n{EXAMPLE_OF_SPLITS}")
    if outside := [name for name in splits.values() if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise InputError(
            f"task.splits: files are named relative to the folder paths.data (given: {outside[0]}).\n"
            "Give their folder, or one above it, as paths.data."
        )
    if len(set(splits.values())) < len(splits):
        raise InputError(f"task.splits: one file is given for two splits (given: {dict(splits)}).")


def _given(root: Path, split: str, name: str, any_name: bool) -> Path:
    path = root / name
    if not path.is_file():
        here = [each.relative_to(root).as_posix() for each in _readable(root, any_name)]
        raise MissingInputError(
            f"task.splits.{split}: there is no file {name!r} in {root}.{did_you_mean(name, here)}\n"
            f"Files there: {shown(', '.join(here) or 'none')}."
        )
    return path


def _readable(root: Path, any_name: bool) -> list[Path]:
    """Returns the files in a folder that can be read, also those in the folders where the hub's layout has them."""
    folders = [root, *(root / name for name in ("data", *_SPLIT_OF))]
    found = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    return [
        path
        for path in found
        if path.is_file() and (any_name or path.suffix.lower() in SUFFIXES) and not path.name.startswith(".")
    ]


def _by_name(root: Path, any_name: bool) -> dict[str, list[Path]]:
    named: dict[str, dict[str, list[Path]]] = {}
    readable = _readable(root, any_name)
    for path in readable:
        if path.parent.name.lower() in _SPLIT_OF and path.parent != root:
            split, kind = _SPLIT_OF[path.parent.name.lower()], f"{path.parent.name}/*{path.suffix}"
        else:
            shard = _SHARD.fullmatch(path.stem)
            name = shard["name"] if shard else path.stem
            if name.lower() not in _SPLIT_OF:
                continue
            split = _SPLIT_OF[name.lower()]
            kind = (path.parent / f"{name}{'-*' if shard else ''}{path.suffix}").relative_to(root).as_posix()
        named.setdefault(split, {}).setdefault(kind, []).append(path)
    if "train" not in named:
        here = ", ".join(path.relative_to(root).as_posix() for path in readable) or "none that can be read"
        raise MissingInputError(
            f"paths.data: {root} has no file that is called train (files there: {shown(here)}).\n"
            "Say which file is what: 'task.splits={train: a.csv, eval: b.csv}', or give one file, which is divided: "
            f"paths.data={root}/mine.csv"
        )
    for split, kinds in named.items():
        if len(kinds) > 1:
            raise InputError(
                f"paths.data: {root} has several files for {split}: {', '.join(kinds)}.\n"
                "Say which one: 'task.splits={train: a.csv, eval: b.csv, test: c.csv}'"
            )
    files = {split: next(iter(named[split].values())) for split in NAMES if split in named}
    for paths in files.values():
        _refuse_missing_shards(root, paths)
    return files


def _refuse_missing_shards(root: Path, paths: list[Path]) -> None:
    """Refuses a split of which a shard is missing: fewer rows would be trained on, and nothing would say so."""
    shards = [shard for path in paths if (shard := _SHARD.fullmatch(path.stem))]
    for of in {shard["of"] for shard in shards}:
        numbers = {int(shard["number"]) for shard in shards if shard["of"] == of}
        if missing := sorted(set(range(int(of))) - numbers):
            name = paths[0].relative_to(root).as_posix()
            raise MissingInputError(
                f"paths.data: of the {int(of)} parts of {name} in {root}, {len(missing)} are missing, the first is "
                f"number {missing[0]}.\nCopy all of them."
            )
    if len({shard["of"] for shard in shards}) > 1:
        raise InputError(f"paths.data: {root} mixes parts of two versions of {paths[0].name}.\nRemove the old ones.")
