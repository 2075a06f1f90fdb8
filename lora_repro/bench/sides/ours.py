"""This project, through the functions that `python -m lora_repro` calls."""

import tempfile
from dataclasses import replace
from itertools import count

from lora_repro.bench.window import WARM_UP, Clock, Found, Work
from lora_repro.store.record import Record
from lora_repro.training import device as devices
from lora_repro.training import train as training
from lora_repro.training.checkpoint import Checkpointer
from lora_repro.training.compiled import STEPS, compile_blocks


def train(work: Work) -> Found:
    """Trains whole epochs, the first ones as warm-up; blocks are compiled if those of a long run are."""
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
        clock = Clock(work.seconds, WARM_UP, device)
        for epoch in count(1):
            training.train_epoch(state, run, split, epoch, checkpointer)
            if clock.tick(state.examples):
                break
    return clock.found(first_loss, sum(parameter.numel() for parameter in state.trained().values()))
