"""PEFT at its best: a plain loop that does nothing which a clever user would not do."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from transformers import get_scheduler

from lora_repro.bench.sides import adapters
from lora_repro.bench.sides.trainer import device_of
from lora_repro.bench.window import WARM_UP, Clock, Found, Work
from lora_repro.models.precision import has_fast_bf16
from lora_repro.tasks.batches import batches, padded_length
from lora_repro.tasks.encoding import Encoded
from lora_repro.tasks.objectives.label_words import LabelWords
from lora_repro.training import device as devices

IGNORED = -100


def train(work: Work) -> Found:
    """Trains whole epochs, the first ones as warm-up."""
    run, split = work.resolved.run, work.split
    settings = run.train
    device = device_of(work.resolved.settings.compute)
    is_bf16 = has_fast_bf16(device)
    devices.reset_peak_memory(device)
    model = prepared(work, torch.bfloat16 if is_bf16 and run.method.name != "full" else torch.float32, device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    total = run.train.steps(len(split.examples))
    warm_up = int(settings.warmup_ratio * total)
    schedule = get_scheduler(settings.schedule.value, optimizer, num_warmup_steps=warm_up, num_training_steps=total)
    loss_of = Words(split, device) if isinstance(split.objective, LabelWords) else Labels(split, device)
    lengths, examples = split.lengths.tolist(), 0
    with disable_input_dtype_casting(model) if is_bf16 and isinstance(model, PeftModel) else nullcontext():

        def loss(indices: list[int]) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
                return loss_of(model, indices)

        first_loss = loss(work.first_batch).item()
        clock = Clock(work.seconds, WARM_UP, device)
        for order in _epochs(lengths, settings.batch_size, run.seed):
            for indices in order:
                loss(indices).backward()
                if settings.max_grad_norm is not None:
                    nn.utils.clip_grad_norm_(trained, settings.max_grad_norm, foreach=True)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
                examples += len(indices)
            if clock.tick(examples):
                break
    return clock.found(first_loss, sum(parameter.numel() for parameter in trained))


def prepared(work: Work, dtype: torch.dtype, device: torch.device) -> Any:
    """Returns the model, its frozen weights in a dtype and what is trained in fp32."""
    attention = "eager" if device.type == "cpu" else "sdpa"
    model = adapters.with_peft(adapters.load(work, dtype, attention), work.resolved.run)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model.to(device).train()


def _epochs(lengths: list[int], batch_size: int, seed: int) -> Iterator[list[list[int]]]:
    epoch = 0
    while True:
        yield batches(lengths, batch_size, seed, epoch)
        epoch += 1


class Labels:
    """The loss of a classification head; tokens are cut to the batch's longest, as ours are."""

    def __init__(self, split: Encoded, device: torch.device) -> None:
        self.split, self.device = split, device

    def __call__(self, model: Any, indices: list[int]) -> Tensor:
        """Returns the loss of a batch."""
        inputs, labels = self.split.batch(indices, self.device)
        return F.cross_entropy(model(**inputs).logits.float(), labels)


class Words:
    """The loss of the label's tokens behind a prompt.

    Prompts are padded on the left, so that the tokens that are read from stand in the last columns. Only there the
    vocabulary is multiplied out, as with `logits_to_keep`, but in one product: of the strided columns of a batch torch
    makes as many products as examples, each with a copy of the vocabulary. The last token of a label is read by nothing
    and so left out.
    """

    def __init__(self, split: Encoded, device: torch.device) -> None:
        assert isinstance(split.objective, LabelWords)
        words = [split.objective.words[label] for label in split.targets.tolist()]
        prompts = [
            row[:length] for row, length in zip(split.inputs["input_ids"].tolist(), split.lengths.tolist(), strict=True)
        ]
        rows = [prompt + word[:-1] for prompt, word in zip(prompts, words, strict=True)]
        width, self.kept = padded_length(max(map(len, rows))), max(map(len, words))
        self.lengths = torch.tensor([len(row) for row in rows])
        self.tokens = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        self.targets = torch.tensor([[IGNORED] * (self.kept - len(word)) + word for word in words])
        self.device = device

    def __call__(self, model: Any, indices: list[int]) -> Tensor:
        """Returns the mean over the examples of a batch of -log p(label's tokens | prompt)."""
        lengths = self.lengths[indices]
        width = padded_length(int(lengths.max()))
        positions = torch.arange(width) - (width - lengths)[:, None]
        base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        hidden = base.base_model(
            input_ids=self.tokens[indices, -width:].to(self.device, non_blocking=True),
            attention_mask=(positions >= 0).long().to(self.device, non_blocking=True),
            position_ids=positions.clamp(min=0).to(self.device, non_blocking=True),
            use_cache=False,
        ).last_hidden_state
        logits = base.lm_head(hidden[:, -self.kept :].flatten(0, 1))
        targets = self.targets[indices].to(self.device, non_blocking=True).flatten()
        return F.cross_entropy(logits.float(), targets, reduction="sum") / len(indices)
