"""A generated text task for tests and scale=smoke: write the letters in reverse order. Not in the paper.

One example: input "a b", text to be written "b a".
"""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from lora_repro import draw
from lora_repro.errors import InputError
from lora_repro.tasks.base import Splits
from lora_repro.tasks.generated import refuse_other_digest
from lora_repro.tasks.targets import Example
from lora_repro.tasks.texts import TextConfig


@dataclass
class ReverseConfig(TextConfig):
    """All words of `length` letters from the first `letters` of the alphabet, divided among the splits."""

    fixed: ClassVar[tuple[str, ...]] = ("digest", "length", "letters", "split_sizes")

    length: int = MISSING
    letters: int = MISSING
    split_sizes: dict[str, int] = MISSING
    """Sizes of train, eval and test."""

    def sizes(self) -> dict[str, int] | None:
        """Returns split_sizes."""
        return dict(self.split_sizes)

    def load(self, data: str | None, cache: str) -> Splits:
        """Makes all examples in drawn order; no text occurs twice.

        Args:
            data: Not used, as nothing is read.
            cache: Not used.

        Raises:
            InputError: If there are fewer texts than split_sizes, or the examples are not those of `digest`.
        """
        available = self.letters**self.length
        if sum(self.split_sizes.values()) > available:
            raise InputError(f"task.split_sizes: there are {available} texts (given: {dict(self.split_sizes)}).")
        order = iter(draw.generator("split", self.name).permutation(available).tolist())
        splits = {split: [self._example(next(order)) for _ in range(n)] for split, n in self.split_sizes.items()}
        refuse_other_digest(self, splits)
        return splits

    def _example(self, number: int) -> Example:
        """Returns an example, whose letters are the digits of its number."""
        digits = [number // self.letters**place % self.letters for place in range(self.length)]
        letters = [chr(ord("a") + digit) for digit in digits]
        return Example(str(number), " ".join(letters), [" ".join(reversed(letters))], str(number))
