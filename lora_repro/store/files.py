"""Every write of the store. It uses plain system calls, at which tests kill the process or fail the call. No torch.

Nothing is written through a link, because what it points to belongs to somebody else.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial"


def write_atomically(path: Path, content: str | bytes | Iterable[memoryview], sync: bool = True) -> None:
    """Writes a file so that a reader, a kill or a power cut sees the old content or the new, never a part.

    Only one process may write a path at a time; the run's lock ensures it.

    Args:
        path: The file.
        content: All of it, or its pieces in order, each of which is written before the next one is asked for.
        sync: Whether it waits for the disk, some milliseconds; a file that nobody needs after a power cut need not.

    Raises:
        OSError: If it cannot be written; the old content stays.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        _write(partial, content, os.O_TRUNC, sync)
        os.replace(partial, path)
    except OSError:
        remove(partial)
        raise
    if sync:
        sync_folder(path.parent)


def append(path: Path, text: str) -> None:
    """Appends to a file. A power cut may cost the last lines; what must survive is in a checkpoint as well."""
    _write(path, text, os.O_APPEND, sync=False)


def remove(path: Path) -> None:
    """Removes a file, if it is there and can be removed."""
    try:
        os.unlink(path)
    except OSError:
        return


@contextmanager
def leaving_none_empty(folder: Path) -> Iterator[None]:
    """After an error, removes the folder and those of its parents that were created meanwhile and are empty."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in new:
            with suppress(OSError):  # one that holds something stays
                path.rmdir()
        raise


def sync_folder(folder: Path) -> None:
    """Makes new names in a folder survive a power cut, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def _write(path: Path, content: str | bytes | Iterable[memoryview], mode: int, sync: bool) -> None:
    if isinstance(content, str | bytes):
        content = [memoryview(content.encode() if isinstance(content, str) else content)]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | mode, 0o666)
    try:
        for rest in content:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
