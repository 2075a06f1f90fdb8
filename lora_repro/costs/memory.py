"""Bytes that a run holds while it trains, by one training step on tensors that have shapes and no data (trace.py).

What a CPU adds, the process and what its heap wastes, is measured: python -m lora_repro.bench.memory.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from lora_repro.config.schema import Dtype, Run
from lora_repro.costs.trace import Trace, build, trace
from lora_repro.errors import InputError
from lora_repro.methods import MethodConfig
from lora_repro.models.arch import Arch, arch_of, is_counted
from lora_repro.models.attached import attach
from lora_repro.models.load import SHARED_UP_TO, is_eager_on_cpu, without_weights
from lora_repro.models.precision import Products, computing_as, products_of
from lora_repro.store.adapter import trained_tensors
from lora_repro.tasks.batches import WRITTEN_AT_ONCE, scoring_batches
from lora_repro.tasks.encoding import Encoded
from lora_repro.tasks.objectives.without_task import made_up_for

FP32 = 4
PROCESS = 740 * 2**20
"""On a CPU: Python, torch, tokenizer and data (440 to 480 MiB before a model is loaded), and what oneDNN stores of the
kernels that it compiles for every length. Measured with torch 2.13 on x86-64: python -m lora_repro.bench.memory."""
HEAP = 1.8
"""On a CPU: what activations take of the heap, over their size, measured likewise. Freed blocks are not filled again
exactly (glibc before 2.38, whose memalign asks for more than the hole that it left)."""
CPU = torch.device("cpu")
LAYERS = ("num_hidden_layers", "n_layer")
"""The keys of config.json that hold the number of blocks."""
FEW = (4, 6)
"""Of more blocks than the last, these are traced: every further one saves as much as the one before. The peak's
temporaries may differ by a hundredth."""


class Batch(NamedTuple):
    """The inputs of a step, padded to one length, and how they are computed."""

    size: int
    length: int
    products: Products = Products.bf16
    on_gpu: bool = True
    max_length: int | None = None
    """The longest that an input may be, by which attention's kernel is chosen on CPUs (None: as these are)."""

    @property
    def attention(self) -> str:
        """The kernel of attention, as transformers calls it."""
        eager = not self.on_gpu and is_eager_on_cpu(self.products, self.max_length or self.length)
        return "eager" if eager else "sdpa"


class Memory(NamedTuple):
    """Bytes, by what they are for."""

    weights: int
    """The model in training: frozen weights in the run's dtype, trained ones in fp32."""
    source: int
    """The weights as they were read, in fp32, which the process keeps for its next run (in the host's memory)."""
    loaded: int
    """The model in fp32, as it is while it is put together (in the host's memory)."""
    gradients: int
    """Of what is trained, in fp32."""
    optimizer: int
    """AdamW's two moments, in fp32."""
    activations: int | None
    """What the forward pass keeps for the backward pass; None of a method that is not trained here."""
    step: int | None
    """The most that a step holds beside weights and moments: activations, temporaries, gradients; None likewise."""
    checkpoint: int
    """The trained tensors as a file, with the head: what an adapter weighs on disk."""

    @property
    def training(self) -> int | None:
        """What a GPU holds at most."""
        return None if self.step is None else self.weights + self.optimizer + self.step

    def on(self, device: torch.device) -> int | None:
        """What a device holds at most: a GPU, or on a CPU the process."""
        return self.on_cpu if device.type == "cpu" else self.training

    @property
    def on_cpu(self) -> int | None:
        """What the process holds at most on a CPU."""
        if self.step is None:
            return None
        in_heap = self.gradients + int(HEAP * (self.step - self.gradients))
        return PROCESS + self.source + max(self.weights + self.optimizer + in_heap, self.loaded)


class Case(NamedTuple):
    """What is trained on what."""

    method: MethodConfig
    arch: Arch
    """The model's shapes, with its head."""
    config: Mapping[str, Any]
    """The keys of its config.json."""
    batch: Batch
    dropout: float = 0.0
    """Of the backbone."""
    split: Encoded | None = None
    """As many examples as the batch has; None: made up, for the head that the model has or for a language model."""


def estimate(case: Case) -> Memory:
    """Returns what training takes."""
    method, arch, batch = case.method, case.arch, case.batch
    count = method.count(arch)
    trained = FP32 * count.trainable
    source = FP32 * arch.size()
    frozen = FP32 if batch.products is Products.fp32 else 2
    weights, checkpoint = trained + frozen * (count.total - count.trainable), trained
    try:
        found = _extrapolated(case)
    except (DataDependentOutputException, DynamicOutputShapeException):  # of PEFT, by values that are not there
        found = None
    else:
        weights, checkpoint = found.step.weights, found.checkpoint
    return Memory(
        weights=weights,
        source=source if arch.size() <= SHARED_UP_TO else 0,
        loaded=source,
        gradients=trained,
        optimizer=2 * trained,
        activations=None if found is None else found.step.saved,
        step=None if found is None else max(found.step.early, found.step.late),
        checkpoint=checkpoint,
    )


