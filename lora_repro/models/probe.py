"""Checks the scores of a class of transformers that is not known here, before a run relies on them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_repro.config.schema import Run
from lora_repro.errors import InputError

TOLERANCE = 1e-3
"""Relative to the largest number that is compared; the order of sums alone changes a thousandth of this."""


def refuse_other_scores(model: nn.Module, run: Run) -> None:
    """Refuses a model whose scores are not those that a run would compute.

    A head may read a position that depends on the padding, and a language model may change the products of its output
    layer (Gemma 2 caps them), which are computed apart here for the positions that are read.

    Raises:
        InputError: Saying which of the two.
    """
    name, was_training = run.arch.model_type, model.training
    model.eval()
    try:
        with torch.no_grad():
            _refuse_reading_of_padding(model, run, name)
            if not run.arch.head_modules:
                _refuse_changed_logits(model, name)
    finally:
        model.train(was_training)


def _refuse_reading_of_padding(model: nn.Module, run: Run, name: str) -> None:
    length = min(8, run.arch.max_length)
    ids, mask = _tokens(model, length), torch.ones(2, length, dtype=torch.long)
    mask[1, length // 2 :] = 0
    together, alone = _logits(model, ids, mask), _logits(model, ids[1:, : length // 2], mask[1:, : length // 2])
    if not run.arch.head_modules:
        together = together[:, : length // 2]
    if _differ(together[1:], alone):
        raise InputError(
            f"model: {name}: its scores of a text change when padding is added, so they would depend on the batch. Its "
            "head seems to read a padded position.\nGive another model."
        )


def _refuse_changed_logits(model: nn.Module, name: str) -> None:
    ids = _tokens(model, 4)
    body: Any = model.base_model
    output: Any = model.lm_head
    states = body(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).last_hidden_state
    if _differ(_logits(model, ids, torch.ones_like(ids)), F.linear(states, output.weight, output.bias)):
        raise InputError(
            f"model: {name}: caps or scales its logits, which is not supported for tasks that are answered in words.\n"
            "Choose a task with a head, or another model."
        )


def _tokens(model: Any, length: int) -> Tensor:
    rows = torch.arange(1, 2 * length + 1).reshape(2, length)
    return rows % model.config.vocab_size


def _logits(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    return model(input_ids=ids, attention_mask=mask).logits


def _differ(one: Tensor, other: Tensor) -> bool:
    return not torch.allclose(one, other, rtol=0.0, atol=TOLERANCE * float(other.abs().max()))
