"""transformers' Trainer: with PEFT as a user gets both, and as the authors of LoRA used it."""

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from lora_repro.bench.sides import adapters
from lora_repro.bench.window import Clock, Found, Work
from lora_repro.config.settings import ComputeConfig
from lora_repro.tasks.encoding import Encoded
from lora_repro.tasks.objectives.label_words import LabelWords
from lora_repro.training import device as devices

IGNORED = -100

Row = dict[str, Any]


def by_default(work: Work) -> Found:
    """Trains with Trainer and PEFT as they come; a language model learns all tokens of prompt and label."""
    device = device_of(work.resolved.settings.compute)
    devices.reset_peak_memory(device)
    model = adapters.with_peft(adapters.load(work), work.resolved.run)
    rows = _rows(work.split)
    if isinstance(work.split.objective, LabelWords):
        all_tokens = [row | {"labels": row["input_ids"]} for row in rows]
        return _train(work, model, all_tokens, rows, None, 3, device)
    return _train(work, model, rows, rows, None, 3, device)


def authors(work: Work) -> Found:
    """Trains with loralib's layers on examples of one length; as every step costs the same, one is warm-up enough."""
    device = device_of(work.resolved.settings.compute)
    devices.reset_peak_memory(device)
    model = adapters.with_loralib(adapters.load(work, attention="eager"), work.resolved.run)
    rows = _rows(work.split)
    return _train(work, model, rows, rows, work.resolved.run.train.max_length, 1, device)


def device_of(compute: ComputeConfig) -> torch.device:
    """Returns the device after setting threads, with the allocator as it is: lora_repro's settings are its own."""
    if compute.threads is not None:
        torch.set_num_threads(compute.threads)
    return torch.device("cuda" if compute.device != "cpu" and torch.cuda.is_available() else "cpu")


def _rows(split: Encoded) -> list[Row]:
    """Returns the examples as a tokenizer returns them, with the label: a class, or words behind the prompt."""
    rows = []
    for index, length in enumerate(split.lengths.tolist()):
        row: Row = {name: values[index, :length].tolist() for name, values in split.inputs.items()}
        label = int(split.targets[index])
        if isinstance(split.objective, LabelWords):
            words = split.objective.words[label]
            tokens = row["input_ids"] + words
            row = {"input_ids": tokens, "attention_mask": [1] * len(tokens), "labels": [IGNORED] * length + words}
        else:
            row["labels"] = label
        rows.append(row)
    return rows


def collate(rows: Sequence[Row], length: int | None = None) -> dict[str, Tensor]:
    """Pads rows on the right, to a length or to their longest, and makes tensors of them."""
    longest = max(len(row["input_ids"]) for row in rows) if length is None else length
    columns = {}
    for name in rows[0]:
        fill = IGNORED if name == "labels" else 0
        values = [row[name] for row in rows]
        padded = [v + [fill] * (longest - len(v)) if isinstance(v, list) else v for v in values]
        columns[name] = torch.tensor(padded)
    return columns


def _train(
    work: Work, model: Any, rows: list[Row], compared: list[Row], length: int | None, warm_up: int, device: torch.device
) -> Found:
    """Trains until the window is over.

    Args:
        work: The work.
        model: With what is trained.
        rows: The examples.
        compared: The examples as the loss is computed on them that is compared with the other sides'.
        length: To which all examples are padded; None pads to the longest of a batch.
        warm_up: Steps.
        device: The device that Trainer chooses.
    """
    run = work.resolved.run
    model.to(device).train()
    with torch.no_grad():
        batch = {k: v.to(device) for k, v in collate([compared[index] for index in work.first_batch], length).items()}
        labels = batch["labels"]
        first_loss = model(**batch).loss.item()
        if labels.dim() > 1:  # transformers' is the mean over tokens
            first_loss *= int((labels != IGNORED).sum()) / len(labels)
    clock = Clock(work.seconds, warm_up, device)

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = clock.tick(state.global_step * run.train.batch_size)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=run.train.epochs,
            per_device_train_batch_size=run.train.batch_size,
            learning_rate=run.train.learning_rate,
            lr_scheduler_type=run.train.schedule.value,
            warmup_steps=run.train.warmup_ratio,  # transformers 5: below 1 it is the ratio
            weight_decay=run.train.weight_decay,
            max_grad_norm=run.train.max_grad_norm or 0.0,
            seed=run.seed,
            use_cpu=device.type == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=rows,  # pyright: ignore[reportArgumentType]  (a list serves as a dataset)
            data_collator=lambda batch: collate(batch, length),
            callbacks=[Stop()],
        )
        trainer.train()
    return clock.found(first_loss, sum(p.numel() for p in model.parameters() if p.requires_grad))
