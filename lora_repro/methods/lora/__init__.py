"""LoRA: its configuration and count, its layers, and PEFT's layout of its files.

Outside this folder only the registry, `lora_repro.library`, the benchmark beside PEFT and Section 7's analyses know
LoRA. Importing this package needs no torch.
"""

from lora_repro.methods.lora.config import Bias, Init, LoRAConfig, Start

__all__ = ["Bias", "Init", "LoRAConfig", "Start"]
