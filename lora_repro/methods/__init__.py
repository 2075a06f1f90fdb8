"""The methods: a configuration and a count free of torch, and the layers beside them.

A new method is a MethodConfig (in a file of its own, or in that of its mechanism), its YAML in conf/method, and a line
in METHODS.
"""

from lora_repro.methods.adapters import AdapterConfig, AdapterDConfig, AdapterHConfig, AdapterLConfig, AdapterPConfig
from lora_repro.methods.base import Count, MethodConfig, SizedConfig
from lora_repro.methods.few_shot import FewShotConfig
from lora_repro.methods.lora import LoRAConfig
from lora_repro.methods.lora.with_prefix import LoRAPrefixEmbedConfig, LoRAPrefixLayerConfig
from lora_repro.methods.peft import PeftConfig
from lora_repro.methods.prefixes.config import LlamaAdapterConfig, PrefixConfig, PrefixEmbedConfig, PrefixLayerConfig
from lora_repro.methods.unfreeze import BitFitConfig, FTTop2Config, FullConfig, HeadOnlyConfig

METHODS: dict[str, type[MethodConfig]] = {
    "lora": LoRAConfig,
    "full": FullConfig,
    "head_only": HeadOnlyConfig,
    "ft_top2": FTTop2Config,
    "bitfit": BitFitConfig,
    "adapter_h": AdapterHConfig,
    "adapter_l": AdapterLConfig,
    "adapter_p": AdapterPConfig,
    "adapter_d": AdapterDConfig,
    "prefix_embed": PrefixEmbedConfig,
    "prefix_layer": PrefixLayerConfig,
    "llama_adapter": LlamaAdapterConfig,
    "lora_prefix_embed": LoRAPrefixEmbedConfig,
    "lora_prefix_layer": LoRAPrefixLayerConfig,
    "few_shot": FewShotConfig,
    "peft": PeftConfig,
}
"""All methods by name: method=NAME."""

__all__ = [
    "METHODS",
    "AdapterConfig",
    "AdapterDConfig",
    "AdapterHConfig",
    "AdapterLConfig",
    "AdapterPConfig",
    "BitFitConfig",
    "Count",
    "FTTop2Config",
    "FewShotConfig",
    "FullConfig",
    "HeadOnlyConfig",
    "LlamaAdapterConfig",
    "LoRAConfig",
    "LoRAPrefixEmbedConfig",
    "LoRAPrefixLayerConfig",
    "MethodConfig",
    "PeftConfig",
    "PrefixConfig",
    "PrefixEmbedConfig",
    "PrefixLayerConfig",
    "SizedConfig",
]
