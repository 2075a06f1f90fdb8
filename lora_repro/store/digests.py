"""The sha256 of what a run wrote. Its result names them, and whoever reads a file of a run checks it. No torch.

Without this check a file that was changed after its run finished would give other numbers under the same id.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lora_repro.errors import InputError
from lora_repro.models.inputs import sha256_of
from lora_repro.store.files import PARTIAL
from lora_repro.store.layout import ADAPTER, HASHED_FILES, HASHED_FOLDERS, PREDICTIONS, SNAPSHOTS, TRAINED
from lora_repro.store.result import read_result


def digests_of(folder: Path, written: Iterable[Path] = ()) -> dict[str, str]:
    """Returns the sha256 of each file of HASHED_FILES and HASHED_FOLDERS in a run's directory, by path.

    Args:
        folder: The directory.
        written: The files of the run's method; all that lies beside one in a folder is hashed, too.
    """
    paths, folders = {*written}, {folder / name for name in HASHED_FOLDERS}
    for place in folders | {path.parent for path in paths if path.parent != folder}:
        paths |= {path for path in place.glob("*") if path.is_file() and not path.name.endswith(PARTIAL)}
    paths |= {path for name in HASHED_FILES if (path := folder / name).is_file()}
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(paths)}


def trained_files(folder: Path, result: Mapping[str, Any]) -> list[Path]:
    """Returns the files of a finished run that hold what it trained, whether they are still there or not.

    A result of an early version names none: then those that are there, under the names that it knew.
    """
    if "digests" not in result:
        early = [*(folder / ADAPTER).glob("*"), folder / TRAINED]
        return sorted(path for path in early if path.is_file())
    names = [name for name in result["digests"] if name != PREDICTIONS and not name.startswith(f"{SNAPSHOTS}/")]
    return [folder / name for name in names]


def as_written(path: Path) -> Path:
    """Returns the path of a file after checking that it is as its run wrote it.

    Files outside a finished run pass, and so do those of a run that an early version computed, without digests.

    Raises:
        InputError: If the file was changed, or the run did not write it.
    """
    for absolute in dict.fromkeys((path.parent.absolute(), path.parent.resolve())):  # a run may be reached by a link
        for folder in (absolute, *absolute.parents):
            _refuse_changed(absolute / path.name, folder)
    return path


def _refuse_changed(path: Path, folder: Path) -> None:
    """Compares a file with the digests of the run whose directory is `folder`, if it is one."""
    result = read_result(folder).result
    if result is None or "digests" not in result or not path.is_file():
        return
    name, digests = path.relative_to(folder), result["digests"]
    hashed = {*HASHED_FOLDERS, *(PurePosixPath(other).parts[0] for other in digests)}
    if name.as_posix() not in HASHED_FILES and name.parts[0] not in hashed:
        return
    written = digests.get(name.as_posix())
    if written is None:
        problem = "is none of the files that the run wrote"
    elif (found := sha256_of(path)) != written:
        problem = f"was changed after the run wrote it (sha256 {found[:10]}, in its result {written[:10]})"
    else:
        return
    raise InputError(
        f"{path}: {problem}, so it would give other numbers under the same id.\n"
        "Put the run's own file back, or move the run's directory away and compute it again. To use the file as it is, "
        "copy it into a folder outside of the store, and give that."
    )
