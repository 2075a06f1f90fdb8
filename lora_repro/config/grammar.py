"""Writes values in Hydra's override grammar and reads them: one value, or those of an axis. No torch."""

import re
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.types import Glob, IntervalSweep, Override, Quote, QuotedString, RangeSweep
from omegaconf import ListConfig

from lora_repro.config.catalogue import group_names
from lora_repro.errors import InputError

MOST_RUNS = 10_000
"""The most runs of one sweep. All are composed before the first starts, some thousands a second."""

PLAIN = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z_/][a-z0-9_./:-]*", re.ASCII | re.IGNORECASE)
"""Text that needs no quotes: Hydra's parser does not take it for a number or a keyword."""


def quoted(value: Any) -> str:
    """Writes a value so that Hydra's override parser reads the same value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | ListConfig):
        return "[" + ",".join(quoted(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{quoted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        return value if PLAIN.fullmatch(value) else QuotedString(value, Quote.single).with_quotes()
    return str(value)


def values(override: Override) -> list[Any]:
    """Returns the values that an override gives to its key: one, or those of an axis.

    Raises:
        InputError: If there are none, or more than a sweep may have runs.
    """
    given = override.value()
    if isinstance(given, IntervalSweep):
        raise InputError(
            f"{override.input_line}: an interval has no list of values.\nGive the values: {override.key_or_group}=1,2,4"
        )
    if not override.is_sweep_override():
        return [_plain(given)]
    if isinstance(given, RangeSweep):
        _refuse_endless(override, given)
    found = _matching(override, given) if isinstance(given, Glob) else list(override.sweep_iterator())
    if not found:
        raise InputError(f"{override.input_line}: this axis has no value. Give it at least one.")
    return [_plain(value) for value in found]


def refuse_too_many(runs: int) -> None:
    """Refuses a sweep of more than MOST_RUNS runs, which is a mistake.

    Raises:
        InputError: With the number of runs.
    """
    if runs > MOST_RUNS:
        raise InputError(
            f"sweep: {runs:,} runs, and one sweep has at most {MOST_RUNS:,}.\n"
            "Give an axis fewer values, or split the sweep into several."
        )


def _refuse_endless(override: Override, given: RangeSweep) -> None:
    start, stop, step = (Decimal(number) for number in (given.start or 0, given.stop or 0, given.step))
    if step == 0 or any(number.is_nan() for number in (start, stop, step)):
        raise InputError(f"{override.input_line}: a range needs numbers as its ends and a step other than 0.")
    size = (stop - start) / step
    if size > MOST_RUNS:
        number = f"{size:,.0f}" if size < 10**15 else f"{size:.0e}"
        raise InputError(
            f"{override.input_line}: {number} values, and one sweep has at most {MOST_RUNS:,} runs.\n"
            f"Give fewer: {override.key_or_group}=range(0,5)"
        )


def _matching(override: Override, given: Glob) -> list[str]:
    """Returns the choices of a group that a pattern matches: model=glob(tiny*)."""
    names = group_names(override.key_or_group)
    if not names:
        raise InputError(
            f"{override.input_line}: glob() chooses among the files of a group, as in model=glob(tiny*).\n"
            f"Give values: {override.key_or_group}=A,B"
        )
    found = given.filter(names)
    if not found:
        raise InputError(f"{override.input_line}: no choice matches.\nChoices: {', '.join(names)}.")
    return found


def _plain(value: Any) -> Any:
    """Removes the parser's quotes from a value."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value
