"""Records mirrored to a tracker, W&B by default, by a process of its own: python -m lora_repro.mirror."""
