"""Trains and scores one run: its method on its task."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import get_scheduler

from lora_repro import draw, interrupt
from lora_repro.config.resolve import Resolved
from lora_repro.config.schema import Dtype, Run, Schedule
from lora_repro.errors import DivergedError
from lora_repro.mirror import notify
from lora_repro.models.attached import attach
from lora_repro.models.load import load
from lora_repro.models.shared import Shared
from lora_repro.store.adapter import TakenOver, load_adapter, save_adapter
from lora_repro.store.record import Record, plain
from lora_repro.tasks.batches import batches
from lora_repro.tasks.encoding import Encoded, encode
from lora_repro.tasks.objectives.text import refuse_leaks
from lora_repro.tasks.targets import split_name
from lora_repro.training import checks, provenance, scoring
from lora_repro.training.checkpoint import Checkpointer, TrainState
from lora_repro.training.compiled import compile_blocks
from lora_repro.training.device import prepare, reset_peak_memory, threads, use_huge_pages
from lora_repro.training.waiting import watched

SAY_EVERY_S = 30
REMEDY = "try a lower train.learning_rate"

log = logging.getLogger(__name__)


def train(resolved: Resolved, record: Record) -> tuple[dict[str, Any], list[Path]]:
    """Computes a run, from its checkpoint if it has one, and writes its files.

    Returns:
        What result.json holds, and the files of the method.

    Raises:
        MissingInputError: If weights or data are missing or damaged.
        DivergedError: If the loss is no longer finite.
        RuntimeError: If a frozen weight changed, or other weights are trained than the method counts.
        AlreadyFinishedError: If another process finished the run meanwhile.
        KeyboardInterrupt: If the process was asked to end; a checkpoint is written.
    """
    run, settings = resolved.run, resolved.settings
    provenance.code()  # as it is now: what is committed or installed meanwhile computes nothing here
    run.task.targets.refuse_missing_tools()
    device = prepare(settings.compute)
    count = run.method.count(run.arch)
    splits = encode(run, settings)
    examples = len(splits["train"].examples)
    total = run.train.steps(examples)
    if total:
        run.method.check_steps(total)
    peak_is_bound = reset_peak_memory(device)
    assembled = assemble(resolved, device)
    model, origin = assembled.model, assembled.origin
    as_read = assembled.shared.digests(model) if assembled.shared is not None else {}
    before = as_read | checks.digests(model, without=as_read)
    if run.train.packing and total:
        refuse_leaks(model, splits["train"], run.train.dtype, device)
    compiled = compile_blocks(model, run, settings, total, device)
    machine = provenance.machine(device, run.train.dtype, compiled, run.method.packages)
    checkpointer = Checkpointer(record, settings.log, machine, run, total)
    state = start(model, run, examples)
    state.peak_memory_is_bound = peak_is_bound
    with state.paused():
        checkpointer.resume(state)
    state.compiles = compiled
    record.reset_metrics(state.lines)
    notify.begin(record.folder, settings)  # no earlier, as a run that is refused leaves no trace
    log.info(
        "%s: %d training examples, %d weights trained by the method and %d of the head, on %s",
        record.run_id, examples, count.method, count.head, device,
    )  # fmt: skip
    if (unreached := run.train.unreached(total)) is not None:
        log.warning("%s: %s", record.run_id, unreached)
    if compiled:
        log.info("%s: compiling the model's blocks in the first step, which takes up to a minute.", record.run_id)
    if run.utilisation is not None:
        log.info("%s: the method trains %.1f %% of its budget", record.run_id, 100 * run.utilisation)
    epochs = math.ceil(total / math.ceil(examples / run.train.batch_size))
    with interrupt.deferred():
        try:
            checkpointer.after_step(state)
            for epoch in range(1, epochs + 1) if epochs else [0]:
                if epoch:
                    train_epoch(state, run, splits["train"], epoch, checkpointer)
                checks.refuse_changed_weights(model, before)
                with state.paused() if total else nullcontext():  # what trains nothing has the peak of its scoring
                    score_epoch(state, run, splits, epoch, epochs, checkpointer)
            if not total:
                state.look_at_memory()
        except interrupt.AskedToEndError:
            checkpointer.write(state)
            raise KeyboardInterrupt from None
    by_epoch = [line for line in state.lines if "loss" not in line]
    rows = []
    for epoch in (line["epoch"] for line in by_epoch):
        for name in run.task.scored:
            rows += scoring.rows(run.task, splits[name], state.predictions[f"{name}/{epoch}"], name, epoch)
    flags = {str(line["epoch"]): scoring.flags(run.task, splits, state.predictions, line["epoch"]) for line in by_epoch}
    record.refuse_to_write_over(by_epoch)
    record.reset_metrics(state.lines)  # another machine that began at the same time may have added its own
    record.save_predictions(rows)
    written = save_adapter(model, run, record.folder, keep_full=settings.log.save_full)
    result = {
        "run_id": record.run_id,
        "config": plain(run),
        "metrics": {key: value for key, value in by_epoch[-1].items() if "/" in key},
        "metrics_by_epoch": by_epoch,
        "params": {"trainable": count.trainable, **count._asdict()},
        "flags": checks.flags(model, run.method, before, epochs) | flags[str(by_epoch[-1]["epoch"])],
        "flags_by_epoch": flags,
        "data": {
            name: run.task.targets.describe(split.examples)
            | ({"cut": split.over} if split.over else {})
            | ({"sha256": split.sha256} if split.sha256 else {})
            for name, split in splits.items()
        },
        **scoring.cross_fitted(run.task, splits, state.predictions, by_epoch),
        "train_seconds": round(state.seconds, 3),
        "train_cpu_seconds": round(state.cpu_seconds, 3) if device.type == "cpu" and state.cpu_seconds > 0 else None,
        "train_examples_per_s": round(state.examples_timed / state.seconds, 2) if state.seconds else None,
        "peak_memory_gib": None if state.machines else state.peak_memory_gib,
        "peak_memory_is_bound": state.peak_memory_is_bound,
        "merge_max_abs_error": checks.merge_max_abs_error(model, run.method, splits["eval"], device),
        "provenance": provenance.collect(device, run.train.dtype, getattr(run.method, "budget", None), compiled)
        | run.method.provenance(run.arch)
        | splits["train"].objective.provenance
        | ({"metrics": signatures} if (signatures := run.task.targets.signatures) else {})
        | ({"machines_before": state.machines} if state.machines else {})
        | ({"init_from": {"files": origin.files, "head": origin.head}} if origin is not None else {}),
        "run_seconds": checkpointer.before,
    }
    checks.refuse_changed_weights(model, before)
    if assembled.shared is not None and as_read:  # a copy, as on a GPU, vouches for nothing that was lent
        assembled.shared.take_back()
    return result, written


def build(resolved: Resolved, device: torch.device) -> nn.Module:
    """Returns the model that `assemble` makes, with all weights its own."""
    model, _, shared = assemble(resolved, device)
    if shared is not None:
        shared.own(model.parameters())
        shared.keep_in_bf16({})
    return model


class Assembled(NamedTuple):
    """A model that is ready to be trained or scored; nobody may write to its frozen weights if they are shared."""

    model: nn.Module
    origin: TakenOver | None
    """What was loaded from `train.init_from`."""
    shared: Shared | None
    """What owns the memory of the frozen weights, if the runs of the process share them."""


def assemble(resolved: Resolved, device: torch.device) -> Assembled:
    """Loads the model, attaches the method, and stores frozen weights in the run's dtype.

    In between it loads `train.init_from`, or lets the method look at training data.

    Raises:
        RuntimeError: If the number of trainable weights is not what the method counts.
    """
    run, paths = resolved.run, resolved.settings.paths
    model, drawn, shared = load(run, paths.model, paths.cache, device)
    origin: TakenOver | None = None
    frozen: dict[nn.Parameter, str] = {}

    def fill(model: nn.Module) -> None:
        nonlocal origin, frozen
        if shared is not None:
            shared.own(parameter for parameter in model.parameters() if parameter.requires_grad)
            frozen = shared.names(model)
        if resolved.init_from is not None:
            origin = load_adapter(model, run, resolved.init_from, paths.outputs, drawn)
        elif run.train.epochs:
            run.method.before_training(model, first_losses(model, resolved))

    attach(model, run.method, run.arch, run.seed, run.train.dtype is Dtype.bf16, fill)
    if shared is not None and device.type == "cpu":
        shared.keep_in_bf16(frozen)
    model.to(device)
    checks.refuse_wrong_counts(model, run.arch, run.method.count(run.arch))
    return Assembled(model, origin, shared)


def first_losses(model: nn.Module, resolved: Resolved) -> Iterator[Callable[[], torch.Tensor]]:
    """Yields for each batch of the first epoch what computes its loss on the CPU and in fp32."""
    run, device = resolved.run, torch.device("cpu")
    split = encode(run, resolved.settings)["train"]
    for indices in _order(split, run, epoch=1):
        yield partial(split.loss, model, indices, Dtype.fp32, device)


def _order(split: Encoded, run: Run, epoch: int) -> list[list[int]]:
    """Returns the batches of an epoch, which counts from 1."""
    lengths = split.objective.lengths_read(split)
    return batches(lengths, run.train.batch_size, run.seed, epoch - 1, alike=not run.train.packing)


def start(model: nn.Module, run: Run, train_examples: int) -> TrainState:
    """Prepares AdamW, its schedule, and torch's generator, which only dropout draws from."""
    settings, arch = run.train, run.arch
    head_rate = settings.head_learning_rate if settings.head_learning_rate is not None else settings.learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = settings.learning_rate * run.method.rate_factor(name)
            rate = head_rate if arch.is_head(name) else rate
            decay = settings.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    groups = groups or {(settings.learning_rate, 0.0): []}  # of a method that trains nothing
    optimizer = AdamW(
        [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()], fused=True
    )
    total = run.train.steps(train_examples)
    kind = "constant_with_warmup" if settings.schedule is Schedule.constant else settings.schedule.value
    schedule = get_scheduler(kind, optimizer, num_warmup_steps=settings.warmup(total), num_training_steps=total)
    assert isinstance(schedule, LambdaLR)
    torch.manual_seed(int(draw.generator("torch", run.seed).integers(2**62)))
    return TrainState(model, run.method, optimizer, schedule, torch.zeros((), device=next(model.parameters()).device))


