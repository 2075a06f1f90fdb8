"""The tasks by family: what is read, how it is split and scored. No torch.

A new task of a known family is a YAML in conf/task. A new family is a TaskConfig in a file of its own, and a line here.
"""

from lora_repro.tasks.base import Splits, TaskConfig, permuted, subset
from lora_repro.tasks.corpora.dart import DartConfig
from lora_repro.tasks.corpora.e2e import E2eConfig
from lora_repro.tasks.corpora.samsum import SamsumConfig
from lora_repro.tasks.corpora.webnlg import WebnlgConfig
from lora_repro.tasks.corpora.wikisql import WikisqlConfig
from lora_repro.tasks.generated import GeneratedConfig
from lora_repro.tasks.glue import GlueConfig
from lora_repro.tasks.metrics import LOSS, Metric, Unit
from lora_repro.tasks.own_data.hub import HubConfig
from lora_repro.tasks.own_data.instructions import InstructionsConfig
from lora_repro.tasks.own_data.table import TableConfig
from lora_repro.tasks.ratings import RatingsConfig
from lora_repro.tasks.restaurants import RestaurantsConfig
from lora_repro.tasks.reverse import ReverseConfig
from lora_repro.tasks.sql.task import SqlConfig
from lora_repro.tasks.targets import Example, Targets
from lora_repro.tasks.written import WrittenConfig

FAMILIES: dict[str, type[TaskConfig]] = {
    "dart": DartConfig,
    "e2e": E2eConfig,
    "generated": GeneratedConfig,
    "glue": GlueConfig,
    "hub": HubConfig,
    "instructions": InstructionsConfig,
    "ratings": RatingsConfig,
    "restaurants": RestaurantsConfig,
    "reverse": ReverseConfig,
    "samsum": SamsumConfig,
    "sql": SqlConfig,
    "table": TableConfig,
    "webnlg": WebnlgConfig,
    "wikisql": WikisqlConfig,
    "written": WrittenConfig,
}

__all__ = [
    "FAMILIES",
    "LOSS",
    "Example",
    "GeneratedConfig",
    "HubConfig",
    "Metric",
    "RatingsConfig",
    "ReverseConfig",
    "Splits",
    "TableConfig",
    "Targets",
    "TaskConfig",
    "Unit",
    "permuted",
    "subset",
]
