"""Reproduces "LoRA: Low-Rank Adaptation of Large Language Models" (Hu et al. 2021) and lets researchers ablate it."""

__version__ = "0.1.0"
