"""Classes as written answers: a language model writes the word of the class, and any other text is wrong. No torch.

One example (rte_written): "No Weapons of Mass Destruction Found in Iraq Yet." and "Weapons of Mass Destruction Found in
Iraq." in the prompt, to be written: "False". With task.form=text, rte itself chooses the likelier one of its words.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from omegaconf import MISSING

from lora_repro.config.identity import NOT_IN_ID
from lora_repro.errors import InputError
from lora_repro.tasks.base import Splits
from lora_repro.tasks.classes import Form
from lora_repro.tasks.glue import GlueConfig
from lora_repro.tasks.texts import TextConfig


@dataclass
class WrittenConfig(TextConfig):
    """The examples of a task of GLUE, with a text for each class."""

    fixed: ClassVar[tuple[str, ...]] = ("digest", "glue")

    glue: str = field(default=MISSING, metadata=NOT_IN_ID)
    """The task whose examples they are; its digest is this one's."""
    words: list[str] = MISSING
    """What is to be written for each class."""

    @cached_property
    def _glue(self) -> GlueConfig:
        from lora_repro.config.schema import load_group

        found = load_group("task", self.glue)
        assert isinstance(found, GlueConfig)
        found.digest, found.form = self.digest, Form.text  # in prompts texts have single spaces
        return found

    @property
    def is_pair(self) -> bool:
        """Tells whether each input is a pair of sentences."""
        return self._glue.is_pair

    @property
    def has_groups(self) -> bool:
        """Whether several examples have one premise or question."""
        return self._glue.has_groups

    def order_of(self, target: list[str]) -> float:
        """Returns the class whose word is to be written."""
        return float(self.words.index(target[0]))

    @property
    def scored(self) -> tuple[str, ...]:
        """Dev, and for mnli its second part, of other genres than training."""
        return self._glue.scored

    @property
    def has_overall(self) -> bool:
        """Whether dev has two parts."""
        return self._glue.has_overall

    @property
    def unchecked(self) -> tuple[str, ...]:
        """The splits of which the number of rows alone is known."""
        return self._glue.unchecked

    def sizes(self) -> dict[str, int] | None:
        """Returns the number of examples of each split."""
        return self._glue.sizes()

    def check(self) -> None:
        """Refuses impossible values without reading anything.

        Raises:
            InputError: As `TextConfig.check` does, or if there is not one word for each class.
        """
        super().check()
        words = [" ".join(word.split()) for word in self.words]
        if len(words) != self._glue.num_labels or len(set(words)) != len(words) or not all(words):
            raise InputError(
                f"task.words: {self._glue.num_labels} different words are needed, one a class: "
                f"{', '.join(self._glue.label_names)} (given: {self.words}).\nExample: 'task.words=[yes,no]'"
            )

    def load(self, data: str | None, cache: str) -> Splits:
        """Reads the examples, and puts the words in the place of the classes.

        Raises:
            MissingInputError: If a file is missing, damaged, or of another version of the set.
        """
        splits = self._glue.load(data, cache)
        return {
            split: [example._replace(target=[self.words[example.target]]) for example in examples]
            for split, examples in splits.items()
        }

    def fetch(self, cache: str) -> str:
        """Makes sure that the files are there.

        Raises:
            MissingInputError: If they are not and cannot be fetched.
        """
        return self._glue.fetch(cache)
