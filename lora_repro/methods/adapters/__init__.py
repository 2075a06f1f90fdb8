"""Adapter layers: their configurations, where they stand in a model, and their modules. Only `layers` imports torch."""

from lora_repro.methods.adapters.config import (
    AdapterConfig,
    AdapterDConfig,
    AdapterHConfig,
    AdapterLConfig,
    AdapterPConfig,
)

__all__ = ["AdapterConfig", "AdapterDConfig", "AdapterHConfig", "AdapterLConfig", "AdapterPConfig"]
