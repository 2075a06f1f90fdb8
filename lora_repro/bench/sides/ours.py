"""This project, through the functions that `python -m lora_repro` calls."""

import tempfile
from dataclasses import replace

from lora_repro.bench.window import Clock, Found, Work
from lora_repro.store.record import Record
from lora_repro.training import device as devices
from lora_repro.training import train as training
from lora_repro.training.checkpoint import Checkpointer
from lora_repro.training.compiled import STEPS, compile_blocks


def train(work: Work) -> Found:
    """Trains whole epochs, the first as warm-up; blocks are compiled if those of a long run are."""
    resolved, split = work.resolved, work.split
    run = resolved.run
    device = devices.prepare(resolved.settings.compute)
    devices.reset_peak_memory(device)
    model = training.build(resolved, device)
    compile_blocks(model, run, resolved.settings, STEPS, device)
    state = training.start(model, run, len(split.examples))
    state.model.train()
    first_loss = split.loss(state.model, work.first_batch, run.train.dtype, device).item()
    with tempfile.TemporaryDirectory() as store:
        record = Record(store, "bench")
        record.folder.mkdir(parents=True)
        checkpointer = Checkpointer(record, replace(resolved.settings.log, checkpoint_every_s=None), {}, run, total=0)
        clock, epoch = Clock(work.seconds, 1, device), 1
        training.train_epoch(state, run, split, epoch, checkpointer)
        while not clock.tick(state.examples):
            epoch += 1
            training.train_epoch(state, run, split, epoch, checkpointer)
    return clock.found(first_loss, sum(parameter.numel() for parameter in state.trained().values()))
