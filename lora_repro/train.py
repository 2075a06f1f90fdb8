"""Trains and scores one run: the one room where methods meet tasks."""

import logging
import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import get_scheduler

from lora_repro import checks, device, draw, provenance, scoring
from lora_repro.adapter import load_adapter, save_adapter
from lora_repro.batches import batches
from lora_repro.config import Dtype, Resolved, Run, Schedule
from lora_repro.encoding import Encoded, encode
from lora_repro.errors import DivergedError
from lora_repro.models import load_model
from lora_repro.precision import products, store_in_bf16
from lora_repro.record import Record, plain

SCORED = ("eval", "test")
SAY_EVERY_S = 30
REMEDY = "try a lower train.learning_rate"

log = logging.getLogger(__name__)


@dataclass
class TrainState:
    """Everything that changes while training; with torch's generator, which dropout draws from, what resuming needs."""

    model: nn.Module
    """Of it the parameters that require a gradient."""
    optimizer: AdamW
    schedule: LRScheduler
    epoch: int = 0
    step: int = 0
    examples: int = 0
    seconds: float = 0.0
    """Time spent in steps, scoring apart."""
    metrics_by_epoch: list[dict[str, Any]] = field(default_factory=list)
    predictions: list[dict[str, Any]] = field(default_factory=list)


def train(resolved: Resolved, record: Record) -> dict[str, Any]:
    """Computes a run, writes its record, and returns what result.json holds.

    Raises:
        MissingInputError: If weights or data are missing or damaged.
        DivergedError: If the loss is no longer finite.
        RuntimeError: If a frozen weight changed, or not the weights are trained that the method counts.
    """
    run, circumstances = resolved.run, resolved.circumstances
    where = device.prepare(circumstances.compute)
    splits = encode(run, circumstances)
    device.reset_peak_memory(where)
    model = build(resolved, where)
    before = checks.digests(model)
    state = start(model, run, len(splits["train"].examples))
    epochs = range(1, run.train.epochs + 1) if run.train.epochs else [0]
    count = run.method.count(run.arch)
    log.info(
        "%s: %d training examples, %d weights trained by the method and %d of the head, on %s",
        record.run_id, len(splits["train"].examples), count.method, count.head, where,
    )  # fmt: skip
    for state.epoch in epochs:
        if state.epoch:
            train_epoch(state, run, splits["train"], record, where, circumstances.log.every_steps)
        checks.refuse_changed_weights(model, before)
        metrics: dict[str, Any] = {"epoch": state.epoch, "step": state.step}
        for name in SCORED:
            scores = scoring.score(model, splits[name], run.train.dtype, where)
            if not math.isfinite(scores.loss):
                raise DivergedError(f"the loss on {name} is {scores.loss} after epoch {state.epoch}; {REMEDY}")
            metrics |= scoring.metrics(run.task, splits[name], scores, name)
            state.predictions += scoring.predictions(splits[name], scores, name, state.epoch)
        record.log_metrics(metrics)
        state.metrics_by_epoch.append(metrics)
        log.info("%s epoch %d of %d: %s", record.run_id, state.epoch, run.train.epochs, scoring.words(metrics))
        if state.step == total_steps(run, len(splits["train"].examples)):
            break
    record.save_predictions(state.predictions)
    save_adapter(model, run, record.folder)
    return {
        "run_id": record.run_id,
        "config": plain(run),
        "metrics": {key: value for key, value in state.metrics_by_epoch[-1].items() if "/" in key},
        "metrics_by_epoch": state.metrics_by_epoch,
        "params": {"trainable": count.trainable, **count._asdict()},
        "flags": checks.flags(model, before, state.predictions, state.epoch),
        "data": {name: scoring.balance(split) for name, split in splits.items()},
        "train_seconds": round(state.seconds, 3),
        "train_examples_per_s": round(state.examples / state.seconds, 2) if state.seconds else None,
        "peak_memory_gib": device.peak_memory_gib(where),
        "merge_max_abs_error": checks.merge_max_abs_error(model, splits["eval"], where),
        "provenance": provenance.collect(where, run.train.dtype),
    }


