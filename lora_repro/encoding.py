"""A task's splits as tensors of tokens, made once per process."""

import json
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lora_repro.batches import padded_length
from lora_repro.circumstances import Circumstances
from lora_repro.config import Run
from lora_repro.errors import InputError
from lora_repro.identity import science
from lora_repro.models import load_tokenizer
from lora_repro.tasks import Example, Form, permuted, subset


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


def encode(run: Run, circumstances: Circumstances) -> dict[str, Encoded]:
    """Reads, subsets and tokenises the splits of a run's task; permutes the training labels where it says so.

    Raises:
        MissingInputError: If data or tokenizer are missing or damaged.
    """
    paths = circumstances.paths
    seed = run.seed if run.task.permute_labels else None
    key = json.dumps(
        [science(run.task), science(run.model), run.train.max_length, seed, paths.data, paths.model, paths.cache]
    )
    if key not in _encoded:
        splits = subset(run.task.load(paths.data, paths.cache), run.task)
        if seed is not None:
            splits["train"] = permuted(splits["train"], seed)
        tokenizer = load_tokenizer(run.model, paths.model, paths.cache)
        _encoded.clear()
        put = _prompts if run.task.form is Form.text else _encode
        _encoded[key] = {name: put(examples, tokenizer, run) for name, examples in splits.items()}
    return _encoded[key]


def _encode(examples: list[Example], tokenizer: PreTrainedTokenizerBase, run: Run) -> Encoded:
    inputs = tokenizer(
        [example.text for example in examples],
        truncation=True,
        max_length=run.train.max_length,
        padding=True,
        return_tensors="pt",
    )
    labels = torch.tensor([example.label for example in examples])
    return Encoded(examples, dict(inputs), inputs["attention_mask"].sum(1), labels)


def _prompts(examples: list[Example], tokenizer: PreTrainedTokenizerBase, run: Run) -> Encoded:
    """Puts each text into the prompt, cut so that prompt and label words fit; padded on the right.

    Raises:
        InputError: If the prompt alone is too long, or two labels begin with the same tokens.
    """
    task = run.task
    words = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in task.label_words]
    if any(a[: len(b)] == b for i, a in enumerate(words) for j, b in enumerate(words) if i != j):
        raise InputError(
            f"task.label_words: one is the beginning of another to this tokenizer (given: {task.label_words}).\n"
            "Choose words that differ from the first token on."
        )
    room = run.train.max_length - max(map(len, words))
    if len(tokenizer(task.prompt.replace("{text}", ""))["input_ids"]) > room - 1:
        raise InputError(
            f"train.max_length: {run.train.max_length} tokens hold no more than the prompt itself.\n"
            "Raise it, or shorten task.prompt."
        )
    rows = [_fitted(example.text, task.prompt, tokenizer, room) for example in examples]
    padded = tokenizer.pad({"input_ids": rows}, padding_side="right", return_tensors="pt")
    labels = torch.tensor([example.label for example in examples])
    inputs = {name: padded[name] for name in ("input_ids", "attention_mask")}
    return Encoded(examples, inputs, torch.tensor([len(row) for row in rows]), labels, words)


def _fitted(text: str, prompt: str, tokenizer: PreTrainedTokenizerBase, room: int) -> list[int]:
    """Returns the tokens of the prompt around as much of the text as there is room for."""
    tokens = tokenizer(prompt.replace("{text}", text))["input_ids"]
    kept = tokenizer(text, add_special_tokens=False)["input_ids"] if len(tokens) > room else []
    while len(tokens) > room:
        kept = kept[: -max(len(tokens) - room, 1)]
        tokens = tokenizer(prompt.replace("{text}", tokenizer.decode(kept)))["input_ids"]
    return tokens
