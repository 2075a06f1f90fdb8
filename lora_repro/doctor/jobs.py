"""Checks of the jobs: they compose, weights and data are there, targets exist, and a step of each kind works."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from lora_repro.config.schema import Run
from lora_repro.doctor.base import Finding, Subject, Verdict, device_of, rule
from lora_repro.models.arch import ROLES, Source
from lora_repro.models.inputs import find_model
from lora_repro.tasks.targets import split_name

if TYPE_CHECKING:
    import torch
    from torch import nn

    from lora_repro.tasks.encoding import Encoded

EXAMPLES = 8
MERGE_TOLERANCE = 1e-4
"""Of an output after one step: rounding in fp32 makes 2e-7 (minilm), a scale wrong by a tenth 2e-4 and more."""


@rule(
    "jobs",
    protects="a sweep with an impossible configuration, or without a run that can be computed",
    remedy="correct the override or the sweep's file; see the jobs: python -m analysis plan",
)
def every_job(subject: Subject) -> Finding:
    """Counts the jobs that compose, and finds warm-ups that do not end."""
    if isinstance(subject.sweep, Exception):
        raise subject.sweep
    planned = "; ".join(sorted({why for _, why in subject.sweep.planned}))
    text = f"{len(subject.jobs)} composed" + (f", {len(subject.sweep.planned)} planned: {planned}" if planned else "")
    if found := [note for job in subject.jobs if (note := job.resolved.run.unreached) is not None]:
        return Finding(Verdict.warn, f"{text}, {len(found)} with a warm-up that is too long", found[0])
    return Finding(Verdict.ok if subject.jobs else Verdict.warn, text)


@rule(
    "weights",
    protects="weights that are missing, damaged or of another version",
    remedy="fetch them: python -m lora_repro.fetch MODEL",
    each=lambda subject: subject.by(lambda run: run.model.name),
)
def weights(subject: Subject) -> Finding:
    """Finds a model's files and checks their digests."""
    model, paths = subject.largest.run.model, subject.settings.paths
    if model.source is Source.random:
        return Finding(Verdict.ok, f"{model.name} {model.digest[:10]}, drawn at random and checked then")
    return Finding(Verdict.ok, f"{model.name} {model.digest[:10]} in {find_model(model, paths.model, paths.cache)}")


@rule(
    "data",
    protects="data that is missing, damaged or of another version",
    remedy="fetch it: python -m lora_repro.fetch TASK",
    each=lambda subject: subject.by(lambda run: f"{run.task.name} {run.task.digest}"),
)
def data(subject: Subject) -> Finding:
    """Reads a task's data, whose digest is checked."""
    task, paths = subject.largest.run.task, subject.settings.paths
    splits = task.load(paths.data, paths.cache)
    sizes, names = (" / ".join(each) for each in ([f"{len(of):,}" for of in splits.values()], map(split_name, splits)))
    return Finding(Verdict.ok, f"{task.name} {task.digest[:10]}: {sizes} examples ({names})")


@rule(
    "metrics",
    protects="runs whose predictions cannot be scored here once they are there",
    remedy="install what is named",
    each=lambda subject: subject.by(lambda run: run.task.name),
)
def metrics(subject: Subject) -> Finding:
    """Looks for the packages and programs that the metrics need."""
    task = subject.largest.run.task
    task.targets.refuse_missing_tools()
    return Finding(Verdict.ok, f"{task.name}: {', '.join(metric.name for metric in task.targets.metrics)}")


