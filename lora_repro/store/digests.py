"""The sha256 of what a run wrote. Its result names them, and whoever reads a file of a run checks it. No torch.

Without this check a file that was changed after its run finished would give other numbers under the same id.
"""

from pathlib import Path

from lora_repro.errors import InputError
from lora_repro.models.inputs import sha256_of
from lora_repro.store.files import PARTIAL
from lora_repro.store.layout import HASHED_FILES, HASHED_FOLDERS
from lora_repro.store.result import read_result


def digests_of(folder: Path) -> dict[str, str]:
    """Returns the sha256 of each file of HASHED_FILES and HASHED_FOLDERS in a run's directory, by path."""
    paths = [path for name in HASHED_FOLDERS for path in (folder / name).glob("*") if not path.name.endswith(PARTIAL)]
    paths += [path for name in HASHED_FILES if (path := folder / name).is_file()]
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(paths)}


def as_written(path: Path) -> Path:
    """Returns the path of a file after checking that it is as its run wrote it.

    Files outside a finished run pass, and so do those of a run that an early version computed, without digests.

    Raises:
        InputError: If the file was changed, or the run did not write it.
    """
    for parent in dict.fromkeys((path.parent.absolute(), path.parent.resolve())):  # a run may be reached by a link
        _refuse_changed(path, parent)
    return path


def _refuse_changed(path: Path, parent: Path) -> None:
    """Compares a file with the digests of the run that `parent`, or the folder above it, belongs to."""
    folder = parent.parent if parent.name in HASHED_FOLDERS else parent
    name = (parent / path.name).relative_to(folder).as_posix()
    result = read_result(folder).result
    is_unhashed = parent == folder and name not in HASHED_FILES
    if result is None or "digests" not in result or is_unhashed or not path.is_file():
        return
    written = result["digests"].get(name)
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
