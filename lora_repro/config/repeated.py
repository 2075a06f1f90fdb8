"""Overrides in whose dictionaries a key stands twice: Hydra's parser lets the last value win. No torch."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from antlr4 import CommonTokenStream, InputStream, ParseTreeWalker
from hydra.grammar.gen.OverrideLexer import OverrideLexer
from hydra.grammar.gen.OverrideParser import OverrideParser
from hydra.grammar.gen.OverrideParserListener import OverrideParserListener

from lora_repro.errors import InputError


def refuse_repeated_keys(overrides: Iterable[str]) -> None:
    """Refuses overrides in whose dictionaries a key stands twice; what is no override is left to Hydra.

    Raises:
        InputError: Naming the override and the key.
    """
    for override in overrides:
        if "{" not in override:
            continue
        stream = CommonTokenStream(lexer := OverrideLexer(InputStream(override)))
        parser = OverrideParser(stream)
        for part in (lexer, parser):
            part.removeErrorListeners()
        ParseTreeWalker.DEFAULT.walk(_Watch(override), parser.override())


class _Watch(OverrideParserListener):
    """Sees every dictionary of an override, inner ones and those of sweeps too."""

    def __init__(self, override: str) -> None:
        self.override = override

    def enterDictContainer(self, ctx: Any) -> None:
        """Refuses a dictionary in which two keys are the same."""
        keys = Counter(pair.dictKey().getText() for pair in ctx.dictKeyValuePair())
        if repeated := [key for key, times in keys.items() if times > 1]:
            raise InputError(
                f"{self.override}: the key {repeated[0]} stands there twice, and one value would count alone.\n"
                "Give each key once."
            )