def train_epoch(state: TrainState, run: Run, split: Encoded, epoch: int, checkpointer: Checkpointer) -> None:
    """Takes the remaining steps of an epoch. The loss is read only where it is logged, as reading waits for the GPU."""
    total = run.train.steps(len(split.examples))
    order = _order(split, run, epoch)
    first = (epoch - 1) * len(order)
    last_step = min(first + len(order), total)
    order = order[state.step - first : total - first]
    trained = list(state.trained().values())
    spent, began = state.seconds, time.perf_counter()
    cpu_spent, cpu_began = state.cpu_seconds, time.process_time()
    last_message = began
    use_huge_pages()  # the heap may have grown
    state.model.train()
    title = f"{checkpointer.record.run_id} epoch {epoch}/{run.train.epochs}"
    with logging_redirect_tqdm(), tqdm(order, desc=title, unit="step", disable=None, leave=False) as bar:
        for indices in watched(bar, threads(state.device)):
            loss = split.loss(state.model, indices, run.train.dtype, state.device)
            penalty = run.method.penalty(state.model)
            (loss if penalty is None else loss + penalty).backward()
            if run.train.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(trained, run.train.max_grad_norm)
            rate = run.train.learning_rate * state.schedule.lr_lambdas[0](state.schedule.last_epoch)
            state.optimizer.step()
            state.schedule.step()
            state.step += 1
            run.method.after_step(state.model, state.step, total)
            state.optimizer.zero_grad()
            state.examples += len(indices)
            state.loss_sum += loss.detach() * len(indices)
            is_logged = state.step % checkpointer.settings.every_steps == 0 or state.step == last_step
            loss_sum = state.loss_sum.item() if is_logged else 0.0  # waits for the GPU, so the clock is read after it
            if state.compiles:  # in this step, which says nothing of the others
                state.compiles, began, cpu_began = False, time.perf_counter(), time.process_time()
            else:
                state.examples_timed += len(indices)
            state.seconds = spent + time.perf_counter() - began
            state.cpu_seconds = cpu_spent + time.process_time() - cpu_began
            if is_logged:
                mean = loss_sum / (state.examples - state.examples_logged)
                if not math.isfinite(mean):
                    raise DivergedError(f"the loss is {mean} at step {state.step} of {total}; {REMEDY}")
                line = {"step": state.step, "epoch": epoch, "examples": state.examples, "loss": mean, "lr": rate}
                checkpointer.log(state, line | {"wall_time_s": round(state.seconds, 3)})
                state.loss_sum.zero_()
                state.examples_logged = state.examples
                bar.set_postfix(loss=f"{mean:.3f}", refresh=False)
                if bar.disable and time.perf_counter() - last_message > SAY_EVERY_S:  # no terminal: a line now and then
                    last_message = time.perf_counter()
                    left = (total - state.step) * state.seconds / state.step
                    log.info("step %d of %d, loss %.3f, about %.0f s of training to go", state.step, total, mean, left)
            paused, cpu_paused = time.perf_counter(), time.process_time()
            checkpointer.after_step(state)
            began += time.perf_counter() - paused
            cpu_began += time.process_time() - cpu_paused


