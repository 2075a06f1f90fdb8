"""The methods: a configuration and a count free of torch, and beside them the layers.

A new method is a MethodConfig (in a file of its own or of its mechanism), its YAML in conf/method, and a line here.
"""

from lora_repro.methods.adapter import AdapterConfig, AdapterDConfig, AdapterHConfig, AdapterLConfig, AdapterPConfig
from lora_repro.methods.base import Count, MethodConfig, SizedConfig
from lora_repro.methods.lora import LoRAConfig
from lora_repro.methods.lora.with_prefix import LoRAPrefixEmbedConfig, LoRAPrefixLayerConfig
from lora_repro.methods.prefix import PrefixConfig, PrefixEmbedConfig, PrefixLayerConfig
from lora_repro.methods.unfreeze import BitFitConfig, FTTop2Config, FullConfig, HeadOnlyConfig

METHODS: dict[str, type[MethodConfig]] = {
    "lora": LoRAConfig,
    "full": FullConfig,
    "head_only": HeadOnlyConfig,
}
"""Methods that are trained: `method=NAME`."""

COUNTED: dict[str, type[MethodConfig]] = {
    "ft_top2": FTTop2Config,
    "bitfit": BitFitConfig,
    "adapter_h": AdapterHConfig,
    "adapter_l": AdapterLConfig,
    "adapter_p": AdapterPConfig,
    "adapter_d": AdapterDConfig,
    "prefix_embed": PrefixEmbedConfig,
    "prefix_layer": PrefixLayerConfig,
    "lora_prefix_embed": LoRAPrefixEmbedConfig,
    "lora_prefix_layer": LoRAPrefixLayerConfig,
}
"""The paper's other methods: counted from shapes, not trained yet."""

__all__ = [
    "COUNTED",
    "METHODS",
    "AdapterConfig",
    "AdapterDConfig",
    "AdapterHConfig",
    "AdapterLConfig",
    "AdapterPConfig",
    "BitFitConfig",
    "Count",
    "FTTop2Config",
    "FullConfig",
    "HeadOnlyConfig",
    "LoRAConfig",
    "LoRAPrefixEmbedConfig",
    "LoRAPrefixLayerConfig",
    "MethodConfig",
    "PrefixConfig",
    "PrefixEmbedConfig",
    "PrefixLayerConfig",
    "SizedConfig",
]
