"""The errors a person can mend: both programs print them in a few lines, without a traceback."""

import difflib
import errno
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """Something given is wrong. The message says what is wrong, what was given and what to do."""


class RunFailedError(RuntimeError):
    """A run ended without a result; its record says why."""


class RunBusyError(RunFailedError):
    """Another process computes the run."""

    def __init__(self, run_id: str, owner: str) -> None:
        super().__init__(run_id, owner)
        self.run_id, self.owner = run_id, owner

    def __str__(self) -> str:
        """Says who computes it, and what to do."""
        return f"{self.run_id} is being computed by {self.owner}.\nWait for it, then give the same command again."


LONGEST = 120
"""Characters of a foreign text in words of ours."""


def shown(text: object) -> str:
    """Writes a foreign text on one line: no control characters, no direction marks, cut where it is long."""
    line = printable(str(text))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def printable(text: str) -> str:
    """Writes what cannot be printed as a program would spell it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class AlreadyFinishedError(Exception):
    """A run was to be computed, and its result is there: another process was quicker. Nobody has to mend anything."""

    def __init__(self, run_id: str, result: dict[str, Any]) -> None:
        super().__init__(f"{run_id} is finished already.")
        self.result = result


class RunInterruptedError(RunFailedError):
    """A run of a launcher's worker was interrupted; the same command goes on with it."""


class DivergedError(RuntimeError):
    """The loss is no longer finite."""


class MissingInputError(InputError):
    """Weights or data are missing or damaged. The message holds the command that supplies them."""


def not_ours(path: Path) -> InputError:
    """Says that a link, or something that is no file or folder, has a name under which a run would write."""
    what = "a link" if path.is_symlink() else "a folder" if path.is_dir() else "no folder or file of a run"
    return InputError(
        f"{path} is {what}, which no run has made there, so it is left as it is.\n"
        "Move it away, and give the same command again."
    )


REMEDIES = {
    errno.ENOENT: "Give one that is there.",
    errno.EACCES: "Give one that you may read, and write where something is written.",
    errno.EPERM: "Give one that you may read, and write where something is written.",
    errno.ENOSPC: "Make room there.",
    errno.EDQUOT: "Make room there.",
}


def describe_os_error(error: OSError) -> str:
    """Says what the operating system refused, of which file, and what to do about it."""
    remedy = REMEDIES.get(error.errno or 0)
    return f"{error.filename or 'the system'}: {error.strerror or error}." + (f"\n{remedy}" if remedy else "")


NEARLY = 0.95
"""Similarity of two long names that differ in a letter or two."""


def did_you_mean(given: str, choices: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the nearest choice that may have been meant, or an empty string."""
    plausible = {name.casefold(): name for name in choices if _may_mean(given.casefold(), name.casefold())}
    near = difflib.get_close_matches(given.casefold(), plausible, n=1)
    return f" Did you mean {plausible[near[0]]!r}?" if near else ""


def _may_mean(given: str, name: str) -> bool:
    """Tells whether a name can have been mistyped so, or shortened.

    It keeps its first letter and its numbers then: table 2 is not table 7, and DoRA is another method than LoRA. Of a
    long name, such as a run's id, a letter may be wrong anywhere.
    """
    if difflib.SequenceMatcher(None, given, name).ratio() >= NEARLY:
        return True
    numbers = set(re.findall(r"\d+", given))
    return numbers <= set(re.findall(r"\d+", name)) and (given[:1] == name[:1] or given in name)


def no_such_choice(group: str, given: str, choices: Sequence[str]) -> str:
    """Says that a group of the configuration has no such choice, and which it has."""
    return f"{group}: no {given!r} here.{did_you_mean(given, choices)}\nChoices: {', '.join(choices)}."
