"""What tasks share whose answer is a text to be written. No torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import MISSING

from lora_repro.errors import InputError
from lora_repro.tasks.base import TaskConfig, refuse_prompt
from lora_repro.tasks.targets import Targets, Texts

if TYPE_CHECKING:
    from lora_repro.tasks.objectives.base import Objective


@dataclass
class TextConfig(TaskConfig):
    """A task whose targets are texts, which a language model writes after a prompt."""

    prompt: str = MISSING
    """What the model is asked; {text} stands for the example, {first} and {second} for the sentences of a pair. A long
    text is cut, of two the longer one first, the words around it never."""
    max_new_tokens: int = MISSING
    """Decoding stops after so many tokens; a longer reference is refused."""

    @property
    def targets(self) -> Targets:
        """Texts."""
        return Texts()

    @property
    def objective(self) -> "type[Objective]":
        """A text to be written."""
        from lora_repro.tasks.objectives.text import TextToWrite

        return TextToWrite

    @property
    def head_width(self) -> int | None:
        """None, as the model answers in words."""
        return None

    def check(self) -> None:
        """Refuses impossible values without reading anything.

        Raises:
            InputError: If a size, the subset seed, the prompt or the number of tokens is impossible.
        """
        super().check()
        refuse_prompt(self, self.prompt)
        if self.max_new_tokens < 1:
            raise InputError(f"task.max_new_tokens: must be at least 1 (given: {self.max_new_tokens}).")
