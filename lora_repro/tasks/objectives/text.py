"""A language model writes a text after a prompt: the loss is on its tokens alone."""

import logging
from itertools import accumulate, islice
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from lora_repro.config.schema import Dtype, Run
from lora_repro.errors import InputError
from lora_repro.models.tokenizer import too_large
from lora_repro.tasks.base import Splits
from lora_repro.tasks.batches import scoring_batches
from lora_repro.tasks.encoding import Encoded, References
from lora_repro.tasks.metrics import exact_match
from lora_repro.tasks.objectives import language
from lora_repro.tasks.objectives.base import Answer, Objective, padded
from lora_repro.tasks.objectives.decoding import Decoding, write
from lora_repro.tasks.objectives.language import NO_TOKEN, OutputLayer, log_likelihood, rows_of
from lora_repro.tasks.objectives.made_up import made_up
from lora_repro.tasks.objectives.prompts import Prompts
from lora_repro.tasks.targets import split_name
from lora_repro.tasks.texts import RoomFor, TextConfig

CPU = torch.device("cpu")
LEAK = {Dtype.fp32: 1e-3, Dtype.bf16: 0.05}
"""States of a text in a shared row may differ by so much of the largest number among them, by rounding."""

log = logging.getLogger(__name__)


class TextToWrite(Objective):
    """The loss is the mean of -log p over the tokens of the targets, the end of the text included.

    Of an input that is too long the beginning is cut off, and nothing of a target, which may be longer than what is
    written. task.room_for says for what there must be room behind it. What is read of dev and test does not depend on
    their texts.

    Of dev and test it is over each text of an example where task.loss_over says so. A prediction is a row of numbers:
    log p of these texts, summed, then the tokens that were written instead, padded with NO_TOKEN. As numbers of fp32
    they are exact up to 16 million tokens.

    Args:
        tokenizer: Turns tokens into text; None where nothing is read.
        decoding: How texts are written.
        smoothing: train.label_smoothing.
        packing: train.packing.
        longest_target: Tokens of the longest target with its end.
        one_line: Whether what is written after a line is no answer.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        decoding: Decoding,
        smoothing: float = 0.0,
        packing: bool = False,
        longest_target: int = 0,
        one_line: bool = False,
    ) -> None:
        self.tokenizer, self.decoding, self.one_line = tokenizer, decoding, one_line
        self.smoothing, self.packing, self.longest_target = smoothing, packing, longest_target

    @classmethod
    def encode(cls, tokenizer: PreTrainedTokenizerBase, run: Run, splits: Splits) -> dict[str, Encoded]:
        """Tokenises the texts that the loss is over, and prompts, cut so that what follows them fits behind.

        Raises:
            InputError: If no token is known that ends a text, or the model has too few positions for an input beside
                what is written or a text of dev or test; and what `Prompts` refuses.
        """
        task = cast(TextConfig, run.task)
        prompts = Prompts(tokenizer, task.prompt, run.train.max_length, keeps_end=True, framed=task.framed)
        known = (tokenizer.eos_token_id, tokenizer.sep_token_id, run.model.config.get("eos_token_id"))
        end = next((token for token in known if isinstance(token, int)), None)
        if end is None:
            raise InputError(
                f"task {task.name}: neither tokenizer nor config.json of {run.model.name} names the end of a text."
                "\nGive a tokenizer with an eos_token."
            )
        texts = {name: [task.texts_of_loss(name, each) for each in of] for name, of in splits.items()}
        words = [f" {text}" for of in texts.values() for each in of for text in each]
        alone = [len(tokens) + 1 for tokens in tokenizer(words, add_special_tokens=False)["input_ids"]]
        settings = (run.train.label_smoothing, run.train.packing, max(alone, default=0), task.one_line)
        encoded, objective, tokens_of = {}, cls(tokenizer, _decoding(task, end), *settings), iter(alone)
        for name, examples in splits.items():
            counts = [*map(len, texts[name])]
            own = [max(islice(tokens_of, count)) for count in counts]
            cut = prompts.cut(examples, objective._behind(run, name, own))
            each = [text for of in texts[name] for text in of]
            behind = [prompt for prompt, count in zip(cut, counts, strict=True) for _ in range(count)]
            targets = [[*tokens, end] for tokens in prompts.continuations(behind, [f" {text}" for text in each])]
            objective._warn(name, run, each, targets)
            rows = prompts.opened(cut)
            if name != "train":
                objective._refuse_beyond(run, name, rows, own)
            tokens = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
            first = [targets[stop - count] for stop, count in zip(accumulate(counts), counts, strict=True)]
            split = padded(examples, tokens, rows_of(first, CPU), objective, tokenizer, run)
            if len(each) > len(examples):
                split = split._replace(references=References(rows_of(targets, CPU), torch.tensor(counts)))
            encoded[name] = split._replace(cut=torch.tensor([prompt.cut for prompt in cut]))
        _warn_of_cuts(run, encoded)
        return encoded

    @classmethod
    def made_up(cls, run: Run, n: int, length: int) -> Encoded:
        """Returns n arbitrary prompts, each with a target of task.max_new_tokens tokens, or as many as fit."""
        task = cast(TextConfig, run.task)
        written = max(1, min(task.max_new_tokens, length - 1))
        targets = torch.full((n, written), 7)
        return made_up(run, n, max(1, length - written), targets, cls(None, _decoding(task, end=3)))

    @property
    def reserved(self) -> int:
        """The most tokens that follow a prompt: as a target, or written."""
        return max(self.decoding.max_new_tokens, self.longest_target)

    def lengths_read(self, split: Encoded) -> list[int]:
        """Counts the target without its last token, as nothing follows that."""
        return (split.lengths + (split.targets != NO_TOKEN).sum(1) - 1).tolist()

    @property
    def texts_at_once(self) -> int:
        """Each example has as many texts in a batch as there are beams."""
        return self.decoding.num_beams

    def loss(
        self, model: nn.Module, split: Encoded, indices: list[int], dtype: Dtype, device: torch.device
    ) -> Float[Tensor, ""]:
        """Returns the mean cross-entropy of all target tokens of a batch, as transformers computes it."""
        targets = _cut(split.targets[indices], device)
        states = language.states(model, split, indices, targets, dtype, device, packed=self.packing)
        logits = OutputLayer(model).logits(states)
        return F.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=NO_TOKEN, label_smoothing=self.smoothing
        )

    def outputs(
        self, model: nn.Module, split: Encoded, indices: list[int], dtype: Dtype, device: torch.device
    ) -> Float[Tensor, "batch width"]:
        """Returns log p(target | prompt), summed over the texts that the loss is over.

        Those of all examples are divided into batches anew, as an example may have dozens.
        """
        if split.references is None:
            return log_likelihood(model, split, indices, _cut(split.targets[indices], device), dtype, device)[:, None]
        texts, counts, owners = split.references.targets, split.references.counts, split.references.owners
        ends = counts.cumsum(0)
        chosen = [text for i in indices for text in range(int(ends[i] - counts[i]), int(ends[i]))]
        lengths = split.lengths[owners[chosen]] + (texts[chosen] != NO_TOKEN).sum(1) - 1
        log_p = torch.empty(len(chosen), device=device)
        for batch in scoring_batches(lengths.tolist(), device.type == "cpu"):
            of = [chosen[i] for i in batch]
            targets = _cut(texts[of], device)
            log_p[batch] = log_likelihood(model, split, owners[of].tolist(), targets, dtype, device)
        return torch.stack([part.sum() for part in log_p.split(counts[indices].tolist())])[:, None]

    def predict(
        self, model: nn.Module, split: Encoded, indices: list[int], dtype: Dtype, device: torch.device
    ) -> Float[Tensor, "batch width"]:
        """Returns what `outputs` does, and the text that the model writes instead."""
        inputs, _ = split.batch(indices, device)
        written = write(model, inputs["input_ids"], split.lengths[indices].to(device), self.decoding, dtype)
        return torch.cat([self.outputs(model, split, indices, dtype, device), written.float()], dim=1)

    def has_answers(self, predictions: Float[Tensor, "n width"]) -> bool:
        """Tells whether there are written texts, and not the log p of the targets alone."""
        return predictions.shape[1] > 1

    def mean_loss(self, predictions: Float[Tensor, "n width"], split: Encoded) -> float:
        """Returns the mean of -log p over the tokens of all texts that the loss is over, as training weighs them."""
        texts = split.targets if split.references is None else split.references.targets
        return -predictions[:, 0].double().sum().item() / int((texts != NO_TOKEN).sum())

    def answers(self, predictions: Float[Tensor, "n width"]) -> list[Answer]:
        """Turns the tokens that were written into text."""
        rows = predictions[:, 1:].long().tolist()
        return [Answer(self._text(row), [score]) for row, score in zip(rows, predictions[:, 0].tolist(), strict=True)]

    def _text(self, tokens: list[int]) -> str:
        assert self.tokenizer is not None
        row = [token for token in tokens if token not in (NO_TOKEN, self.decoding.end)]
        text = str(self.tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()
        return text.partition("\n")[0].rstrip() if self.one_line else text

    def _behind(self, run: Run, split: str, own: list[int]) -> list[int]:
        """Returns for how many tokens train.max_length must have room behind each input of a split.

        Args:
            run: The run.
            split: Which split.
            own: Tokens of the longest of each example's own texts, with its end.
        """
        max_length, written = run.train.max_length, self.decoding.max_new_tokens
        if cast(TextConfig, run.task).room_for is RoomFor.longest:
            return [self.reserved] * len(own)
        if split == "train":
            return own
        positions = _positions(run)
        if written >= positions:
            raise InputError(
                f"task.max_new_tokens: {run.model.name} with this method has {positions} positions, which leaves none "
                f"for an input (given: {written}).\nLower it."
            )
        return [max(0, max_length + written - positions)] * len(own)

    def _refuse_beyond(self, run: Run, split: str, rows: list[list[int]], own: list[int]) -> None:
        """Refuses texts that are longer than what is written, where the model cannot read them behind their inputs."""
        positions, longest = _positions(run), max(own)
        if over := sum(len(row) + tokens - 1 > positions for row, tokens in zip(rows, own, strict=True)):
            raise InputError(
                f"task.max_new_tokens: {over:,} inputs of {split_name(split)} have a text that ends beyond the "
                f"{positions} positions of {run.model.name} with this method; the longest has {longest} tokens (given: "
                f"{self.decoding.max_new_tokens}).\nLeave room for it: task.max_new_tokens={longest}"
            )

    def _warn(self, split: str, run: Run, texts: list[str], targets: list[list[int]]) -> None:
        """Refuses tokens that the model does not have; warns of targets that it cannot write as they are."""
        lengths, limit = [*map(len, targets)], self.decoding.max_new_tokens
        if split != "train" and (longer := sum(length > limit for length in lengths)):
            log.warning(
                "task %s: %d of %d texts of %s have more than the %d tokens after which writing stops, up to %d with "
                "their end. To let them be written: task.max_new_tokens=%d",
                run.task.name, longer, len(lengths), split_name(split), limit, max(lengths), max(lengths),
            )  # fmt: skip
        for tokens in targets:
            if self.tokenizer is not None and max(tokens) >= run.model.config["vocab_size"]:
                raise too_large(self.tokenizer, run.model, max(tokens))
        read = [self._text(tokens) for tokens in targets]
        if other := [pair for pair in zip(texts, read, strict=True) if not exact_match([pair[1]], [[pair[0]]])]:
            log.warning(
                "task %s: %d of %d target texts change when they are encoded and decoded (%r becomes %r), so no model "
                "can match them exactly.", run.task.name, len(other), len(texts), *other[0],
            )  # fmt: skip


def _positions(run: Run) -> int:
    """Returns how many tokens the model reads beside those that the method puts in front."""
    return run.arch.max_length - run.method.added_tokens


def _warn_of_cuts(run: Run, encoded: dict[str, Encoded]) -> None:
    """Says how many inputs of each split are cut, and what would hold them whole."""
    cuts = {name: split.cut for name, split in encoded.items() if split.cut is not None and split.cut.any()}
    if cuts:
        shares = [
            f"{split_name(name)} {int((cut > 0).sum()):,} of {len(cut):,} ({100 * (cut > 0).double().mean():.1f} %)"
            for name, cut in cuts.items()
        ]
        needed = run.train.max_length + max(int(cut.max()) for cut in cuts.values())
        log.warning(
            "task %s: inputs lose their beginning, as they do not fit into train.max_length=%d, in training with "
            "their texts, or into the model's positions beside what is written: %s. To cut none: train.max_length=%d, "
            "as far as the model has positions.", run.task.name, run.train.max_length, ", ".join(shares), needed,
        )  # fmt: skip


def refuse_leaks(model: nn.Module, split: Encoded, dtype: Dtype, device: torch.device) -> None:
    """Refuses a model whose texts see each other in a shared row: the two shortest are read beside the longest.

    Raises:
        InputError: If their states change by more than rounding.
    """
    order = torch.tensor(split.objective.lengths_read(split)).argsort().tolist()
    indices, was_training = [*order[:2], order[-1]], model.training
    targets = _cut(split.targets[indices], device)
    model.eval()
    with torch.inference_mode():
        together, apart = (
            language.states(model, split, indices, targets, dtype, device, packed=packed)[targets >= 0].float()
            for packed in (True, False)
        )
    model.train(was_training)
    if not torch.allclose(together, apart, rtol=0, atol=LEAK[dtype] * float(apart.abs().max())):
        raise InputError(
            "train.packing: with this method texts that share a row change each other's states in this model, so they "
            "cannot be packed.\nLeave train.packing out."
        )


def _cut(targets: Int[Tensor, "batch targets"], device: torch.device) -> Int[Tensor, "batch longest"]:
    """Returns the targets of a batch, as long as the longest of them."""
    return targets[:, : int((targets != NO_TOKEN).sum(1).max())].to(device)


def _decoding(task: TextConfig, end: int) -> Decoding:
    return Decoding(task.max_new_tokens, end, task.num_beams, task.length_penalty, task.no_repeat_ngram_size)
