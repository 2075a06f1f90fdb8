"""Checks before a sweep that everything it needs is there and works. torch is imported only where it is needed."""

import time
from collections.abc import Iterator, Sequence

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lora_repro.config.compose import compose
from lora_repro.config.explain import explain
from lora_repro.config.settings import PathsConfig, Settings
from lora_repro.doctor.base import Check, Finding, Rule, Subject, Verdict
from lora_repro.doctor.jobs import data, every_job, metrics, one_step, targets, weights
from lora_repro.doctor.machine import disk, dtype_speeds, memory, packages, store, the_device, tracker
from lora_repro.errors import InputError
from lora_repro.sweep.grid import load, overrides

RULES: list[Rule] = [
    packages, every_job, the_device, dtype_speeds, store, disk, memory,
    weights, data, metrics, targets, one_step, tracker,
]  # fmt: skip

__all__ = ["RULES", "Check", "Verdict", "examine", "summary"]


def examine(arguments: Sequence[str], outputs: str) -> Iterator[Check]:
    """Makes every check of a sweep, one at a time; an exception in a check becomes its finding.

    Args:
        arguments: The sweep's, as `python -m lora_repro -m` takes them; none is the default run.
        outputs: The store.
    """
    began = time.perf_counter()
    try:
        sweep = load(compose, [*overrides({"paths.outputs": outputs}), *arguments], outputs)
    except (InputError, HydraException, OmegaConfBaseException, YAMLError) as error:
        sweep = error
    jobs = [] if isinstance(sweep, Exception) else sweep.every_kind
    given = jobs[0].resolved.settings if jobs else Settings(paths=PathsConfig(outputs=outputs))
    composing = time.perf_counter() - began
    failed_in: dict[str, str] = {}
    for check in RULES:
        for subject in check.each(Subject(jobs, sweep, given)):
            began = time.perf_counter()
            try:
                found = check.examine(subject)
            except Exception as error:  # of any kind: it would end the sweep too
                found = _failure(error)
            if found.verdict is Verdict.fail and failed_in.setdefault(found.text, check.name) != check.name:
                name = failed_in[found.text]
                found = Finding(
                    Verdict.fail, f"skipped, because {name} failed with the same error", f"mend {name} first"
                )
            seconds = time.perf_counter() - began + (composing if check is every_job else 0)
            yield Check(check.name, found.verdict, found.text, check.protects, found.remedy or check.remedy, seconds)


def summary(checks: Sequence[Check]) -> str:
    """Counts the verdicts in one line."""
    ok, warn, fail = ([check.verdict for check in checks].count(verdict) for verdict in Verdict)
    seconds = sum(check.seconds for check in checks)
    return f"{len(checks)} checks: {ok} ok, {warn} warnings, {fail} failed, in {seconds:.0f} s."


def _failure(error: Exception) -> Finding:
    if isinstance(error, HydraException | OmegaConfBaseException | YAMLError):
        first, *rest = explain(error).splitlines()
    elif isinstance(error, InputError):
        first, *rest = str(error).splitlines()
    else:
        first, *rest = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".splitlines()
    return Finding(Verdict.fail, first, " ".join(rest) or None)
