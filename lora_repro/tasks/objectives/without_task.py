"""What a model is asked where no task is chosen: for estimates of a model and a method alone."""

import torch

from lora_repro.models.arch import Arch
from lora_repro.tasks.encoding import Encoded
from lora_repro.tasks.objectives.heads import HeadWithClasses
from lora_repro.tasks.objectives.label_words import LabelWords


def made_up_for(arch: Arch, n: int, length: int) -> Encoded:
    """Returns n examples of arbitrary tokens: for the head that the model has, or for a language model."""
    tokens, targets = torch.full((n, length), 5), torch.zeros(n, dtype=torch.long)
    objective = HeadWithClasses() if arch.head_modules else LabelWords([[7], [8]])
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return Encoded([], inputs, torch.full((n,), length), targets, objective)