def _after_batch(state: TrainState, checkpointer: Checkpointer, split: str, total: int) -> Callable[[], None]:
    """Returns what runs after each scored batch: it keeps what is done, and says now and then how far it is."""
    began = last_message = time.perf_counter()
    before = sum(map(len, state.begun))

    def run() -> None:
        nonlocal last_message
        now = time.perf_counter()
        if now - last_message > SAY_EVERY_S:
            last_message = now
            done = sum(map(len, state.begun))
            left = (total - done) * (now - began) / (done - before)
            log.info("%s: %d of %d examples scored, about %.0f s to go", split_name(split), done, total, left)
        checkpointer.after_step(state)

    return run


def score_epoch(
    state: TrainState, run: Run, splits: dict[str, Encoded], epoch: int, epochs: int, checkpointer: Checkpointer
) -> None:
    """Scores the splits after an epoch unless a checkpoint has their predictions, and logs the epoch's metrics."""
    if any(line["epoch"] == epoch and "loss" not in line for line in state.lines):
        return
    line: dict[str, Any] = {"epoch": epoch, "step": state.step}
    model = scoring.merged(state.model, run.method) if run.train.score_merged else state.model
    for name in run.task.scored:
        key = f"{name}/{epoch}"
        if key not in state.predictions:
            state.predictions[key] = scoring.predict(
                model, splits[name], run.train.dtype, state.device,
                with_answers=run.task.has_answers_at(epoch, epochs), begun=state.begun,
                after_batch=_after_batch(state, checkpointer, name, len(splits[name].examples)),
            )  # fmt: skip
            state.begun = []
            checkpointer.after_step(state)
        metrics = scoring.metrics(run.task, splits[name], state.predictions[key], name)
        if not math.isfinite(metrics[f"{name}/loss"]):
            raise DivergedError(f"the loss on {name} is {metrics[f'{name}/loss']} after epoch {epoch}; {REMEDY}")
        line |= metrics
    line |= scoring.overall(run.task, splits, {name: state.predictions[f"{name}/{epoch}"] for name in run.task.scored})
    checkpointer.log(state, line)
    scores = scoring.describe(run.task, line)
    log.info("%s epoch %d of %d: %s", checkpointer.record.run_id, epoch, run.train.epochs, scores)
