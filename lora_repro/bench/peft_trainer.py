"""Examples per second of this harness beside transformers' Trainer with PEFT, on the same work, in alternating windows.

    python -m lora_repro.bench.peft_trainer --windows 3 --seconds 60 [OVERRIDES ...]

Both train LoRA (r = 8 on q and v, and the head) from the same weights on the same examples of `movies` with minilm:
batch size, epochs, dropout, AdamW, schedule and clipping are equal. Theirs is what a user gets by default: fp32, random
batches padded to their longest, PyTorch's fused attention. Each window is whole epochs in a process of its own. Needs
the extra `dev` (peft, accelerate).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lora_repro.config.resolve import Resolved

SIDES = ("lora_repro", "Trainer + PEFT")


def ours(resolved: Resolved, seconds: float) -> dict[str, float]:
    """Trains whole epochs with this harness until the time is over; returns examples and seconds."""
    from lora_repro.store.record import Record
    from lora_repro.tasks.encoding import encode
    from lora_repro.training import device as devices
    from lora_repro.training import train
    from lora_repro.training.checkpoint import Checkpointer

    run = resolved.run
    device = devices.prepare(resolved.settings.compute)
    split = encode(run, resolved.settings)["train"]
    state = train.start(train.build(resolved, device), run, len(split.examples))
    with tempfile.TemporaryDirectory() as store:
        record = Record(store, "bench")
        record.folder.mkdir(parents=True)
        checkpointer = Checkpointer(record, replace(resolved.settings.log, checkpoint_every_s=None), {}, run, total=0)
        epoch = 0
        while state.seconds < seconds:
            epoch += 1
            train.train_epoch(state, run, split, epoch, checkpointer)
    return {"examples": state.examples, "seconds": state.seconds}


def theirs(resolved: Resolved, seconds: float) -> dict[str, float]:
    """Trains whole epochs with transformers' Trainer and PEFT until the time is over; returns examples and seconds."""
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from lora_repro.methods import LoRAConfig
    from lora_repro.models.inputs import find_model
    from lora_repro.models.tokenizer import load_tokenizer
    from lora_repro.tasks import subset

    run, paths = resolved.run, resolved.settings.paths
    assert isinstance(run.method, LoRAConfig)
    model = AutoModelForSequenceClassification.from_pretrained(
        find_model(run.model, paths.model, paths.cache),
        num_labels=run.task.head_width,
        hidden_dropout_prob=run.model.dropout,
        attention_probs_dropout_prob=run.model.dropout,
    )
    targets = [site.module for site in run.arch.select(run.method.targets)]
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=run.method.r,
        lora_alpha=run.method.alpha,  # pyright: ignore[reportArgumentType]  (a float serves)
        lora_dropout=run.method.dropout,
        target_modules=targets,
        modules_to_save=list(run.arch.head_modules),
    )
    tokenizer = load_tokenizer(run.model, paths.model, paths.cache)
    examples = subset(run.task.load(paths.data, paths.cache), run.task)["train"]
    tokens = tokenizer([example.text for example in examples], truncation=True, max_length=run.train.max_length)
    rows = [
        {"input_ids": ids, "attention_mask": mask, "labels": example.target}
        for ids, mask, example in zip(tokens["input_ids"], tokens["attention_mask"], examples, strict=True)
    ]
    began, taken, epochs = 0.0, 0.0, 0

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            nonlocal began
            began = time.perf_counter()

        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            nonlocal taken, epochs
            taken, epochs = time.perf_counter() - began, epochs + 1
            control.should_training_stop = taken >= seconds

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
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=get_peft_model(model, config),
            args=arguments,
            train_dataset=rows,  # pyright: ignore[reportArgumentType]  (a list serves as a dataset)
            data_collator=DataCollatorWithPadding(tokenizer),
            callbacks=[Clock()],
        )
        trainer.train()
    return {"examples": epochs * len(rows), "seconds": taken}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures the windows in turn and prints each side's rate, median and range, and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="least length of a window")
    parser.add_argument("--side", choices=SIDES, help="measure one window of one side, in this process")
    parser.add_argument("overrides", nargs="*", help="of the run, e.g. train.dtype=fp32")
    options = parser.parse_args(arguments)
    if options.side is not None:
        from lora_repro.config.compose import compose
        from lora_repro.config.resolve import resolve

        resolved = resolve(compose(["train.epochs=1000", *options.overrides]))
        print(json.dumps((ours if options.side == SIDES[0] else theirs)(resolved, options.seconds)))
        return
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    command = [sys.executable, "-m", "lora_repro.bench.peft_trainer", "--seconds", str(options.seconds)]
    for window in range(options.windows):
        for side in SIDES:
            done = subprocess.run(
                [*command, "--side", side, *options.overrides], stdout=subprocess.PIPE, text=True, check=True
            )
            found = json.loads(done.stdout.splitlines()[-1])
            rates[side].append(found["examples"] / found["seconds"])
            print(
                f"window {window + 1}, {side}: {rates[side][-1]:.1f} examples/s over {found['seconds']:.0f} s",
                flush=True,
            )
    for side, found in rates.items():
        print(f"{side}: median {statistics.median(found):.1f} examples/s, {min(found):.1f} to {max(found):.1f}")
    print(f"ratio of the medians: {statistics.median(rates[SIDES[0]]) / statistics.median(rates[SIDES[1]]):.2f}")


if __name__ == "__main__":
    main()
