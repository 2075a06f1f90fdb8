"""Tasks whose data is read while the configuration is composed: digest and sizes follow from it. No torch."""

import json
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lora_repro.config.identity import NOT_IN_ID, RUN_ID
from lora_repro.errors import InputError, MissingInputError, shown
from lora_repro.tasks.base import Splits, TaskConfig, is_fetching


class Reading(NamedTuple):
    """What was read."""

    splits: Splits
    labels: list[str]
    """The names of the classes; empty where there are none."""
    digest: str
    notices: list[str]
    """What is said about the reading before training starts."""


class Known(NamedTuple):
    """What is known of data that was read by this process, or by the run whose record is given for it."""

    labels: list[str]
    digest: str
    sizes: dict[str, int]


_known: dict[str, Known] = {}
"""By what was read and how. The runs of a sweep share it, so each file is read once."""
_last: dict[str, Reading] = {}
"""The last reading alone, as it may be large."""


@dataclass
class ReadHereConfig(TaskConfig):
    """The digest alone stands for the data in a run's id, so no path, file name or format does."""

    sizes_read: dict[str, int] = field(default_factory=dict, metadata=NOT_IN_ID)
    """The examples of each split: read."""

    @property
    def scored(self) -> tuple[str, ...]:
        """Dev, and test where there is one."""
        return tuple(split for split in ("eval", "test") if not self.sizes_read or split in self.sizes_read)

    @property
    @abstractmethod
    def asked(self) -> list[str]:
        """The fields that decide what is read."""

    @abstractmethod
    def refuse_columns(self) -> None:
        """Refuses a choice of columns or files that is none.

        Raises:
            InputError: Naming the key.
        """

    @abstractmethod
    def version(self, data: str | None, cache: str) -> str:
        """Returns what changes when the content of the data may have changed, without reading it.

        Raises:
            MissingInputError: If something is not there.
        """

    @abstractmethod
    def make(self, data: str | None, cache: str) -> Reading:
        """Reads the data and makes the examples.

        Raises:
            MissingInputError: If something is not there.
            InputError: If something cannot be read, or no task can be made of it.
        """

    def pin(self) -> None:
        """Notes which version of the data is meant, where it has versions."""

    def spell_as(self, recorded: Mapping[str, Any]) -> None:
        """Takes a record's spelling of the data, where one name can be written in several ways."""

    def sizes(self) -> dict[str, int] | None:
        """Returns the examples of each split, once they are read."""
        return dict(self.sizes_read) or None

    def identify(self, data: str | None, cache: str) -> None:
        """Reads the data, unless this process has done so, and fills in what follows from it.

        Raises:
            MissingInputError: If something is not there.
            InputError: If no task can be made of it.
        """
        if is_fetching():  # which follows once all that is asked for is known to be possible
            return
        self.refuse_columns()
        if (recorded := _recorded(data)) is not None:
            known = self._as_recorded(recorded)
        else:
            self.pin()
            known = self._known(data, cache)
        self.take(known)

    def take(self, known: Known) -> None:
        """Fills in what follows from the data."""
        self.digest, self.sizes_read = known.digest, dict(known.sizes)

    def load(self, data: str | None, cache: str) -> Splits:
        """Returns the examples, from memory where this process has read them last.

        Raises:
            MissingInputError: If something is not there, or the data has changed since the run was composed.
            InputError: If no task can be made of it.
        """
        if _recorded(data) is not None:
            raise MissingInputError(
                f"paths.data: {data} is a run, which tells what its data was and does not hold it.\n"
                "Plans and tables need no more. To train give the data itself."
            )
        reading = self._reading(data, cache)
        if reading.digest != self.digest:
            raise MissingInputError(
                f"task={self.name}: the data has changed since this run was composed (digest {reading.digest[:10]}, "
                f"expected {self.digest[:10]}).\nGive the command again to train on the data as it is now."
            )
        return {split: list(examples) for split, examples in reading.splits.items()}

    def notices(self, splits: Splits) -> list[str]:
        """Says how the data was read."""
        return list(next((each.notices for each in _last.values() if each.digest == self.digest), []))

    def _as_recorded(self, recorded: Mapping[str, Any]) -> Known:
        """Takes from a run's record what would be read from its data, which need not be here.

        Raises:
            InputError: If the run was on something else.
        """
        self.spell_as(recorded)
        plain = json.loads(json.dumps({key: getattr(self, key) for key in ("name", *self.asked)}))
        for key, value in plain.items():
            if recorded.get(key) != value:
                raise InputError(
                    f"paths.data: the run there has task.{key}={shown(recorded.get(key))} (given: {shown(value)}).\n"
                    "Give a run on the same data, or the data itself."
                )
        return Known(recorded.get("labels", []), recorded["digest"], recorded["sizes_read"])

    def _known(self, data: str | None, cache: str) -> Known:
        key = self._key(data, cache)
        if key not in _known:
            reading = self._reading(data, cache)
            sizes = {split: len(examples) for split, examples in reading.splits.items()}
            _known[key] = Known(reading.labels, reading.digest, sizes)
        return _known[key]

    def _key(self, data: str | None, cache: str) -> str:
        declared = (type(self).__name__, self.version(data, cache))
        asked = {name: getattr(self, name) for name in self.asked}
        return json.dumps([declared, asked], sort_keys=True, default=str)

    def _reading(self, data: str | None, cache: str) -> Reading:
        key = self._key(data, cache)
        if key not in _last:
            began = time.perf_counter()
            reading = self.make(data, cache)
            total = sum(map(len, reading.splits.values()))
            if (seconds := time.perf_counter() - began) > 1:
                reading.notices.append(f"{total:,} examples were read into memory in {seconds:.0f} s.")
            _last.clear()
            _last[key] = reading
        return _last[key]


def _recorded(data: str | None) -> Mapping[str, Any] | None:
    """Returns the task in a run's record, if paths.data is the folder of a finished run."""
    from lora_repro.store.result import read_result

    folder = Path(data or "").expanduser()
    if data is None or not RUN_ID.fullmatch(folder.name) or not (folder / "result.json").is_file():
        return None
    found = read_result(folder)
    if found.result is None:
        raise InputError(f"paths.data: {found.problem}\nGive a finished run, or the data itself.")
    return found.result["config"]["task"]
