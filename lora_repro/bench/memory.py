"""The peak memory of training, measured beside what lora_repro.costs.memory estimates from shapes.

    python -m lora_repro.bench.memory --batch-size 32 --length 64 model=mpnet task=movies method=lora [OVERRIDES ...]

Trains a few steps on made-up tokens, all inputs of one length: batches of many lengths leave more holes in the heap,
and more kernels in oneDNN's cache (a fifth on top, on movies). The peak is the process's on a CPU, the allocator's on a
GPU. `--rounded` computes as a CPU does that has no bf16 products.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from lora_repro.config.resolve import Resolved
from lora_repro.costs.memory import GIB, Memory
from lora_repro.costs.saved_tensors import Batch

STEPS = 3


class Measured(NamedTuple):
    """What was found, in GiB."""

    peak: float | None
    """None where the system does not tell."""
    predicted: float
    memory: Memory

    @property
    def ratio(self) -> float | None:
        """The estimate over what was measured."""
        return None if self.peak is None else self.predicted / self.peak


def measure(resolved: Resolved, batch_size: int, length: int, rounded: bool = False) -> Measured:
    """Trains a few steps, which must be the first of the process, and returns the peak beside its estimate."""
    from lora_repro.costs import memory
    from lora_repro.models import load as models
    from lora_repro.store.record import Record
    from lora_repro.training import device, precision, train
    from lora_repro.training.checkpoint import Checkpointer

    if rounded:
        precision.has_fast_bf16 = models.has_fast_bf16 = lambda device: False
    run = resolved.run
    where = device.prepare(resolved.settings.compute)
    n = STEPS * batch_size
    split = run.task.objective.made_up(run, n, length)
    device.reset_peak_memory(where)
    state = train.start(train.build(resolved, where), run, n)
    with tempfile.TemporaryDirectory() as store:
        record = Record(store, "bench")
        record.folder.mkdir(parents=True)
        settings = replace(resolved.settings.log, checkpoint_every_s=None)
        train.train_epoch(state, run, split, 1, Checkpointer(record, settings, {}, run, STEPS))
    peak = device.peak_memory_gib(where)
    is_cpu = where.type == "cpu"
    products = precision.products_of(run.train.dtype, where)
    batch = Batch(batch_size, length, products, is_fused=not models.is_eager(run, where))
    found = memory.estimate(run.method, run.arch, run.model.config, batch)
    return Measured(peak, (found.on_cpu if is_cpu else found.training) / GIB, found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures one run and prints peak, estimate, their ratio, and the parts of the estimate."""
    from lora_repro.config.compose import compose
    from lora_repro.config.resolve import resolve

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounded", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one object: peak, predicted, memory")
    parser.add_argument("overrides", nargs="*", help="of the run, e.g. model=mpnet method=full")
    options = parser.parse_args(arguments)
    resolved = resolve(compose([*options.overrides, "train.epochs=1", "log.wandb=off"]))
    found = measure(resolved, options.batch_size, options.length, options.rounded)
    if options.json:
        print(json.dumps({**found._asdict(), "memory": found.memory._asdict()}))
        return
    run = resolved.run
    measured = "not told by this system" if found.ratio is None else f"{found.peak:.3f} GiB, ratio {found.ratio:.2f}"
    parts = ", ".join(f"{key} {value / GIB:.3f}" for key, value in found.memory._asdict().items())
    print(
        f"{run.model.name} {run.method.label} {run.train.dtype.value}{' rounded' * options.rounded}, "
        f"{options.batch_size} x {options.length}: estimated {found.predicted:.3f}, measured {measured}; {parts}"
    )


if __name__ == "__main__":
    main()
