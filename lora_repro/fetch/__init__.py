"""Brings weights and data to this machine: python -m lora_repro.fetch minilm movies."""
