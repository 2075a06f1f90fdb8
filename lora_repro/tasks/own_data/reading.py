"""From rows to the examples of each split: labels, missing splits, and the digest of it all. No torch."""

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lora_repro.errors import InputError, shown
from lora_repro.tasks.base import Splits
from lora_repro.tasks.own_data import labelling
from lora_repro.tasks.own_data.labelling import places
from lora_repro.tasks.own_data.read_here import Reading
from lora_repro.tasks.own_data.shares import SPLITS, Division
from lora_repro.tasks.own_data.sheets import Part, Sheet

if TYPE_CHECKING:
    from lora_repro.tasks.own_data.base import OwnConfig

CHUNK = 10_000
"""Rows that are hashed at once."""


def made(task: "OwnConfig", parts: dict[str, Part], notices: list[str]) -> Reading:
    """Makes the examples of each split; what is said about them follows the notices that there are.

    Raises:
        InputError: If no task can be made of the rows.
    """
    sheets = {split: _sheet(task, split, part, notices) for split, part in parts.items()}
    if "test" in sheets and _is_unlabelled(task, sheets):
        notices.append(f"test has no labels (all {len(sheets['test'].ids):,} are missing or -1): it is left out.")
        del sheets["test"]
    first = "" if "" in sheets else "train"
    answers: dict[str, list[Any]]
    if task.target is not None:
        labels: list[str] = []
        answers = {split: labelling.scores(sheet.answers(split), task.target) for split, sheet in sheets.items()}
        labelling.refuse_constant(answers[first], task.target)
        if "eval" in answers:
            labelling.refuse_unlabelled(answers["eval"], answers["train"], task.target)
    else:
        name = str(task.label)
        texts = {s: labelling.label_texts(sheet.answers(s), name) for s, sheet in sheets.items()}
        order = parts[first].names
        column = sheets[first].answers("train")
        labels = labelling.classes_of(texts[first], column, name, task.max_labels, order)
        answers = {s: labelling.indices(texts[s], labels, sheet.answers(s), name) for s, sheet in sheets.items()}
        notices += _about_labels(name, labels, bool(order))
    divided = _divided(task, sheets, answers, notices)
    splits = {split: sheets[source].examples(rows, answers[source]) for split, (source, rows) in divided.items()}
    _refuse_impossible(task, splits, labels)
    return Reading(splits, labels, _digest(task, splits, labels), notices)


def _sheet(task: "OwnConfig", split: str, part: Part, notices: list[str]) -> Sheet:
    sheet = Sheet(split, part, task.texts, task.columns.optional[0], task.id, task.group)
    if empty := sheet.empty():
        if not task.drop_empty:
            raise InputError(
                f"task.text: {len(empty):,} of {len(sheet.inputs):,} rows{f' of {split}' if split else ''} have no "
                f"text ({places(empty, sheet.place)}).\nGive them one, or leave them out: task.drop_empty=true"
            )
        notices.append(f"{split or 'the file'}: {len(empty):,} rows without text are left out (task.drop_empty).")
        sheet.drop(empty)
    if task.id is not None:
        sheet.refuse_repeated_ids(task.id)
    return sheet


def _is_unlabelled(task: "OwnConfig", sheets: dict[str, Sheet]) -> bool:
    name, test = str(task.label if task.target is None else task.target), sheets["test"]
    if test.raw is None:
        return True
    texts = labelling.label_texts(test.answers("test"), name)
    train = sheets["train"].raw
    if not labelling.is_unlabelled(texts) or train is None:
        return False
    known = {labelling.label_text(value) for value in train} if task.target is None else set()
    return all(text is None for text in texts) or not known & {*labelling.UNLABELLED}


def _divided(
    task: "OwnConfig", sheets: dict[str, Sheet], answers: dict[str, list[Any]], notices: list[str]
) -> dict[str, tuple[str, Sequence[int]]]:
    """Returns for each split the source and its rows."""
    found: dict[str, tuple[str, Sequence[int]]] = {}
    for split in SPLITS:
        if split in sheets:
            found[split] = (split, range(len(sheets[split].inputs)))
    division = Division.of(sheets, task.shares, task.split_seed)
    if division.shares:
        source = division.source
        classes = None if task.target is not None else answers[source]
        rows = division.draw(classes, sheets[source].documents())
        found |= {split: (source, of) for split, of in rows.items()}
        by = f"whole groups by {task.group!r}" if task.group is not None else "rows with the same text together"
        alike = "; each class alike as far as that allows" if classes is not None else ""
        notices.append(division.told(f"{by}{alike}"))
    if "test" not in found:
        notices.append("There is no test split: dev is scored, and scores on held-out examples are cross-fitted on it.")
    return {split: found[split] for split in SPLITS if split in found}


def _refuse_impossible(task: "OwnConfig", splits: Splits, labels: list[str]) -> None:
    if task.group is not None:
        seen: dict[str, str] = {}
        for split, examples in splits.items():
            for example in examples:
                if seen.setdefault(example.document, split) != split:
                    raise InputError(
                        f"task.group: the rows with {task.group} {shown(example.document)!r} are in "
                        f"{seen[example.document]} and in {split}, so {split} would not be new to the model.\n"
                        "Let them be divided here (give one file), or leave task.group out."
                    )
    if empty := [split for split, examples in splits.items() if not examples]:
        remedy = (
            "Each group stays whole: choose another column for task.group, or other task.shares."
            if task.group is not None
            else "Give more rows, or other shares: task.shares."
        )
        raise InputError(
            f"task.shares: {empty[0]} gets no row ({' / '.join(f'{len(splits[s]):,}' for s in splits)}).\n{remedy}"
        )
    if task.target is None:
        trained = {example.target for example in splits["train"]}
        for split in splits:
            if absent := {example.target for example in splits[split]} - trained:
                names = ", ".join(repr(shown(labels[i])) for i in sorted(absent))
                raise InputError(
                    f"task.shares: all rows with the label {names} are in {split}, and none is in train.\n"
                    "Choose another division: task.split_seed=1, other task.shares, or other groups."
                )


def _digest(task: "OwnConfig", splits: Splits, labels: list[str]) -> str:
    """Returns the sha256 over the examples in their order; names and groups count where a column gives them."""
    parts = {"input": True, "target": True, "id": task.id is not None, "document": task.group is not None}
    names = [name for name, counts in parts.items() if counts]
    found = hashlib.sha256(json.dumps([task.target is None, labels, names]).encode())
    for split, examples in splits.items():
        found.update(f"{split} {len(examples)}".encode())
        for start in range(0, len(examples), CHUNK):
            chunk = examples[start : start + CHUNK]
            for name in names:
                found.update(json.dumps([getattr(example, name) for example in chunk]).encode())
    return found.hexdigest()


def _about_labels(name: str, labels: list[str], is_declared: bool) -> list[str]:
    found = []
    if all(labelling.NUMBER.fullmatch(label) for label in labels):
        found.append(
            f"The numbers of {name!r} ({', '.join(labels)}) are taken as {len(labels)} classes. To predict them as "
            f"numbers give task.target={name} instead of task.label."
        )
    order = "in the data set's order" if is_declared else "sorted"
    found.append(f"Labels, {order}: {', '.join(f'{i} = {label}' for i, label in enumerate(labels))}.")
    for one, other in labelling.misspelt(labels):
        found.append(f"The labels {one!r} and {other!r} differ in upper and lower case alone. Are they the same?")
    return found
