"""A data set of the hub at one commit, for tasks that read one. No torch."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_repro.config.identity import NOT_IN_ID
from lora_repro.errors import InputError, MissingInputError
from lora_repro.tasks.base import TaskConfig
from lora_repro.tasks.own_data import hub_cache
from lora_repro.tasks.own_data.files import split_names
from lora_repro.tasks.own_data.shares import SPLITS


@dataclass
class HubSource(TaskConfig):
    """One configuration of a repository."""

    dataset: str | None = field(default=None, metadata=NOT_IN_ID)
    """The repository as the hub spells it, or name/configuration for one of those without an organisation."""
    subset: str | None = field(default=None, metadata=NOT_IN_ID)
    """The configuration (null: the only one, or the one that the data set calls default)."""
    revision: str | None = field(default=None, metadata=NOT_IN_ID)
    """The commit, or a branch or tag (null: main as it is in the hub's local cache). The record holds the commit."""
    splits: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys(SPLITS), metadata=NOT_IN_ID)
    """What the data set calls train, eval and test (null: as usual; its validation is eval)."""

    def identify(self, data: str | None, cache: str) -> None:
        """Reads the data set, which paths.data has no part in.

        A folder may be there for other tasks, and LORA_REPRO_DATA is a place that all tasks share.

        Raises:
            MissingInputError: If it is not there.
            InputError: If a file is given beside its name, or no task can be made of it.
        """
        given = None if data == os.environ.get("LORA_REPRO_DATA") else data
        if self.dataset is not None and given is not None and not Path(given).expanduser().is_dir():
            raise InputError(
                f"paths.data: names a file beside a data set of the hub, and one of them is to be read (given: "
                f"paths.data={given} task.dataset={self.dataset}).\nLeave one of them out."
            )
        super().identify(data, cache)

    def pin(self) -> None:
        """Notes the commit, and the name and configuration that were found."""
        found = self.found()
        self.dataset, self.subset, self.revision = found.repository, found.subset, found.commit

    def spell_as(self, recorded: Mapping[str, Any]) -> None:
        """Takes name and configuration from a record that `pin` has divided, if they are what is given."""
        names = recorded.get("dataset"), recorded.get("subset")
        if self.dataset is not None and names in hub_cache.names_of(self.dataset, self.subset):
            self.dataset, self.subset = names

    def fetch(self, cache: str) -> str:
        """Brings the data set into the hub's local cache, and says where it is and what it has.

        Raises:
            MissingInputError: If the hub does not answer, or has no such data set.
        """
        from lora_repro.fetch.hub_data import download

        self.refuse_no_name()
        found, verb = hub_cache.find(str(self.dataset), self.subset, self.revision), "present"
        try:
            about = None if found is None else hub_cache.describe(found)
        except InputError:  # of another configuration alone, or not whole
            about = None
        if found is None or about is None:
            download(str(self.dataset), self.subset, self.revision)
            found, verb = self.found(), "fetched"
            about = hub_cache.describe(found)
        return f"{verb} ({found.repository} at {found.commit}, in {found.folder}; {about})"

    def version(self, data: str | None, cache: str) -> str:
        """Returns the commit, and which of its files are here."""
        found = self.found()
        files = sorted(path for path in found.folder.rglob("*") if path.is_file())
        sizes = [(path.relative_to(found.folder).as_posix(), path.stat().st_size) for path in files]
        return json.dumps([str(found.folder), sizes])

    def split_names(self, there: list[str], told: list[str]) -> dict[str, str]:
        """Returns what the data set calls each split that it has, and tells which are not read."""
        return split_names(str(self.dataset), there, self.splits, told)

    def found(self) -> hub_cache.Snapshot:
        """Returns what the hub's local cache has.

        Raises:
            MissingInputError: If it has nothing.
        """
        found = hub_cache.find(str(self.dataset), self.subset, self.revision)
        if found is None:
            given = [
                f"task.{key}={value}" for key in ("dataset", "subset", "revision") if (value := getattr(self, key))
            ]
            raise MissingInputError(
                f"task.dataset: there is no {self.dataset} in the hub's local cache"
                f"{f' at {self.revision}' if self.revision is not None else ''}.\n"
                f"Fetch it: python -m lora_repro.fetch task={self.name} {' '.join(given)}"
            )
        return found

    def refuse_no_name(self) -> None:
        """Refuses to go on without a name.

        Raises:
            InputError: With an example.
        """
        if not self.dataset:
            raise InputError(
                "task.dataset: must name a data set of the hub (given: none).\n"
                f"Example: task={self.name} task.dataset=nyu-mll/glue task.subset=rte"
            )
