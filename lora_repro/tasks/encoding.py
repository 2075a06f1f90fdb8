"""A task's splits as tensors of tokens, made once per process."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lora_repro.config.identity import id_fields
from lora_repro.config.schema import Run
from lora_repro.config.settings import Settings
from lora_repro.errors import InputError
from lora_repro.models.load import load_tokenizer, too_large
from lora_repro.tasks import Example, permuted, subset
from lora_repro.tasks.classes import ClassConfig, Form
from lora_repro.tasks.prompts import Prompts
from lora_repro.training.batches import padded_length


class Encoded(NamedTuple):
    """One split: tokens padded to its longest example; batches are cut to their own longest."""

    examples: list[Example]
    inputs: dict[str, Int[Tensor, "n seq"]]
    lengths: Int[Tensor, " n"]
    labels: Int[Tensor, " n"]
    words: list[list[int]] | None = None
    """The tokens of each label's words, where a language model answers; the inputs then are prompts."""

    def batch(self, indices: list[int], device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
        """Returns the model's inputs and the labels of these examples, of the length that `padded_length` gives."""
        longest = padded_length(int(self.lengths[indices].max()))  # or the split's longest, where slicing ends
        inputs = {name: values[indices, :longest].to(device, non_blocking=True) for name, values in self.inputs.items()}
        return inputs, self.labels[indices].to(device, non_blocking=True)


_encoded: dict[str, dict[str, Encoded]] = {}
"""The splits of the task that was asked for last: the runs of a sweep share them."""


def encode(run: Run, settings: Settings) -> dict[str, Encoded]:
    """Reads, subsets and tokenises the splits of a run's task; permutes the training labels where it says so.

    Raises:
        MissingInputError: If data or tokenizer are missing or damaged.
        InputError: If the model has no embedding for a token, or a text has no tokens; what `prompts` refuses.
    """
    paths = settings.paths
    seed = run.seed if run.task.permute_labels else None
    key = json.dumps(
        [id_fields(run.task), id_fields(run.model), run.train.max_length, seed, paths.data, paths.model, paths.cache]
    )
    if key not in _encoded:
        splits = subset(run.task.load(paths.data, paths.cache), run.task)
        if seed is not None:
            splits["train"] = permuted(splits["train"], seed)
        tokenizer = load_tokenizer(run.model, paths.model, paths.cache)
        _encoded.clear()
        put = partial(_encode, tokenizer, run)
        if isinstance(run.task, ClassConfig) and run.task.form is Form.text:
            put = partial(_ask, Prompts(tokenizer, run.task, run.train.max_length, splits["train"][0]), tokenizer, run)
        _encoded[key] = {name: put(examples) for name, examples in splits.items()}
    return _encoded[key]


def _encode(tokenizer: PreTrainedTokenizerBase, run: Run, examples: list[Example]) -> Encoded:
    texts = [example.text for example in examples]
    made = tokenizer(texts, truncation=True, max_length=run.train.max_length, return_attention_mask=True)
    return _padded(examples, {str(name): rows for name, rows in made.items()}, tokenizer, run)


def _ask(prompts: Prompts, tokenizer: PreTrainedTokenizerBase, run: Run, examples: list[Example]) -> Encoded:
    rows = prompts.rows(examples)
    made = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
    return _padded(examples, made, tokenizer, run)._replace(words=prompts.words)


def _padded(
    examples: list[Example], made: Mapping[str, Sequence[list[int]]], tokenizer: PreTrainedTokenizerBase, run: Run
) -> Encoded:
    """Pads on the right, with a token that the model has; nothing reads it, as the mask leaves it out.

    Raises:
        InputError: If an example has no tokens, or one that the model has no embedding for.
    """
    vocabulary, pad = run.model.config["vocab_size"], tokenizer.pad_token_id
    fill = {"input_ids": pad if isinstance(pad, int) and 0 <= pad < vocabulary else 0}
    lengths = [len(row) for row in made["input_ids"]]
    for example, row in zip(examples, made["input_ids"], strict=True):
        if not row:
            raise InputError(
                f"task {run.task.name}: the tokenizer makes no token of example {example.id} ({example.text[:40]!r}).\n"
                "Give the tokenizer that belongs to the weights, or leave the example out."
            )
        if (largest := max(row)) >= vocabulary:
            raise too_large(tokenizer, run.model, largest)
    longest = max(lengths)
    inputs = {
        name: torch.tensor([[*row, *[fill.get(name, 0)] * (longest - len(row))] for row in rows])
        for name, rows in made.items()
    }
    return Encoded(examples, inputs, torch.tensor(lengths), torch.tensor([example.target for example in examples]))
