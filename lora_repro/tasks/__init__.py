"""The tasks by family: what is read, how it is split and scored. No torch.

A new task of a known family is a YAML in conf/task; a new family is a TaskConfig in a file of its own, and a line here.
"""

from lora_repro.tasks.base import Example, Form, Splits, TaskConfig, permuted, subset
from lora_repro.tasks.generated import GeneratedConfig
from lora_repro.tasks.ratings import RatingsConfig

FAMILIES: dict[str, type[TaskConfig]] = {"ratings": RatingsConfig, "generated": GeneratedConfig}

__all__ = [
    "FAMILIES",
    "Example",
    "Form",
    "GeneratedConfig",
    "RatingsConfig",
    "Splits",
    "TaskConfig",
    "permuted",
    "subset",
]