def estimate_run(run: Run, device: torch.device, length: int | None = None) -> Memory:
    """Returns what a run takes.

    Args:
        run: The run.
        device: Where it is trained.
        length: Tokens of its longest batch, with what is written behind it (None: as many as train.max_length).
    """
    length = min(length or run.train.max_length, run.train.max_length)
    products = products_of(run.train.dtype, device)
    batch = Batch(batch_size(run, device, length), length, products, device.type == "cuda", run.train.max_length)
    split = run.task.objective.made_up(run, batch.size, length)
    return estimate(Case(run.method, run.arch, run.model.config, batch, run.model.dropout, split))


def batch_size(run: Run, device: torch.device, length: int) -> int:
    """Returns how many inputs of a length are computed at once: those of a step, or of scoring where none is taken."""
    if run.method.is_trained:
        return run.train.batch_size
    return len(scoring_batches([length] * WRITTEN_AT_ONCE, device.type == "cpu", reserved=1)[0])


def heaviest(runs: Iterable[Run]) -> list[Run]:
    """Returns the runs whose memory is worth an estimate: one of each model, task, method, dtype and shape of batches.

    It is the one that trains the most weights. That need not be the one that holds most, as other targets hold other
    activations; the difference is small beside what the groups differ in.
    """
    found: dict[tuple[object, ...], Run] = {}
    for run in runs:
        train = run.train
        task = (run.task.name, run.task.head_width)
        key = (run.model.name, *task, run.method.name, train.dtype, train.batch_size, train.max_length)
        other = found.setdefault(key, run)
        if run.trained_by_method > other.trained_by_method:
            found[key] = run
    return list(found.values())


class _Found(NamedTuple):
    step: Trace
    checkpoint: int

    def beyond(self, other: "_Found", times: float) -> "_Found":
        """Returns this and so many times what it has more than another one."""
        step = Trace(*(round(a + times * (a - b)) for a, b in zip(self.step, other.step, strict=True)))
        return _Found(step, round(self.checkpoint + times * (self.checkpoint - other.checkpoint)))


def _extrapolated(case: Case) -> _Found:
    """Traces a step: of the whole model, or of few blocks where all are alike to the method."""
    few, more = FEW
    arch = case.arch
    key = next((key for key in LAYERS if key in case.config), None)
    if key is None or arch.num_layers <= more or not is_counted(case.config):
        return _traced(case)
    smaller = [{**case.config, key: layers} for layers in FEW]
    cases = [case._replace(config=config, arch=arch_of(config, _head_width(arch))) for config in smaller]
    try:
        counts = [case.method.count(each.arch).trainable for each in cases]
    except (InputError, KeyError):
        counts = [0, 0]
    per_block = (counts[1] - counts[0]) / (more - few)
    if counts[1] + per_block * (arch.num_layers - more) != case.method.count(arch).trainable:
        return _traced(case)
    one, two = map(_traced, cases)
    return two.beyond(one, (arch.num_layers - more) / (more - few))


def _head_width(arch: Arch) -> int | None:
    return None if arch.output is None else arch.parameters[f"{arch.output}.weight"][0]


def _traced(case: Case) -> _Found:
    """Traces a step of the whole model."""
    method, arch, batch = case.method, case.arch, case.batch

    def assemble() -> nn.Module:
        model = without_weights(case.config, arch, _head_width(arch), case.dropout, batch.attention)
        attach(model, method, arch, seed=0, in_bf16=batch.products is not Products.fp32)
        return model.train()

    model = build(assemble)
    step = trace(model, lambda model: loss(model, case), batch.on_gpu)
    return _Found(step, sum(tensor.nbytes for tensor in trained_tensors(model, arch, method).values()))


def loss(model: nn.Module, case: Case) -> Tensor:
    """Computes the loss of a batch in which one example is shorter than the others, so that there is a mask."""
    batch = case.batch
    split = case.split if case.split is not None else made_up_for(case.arch, batch.size, batch.length)
    mask, lengths = split.inputs["attention_mask"].clone(), split.lengths.clone()
    if (longest := mask.shape[1]) > 1:
        mask[0, -1], lengths[0] = 0, longest - 1
    split = split._replace(inputs={**split.inputs, "attention_mask": mask}, lengths=lengths)
    with computing_as(batch.products):
        return split.loss(model, list(range(batch.size)), Dtype.bf16, CPU)
