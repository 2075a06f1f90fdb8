"""Solved examples that a language model reads before a question, and inputs that say nothing. No torch."""

from collections.abc import Iterable, Sequence

from lora_repro import draw
from lora_repro.errors import InputError
from lora_repro.tasks.targets import Example

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Inputs that say nothing, for contextual calibration: Zhao et al. 2021, Section 5."""


def drawn(
    train: Sequence[Example], scored: Iterable[Example], per_class: int, classes: int, seed: int
) -> list[Example]:
    """Draws demonstrations from the training split, as many of each class, and puts them in a drawn order.

    Fewer are the first of more: those of 1 a class are among those of 2. An example whose input is also scored is left
    out, as its demonstration would tell the answer. Of equal inputs one is drawn at most.

    Args:
        train: The training split.
        scored: The examples that will be scored.
        per_class: How many of each class.
        classes: How many classes there are.
        seed: The run's.

    Raises:
        InputError: If a class has fewer examples.
    """
    seen = {example.input for example in scored} if per_class else set()
    chosen: list[Example] = []
    for label in range(classes) if per_class else ():
        of_label = [example for example in train if example.target == label]
        found = 0
        for i in draw.generator("demonstrations", seed, label).permutation(len(of_label)):
            if found < per_class and of_label[i].input not in seen:
                seen.add(of_label[i].input)
                chosen.append(of_label[i])
                found += 1
        if found < per_class:
            raise InputError(
                f"method.shots: the training split has {found} examples of class {label} that differ from each other "
                f"and are not scored too (given: {per_class}).\nGive fewer shots, or a larger task.train_size."
            )
    order = draw.generator("demonstrations", seed, "order").permutation(len(chosen))
    return [chosen[i] for i in order]


def content_free(is_pair: bool) -> list[Example]:
    """Returns the inputs that say nothing; of a pair both sentences are the same."""
    return [Example(f"content-free {text!r}", (text, text) if is_pair else text, 0, "") for text in CONTENT_FREE]
