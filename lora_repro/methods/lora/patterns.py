"""Regular expressions from foreign files, matched in bounded time whatever they say. No torch.

PEFT takes the keys of rank_pattern and alpha_pattern as regular expressions, and Python's matcher goes back and tries
again: `(a+)+$` keeps it busy for longer than anybody waits. Here all ways through an expression are followed at once
(Thompson 1968), a step a character. What cannot be followed so (looking ahead, references to groups) is refused.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import NamedTuple

LONGEST = 1000
"""Characters of a key. PEFT's own are names of modules, or a few of them as alternatives."""

_LARGEST = 2000
"""Instructions of an expression, repetitions written out."""

_DEEPEST = 20
"""Groups within groups."""

_MOST_STEPS = 5_000_000
"""Instructions that all expressions of a file may take: some seconds."""

_PLAIN = re.compile(r"\^?(?:\w|[.-]|\\[^\w\s])+\$?", re.ASCII)
"""Names of modules, as nearly all keys are: Python's own matcher never goes back in them."""

_FOREVER = -1


class _Step(NamedTuple):
    """An instruction: takes a character, or goes on at one or two others, or holds only at an end of the text."""

    kind: str
    """take, go, start, end, match."""
    takes: Callable[[str], object] | None = None
    to: tuple[int, ...] = ()


class Budget:
    """How much work the expressions of one file have left."""

    def __init__(self, steps: int = _MOST_STEPS) -> None:
        """Begins with all of it."""
        self._left = steps

    def spend(self, steps: int) -> None:
        """Takes some of it.

        Raises:
            ValueError: If nothing is left.
        """
        self._left -= steps
        if self._left < 0:
            raise ValueError("is too costly to match")


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
        self._plain: re.Pattern[str] | None = re.compile(meant) if _PLAIN.fullmatch(key) else None
        self._budget = budget if budget is not None else Budget()
        self._known: dict[tuple[frozenset[int], str, bool], frozenset[int]] = {}
        self._program = [] if self._plain is not None else _Parser(meant).program()

    def matches(self, text: str) -> bool:
        """Tells whether the key is a module's, as PEFT's get_pattern_key does (peft/utils/other.py).

        Raises:
            ValueError: If the budget is used up.
        """
        if self._plain is not None:
            return self._plain.fullmatch(text) is not None
        here = self._closure((0,), start=True, end=not text)
        for position, character in enumerate(text, 1):
            key = (here, character, position == len(text))
            if key not in self._known:
                self._budget.spend(len(here) + 1)
                taken = [at + 1 for at in here if (takes := self._program[at].takes) is not None and takes(character)]
                self._known[key] = self._closure(taken, start=False, end=key[2])
            here = self._known[key]
            if not here:
                return False
        return any(self._program[at].kind == "match" for at in here)

    def _closure(self, begin: Iterable[int], start: bool, end: bool) -> frozenset[int]:
        """Returns all instructions that are reached without taking a character."""
        seen, todo = set[int](), list(begin)
        while todo:
            at = todo.pop()
            if at in seen:
                continue
            seen.add(at)
            self._budget.spend(1)
            step = self._program[at]
            if step.kind == "go":
                todo += [at + offset for offset in step.to]
            elif (step.kind == "start" and start) or (step.kind == "end" and end):
                todo.append(at + 1)
        return frozenset(at for at in seen if self._program[at].kind in ("take", "match"))


@cache
def _taker(atom: str) -> Callable[[str], object]:
    """Returns what tells whether a single character, class or escape takes a character, as Python's matcher does."""
    try:
        return re.compile(atom).fullmatch
    except re.error as error:
        raise ValueError(f"is no pattern ({error})") from None


class _Parser:
    """Makes instructions of an expression. Offsets in them are relative, so that parts can be copied."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text, 0, 0

    def program(self) -> list[_Step]:
        steps = self._alternatives()
        if self._at < len(self._text):
            raise ValueError("is no pattern (a parenthesis is closed that was not opened)")
        return [*steps, _Step("match")]

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _alternatives(self) -> list[_Step]:
        steps = self._sequence()
        while self._next() == "|":
            self._at += 1
            other = self._sequence()
            steps = self._fits([_Step("go", to=(1, len(steps) + 2)), *steps, _Step("go", to=(len(other) + 1,)), *other])
        return steps

    def _sequence(self) -> list[_Step]:
        steps: list[_Step] = []
        while self._next() not in ("", "|", ")"):
            steps = self._fits([*steps, *self._repeated(self._single())])
        return steps

    def _single(self) -> list[_Step]:
        character = self._next()
        self._at += 1
        if character == "(":
            return self._group()
        if character in "^$":
            return [_Step("start" if character == "^" else "end")]
        if character in "*+?{":
            raise ValueError(f"is no pattern ({character} repeats nothing)")
        atom = character
        if character == "\\":
            atom += self._next()
            if not re.fullmatch(r"\\(?:[dDwWsS]|[^0-9A-Za-z])", atom):
                raise ValueError(f"holds {atom}, which is not matched here")
            self._at += 1
        elif character == "[":
            found = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL).match(self._text, self._at - 1)
            if found is None or re.search(r"[\[~&|-]{2}|\[", found[0][1:]):
                raise ValueError("holds a class of characters that is not closed, or not matched here")
            atom = found[0]
            self._at = found.end()
        elif not character.isalnum() and character not in "._":
            atom = re.escape(character)
        return [_Step("take", _taker(atom))]

    def _group(self) -> list[_Step]:
        if self._next() == "?":
            if self._text[self._at : self._at + 2] != "?:":
                raise ValueError(f"holds ({self._text[self._at : self._at + 2]}, which is not matched here")
            self._at += 2
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError(f"has groups within groups, more than {_DEEPEST} deep")
        steps = self._alternatives()
        if self._next() != ")":
            raise ValueError("is no pattern (a parenthesis is not closed)")
        self._at += 1
        self._depth -= 1
        return steps

    def _repeated(self, steps: list[_Step]) -> list[_Step]:
        found = re.compile(r"[*+?]|\{(\d{0,9})(,?)(\d{0,9})\}").match(self._text, self._at)
        if found is None:
            return steps
        self._at = found.end()
        if self._next() in ("*", "+", "{"):
            raise ValueError("is no pattern (a repetition is repeated)")
        self._at += self._next() == "?"  # lazy: it matches the same texts
        least, most = {"*": (0, _FOREVER), "+": (1, _FOREVER), "?": (0, 1)}.get(found[0], (0, _FOREVER))
        if found[0].startswith("{"):
            least = int(found[1] or 0)
            most = int(found[3]) if found[3] else _FOREVER if found[2] else least
            if found[0] == "{}" or most not in (_FOREVER, max(least, most)):
                raise ValueError(f"is no pattern ({found[0]} is no number of repetitions)")
        if (len(steps) + 1) * max(least, most, 1) > _LARGEST:
            raise ValueError("is too large to match")
        if most == _FOREVER:
            loop = [_Step("go", to=(1, len(steps) + 2)), *steps, _Step("go", to=(-len(steps) - 1,))]
            return self._fits([*steps * least, *loop])
        optional = [_Step("go", to=(1, len(steps) + 1)), *steps]
        return self._fits([*steps * least, *optional * (most - least)])

    def _fits(self, steps: list[_Step]) -> list[_Step]:
        if len(steps) > _LARGEST:
            raise ValueError("is too large to match")
        return steps
