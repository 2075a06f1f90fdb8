"""What all objectives share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lora_repro.config.schema import Dtype, Run
from lora_repro.errors import InputError
from lora_repro.models.tokenizer import too_large
from lora_repro.tasks.base import Splits
from lora_repro.tasks.encoding import Encoded
from lora_repro.tasks.targets import Example


class Answer(NamedTuple):
    """What the model answers to one example."""

    prediction: Any
    """Of the kind of the task's targets: a class, a score or a text."""
    scores: list[float]
    """The numbers behind it, for predictions.parquet."""


class Objective(ABC):
    """Asks a model and reads its answers. An object holds the tokens that the answers are made of, if any."""

    @classmethod
    @abstractmethod
    def encode(cls, tokenizer: PreTrainedTokenizerBase, run: Run, splits: Splits) -> dict[str, Encoded]:
        """Turns the examples of all splits into tokens and targets.

        Raises:
            InputError: If a text has no tokens, or the tokenizer cannot write what the task asks for.
            MissingInputError: If the model has no embedding for a token.
        """

    @classmethod
    @abstractmethod
    def made_up(cls, run: Run, n: int, length: int) -> Encoded:
        """Returns n examples of arbitrary tokens: for measurements, which need no data.

        Args:
            run: The run.
            n: How many.
            length: Tokens of each, with what the model writes behind it.
        """

    def whole_lengths(self, tokenizer: PreTrainedTokenizerBase, run: Run, examples: list[Example]) -> list[int]:
        """Returns how many tokens each input would have if none was cut; not asked where `Encoded.cut` tells it."""
        raise NotImplementedError

    @property
    def reserved(self) -> int:
        """The most tokens that the model reads or writes behind an input."""
        return 0

    def lengths_read(self, split: Encoded) -> list[int]:
        """Returns how many tokens the model reads of each example in training, by which batches are of like length."""
        return split.lengths.tolist()

    @property
    def texts_at_once(self) -> int:
        """How many texts a batch holds for each example that is scored."""
        return 1

    @property
    def provenance(self) -> dict[str, Any]:
        """What a record must tell of how the model was asked, beside the configuration."""
        return {}

    @abstractmethod
    def loss(
        self, model: nn.Module, split: Encoded, indices: list[int], dtype: Dtype, device: torch.device
    ) -> Float[Tensor, ""]:
        """Returns the loss of a batch, which training minimises."""

    @abstractmethod
    def outputs(
        self, model: nn.Module, split: Encoded, indices: list[int], dtype: Dtype, device: torch.device
    ) -> Float[Tensor, "batch width"]:
        """Returns the numbers that decide a batch's answers: logits, scores or log-likelihoods."""

    def predict(
        self, model: nn.Module, split: Encoded, indices: list[int], dtype: Dtype, device: torch.device
    ) -> Float[Tensor, "batch width"]:
        """Returns a row an example, from which `mean_loss` and `answers` follow; a checkpoint keeps these rows."""
        return self.outputs(model, split, indices, dtype, device)

    def calibration(self, model: nn.Module, dtype: Dtype, device: torch.device) -> Float[Tensor, " width"] | None:
        """Returns what is taken off each row of predictions, computed once for a split; None: nothing."""
        return None

    def has_answers(self, predictions: Float[Tensor, "n width"]) -> bool:
        """Tells whether rows hold the answers, as those of `predict` do, and those of `outputs` need not."""
        return True

    @abstractmethod
    def mean_loss(self, predictions: Float[Tensor, "n width"], split: Encoded) -> float:
        """Returns the loss over a whole split."""

    @abstractmethod
    def answers(self, predictions: Float[Tensor, "n width"]) -> list[Answer]:
        """Reads what `predict` returned."""


class Ragged(NamedTuple):
    """Rows of different lengths, one behind the other: a list of a million lists would take gigabytes."""

    flat: Int[np.ndarray, " tokens"]
    lengths: Int[np.ndarray, " rows"]

    @classmethod
    def of(cls, rows: Sequence[list[int]]) -> "Ragged":
        """Joins lists."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return cls(np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum())), lengths)

    @classmethod
    def joined(cls, parts: Sequence["Ragged"]) -> "Ragged":
        """Joins some rows and those that follow them."""
        flats, lengths = zip(*parts, strict=True)
        return cls(np.concatenate(flats), np.concatenate(lengths))

    def padded(self, fill: int) -> Int[Tensor, "rows longest"]:
        """Returns the rows as long as the longest of them, the shorter ones filled up on the right."""
        longest = int(self.lengths.max())
        filled = np.full((len(self.lengths), longest), fill)
        filled[np.arange(longest) < self.lengths[:, None]] = self.flat
        return torch.from_numpy(filled)


def padded(
    examples: list[Example],
    tokens: Mapping[str, Ragged | Sequence[list[int]]],
    targets: Tensor,
    objective: Objective,
    tokenizer: PreTrainedTokenizerBase,
    run: Run,
) -> Encoded:
    """Pads on the right, with a token that the model has; nothing reads it, as the mask leaves it out.

    Raises:
        InputError: If an example has no tokens.
        MissingInputError: If the model has no embedding for a token.
    """
    vocabulary, pad = run.model.config["vocab_size"], tokenizer.pad_token_id
    fill = {"input_ids": pad if isinstance(pad, int) and 0 <= pad < vocabulary else 0}
    rows = {name: each if isinstance(each, Ragged) else Ragged.of(each) for name, each in tokens.items()}
    ids = rows["input_ids"]
    if not ids.lengths.all():
        example = examples[int(ids.lengths.argmin())]
        raise InputError(
            f"task {run.task.name}: the tokenizer makes no token of example {example.id} "
            f"({str(example.input)[:40]!r}).\n"
            "Give the tokenizer that belongs to the weights, or leave the example out."
        )
    if (largest := int(ids.flat.max())) >= vocabulary:
        raise too_large(tokenizer, run.model, largest)
    inputs = {name: each.padded(fill.get(name, 0)) for name, each in rows.items()}
    return Encoded(examples, inputs, torch.from_numpy(ids.lengths), targets, objective)
