"""A data set of the Hugging Face hub by name, at one commit. No torch.

task=hub task.dataset=nyu-mll/glue task.subset=rte 'task.text=[sentence1,sentence2]' task.label=label

One example of it: "No Weapons of Mass Destruction Found in Iraq Yet." and "Weapons of Mass Destruction Found in Iraq.",
label not_entailment. Runs read the hub's local cache alone, which `lora_repro.fetch` fills.
"""

from dataclasses import dataclass

from lora_repro.tasks.own_data import hub_cache
from lora_repro.tasks.own_data.base import OwnConfig
from lora_repro.tasks.own_data.hub_source import HubSource
from lora_repro.tasks.own_data.sheets import Part


@dataclass
class HubConfig(HubSource, OwnConfig):
    """Classes or scores in the columns of one configuration of a repository."""

    @property
    def asked(self) -> list[str]:
        """The fields that decide what is read."""
        return [*super().asked, "dataset", "subset", "splits"]

    def refuse_columns(self) -> None:
        """Refuses a choice of data set or columns that is none.

        Raises:
            InputError: Naming the key.
        """
        self.refuse_no_name()
        super().refuse_columns()

    def read(self, data: str | None, cache: str, told: list[str]) -> dict[str, Part]:
        """Reads the rows of each split."""
        found = self.found()
        there = hub_cache.read(found, *self.columns, self.columns.optional[0])
        names = self.split_names(list(there), told)
        return {split: Part([there[name].rows], there[name].names) for split, name in names.items()}
