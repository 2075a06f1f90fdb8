"""A head on the model answers: with a class, or with a score."""

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from lora_repro.config.schema import Dtype, Run
from lora_repro.models.precision import products
from lora_repro.tasks.base import Splits
from lora_repro.tasks.encoding import Encoded
from lora_repro.tasks.objectives.base import Answer, Objective, Ragged, padded
from lora_repro.tasks.objectives.made_up import made_up
from lora_repro.tasks.targets import Example

CHUNK = 10_000
"""Inputs that are tokenised at once: a tokenizer returns lists, which take ten times the memory of their numbers."""


class Head(Objective):
    """What both heads share: the input is a text or a pair of sentences, and the outputs are the head's."""

    dtype: torch.dtype
    """Of the targets."""

    @classmethod
    def encode(cls, tokenizer: PreTrainedTokenizerBase, run: Run, splits: Splits) -> dict[str, Encoded]:
        """Tokenises the inputs, cut to train.max_length."""
        encoded, objective = {}, cls()
        for name, examples in splits.items():
            inputs: Any = [example.input for example in examples]  # a pair of sentences is tokenised as one
            parts: dict[str, list[Ragged]] = {}
            for first in range(0, len(inputs), CHUNK):
                made = tokenizer(
                    inputs[first : first + CHUNK],
                    truncation=True,
                    max_length=run.train.max_length,
                    return_attention_mask=True,
                )
                for key, rows in made.items():
                    parts.setdefault(str(key), []).append(Ragged.of(rows))
            targets = torch.tensor([example.target for example in examples], dtype=cls.dtype)
            tokens = {key: Ragged.joined(each) for key, each in parts.items()}
            encoded[name] = padded(examples, tokens, targets, objective, tokenizer, run)
        return encoded

    def whole_lengths(self, tokenizer: PreTrainedTokenizerBase, run: Run, examples: list[Example]) -> list[int]:
        """Returns how many tokens each input would have if none was cut."""
        inputs: Any = [example.input for example in examples]
        return [len(row) for row in tokenizer(inputs, verbose=False)["input_ids"]]

    @classmethod
    def made_up(cls, run: Run, n: int, length: int) -> Encoded:
        """Returns n examples of arbitrary tokens whose target is 0."""
        return made_up(run, n, length, torch.zeros(n, dtype=cls.dtype), cls())

    def loss(
        self, model: nn.Module, split: Encoded, indices: list[int], dtype: Dtype, device: torch.device
    ) -> Float[Tensor, ""]:
        """Returns the mean loss over the examples of a batch."""
        inputs, targets = split.batch(indices, device)
        with products(dtype, device):
            logits = model(**inputs).logits
        return self._loss(logits.float(), targets)

    def outputs(
        self, model: nn.Module, split: Encoded, indices: list[int], dtype: Dtype, device: torch.device
    ) -> Float[Tensor, "batch width"]:
        """Returns the outputs of the head."""
        inputs, _ = split.batch(indices, device)
        with products(dtype, device):
            return model(**inputs).logits

    def mean_loss(self, predictions: Float[Tensor, "n width"], split: Encoded) -> float:
        """Returns the mean loss over all examples."""
        return self._loss(predictions, split.targets).item()

    @abstractmethod
    def _loss(self, outputs: Float[Tensor, "batch width"], targets: Tensor) -> Float[Tensor, ""]: ...


class HeadWithClasses(Head):
    """An output a class; the loss is -log p(class)."""

    dtype = torch.long

    def _loss(self, outputs: Float[Tensor, "batch width"], targets: Tensor) -> Float[Tensor, ""]:
        return F.cross_entropy(outputs, targets)

    def answers(self, predictions: Float[Tensor, "n width"]) -> list[Answer]:
        """Takes the class with the largest output, of equal ones the first."""
        return likeliest(predictions)


class HeadWithScore(Head):
    """One output, the score; the loss is the squared error."""

    dtype = torch.float32

    def _loss(self, outputs: Float[Tensor, "batch width"], targets: Tensor) -> Float[Tensor, ""]:
        return F.mse_loss(outputs[:, 0], targets)  # of (n, 1) and (n,) it would be the mean over all n x n pairs

    def answers(self, predictions: Float[Tensor, "n width"]) -> list[Answer]:
        """Takes the output as it is."""
        return [Answer(score, [score]) for score in predictions[:, 0].tolist()]


def likeliest(logits: Float[Tensor, "n width"]) -> list[Answer]:
    """Answers with the largest of several numbers, of equal ones the first."""
    return [Answer(*answer) for answer in zip(logits.argmax(1).tolist(), logits.tolist(), strict=True)]
