"""Regular expressions from foreign files, matched in bounded time whatever they say. No torch.

PEFT takes the keys of rank_pattern and alpha_pattern as regular expressions, and Python's matcher goes back and tries
again: `(a+)+$` keeps it busy for longer than anybody waits. The matcher here (the package regex) can be stopped.
"""

import math
import re
import time
import warnings
from collections.abc import Callable

import regex

LONGEST = 1000
"""Characters of a key. PEFT's own are names of modules, or a few of them as alternatives."""

_LARGEST = 50_000
"""Characters of an expression, repetitions written out: some are when it is compiled."""

_SECONDS = 3.0
"""Time for all expressions of a file."""

_PLAIN = re.compile(r"\^?(?:\w|[.-]|\\[^\w\s])+\$?", re.ASCII)
"""Names of modules, as nearly all keys are: Python's own matcher never goes back in them."""

_COUNTED = re.compile(r"\{(\d*),?(\d*)\}", re.ASCII)


class Budget:
    """How much time the expressions of one file have left."""

    def __init__(self, seconds: float = _SECONDS) -> None:
        """Begins with all of it."""
        self.left = seconds


class Pattern:
    """A key of PEFT's patterns: a regular expression that a module's name has to end with, after a dot or whole."""

    def __init__(self, key: str, budget: Budget | None = None, whole: bool = False) -> None:
        """Reads a key.

        Args:
            key: The expression.
            budget: What it shares with the others of its file.
            whole: It has to match a whole name, as target_modules does.

        Raises:
            ValueError: If it is no expression, or one of a kind that is not matched here. The message says how.
        """
        if len(key) > LONGEST:
            raise ValueError(f"is longer than {LONGEST} characters")
        meant = f"({key})" if whole else rf"(.*\.)?({key})"
        self._plain = re.compile(meant) if _PLAIN.fullmatch(key) else None
        self._budget = budget if budget is not None else Budget()
        if self._plain is not None:
            return
        counts = (int(number) for pair in _COUNTED.findall(key) for number in pair if number.strip("0"))
        if len(key) * math.prod(counts) > _LARGEST:
            raise ValueError("is too large to match")
        if "{" in _COUNTED.sub("", key):
            raise ValueError("holds a { that counts nothing, which is not matched here")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", FutureWarning)  # a set within a set: regex reads it in another way
                re.compile(meant)  # refuses what regex alone knows
                self._costly = regex.compile(meant)
        except (re.error, regex.error, FutureWarning, RecursionError) as error:
            raise ValueError(f"is no pattern ({error})") from None

    def matches(self, text: str) -> bool:
        """Tells whether the key is a module's, as PEFT's get_pattern_key does (peft/utils/other.py).

        Raises:
            ValueError: If the budget is used up.
        """
        if self._plain is not None:
            return self._plain.fullmatch(text) is not None
        start = time.perf_counter()
        try:
            if self._budget.left <= 0:
                raise TimeoutError
            return self._costly.fullmatch(text, timeout=self._budget.left) is not None
        except TimeoutError:
            raise ValueError("is too costly to match") from None
        finally:
            self._budget.left -= time.perf_counter() - start


def chooser(names: str | list[str] | None) -> Callable[[str], bool]:
    """Returns what tells whether PEFT takes a module to be meant: by a pattern of its whole name, or by ends of names.

    A pattern that cannot be matched here means every module: then the tensors decide.
    """
    if not isinstance(names, str):
        return lambda module: any(module == name or module.endswith(f".{name}") for name in names or ())

    def is_meant(module: str) -> bool:
        try:
            return pattern.matches(module)
        except ValueError:
            return True

    try:
        pattern = Pattern(names, whole=True)
    except ValueError:
        return lambda _: True
    return is_meant
