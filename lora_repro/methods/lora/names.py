"""How an adapter's files name its tensors: PEFT's layout, and our own factors of fused layers beside. No torch."""

from typing import Literal

from lora_repro.models.arch import Site
from lora_repro.store.adapter_identity import PEFT_PREFIX

FACTORS = "factors.safetensors"
"""Beside an adapter of fused layers: the factors of q, k and v apart."""


def factor_name(site: Site, matrix: Literal["lora_A", "lora_B"], own: bool) -> str:
    """Returns the name of a factor: PEFT's, or our own of one matrix in a fused layer."""
    if site.role == "embed":
        return f"{PEFT_PREFIX}{site.module}.lora_embedding_{matrix[-1]}"
    return f"{PEFT_PREFIX}{site.module}.{f'{site.role}.' if own else ''}{matrix}.weight"
