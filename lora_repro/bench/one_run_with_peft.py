"""One run with transformers' Trainer and PEFT, as a script of its own: what `lora_repro.bench.demo` calls for each run.

It knows nothing of lora_repro. Trainer and PEFT are used as they come: fp32, random batches padded to their longest.
Only what a run is made of is given: rank, alpha, learning rate, schedule, epochs, batch size and seed.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)


def main() -> None:
    """Trains and scores one run."""
    args = _arguments()
    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    splits = {}
    for name, examples in json.loads(args.data.read_text()).items():
        texts, labels = zip(*examples, strict=True)
        tokens = tokenizer(list(texts), truncation=True, max_length=args.max_length)
        splits[name] = [
            {key: rows[i] for key, rows in tokens.items()} | {"labels": label} for i, label in enumerate(labels)
        ]
    model = AutoModelForSequenceClassification.from_pretrained(
        args.model,
        num_labels=len({row["labels"] for row in splits["train"]}),
        hidden_dropout_prob=args.dropout,
        attention_probs_dropout_prob=args.dropout,
    )
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=args.r,
        lora_alpha=args.alpha,
        target_modules=args.targets,
        modules_to_save=args.head,
    )
    trainer = Trainer(
        model=get_peft_model(model, config),
        args=TrainingArguments(
            output_dir=str(args.output),
            num_train_epochs=args.epochs,
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            lr_scheduler_type=args.schedule,
            warmup_steps=args.warmup_ratio,  # transformers 5: below 1 it is the ratio
            eval_strategy="epoch",
            save_strategy="no",
            report_to="none",
            seed=args.seed,
            use_cpu=args.cpu,
        ),
        train_dataset=splits["train"],  # pyright: ignore[reportArgumentType]  (a list serves as a dataset)
        eval_dataset={"eval": splits["eval"], "test": splits["test"]},  # pyright: ignore[reportArgumentType]
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda found: {"accuracy": float(np.mean(np.argmax(found.predictions, -1) == found.label_ids))},
    )
    trainer.train()
    trainer.save_model(str(args.output))
    (args.output / "scores.json").write_text(json.dumps(trainer.state.log_history))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder with config.json, tokenizer and weights")
    parser.add_argument(
        "--data", type=Path, required=True, help='{"train": [[text, label], ...], "eval": ..., "test": ...}'
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the adapter and scores.json")
    parser.add_argument("--r", type=int, required=True)
    parser.add_argument("--alpha", type=float, required=True)
    parser.add_argument("--targets", nargs="+", required=True, help="names of the adapted modules")
    parser.add_argument("--head", nargs="+", required=True, help="names of the modules that are trained whole")
    parser.add_argument("--dropout", type=float, required=True, help="of the model")
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--schedule", required=True)
    parser.add_argument("--warmup-ratio", type=float, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--cpu", action="store_true", help="use no GPU")
    return parser.parse_args()


if __name__ == "__main__":
    main()
