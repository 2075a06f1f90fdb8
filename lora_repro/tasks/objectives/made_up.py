"""Examples of arbitrary tokens: for measurements, which need no data."""

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, TOKENIZER_MAPPING

from lora_repro.config.schema import Run
from lora_repro.tasks.encoding import Encoded
from lora_repro.tasks.objectives.base import Objective
from lora_repro.tasks.targets import Example


def made_up(run: Run, n: int, length: int, targets: Tensor, objective: Objective) -> Encoded:
    """Returns n examples, all of one length, with the inputs that the architecture's tokenizer makes."""
    tokens = torch.randint(5, 60, (n, length), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if has_token_types(run.arch.model_type) and "type_vocab_size" in run.model.config:
        inputs["token_type_ids"] = torch.zeros_like(tokens)
    return Encoded([Example("", "", None, "")] * n, inputs, torch.full((n,), length), targets, objective)


def has_token_types(model_type: str) -> bool:
    """Tells whether the tokenizer that transformers has for an architecture makes token types."""
    try:
        tokenizer = TOKENIZER_MAPPING[CONFIG_MAPPING[model_type]]
    except KeyError:  # an architecture without a tokenizer of its own
        return False
    return "token_type_ids" in getattr(tokenizer, "model_input_names", ())
