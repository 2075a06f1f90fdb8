"""What tasks with classes, or a score in their place, share: how the question is put to the model. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from omegaconf import MISSING

from lora_repro.errors import InputError
from lora_repro.tasks.base import TaskConfig, refuse_prompt
from lora_repro.tasks.targets import Classes, Scores, Targets

if TYPE_CHECKING:
    from lora_repro.tasks.objectives.base import Objective


class Form(str, Enum):
    """How a classification is put to the model."""

    label = "label"
    """A classification head on the model."""
    text = "text"
    """A prompt that a language model continues; the label is the likeliest of `label_words`."""


@dataclass
class ClassConfig(TaskConfig):
    """A task whose targets are classes, or scores in their place."""

    fixed = ("digest", "num_labels")

    num_labels: int = MISSING
    form: Form = Form.label
    prompt: str = "{text}"
    """What form=text asks; {text} stands for the example, {first} and {second} for the sentences of a pair. A long text
    is cut, of two the longer one first, the words around it never."""
    label_words: list[str] = field(default_factory=list)
    """What form=text expects after the prompt, label by label, each with the space in front."""

    @property
    def is_score(self) -> bool:
        """Whether a number is asked for in place of a class: one output of a head, and never words."""
        return False

    @property
    def targets(self) -> Targets:
        """Classes, or scores."""
        return Scores() if self.is_score else Classes()

    @property
    def objective(self) -> "type[Objective]":
        """A head with one score or with classes, or the likeliest of the label words."""
        from lora_repro.tasks.objectives.heads import HeadWithClasses, HeadWithScore
        from lora_repro.tasks.objectives.label_words import LabelWords

        if self.is_score:
            return HeadWithScore
        return LabelWords if self.form is Form.text else HeadWithClasses

    @property
    def head_width(self) -> int | None:
        """One output for a score, or an output a class; None where a language model answers in words."""
        if self.is_score:
            return 1
        return None if self.form is Form.text else self.num_labels

    @property
    def unread(self) -> tuple[str, ...]:
        """The fields that a head does not read. Newer families leave them out of ids (`idle`)."""
        return () if self.form is Form.text else ("prompt", "label_words")

    @property
    def takes_demonstrations(self) -> bool:
        """A language model is asked for label words."""
        return self.form is Form.text

    def check(self) -> None:
        """Refuses impossible values without reading anything.

        Raises:
            InputError: If a size, the subset seed, the prompt or the label words are impossible.
        """
        super().check()
        if self.form is not Form.text:
            return
        refuse_prompt(self, self.prompt)
        words = self.label_words
        if len(words) != self.num_labels or len(set(words)) != len(words) or not all(map(str.strip, words)):
            order = f": {', '.join(self.label_names)}" if self.label_names else ""
            raise InputError(
                f"task.label_words: {self.num_labels} different words are needed, one a label{order} "
                f"(given: {words}).\nExample: 'task.label_words=[{_example(self.label_names, self.num_labels)}]'"
            )


def _example(names: Sequence[str], number: int) -> str:
    """Returns words for labels: what they are called, or numbers."""
    return ",".join(f'" {word}"' for word in (names or range(number)))