def build(resolved: Resolved, where: torch.device) -> nn.Module:
    """Loads the model, attaches the method, fills in `train.init_from`, and stores frozen weights in the run's dtype.

    Raises:
        RuntimeError: If the number of trainable weights is not what the method counts.
    """
    run, paths = resolved.run, resolved.circumstances.paths
    model = load_model(run, paths.model, paths.cache, where)
    run.method.attach(model, run.arch, run.seed)
    if resolved.init_from is not None:
        load_adapter(model, run, resolved.init_from, paths.outputs)
    if run.train.dtype is Dtype.bf16:
        store_in_bf16(model)
    model.to(where)
    checks.refuse_wrong_counts(model, run.arch, run.method.count(run.arch))
    return model


def total_steps(run: Run, train_examples: int) -> int:
    """Returns the number of optimizer steps of a whole run."""
    steps = run.train.epochs * math.ceil(train_examples / run.train.batch_size)
    return steps if run.train.max_steps is None else min(steps, run.train.max_steps)


def start(model: nn.Module, run: Run, train_examples: int) -> TrainState:
    """Prepares AdamW, its schedule, and torch's generator, which only dropout draws from."""
    settings = run.train
    head_rate = settings.head_learning_rate if settings.head_learning_rate is not None else settings.learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = head_rate if run.arch.is_head(name) else settings.learning_rate
            decay = settings.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    optimizer = AdamW(
        [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()], fused=True
    )
    total = total_steps(run, train_examples)
    warmup = math.ceil(settings.warmup_ratio * total) if settings.warmup_steps is None else settings.warmup_steps
    kind = "constant_with_warmup" if settings.schedule is Schedule.constant else settings.schedule.value
    schedule = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    torch.manual_seed(int(draw.generator("torch", run.seed).integers(2**62)))
    return TrainState(model, optimizer, schedule)


def train_epoch(
    state: TrainState, run: Run, split: Encoded, record: Record, where: torch.device, every_steps: int
) -> None:
    """Takes the steps of one epoch. The loss is read, and so waited for, only where it is logged."""
    total = total_steps(run, len(split.examples))
    order = batches(split.lengths.tolist(), run.train.batch_size, run.seed, state.epoch - 1)[: total - state.step]
    trained = [parameter for parameter in state.model.parameters() if parameter.requires_grad]
    loss_sum, examples_before, began = torch.zeros((), device=where), state.examples, time.perf_counter()
    spent, told = state.seconds, began
    state.model.train()
    title = f"{record.run_id} epoch {state.epoch}/{run.train.epochs}"
    with logging_redirect_tqdm(), tqdm(order, desc=title, unit="step", disable=None, leave=False) as bar:
        for position, indices in enumerate(bar):
            inputs, labels = split.batch(indices, where)
            with products(run.train.dtype, where):
                logits = state.model(**inputs).logits
            loss = F.cross_entropy(logits.float(), labels)
            loss.backward()
            if run.train.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(trained, run.train.max_grad_norm)
            rate = state.schedule.get_last_lr()[0]
            state.optimizer.step()
            state.schedule.step()
            state.optimizer.zero_grad()
            state.step += 1
            state.examples += len(indices)
            loss_sum += loss.detach() * len(indices)
            if state.step % every_steps == 0 or position == len(order) - 1:
                mean = loss_sum.item() / (state.examples - examples_before)
                state.seconds = spent + time.perf_counter() - began
                if not math.isfinite(mean):
                    raise DivergedError(f"the loss is {mean} at step {state.step} of {total}; {REMEDY}")
                record.log_metrics(
                    {
                        "step": state.step,
                        "epoch": state.epoch,
                        "examples": state.examples,
                        "loss": mean,
                        "lr": rate,
                        "wall_time_s": round(state.seconds, 3),
                    }
                )
                bar.set_postfix(loss=f"{mean:.3f}", refresh=False)
                if bar.disable and time.perf_counter() - told > SAY_EVERY_S:  # no terminal: a line now and then
                    told = time.perf_counter()
                    left = (total - state.step) * state.seconds / state.step
                    log.info("step %d of %d, loss %.3f, about %.0f s of training to go", state.step, total, mean, left)
                loss_sum.zero_()
                examples_before = state.examples
