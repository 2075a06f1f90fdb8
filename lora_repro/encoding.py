"""A task's splits as tensors of tokens, made once per process."""

import json
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lora_repro.batches import padded_length
from lora_repro.config import Circumstances, Run
from lora_repro.identity import science
from lora_repro.models import load_tokenizer
from lora_repro.tasks import Example, subset


class Encoded(NamedTuple):
    """One split: tokens padded to its longest example; batches are cut to their own longest."""

    examples: list[Example]
    inputs: dict[str, Int[Tensor, "n seq"]]
    lengths: Int[Tensor, " n"]
    labels: Int[Tensor, " n"]

    def batch(self, indices: list[int], device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        """Returns the model's inputs and the labels of these examples, of the length that `padded_length` gives."""
        longest = padded_length(int(self.lengths[indices].max()))  # or the split's longest, where slicing ends
        inputs = {name: values[indices, :longest].to(device, non_blocking=True) for name, values in self.inputs.items()}
        return inputs, self.labels[indices].to(device, non_blocking=True)


_encoded: dict[str, dict[str, Encoded]] = {}
"""The splits of the task that was asked for last: the runs of a sweep share them."""


def encode(run: Run, circumstances: Circumstances) -> dict[str, Encoded]:
    """Reads, subsets and tokenises the splits of a run's task.

    Raises:
        MissingInputError: If data or tokenizer are missing or damaged.
    """
    paths = circumstances.paths
    key = json.dumps(
        [science(run.task), science(run.model), run.train.max_length, paths.data, paths.model, paths.cache]
    )
    if key not in _encoded:
        splits = subset(run.task.load(paths.data, paths.cache), run.task)
        tokenizer = load_tokenizer(run.model, paths.model, paths.cache)
        _encoded.clear()
        _encoded[key] = {name: _encode(examples, tokenizer, run.train.max_length) for name, examples in splits.items()}
    return _encoded[key]


def _encode(examples: list[Example], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    inputs = tokenizer(
        [example.text for example in examples],
        truncation=True,
        max_length=max_length,
        padding=True,
        return_tensors="pt",
    )
    labels = torch.tensor([example.label for example in examples])
    return Encoded(examples, dict(inputs), inputs["attention_mask"].sum(1), labels)
