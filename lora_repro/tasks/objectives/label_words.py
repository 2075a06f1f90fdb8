"""A language model answers with the likeliest of a few words after a prompt: task.form=text.

The likelihood of a label is that of all tokens of its words, log p summed over them. It is not divided by their number,
so words of more tokens are the less likely ones; words of one token each avoid the question, and calibration divides
it out. Brown et al. 2020 (Section 2.4) take the mean over tokens for most tasks with answers of different lengths.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from lora_repro.config.schema import Dtype, Run
from lora_repro.errors import InputError
from lora_repro.tasks import demonstrations
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

CONTENT_FREE = "content-free"
"""What the prompts around inputs that say nothing are called beside the splits."""


class LabelWords(Objective):
    """The loss is -log p(words of the label | prompt) over the whole vocabulary.

    Args:
        words: The tokens of each label's words.
    """

    content_free: Encoded | None = None
    """Prompts around inputs that say nothing, by which predictions are calibrated; None: they are not."""
    shown: Sequence[Example] = ()
    """The demonstrations before each prompt that is scored, in their order."""

    def __init__(self, words: list[list[int]]) -> None:
        self.words = words

    @classmethod
    def encode(cls, tokenizer: PreTrainedTokenizerBase, run: Run, splits: Splits) -> dict[str, Encoded]:
        """Tokenises the prompts, and finds the words' tokens behind them.

        Where the method shows demonstrations, they stand before each example that is scored, the same for all. The
        training split, which is then not trained on, is asked without.

        Raises:
            InputError: If two labels begin with the same tokens, or a class has too few examples for the
                demonstrations; and what `Prompts` refuses.
        """
        task = cast(ClassConfig, run.task)
        prompts = Prompts(tokenizer, task.prompt, run.train.max_length)
        words = [prompts.tokens_after(splits["train"][0], word) for word in task.label_words]
        if any(a[: len(b)] == b for i, a in enumerate(words) for j, b in enumerate(words) if i != j):
            raise InputError(
                f"task.label_words: one is the beginning of another to this tokenizer (given: {task.label_words}).\n"
                "Choose words that differ from the first token on."
            )
        objective, shown = cls(words), run.method.demonstrations
        asked, after = dict(splits), prompts
        if shown is not None:
            scored = [example for name, examples in splits.items() if name != "train" for example in examples]
            drawn = demonstrations.drawn(splits["train"], scored, shown.per_class, task.num_labels, run.seed)
            objective.shown = drawn
            before = prompts.solved(drawn, [task.label_words[example.target] for example in drawn])
            after = Prompts(tokenizer, task.prompt, run.train.max_length, before)
            if shown.is_calibrated:
                asked[CONTENT_FREE] = demonstrations.content_free(task.is_pair)
            if before:  # says at once how long all of them are
                after.cut(scored + asked.get(CONTENT_FREE, []), objective.reserved)
        encoded = {}
        for name, examples in asked.items():
            of_split = prompts if name == "train" else after
            cut = of_split.cut(examples, reserved=objective.reserved)
            for word, expected in zip(task.label_words, words, strict=True):
                of_split.continuations(cut, [word] * len(cut), expected)
            rows = of_split.opened(cut)
            tokens = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
            targets = torch.tensor([example.target for example in examples])
            encoded[name] = padded(examples, tokens, targets, objective, tokenizer, run)
        objective.content_free = encoded.pop(CONTENT_FREE, None)
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
    def provenance(self) -> dict[str, Any]:
        """The ids of the demonstrations in their order, where there are any."""
        return {"demonstrations": [example.id for example in self.shown]} if self.shown else {}

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

    def calibration(self, model: nn.Module, dtype: Dtype, device: torch.device) -> Float[Tensor, " width"] | None:
        """Returns log of the probability that the model gives each label where the input says nothing.

        It is the mean probability over the content-free inputs, by which those of an example are divided: Zhao et al.
        2021, Section 5, with W = diag(p_cf)^-1 and b = 0. That p_cf is not made to sum to 1 here changes no answer, and
        no loss, which is of the quotients made to sum to 1.
        """
        if self.content_free is None:
            return None
        log_p = self.outputs(model, self.content_free, list(range(len(self.content_free.examples))), dtype, device)
        return log_p.float().logsumexp(0) - math.log(len(log_p))

    def mean_loss(self, predictions: Float[Tensor, "n width"], split: Encoded) -> float:
        """Returns the mean over examples of -log p(label), where the labels' words are all that can follow."""
        return F.cross_entropy(predictions, split.targets).item()

    def answers(self, predictions: Float[Tensor, "n width"]) -> list[Answer]:
        """Takes the label with the likeliest words."""
        return likeliest(predictions)
