"""A language model answers with the likeliest of a few words after a prompt: task.form=text."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from lora_repro.config.schema import Dtype, Run
from lora_repro.errors import InputError
from lora_repro.tasks.base import Splits
from lora_repro.tasks.classes import ClassConfig
from lora_repro.tasks.encoding import Encoded
from lora_repro.tasks.objectives import language
from lora_repro.tasks.objectives.base import Answer, Objective, padded
from lora_repro.tasks.objectives.heads import likeliest
from lora_repro.tasks.objectives.language import log_likelihood, rows_of, states
from lora_repro.tasks.objectives.made_up import made_up
from lora_repro.tasks.objectives.prompts import Prompts
from lora_repro.tasks.targets import Example


class LabelWords(Objective):
    """The loss is -log p(words of the label | prompt) over the whole vocabulary.

    Args:
        words: The tokens of each label's words.
    """

    def __init__(self, words: list[list[int]]) -> None:
        self.words = words

    @classmethod
    def encode(cls, tokenizer: PreTrainedTokenizerBase, run: Run, splits: Splits) -> dict[str, Encoded]:
        """Tokenises the prompts, and finds the words' tokens behind them.

        Raises:
            InputError: If two labels begin with the same tokens; and what `Prompts` refuses.
        """
        task = cast(ClassConfig, run.task)
        prompts = Prompts(tokenizer, task.prompt, run.train.max_length)
        words = [prompts.tokens_after(splits["train"][0], word) for word in task.label_words]
        if any(a[: len(b)] == b for i, a in enumerate(words) for j, b in enumerate(words) if i != j):
            raise InputError(
                f"task.label_words: one is the beginning of another to this tokenizer (given: {task.label_words}).\n"
                "Choose words that differ from the first token on."
            )
        encoded, objective = {}, cls(words)
        for name, examples in splits.items():
            cut = prompts.cut(examples, reserved=objective.reserved)
            for word, expected in zip(task.label_words, words, strict=True):
                prompts.continuations(cut, [word] * len(cut), expected)
            rows = prompts.opened(cut)
            tokens = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
            targets = torch.tensor([example.target for example in examples])
            encoded[name] = padded(examples, tokens, targets, objective, tokenizer, run)
        return encoded

    def whole_lengths(self, tokenizer: PreTrainedTokenizerBase, run: Run, examples: list[Example]) -> list[int]:
        """Returns how many tokens each prompt would have if none was cut."""
        return Prompts(tokenizer, cast(ClassConfig, run.task).prompt, run.train.max_length).whole_lengths(examples)

    @classmethod
    def made_up(cls, run: Run, n: int, length: int) -> Encoded:
        """Returns n arbitrary prompts, all with the first of two words of one token.

        How many tokens the task's words have, the tokenizer alone knows. Words of several tokens need a little more
        memory: the vocabulary is multiplied out at each of them.
        """
        objective = cls([[7], [8]])
        targets = torch.zeros(n, dtype=torch.long)
        return made_up(run, n, max(1, length - objective.reserved), targets, objective)

    @property
    def reserved(self) -> int:
        """The tokens of the longest label's words."""
        return max(map(len, self.words))

    def loss(
        self, model: nn.Module, split: Encoded, indices: list[int], dtype: Dtype, device: torch.device
    ) -> Float[Tensor, ""]:
        """Returns the mean over examples of -log p(label's words | prompt)."""
        words = rows_of([self.words[label] for label in split.targets[indices].tolist()], device)
        return -log_likelihood(model, split, indices, words, dtype, device).mean()

    def outputs(
        self, model: nn.Module, split: Encoded, indices: list[int], dtype: Dtype, device: torch.device
    ) -> Float[Tensor, "batch width"]:
        """Returns the log-likelihood of each label's words."""
        if all(len(word) == 1 for word in self.words):  # one pass tells all
            hidden = states(model, split, indices, None, dtype, device)
            return language.log_probabilities(model, hidden)[:, 0][:, [word[0] for word in self.words]]
        each = [rows_of([word] * len(indices), device) for word in self.words]
        return torch.stack([log_likelihood(model, split, indices, words, dtype, device) for words in each], dim=1)

    def mean_loss(self, predictions: Float[Tensor, "n width"], split: Encoded) -> float:
        """Returns the mean over examples of -log p(label), where the labels' words are all that can follow."""
        return F.cross_entropy(predictions, split.targets).item()

    def answers(self, predictions: Float[Tensor, "n width"]) -> list[Answer]:
        """Takes the label with the likeliest words."""
        return likeliest(predictions)
