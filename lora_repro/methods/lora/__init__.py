"""LoRA: its configuration and count, its layers, and PEFT's layout of its files.

Nothing outside this folder knows LoRA but the registry, `lora_repro.library` and Section 7's analyses. No torch here.
"""

from lora_repro.methods.lora.config import Bias, Init, LoRAConfig, Start

__all__ = ["Bias", "Init", "LoRAConfig", "Start"]
