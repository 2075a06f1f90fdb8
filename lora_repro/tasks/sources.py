"""The files that a task is read from: where they may lie, and whether they are what they should be. No torch."""

import io
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lora_repro.errors import MissingInputError
from lora_repro.models.inputs import fetch_command, sha256_of_bytes


class DataFile(NamedTuple):
    """A file of data, and the source distribution of the package registry that holds it."""

    name: str
    """Of the file, in the cache and in a folder of the user's."""
    digest: str
    """sha256 of the file."""
    spec: str
    """The distribution, as pip calls it: NAME==VERSION."""
    distribution: str
    """Its file."""
    distribution_digest: str
    member: str
    """The file's path inside the distribution."""

    def cached(self, cache: str) -> Path:
        """Returns where `lora_repro.fetch` puts the file."""
        return Path(cache).expanduser() / "data" / self.name

    def content_in(self, content: bytes) -> bytes | None:
        """Returns the file with this digest: the content itself, or what the distribution holds."""
        if sha256_of_bytes(content) == self.digest:
            return content
        try:
            with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as distribution:
                entry = distribution.getmember(self.member)
                stream = distribution.extractfile(entry) if entry.isfile() else None
                inner = stream.read() if stream is not None else b""
        except (tarfile.TarError, KeyError, OSError, EOFError, zlib.error):
            return None
        return inner if sha256_of_bytes(inner) == self.digest else None


class Data(NamedTuple):
    """The verified content of a source, and the file that it was read from."""

    path: Path
    content: bytes


def find(source: DataFile, sources: Sequence[DataFile], task: str, data: str | None, cache: str) -> Data:
    """Returns the verified content of one of a task's sources.

    Args:
        source: The file.
        sources: All that the task is read from: only where there is one, `data` may be that file itself.
        task: The task's name.
        data: A folder of the user's that may hold the file or the distribution around it, or either file itself
            (paths.data); or None.
        cache: The folder that `lora_repro.fetch` fills (paths.cache), read when `data` is None or a folder without
            either.

    Raises:
        MissingInputError: If the file is not there, or damaged.
    """
    places = [source.cached(cache)]
    if data is not None:
        given = Path(data).expanduser()
        is_folder = given.is_dir() or len(sources) > 1
        places = [given / source.name, given / source.distribution, *places] if is_folder else [given]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        problem = f"no {source.name}: looked for {', '.join(map(str, places))}"
    else:
        content = path.read_bytes()
        found = source.content_in(content)
        if found is not None:
            return Data(path, found)
        problem = f"{path} is damaged or another file: sha256 is {sha256_of_bytes(content)}, expected {source.digest}"
    hint = "Fetch it" if data is None else "Correct paths.data, or leave it out and fetch"
    raise MissingInputError(f"task {task}: {problem}.\n{hint}: {fetch_command(task, cache)}")
