"""Names of a sweep's runs in a tracker: a run is named by what differs, the group by what is common. No torch."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lora_repro.config.grammar import quoted
from lora_repro.sweep.grid import Job

LONGEST = 100
"""Letters of a name or a group; W&B takes 128."""


def named(jobs: Sequence[Job]) -> list[Job]:
    """Returns jobs that set log.name, as in `r=8 seed=0`, and log.group; a name or group that is given stays.

    The group of a sweep of sweeps/ is its name with scale and regime, as in `table6-proxy-tuned`.
    """
    keys = list(dict.fromkeys(key for job in jobs for key in job.point))
    axes = [key for key in keys if len({_text(job.point.get(key)) for job in jobs}) > 1]
    short = {key: _short(key, keys) for key in keys}
    found = []
    for job in jobs:
        run, settings = job.resolved.run, job.resolved.settings.log
        values = {key: f"{short[key]}={_text(value)}" for key, value in job.point.items()}
        name = " ".join(values[key] for key in axes if key in values)
        groups = {"model": run.model.name, "task": run.task.name, "method": run.method.name}
        shared = [text for key, text in (groups | values | groups).items() if key not in (*axes, "seed")]
        of_axes = f"{' '.join(shared)}: {' '.join(short[key] for key in axes)}" if axes else None
        group = _of_sweep(job) or of_axes
        added = {
            key: text[:LONGEST]
            for key, text, is_wanted in (
                ("name", name, settings.name is None and axes),
                ("group", group, settings.group is None),
            )
            if is_wanted and text is not None
        }
        lines = [f"log.{key}={quoted(text)}" for key, text in added.items()]
        resolved = job.resolved
        resolved = resolved._replace(settings=replace(resolved.settings, log=replace(settings, **added)))
        found.append(job._replace(overrides=[*job.overrides, *lines], resolved=resolved))
    return found


def _of_sweep(job: Job) -> str | None:
    """Names the sweep of sweeps/ that a job belongs to; None of a sweep that is typed."""
    name = next((line.partition("=")[2] for line in job.overrides if line.startswith("+sweeps=")), None)
    settings = job.resolved.settings
    return None if name is None else "-".join(filter(None, [name, settings.scale.name, settings.regime]))


def _short(key: str, keys: Sequence[str]) -> str:
    """Returns the last word of a key, or all of it where another key ends so too."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def _text(value: Any) -> str:
    """Writes a value so that it needs no quotes; long ones are cut, as a prompt is."""
    text = ",".join(map(str, value)) if isinstance(value, list) else "-" if value is None else str(value)
    return re.sub(r"[^\w.,:/+-]+", "_", text)[:40]
