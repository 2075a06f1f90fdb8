"""A language model writes a text after a prompt: the loss is on its tokens alone, and decoding is greedy."""

import logging
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lora_repro.config.schema import Dtype, Run
from lora_repro.errors import InputError
from lora_repro.models.tokenizer import too_large
from lora_repro.tasks.base import Splits
from lora_repro.tasks.encoding import Encoded
from lora_repro.tasks.metrics import exact_match
from lora_repro.tasks.objectives import language
from lora_repro.tasks.objectives.base import Answer, Objective, padded
from lora_repro.tasks.objectives.language import NO_TOKEN, log_likelihood, rows_of
from lora_repro.tasks.objectives.made_up import made_up
from lora_repro.tasks.objectives.prompts import Prompts
from lora_repro.tasks.targets import Example
from lora_repro.tasks.texts import TextConfig

CPU = torch.device("cpu")

log = logging.getLogger(__name__)


class TextToWrite(Objective):
    """The loss is the mean of -log p over the tokens of the targets, the end of the text included.

    A prediction is a row of numbers: log p of the whole target, then the tokens that greedy decoding wrote, padded with
    NO_TOKEN. As numbers of fp32 they are exact up to 16 million tokens.

    Args:
        tokenizer: Turns tokens into text; None where nothing is read.
        end: The token that ends a text.
        max_new_tokens: Decoding stops after so many tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None, end: int, max_new_tokens: int) -> None:
        self.tokenizer, self.end, self.max_new_tokens = tokenizer, end, max_new_tokens

    @classmethod
    def encode(cls, tokenizer: PreTrainedTokenizerBase, run: Run, splits: Splits) -> dict[str, Encoded]:
        """Tokenises prompts, cut so that task.max_new_tokens fit behind, and the first reference of each example.

        Raises:
            InputError: If a reference with its end is longer, or no token is known that ends a text; and what
                `Prompts` refuses.
        """
        task = cast(TextConfig, run.task)
        prompts = Prompts(tokenizer, task.prompt, run.train.max_length)
        known = (tokenizer.eos_token_id, tokenizer.sep_token_id, run.model.config.get("eos_token_id"))
        end = next((token for token in known if isinstance(token, int)), None)
        if end is None:
            raise InputError(
                f"task {task.name}: neither tokenizer nor config.json of {run.model.name} names the end of a text."
                "\nGive a tokenizer with an eos_token."
            )
        encoded, objective = {}, cls(tokenizer, end, task.max_new_tokens)
        for name, examples in splits.items():
            cut = prompts.cut(examples, reserved=objective.reserved)
            written = prompts.continuations(cut, [f" {example.target[0]}" for example in examples])
            targets = [[*tokens, end] for tokens in written]
            objective._refuse(run, examples, targets)
            rows = prompts.opened(cut)
            tokens = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
            encoded[name] = padded(examples, tokens, rows_of(targets, CPU), objective, tokenizer, run)
        return encoded

    def whole_lengths(self, tokenizer: PreTrainedTokenizerBase, run: Run, examples: list[Example]) -> list[int]:
        """Returns how many tokens each prompt would have if none was cut."""
        return Prompts(tokenizer, cast(TextConfig, run.task).prompt, run.train.max_length).whole_lengths(examples)

    @classmethod
    def made_up(cls, run: Run, n: int, length: int) -> Encoded:
        """Returns n arbitrary prompts, each with a target of task.max_new_tokens tokens behind it."""
        longest = cast(TextConfig, run.task).max_new_tokens
        targets = torch.full((n, longest), 7)
        return made_up(run, n, max(1, length - longest), targets, cls(None, 3, longest))

    @property
    def reserved(self) -> int:
        """The most tokens that decoding writes."""
        return self.max_new_tokens

    def loss(
        self, model: nn.Module, split: Encoded, indices: list[int], dtype: Dtype, device: torch.device
    ) -> Float[Tensor, ""]:
        """Returns the mean of -log p over all target tokens of a batch, as transformers computes it."""
        targets = split.targets[indices].to(device)
        return -log_likelihood(model, split, indices, targets, dtype, device).sum() / (targets != NO_TOKEN).sum()

    def outputs(
        self, model: nn.Module, split: Encoded, indices: list[int], dtype: Dtype, device: torch.device
    ) -> Float[Tensor, "batch width"]:
        """Returns log p(target | prompt) of the first reference."""
        targets = split.targets[indices].to(device)
        return log_likelihood(model, split, indices, targets, dtype, device)[:, None]

    def predict(
        self, model: nn.Module, split: Encoded, indices: list[int], dtype: Dtype, device: torch.device
    ) -> Float[Tensor, "batch width"]:
        """Returns log p of the target, and the text that the model writes instead."""
        written = self._write(model, split, indices, dtype, device)
        return torch.cat([self.outputs(model, split, indices, dtype, device), written.float()], dim=1)

    def mean_loss(self, predictions: Float[Tensor, "n width"], split: Encoded) -> float:
        """Returns the mean of -log p over the target tokens of all examples."""
        return -predictions[:, 0].double().sum().item() / int((split.targets != NO_TOKEN).sum())

    def answers(self, predictions: Float[Tensor, "n width"]) -> list[Answer]:
        """Turns the tokens that were written into text."""
        rows = predictions[:, 1:].long().tolist()
        return [Answer(self._text(row), [score]) for row, score in zip(rows, predictions[:, 0].tolist(), strict=True)]

    def _write(
        self, model: nn.Module, split: Encoded, indices: list[int], dtype: Dtype, device: torch.device
    ) -> Int[Tensor, "batch tokens"]:
        """Appends the likeliest token again and again, until every text of the batch has ended.

        Prompts are padded on the right, and what is written follows each prompt directly, as if it were alone.
        """
        written = torch.full((len(indices), self.max_new_tokens), NO_TOKEN, device=device)
        going = torch.ones(len(indices), dtype=torch.bool, device=device)
        for step in range(self.max_new_tokens):
            hidden = language.states(model, split, indices, written[:, : step + 1], dtype, device)
            likeliest = language.log_probabilities(model, hidden[:, -1:])[:, 0].argmax(-1)
            written[going, step] = likeliest[going]
            going &= likeliest != self.end
            if not going.any():
                break
        return written

    def _text(self, tokens: list[int]) -> str:
        assert self.tokenizer is not None
        row = [token for token in tokens if token not in (NO_TOKEN, self.end)]
        return str(self.tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()

    def _refuse(self, run: Run, examples: list[Example], targets: list[list[int]]) -> None:
        """Refuses targets that cannot be written, and warns of those that come back as another text."""
        for example, tokens in zip(examples, targets, strict=True):
            if len(tokens) > self.max_new_tokens:
                raise InputError(
                    f"task.max_new_tokens: the text of example {example.id} has {len(tokens)} tokens with its end "
                    f"(given: {self.max_new_tokens}).\nRaise it: task.max_new_tokens={len(tokens)}"
                )
            if self.tokenizer is not None and max(tokens) >= run.model.config["vocab_size"]:
                raise too_large(self.tokenizer, run.model, max(tokens))
        read = [self._text(tokens) for tokens in targets]
        pairs = zip(examples, read, strict=True)
        if other := [(example.target[0], text) for example, text in pairs if not exact_match([text], [example.target])]:
            log.warning(
                "task %s: %d of %d target texts change when they are encoded and decoded (%r becomes %r), so no model "
                "can match them exactly.", run.task.name, len(other), len(examples), *other[0],
            )  # fmt: skip
