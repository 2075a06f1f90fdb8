"""What tasks share whose answer is a text to be written. No torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from omegaconf import MISSING

from lora_repro.errors import InputError
from lora_repro.tasks.base import TaskConfig, refuse_prompt
from lora_repro.tasks.targets import Example, Targets, Texts

if TYPE_CHECKING:
    from lora_repro.tasks.objectives.base import Objective


class DecodeAt(str, Enum):
    """After which epochs texts are written."""

    last = "last"
    every = "every"


class LossOver(str, Enum):
    """Over which texts of an example of dev and test its loss is."""

    first = "first"
    """The first, which of most tasks is all there is."""
    all = "all"
    """Each of them, so that an example with more texts weighs more, as it does in training."""


class RoomFor(str, Enum):
    """For what there must be room behind an input in train.max_length."""

    longest = "longest"
    """The longest text of any example and max_new_tokens: as runs of before have it. Inputs may be cut that would fit.
    """
    training = "training"
    """In training the example's own text. An input of dev or test may fill train.max_length: what is written goes on
    behind it, as far as the model has positions, so nothing of its texts decides what is read."""


@dataclass
class TextConfig(TaskConfig):
    """A task whose targets are texts, which a language model writes after a prompt."""

    one_line: ClassVar[bool] = False
    """Whether a text is a single line, as a query is: what a model writes after it is no answer. A model that was not
    trained goes on there, for it does not know that an end is asked for."""

    prompt: str = MISSING
    """What the model is asked; {text} stands for the example, {first} and {second} for the sentences of a pair. A long
    text loses its beginning, of two the longer one first, the words around it never."""
    max_new_tokens: int = MISSING
    """Writing stops after so many tokens. A longer reference is learned whole, and cannot be met."""
    num_beams: int = 1
    """Beams that decoding keeps; one is greedy decoding. See lora_repro/tasks/objectives/decoding.py."""
    length_penalty: float = 1.0
    """A beam of n tokens counts sum log p / n^length_penalty. With one beam nothing reads it."""
    no_repeat_ngram_size: int = 0
    """No n tokens are written twice in a text; 0 forbids nothing."""
    decode_at: DecodeAt = DecodeAt.last
    """After which epochs texts are written and scored. The loss is computed after each."""
    loss_over: LossOver = LossOver.first
    """Over which texts the loss of dev and test is. A task whose examples have several says `all`."""
    room_for: RoomFor = RoomFor.longest
    """For what an input is cut. All tasks here say `training` but `reverse` and `sql`, whose inputs are short."""

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
    def idle(self) -> tuple[str, ...]:
        """With one beam the text is the same whatever the length counts."""
        return ("length_penalty",) if self.num_beams == 1 else ()

    @property
    def writes_texts(self) -> bool:
        """A language model writes them."""
        return True

    def texts_of_loss(self, split: str, example: Example) -> list[str]:
        """Returns the texts of an example that the loss is over: of train the first, which is its only one."""
        return example.target if self.loss_over is LossOver.all and split != "train" else example.target[:1]

    def framed(self, example: Example) -> tuple[str, Sequence[str]]:
        """Returns the words around an example, with places as in `prompt`, and the text or two that may be cut."""
        return self.prompt, example.texts

    def has_answers_at(self, epoch: int, epochs: int) -> bool:
        """Tells whether texts are written after an epoch."""
        return self.decode_at is DecodeAt.every or epoch == epochs

    @property
    def head_width(self) -> int | None:
        """None, as the model answers in words."""
        return None

    def check(self) -> None:
        """Refuses impossible values without reading anything.

        Raises:
            InputError: If a size, the subset seed, the prompt or a setting of decoding is impossible.
        """
        super().check()
        refuse_prompt(self, self.prompt)
        for key, least in (("max_new_tokens", 1), ("num_beams", 1), ("no_repeat_ngram_size", 0)):
            if (value := getattr(self, key)) < least:
                raise InputError(f"task.{key}: must be at least {least} (given: {value}).")
        if not math.isfinite(self.length_penalty):
            raise InputError(f"task.length_penalty: must be a finite number (given: {self.length_penalty}).")
