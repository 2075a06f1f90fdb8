"""The task function: one run, skipped when finished, recorded however it ends. Every launcher calls it."""

import logging
import sys
import time

from omegaconf import DictConfig

from lora_repro.config import LogConfig, resolve, run_id
from lora_repro.errors import DivergedError, InputError, RunFailedError
from lora_repro.record import Record

log = logging.getLogger(__name__)

LEVELS = ("debug", "info", "warning", "error")


def run_job(cfg: DictConfig) -> dict[str, float]:
    """Computes the run of a composed configuration, unless it is finished, and returns its metrics.

    Raises:
        InputError: If the configuration is impossible, or weights or data are missing.
        RunFailedError: If the run failed or diverged.
    """
    resolved = resolve(cfg)
    set_up_logging(resolved.circumstances.log)
    record = Record(resolved.circumstances.paths.outputs, run_id(resolved.run))
    result = record.read().result
    if result is not None:
        log.info("%s is finished already, nothing to do.", record.run_id)
        return result["metrics"]
    from lora_repro.train import train  # torch is imported only where something is computed

    began = time.perf_counter()
    try:
        with record.running(resolved):
            result = train(resolved, record)
            record.finish(result | {"run_seconds": round(time.perf_counter() - began, 3)})
    except InputError:
        raise
    except DivergedError as error:
        raise RunFailedError(f"{record.run_id} diverged: {error}.") from error
    except OSError as error:
        raise RunFailedError(
            f"{record.run_id} failed: {error.strerror or error}{f': {error.filename}' if error.filename else ''}.\n"
            f"Make room in {record.folder.parent.parent}, or give another store: paths.outputs=DIR"
        ) from error
    except Exception as error:
        raise RunFailedError(
            f"{record.run_id} failed: {type(error).__name__}: {error}\nThe traceback: {record.folder}/run.log"
        ) from error
    log.info("%s finished in %.0f s: %s", record.run_id, time.perf_counter() - began, record.folder)
    return result["metrics"]


def set_up_logging(settings: LogConfig) -> None:
    """Sends the words of this program, and the warnings of its libraries, to stderr.

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
    for name in ("lora_repro", "hydra_plugins"):
        logging.getLogger(name).setLevel(settings.level.upper())
