"""The task function: one run, skipped when finished, recorded however it ends. Every launcher calls it."""

import gc
import logging
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from traceback import clear_frames
from typing import Any

from omegaconf import DictConfig

from lora_repro import interrupt
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import Resolved, resolve
from lora_repro.config.settings import LogConfig, Mirror
from lora_repro.errors import AlreadyFinishedError, DivergedError, InputError, RunFailedError, describe_os_error
from lora_repro.mirror import notify
from lora_repro.store.files import leaving_none_empty
from lora_repro.store.record import Record
from lora_repro.store.status import State

log = logging.getLogger(__name__)

LEVELS = ("debug", "info", "warning", "error")


def run_job(cfg: DictConfig) -> dict[str, float]:
    """Computes the run of a composed configuration as `compute` does.

    Raises:
        InputError: If the configuration is impossible; and what `compute` raises.
    """
    return compute(resolve(cfg))


def compute(resolved: Resolved) -> dict[str, float]:
    """Computes a run, unless it is finished, and returns its metrics.

    Raises:
        InputError: If weights or data are missing.
        RunFailedError: If the run failed or diverged, or another process computes it.
        RunInterruptedError: If a launcher's worker was asked to end.
        KeyboardInterrupt: If the program was.
    """
    set_up_logging(resolved.settings.log)
    record = Record(resolved.settings.paths.outputs, run_id(resolved.run))
    with interrupt.job():
        try:
            if interrupt.requested():
                raise KeyboardInterrupt
            return _unless_finished(resolved, record)
        except KeyboardInterrupt:
            if interrupt.requested():
                interrupt.pass_on()
            raise


def _unless_finished(resolved: Resolved, record: Record) -> dict[str, float]:
    result, settings = record.read().result, resolved.settings.log
    if result is None:
        return _compute(resolved, record)["metrics"]
    missing = record.missing_outputs(settings, resolved.run.method)
    if not missing:
        log.info("%s is finished already, nothing to do.", record.run_id)
    elif not settings.rebuild:
        log.info("%s is finished but has no %s; log.rebuild=true computes it again.", record.run_id, ", ".join(missing))
    else:
        _rebuild(resolved, record, missing, result)
    return result["metrics"]


def _rebuild(resolved: Resolved, record: Record, missing: list[str], result: dict[str, Any]) -> None:
    """Computes a finished run again in another directory, and adds the missing files if the metrics are the same.

    Raises:
        RunFailedError: If they are not; the finished run stays as it is.
    """
    again = Record(Path(resolved.settings.paths.outputs) / "rebuild", record.run_id)
    if again.state is State.finished:
        again.discard()  # an earlier attempt, which was asked for other files
    unmirrored = replace(resolved.settings, log=replace(resolved.settings.log, wandb=Mirror.off))
    found = _compute(resolved._replace(settings=unmirrored), again)  # a tracker has the run, and this folder goes away
    if found["metrics_by_epoch"] != result["metrics_by_epoch"]:
        raise RunFailedError(
            f"{record.run_id} was computed again with other metrics, so nothing is added; it stays as it was.\n"
            f"See why: python -m analysis diff {record.folder} {again.folder}"
        )
    record.adopt(again)
    again.discard()
    log.info("%s was computed again with the same metrics; added: %s", record.run_id, ", ".join(missing))


def _compute(resolved: Resolved, record: Record) -> dict[str, Any]:
    from lora_repro.training.train import train  # torch is imported only where something is computed

    _spare_the_imported()
    began = time.perf_counter()
    try:
        try:
            with leaving_none_empty(record.folder), record.running(resolved):
                result, written = train(resolved, record)
                result["run_seconds"] = round(result["run_seconds"] + time.perf_counter() - began, 3)
                record.finish(result, written)
        finally:
            notify.end(record.folder, resolved.settings)
            gc.collect()  # a model's modules refer to each other: the next run needs its memory
    except (InputError, RunFailedError):
        raise
    except AlreadyFinishedError as error:
        return error.result
    except DivergedError as error:
        raise RunFailedError(f"{record.run_id} diverged: {error}.") from error
    except OSError as error:
        store = record.folder.parent.parent
        if error.filename is not None and not Path(str(error.filename)).absolute().is_relative_to(store.absolute()):
            raise RunFailedError(f"{record.run_id} was interrupted: {describe_os_error(error)}") from error
        path = f": {error.filename}" if error.filename else ""
        raise RunFailedError(
            f"{record.run_id} was interrupted: {error.strerror or error}{path}.\n"
            f"Make room in {store}, or give another store: paths.outputs=DIR"
        ) from error
    except Exception as error:
        clear_frames(error.__traceback__)  # they hold the model: the next run needs its memory
        raise RunFailedError(
            f"{record.run_id} failed: {type(error).__name__}: {error}\nThe traceback: {record.folder}/run.log"
        ) from error
    log.info("%s finished in %.0f s: %s", record.run_id, time.perf_counter() - began, record.folder)
    return result


@cache
def _spare_the_imported() -> None:
    """Leaves what the imports made out of the garbage collector's rounds, each of which would take 0.2 s with it."""
    gc.freeze()


def set_up_logging(settings: LogConfig) -> None:
    """Sends this program's messages and its libraries' warnings to stderr.

    Raises:
        InputError: If the level is unknown or every_steps is no positive number.
    """
    if settings.level not in LEVELS:
        raise InputError(f"log.level: must be one of {', '.join(LEVELS)} (given: {settings.level}).")
    if settings.every_steps < 1:
        raise InputError(f"log.every_steps: must be at least 1 (given: {settings.every_steps}).")
    root = logging.getLogger()
    if not any(getattr(handler, "ours", False) for handler in root.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        handler.ours = True  # pyright: ignore[reportAttributeAccessIssue]
        root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("lora_repro").setLevel(settings.level.upper())
