"""The methods: a configuration and a count free of torch, and beside them the layers.

A new method is a MethodConfig (in a file of its own or of its mechanism), its YAML in conf/method, and a line here.
"""

from lora_repro.methods.base import Count, MethodConfig
from lora_repro.methods.lora import LoRAConfig
from lora_repro.methods.unfreeze import FullConfig, HeadOnlyConfig

METHODS: dict[str, type[MethodConfig]] = {
    "lora": LoRAConfig,
    "full": FullConfig,
    "head_only": HeadOnlyConfig,
}

__all__ = ["METHODS", "Count", "FullConfig", "HeadOnlyConfig", "LoRAConfig", "MethodConfig"]
