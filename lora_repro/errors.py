"""Errors that a user can fix. Both programs print them in a few lines, without a traceback."""

import difflib
import errno
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """An input is wrong. The message says what is wrong, what was given and what to do."""


class RunFailedError(RuntimeError):
    """A run ended without a result; its record says why."""


class RunBusyError(RunFailedError):
    """Another process is computing the run."""

    def __init__(self, run_id: str, owner: str) -> None:
        super().__init__(run_id, owner)
        self.run_id, self.owner = run_id, owner

    def __str__(self) -> str:
        """Says which process computes it, and what to do."""
        return f"{self.run_id} is being computed by {self.owner}.\nWait for it, then give the same command again."


LONGEST = 120
"""The most characters of a foreign text in a message."""


def shown(text: object) -> str:
    """Returns a foreign text for a message: one line, unprintable characters escaped, at most LONGEST characters."""
    line = printable(str(text))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def printable(text: str) -> str:
    """Escapes unprintable characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class AlreadyFinishedError(Exception):
    """Another process has finished the run in the meantime. Its result is used."""

    def __init__(self, run_id: str, result: dict[str, Any]) -> None:
        super().__init__(f"{run_id} is finished already.")
        self.result = result


class RunInterruptedError(RunFailedError):
    """A run in a launcher's worker was interrupted. The same command resumes it."""


class DivergedError(RuntimeError):
    """The loss is not finite."""


class MissingInputError(InputError):
    """Weights or data are missing or damaged. The message holds the command that fetches them."""


def not_ours(path: Path) -> InputError:
    """Says that a link, a folder or something else is in the place where a run would write."""
    what = "a link" if path.is_symlink() else "a folder" if path.is_dir() else "no folder or file of a run"
    return InputError(
        f"{path} is {what}, which no run has made there, so it is left as it is.\n"
        "Move it away, and give the same command again."
    )


def cannot_write(path: str | Path, error: OSError) -> str:
    """Says that a file or folder cannot be written, and why."""
    return f"{path} cannot be written ({error.strerror or error})"


REMEDIES = {
    errno.ENOENT: "Give a file or folder that exists.",
    errno.EACCES: "Give one that you may read, and write to if something is written.",
    errno.EPERM: "Give one that you may read, and write to if something is written.",
    errno.ENOSPC: "Free some space there.",
    errno.EDQUOT: "Free some space there.",
}


def describe_os_error(error: OSError) -> str:
    """Says what the operating system refused, for which file, and what to do."""
    remedy = REMEDIES.get(error.errno or 0)
    return f"{error.filename or 'the system'}: {error.strerror or error}." + (f"\n{remedy}" if remedy else "")


NEARLY = 0.95
"""The similarity of two long names that differ in one or two letters."""


def did_you_mean(given: str, choices: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" with the most similar choice, or an empty string if none is plausible."""
    plausible = {name.casefold(): name for name in choices if _may_mean(given.casefold(), name.casefold())}
    near = difflib.get_close_matches(given.casefold(), plausible, n=1)
    return f" Did you mean {plausible[near[0]]!r}?" if near else ""


def _may_mean(given: str, name: str) -> bool:
    """Says whether `given` is plausibly a misspelt or shortened `name`.

    The first letter and the numbers must be the same: table 2 is not table 7, and DoRA is not LoRA. In a long name,
    such as a run's id, any letter may be wrong.
    """
    if difflib.SequenceMatcher(None, given, name).ratio() >= NEARLY:
        return True
    numbers = set(re.findall(r"\d+", given))
    return numbers <= set(re.findall(r"\d+", name)) and (given[:1] == name[:1] or given in name)


def no_such_choice(group: str, given: str, choices: Sequence[str]) -> str:
    """Says that a group has no such choice, and which choices it has; many are several lines."""
    here = textwrap.fill(f"Choices: {', '.join(choices)}.", 400, break_long_words=False, break_on_hyphens=False)
    return f"{group}: there is no {given!r}.{did_you_mean(given, choices)}\n{here}"
