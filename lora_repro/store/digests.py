"""What a run wrote, by its sha256: named in its result, and checked by whoever reads a file of a run. No torch.

A file that was changed after its run was finished would give other numbers under the same id.
"""

from pathlib import Path

from lora_repro.errors import InputError
from lora_repro.models.inputs import sha256_of
from lora_repro.store.files import PARTIAL
from lora_repro.store.result import read_result

FOLDERS = ("adapter", "snapshots")
FILES = ("predictions.parquet", "trained.safetensors")
"""What is named of a run's directory. The log and metrics.jsonl are left out: a power cut may cost their ends."""


def digests_of(folder: Path) -> dict[str, str]:
    """Returns the sha256 of what a run's directory holds of its adapter, snapshots and predictions, by path."""
    paths = [path for name in FOLDERS for path in (folder / name).glob("*") if not path.name.endswith(PARTIAL)]
    paths += [path for name in FILES if (path := folder / name).is_file()]
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(paths)}


def as_written(path: Path) -> Path:
    """Returns the path of a file once it is known to be what its run wrote.

    A file of no finished run passes, and so does one of a run that an earlier version computed, without digests.

    Raises:
        InputError: If it is another one.
    """
    for parent in dict.fromkeys((path.parent.absolute(), path.parent.resolve())):  # a run may be reached by a link
        _refuse_changed(path, parent)
    return path


def _refuse_changed(path: Path, parent: Path) -> None:
    """Holds a file against the result of the run in whose folder, or in whose folder's folder, it lies."""
    folder = parent.parent if parent.name in FOLDERS else parent
    name = (parent / path.name).relative_to(folder).as_posix()
    result = read_result(folder).result
    is_another = parent == folder and name not in FILES
    if result is None or "digests" not in result or is_another or not path.is_file():
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
