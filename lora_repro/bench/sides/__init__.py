"""The sides that are measured beside each other: a module trains one, and only `adapters` knows their LoRA layers."""

from typing import NamedTuple


class Side(NamedTuple):
    """One of the compared ways to train."""

    title: str
    does: str
    """A sentence for readers of the table."""


SIDES = {
    "ours": Side(
        "lora_repro",
        "trains as `python -m lora_repro` does in a run of 200 steps or more, with its own batches, layers and loop; "
        "the time in which Llama models are compiled is warm-up.",
    ),
    "default": Side(
        "Trainer + PEFT",
        "is transformers' Trainer with PEFT as a user gets them: fp32, random batches padded to their longest, and for "
        "a language model the loss on all tokens.",
    ),
    "best": Side(
        "PEFT at its best",
        "is PEFT in a plain loop with all that a clever user would do: frozen weights in bf16 and autocast where the "
        "hardware multiplies in bf16 (else fp32), the same batches of like length as lora_repro, eager attention on "
        "CPUs, no casts of PEFT's own, fused AdamW, foreach clipping, and a language model's vocabulary multiplied out "
        "at the label's tokens only. lora_repro's settings of the allocator are not given to it.",
    ),
    "authors": Side(
        "the authors' way",
        "is loralib's layers in fp32 with every example padded to train.max_length, in the Trainer and with the eager "
        "attention of the authors' examples; a language model's loss is on the label's tokens, its logits are on all.",
    ),
}
"""By the name that `--sides` takes."""
