"""Instructions and their responses in the format of Alpaca (Taori et al. 2023): files, or a data set of the hub.

task=instructions paths.data=FILE.json, or task=instructions task.dataset=tatsu-lab/alpaca

One example: instruction "Identify the odd one out.", input "Twitter, Instagram, Telegram", output "Telegram". The loss
is on the output and its end alone. Held-out examples are those of the files or splits for dev and test, or are drawn
here from the others; equal questions stay in one split.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from lora_repro.config.identity import NOT_IN_ID
from lora_repro.errors import InputError, MissingInputError, shown
from lora_repro.tasks import notices
from lora_repro.tasks.base import Splits, digest
from lora_repro.tasks.metrics import PERPLEXITY
from lora_repro.tasks.own_data import hub_cache
from lora_repro.tasks.own_data.files import find_files, refuse_split_names, versions
from lora_repro.tasks.own_data.hub_source import HubSource
from lora_repro.tasks.own_data.labelling import places
from lora_repro.tasks.own_data.read_here import ReadHereConfig, Reading
from lora_repro.tasks.own_data.shares import SPLITS, Division, refuse_shares
from lora_repro.tasks.rows import Rows, format_of, read_rows
from lora_repro.tasks.targets import Example, Targets, Texts
from lora_repro.tasks.text_metrics import protocols
from lora_repro.tasks.texts import TextConfig

INSTRUCTION, INPUT, OUTPUT = "instruction", "input", "output"
COLUMNS: dict[str, Any] = {"only": [INSTRUCTION, OUTPUT], "optional": [INPUT]}
FIRST_WORDS = {
    True: "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.",
    False: "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
}
"""How a prompt begins where there is an input, and where there is none: Stanford Alpaca, train.py."""

MARK, INPUT_MARK = "\n\n### Instruction:\n", "\n\n### Input:\n"


class Template(str, Enum):
    """How instruction and input are written."""

    alpaca = "alpaca"
    """In the words of Stanford Alpaca: "Below is an instruction ... ### Instruction: ... ### Input: ..."."""
    bare = "bare"
    """The instruction, an empty line and the input, where there is one."""


@dataclass
class InstructionsConfig(HubSource, ReadHereConfig, TextConfig):
    """Rows with instruction, input (which may be empty or missing) and output."""

    fixed: ClassVar[tuple[str, ...]] = ("digest", "sizes_read")

    template: Template = field(default=Template.alpaca, metadata=NOT_IN_ID)  # the digest is over what it makes
    """How instruction and input are written."""
    shares: dict[str, float] = field(
        default_factory=lambda: {"train": 0.8, "eval": 0.1, "test": 0.1}, metadata=NOT_IN_ID
    )
    """How rows are divided that are in no split of their own."""
    split_seed: int = field(default=0, metadata=NOT_IN_ID)
    """Draws that division."""
    drop_empty: bool = field(default=False, metadata=NOT_IN_ID)
    """Leave out rows without instruction or output, which are refused otherwise: Alpaca has some."""

    @property
    def targets(self) -> Targets:
        """Texts in any language, by ROUGE-L and perplexity; what a response should be, no single reference tells."""
        return Texts(*protocols.ANY_LANGUAGE.declared, PERPLEXITY)

    @property
    def asked(self) -> list[str]:
        """The fields that decide what is read."""
        return ["template", "shares", "split_seed", "drop_empty", "dataset", "subset", "splits"]

    def refuse_columns(self) -> None:
        """Refuses shares and names of files that are none.

        Raises:
            InputError: Naming the key.
        """
        refuse_shares(self.shares)
        if self.dataset is None:
            refuse_split_names(self._given_splits)

    @property
    def _given_splits(self) -> dict[str, str]:
        return {split: name for split, name in self.splits.items() if name is not None}

    def pin(self) -> None:
        """Notes the commit of a data set of the hub."""
        if self.dataset is not None:
            super().pin()

    def fetch(self, cache: str) -> str:
        """Brings a data set of the hub into its local cache; of files there is nothing to fetch.

        Raises:
            MissingInputError: If the hub does not answer, or has no such data set.
        """
        return super().fetch(cache) if self.dataset is not None else "your own files (paths.data), nothing to fetch"

    def version(self, data: str | None, cache: str) -> str:
        """Returns the commit, or the names, sizes and times of the files."""
        return super().version(data, cache) if self.dataset is not None else versions(self._files(data))

    def make(self, data: str | None, cache: str) -> Reading:
        """Reads the rows and makes the examples."""
        told: list[str] = []
        if self.dataset is not None:
            found = self.found()
            there = hub_cache.read(found, **COLUMNS, label=None)
            parts = {split: [there[name].rows] for split, name in self.split_names(list(there), told).items()}
        else:
            parts = {
                split: [
                    read_rows(path, path.name, format_of(path.name), **COLUMNS, has_options=False) for path in paths
                ]
                for split, paths in self._files(data).items()
            }
        examples = {split: self._examples(split, rows, told) for split, rows in parts.items()}
        splits = self._divided(examples, told)
        return Reading(splits, [], digest(splits, [*splits]), told)

    def notices(self, splits: Splits) -> list[str]:
        """Says how the data was read, and what is in it."""
        return [*super().notices(splits), *notices.of_texts(splits)]

    def _files(self, data: str | None) -> dict[str, list[Path]]:
        if data is None:
            raise MissingInputError(
                "paths.data: task=instructions needs a file or folder of yours, or a data set of the hub (given: "
                "none).\nGive paths.data=mine.json, or task.dataset=tatsu-lab/alpaca"
            )
        found = find_files(data, self._given_splits)
        if found.is_saved:
            raise InputError(
                f"paths.data: {data} is a folder that datasets has saved.\n"
                "Save it as JSON: dataset.to_json('mine.jsonl')"
            )
        return found.files

    def _examples(self, split: str, parts: Sequence[Rows], told: list[str]) -> list[Example]:
        """Makes the examples of a file, or of several that are one split."""
        found, empty, before = [], [], 0
        for rows in parts:
            inputs = rows.columns.get(INPUT, [None] * len(rows))
            for row, values in enumerate(zip(rows[INSTRUCTION], inputs, rows[OUTPUT], strict=True)):
                instruction, more, output = (
                    _text(value, key, rows, row)
                    for value, key in zip(values, (INSTRUCTION, INPUT, OUTPUT), strict=True)
                )
                if not instruction or not output:
                    empty.append(rows.place(row))
                else:
                    asked = self._asked(instruction, more)
                    found.append(Example(f"{split or 'row'}-{before + row + 1}", asked, [output], asked))
            before += len(rows)
        if empty:
            where = places(range(len(empty)), empty.__getitem__)
            if not self.drop_empty:
                raise InputError(
                    f"task instructions: {len(empty):,} rows have no instruction or no output ({where}).\n"
                    "Give them one, or leave them out: task.drop_empty=true"
                )
            told.append(f"{len(empty):,} rows without instruction or output are left out ({where}).")
        return found

    def _asked(self, instruction: str, more: str) -> str:
        if self.template is Template.bare:
            return f"{instruction}\n\n{more}" if more else instruction
        return f"{FIRST_WORDS[bool(more)]}{MARK}{instruction}{f'{INPUT_MARK}{more}' if more else ''}"

    def framed(self, example: Example) -> tuple[str, Sequence[str]]:
        """Counts Alpaca's words to those around an example: of a long one the input is cut, or else the instruction."""
        head, mark, rest = example.text.partition(MARK)
        if self.template is Template.bare or not mark:
            return super().framed(example)
        instruction, between, more = rest.partition(INPUT_MARK)
        words, texts = (f"{{first}}{between}{{second}}", [instruction, more]) if between else ("{text}", [instruction])
        return self.prompt.replace("{text}", f"{head}{mark}{words}"), texts

    def _divided(self, examples: dict[str, list[Example]], told: list[str]) -> Splits:
        """Draws dev and test where there are none of their own."""
        division = Division.of(examples, self.shares, self.split_seed)
        splits = {split: examples[split] for split in SPLITS if split in examples}
        if division.shares:
            rows = examples[division.source]
            drawn = division.draw(None, [example.document for example in rows])
            splits |= {split: [rows[i] for i in of] for split, of in drawn.items()}
            told.append(division.told("equal questions together"))
        if empty := [split for split, of in splits.items() if not of]:
            raise InputError(f"task.shares: {empty[0]} gets no row.\nGive more rows, or other shares: task.shares.")
        return {split: splits[split] for split in SPLITS if split in splits}


def _text(value: Any, key: str, rows: Rows, row: int) -> str:
    """Returns a text with line ends as on Unix, and no white space at its ends; of null an empty one."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{rows.place(row)}: {key!r} must be a text (found: {shown(value)}).")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{rows.place(row)}: {key!r} holds half of a character (found: {shown(value)}).") from None
    return value.replace("\r\n", "\n").strip()