@rule(
    "targets",
    protects="targets that the loaded model does not have, or has in another shape than was counted",
    remedy="say where the matrices are (model.sites.q=...), or correct lora_repro/models/arch/families.py",
    each=lambda subject: subject._replace(
        jobs=[job for job in subject.jobs if job.resolved.run.method.sites(job.resolved.run.arch)]
    ).by(lambda run: run.model.name),
)
def targets(subject: Subject) -> Finding:
    """Looks up every adapted matrix in the loaded model."""
    from lora_repro.models import load as models

    run, paths = subject.largest.run, subject.settings.paths
    sites = list(dict.fromkeys(site for job in subject.jobs for site in job.resolved.run.method.sites(run.arch)))
    roles = [role for role in ROLES if any(site.role == role for site in sites)]
    modules = dict(models.load_model(run, paths.model, paths.cache, device_of(subject)).named_modules())
    found = {site: getattr(modules.get(site.module), "weight", None) for site in sites}
    wrong = [site for site, W in found.items() if W is None or tuple(W.shape) != site.weight_shape]
    if wrong:
        text = f"{len(wrong)} of {len(sites)} matrices are not in {run.model.name}, or not of this shape"
        return Finding(Verdict.fail, f"{text}, first {wrong[0].module} ({wrong[0].d_out} x {wrong[0].d_in})")
    shapes = ", ".join(sorted({f"{site.d_out} x {site.d_in}" for site in sites}))
    read = f". By their names: {run.arch.reading.describe()}" if run.arch.reading is not None else ""
    return Finding(Verdict.ok, f"{run.model.name}: {len(sites)} matrices ({', '.join(roles)}), {shapes}{read}")


@rule(
    "one step",
    protects="a sweep that trains nothing, trains frozen weights, or cannot take a step",
    remedy="correct the setting that is named, or report a fault of the code with this line",
    each=lambda subject: subject.by(
        lambda run: f"{run.model.name} {run.task.name} {run.method.name} {run.train.dtype.value}"
    ),
)
def one_step(subject: Subject) -> Finding:
    """Takes an optimizer step on a few real examples, at the full learning rate, and merges; else it scores some."""
    from lora_repro.tasks.encoding import encode
    from lora_repro.training import checks, train

    device, resolved = device_of(subject), subject.largest
    is_trained = resolved.run.method.is_trained
    sizes = ("train_size", "eval_size", "test_size") if is_trained else ("eval_size", "test_size")
    given = {key: getattr(resolved.run.task, key) for key in sizes}
    known = {resolved.run.task.size_key(split): size for split, size in (resolved.run.task.sizes() or {}).items()}
    few = {key: min(EXAMPLES, known.get(key, EXAMPLES), size or EXAMPLES) for key, size in given.items()}
    run = replace(resolved.run, task=replace(resolved.run.task, **few))
    splits = encode(run, subject.settings)
    model = train.build(resolved._replace(run=run), device)
    name = f"{run.model.name} {run.task.name} {run.method.label} {run.train.dtype.value}"
    if not is_trained:
        return _scored(name, model, splits["eval"], run, device)
    before = checks.digests(model)
    optimizer = train.start(model, run, few["train_size"]).optimizer
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"]  # a warm-up starts at 0
    model.train()
    loss = splits["train"].loss(model, list(range(few["train_size"])), run.train.dtype, device)
    loss.backward()
    optimizer.step()
    checks.refuse_changed_weights(model, before)
    now = checks.digests(model)
    trained = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
    still = [key for key in trained if now[key] == before[key] and not run.method.has_no_gradient_at_first(key)]
    error = checks.merge_max_abs_error(model, run.method, splits["eval"], device)
    if not math.isfinite(loss.item()):
        return Finding(Verdict.fail, f"{name}: the loss is {loss.item()}")
    if still:
        return Finding(
            Verdict.fail, f"{name}: {len(still)} of {len(trained)} trained tensors do not move, first {still[0]}"
        )
    if error is not None and not error < MERGE_TOLERANCE:
        return Finding(Verdict.fail, f"{name}: merged and unmerged differ by {error:.1e} in an output")
    merged = "" if error is None else f", merged equals unmerged within {error:.0e}"
    return Finding(Verdict.ok, f"{name}: loss {loss.item():.3f}, every trained tensor changed, no other did{merged}")


def _scored(name: str, model: "nn.Module", split: "Encoded", run: Run, device: "torch.device") -> Finding:
    """Scores a few examples, for a method that trains nothing."""
    from lora_repro.training import scoring

    loss = split.objective.mean_loss(scoring.predict(model, split, run.train.dtype, device), split)
    verdict = Verdict.ok if math.isfinite(loss) else Verdict.fail
    return Finding(verdict, f"{name}: nothing to train, loss {loss:.3f} on {len(split.examples)} dev examples")
