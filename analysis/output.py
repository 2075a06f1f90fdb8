"""The one place that writes what a command line names: --out, --html, figures.

A plain file is replaced. Nothing is written into a run's directory, an adapter's folder or a model's, through a link,
or into anything but a plain file.
"""

import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from lora_repro.config.identity import RUN_ID
from lora_repro.errors import InputError, cannot_write
from lora_repro.store.adapter_identity import PEFT_CONFIG
from lora_repro.store.files import write_atomically


def refuse_outputs(given: Sequence[tuple[str, str]]) -> None:
    """Refuses places that nothing is written to, before hours are spent on what would go there.

    Args:
        given: Options and their values.

    Raises:
        InputError: Naming the first.
    """
    seen: dict[Path, str] = {}
    for flag, path in given:
        place = _place(flag, path)
        if place in seen:
            raise InputError(f"{flag}: {path} is written by {seen[place]} too.\nGive two files.")
        seen[place] = flag


def write_output(flag: str, path: str, content: str | bytes) -> None:
    """Writes a file, whole or not at all, and says so on stderr.

    Args:
        flag: The option that names it.
        path: The file.
        content: What is written.

    Raises:
        InputError: If it cannot be written, or nothing is written there.
    """
    place = _place(flag, path)
    try:
        write_atomically(place, content)
    except OSError as error:
        raise _unwritable(flag, path, error) from error
    print(f"Written: {path}", file=sys.stderr)


def _place(flag: str, path: str) -> Path:
    """Returns the path of a file that may be written."""
    if not path:
        raise InputError(f"{flag}: no file is given (is a variable of your shell empty?).\nGive it: {flag} FILE")
    place = Path(path).expanduser()
    try:
        folder = place.parent.resolve(strict=True)
        mode = place.lstat().st_mode
    except FileNotFoundError as error:
        if not place.parent.is_dir():
            raise _unwritable(flag, path, error) from error
        folder, mode = place.parent.resolve(), stat.S_IFREG
    except OSError as error:
        raise _unwritable(flag, path, error) from error
    if not stat.S_ISREG(mode):
        what = "link" if stat.S_ISLNK(mode) else "folder" if stat.S_ISDIR(mode) else "pipe, a device or a socket"
        raise InputError(
            f"{flag}: {path} is a {what}, and only plain files are written.\nGive another file. Without --out, tables "
            "and data go to stdout."
        )
    if record := next(((each, what) for each in (folder, *folder.parents) if (what := _holds(each))), None):
        raise InputError(
            f"{flag}: {path} lies in {record[0]}, which is {record[1]}. Nothing is written there.\nGive another folder."
        )
    return folder / place.name


def _holds(folder: Path) -> str:
    """Says what a folder is that nothing is written into; an empty string for any other."""
    if folder.parent.name == "runs" and RUN_ID.fullmatch(folder.name):
        return "a run's directory"
    if (folder / "config.yaml").is_file() and any((folder / name).is_file() for name in ("result.json", "status.json")):
        return "a run's directory"
    if (folder / PEFT_CONFIG).is_file():
        return "an adapter's folder"
    weights = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")
    if (folder / "config.json").is_file() and any((folder / name).is_file() for name in weights):
        return "a model's folder"
    return ""


def _unwritable(flag: str, path: str, error: OSError) -> InputError:
    return InputError(f"{flag}: {cannot_write(path, error)}.\nGive a file in a folder that can.")
