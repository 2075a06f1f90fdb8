"""A generated task: what is known of a restaurant is put into words, in several right ways. Not in the paper.

One example: input "name : The Copper Kettle | price : cheap | food : Thai | area : harbour", with the references "The
Copper Kettle is a cheap Thai restaurant in the harbour area.", "In the harbour area there is a cheap Thai restaurant
called The Copper Kettle." and others.

It has the form of E2E: train has a pair for each text, dev and test have an example for each meaning with all its
texts. No split has a name of another one, nor the same other attributes together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from omegaconf import MISSING

from lora_repro import draw
from lora_repro.errors import InputError
from lora_repro.tasks import notices
from lora_repro.tasks.base import Splits
from lora_repro.tasks.generated import refuse_other_digest
from lora_repro.tasks.targets import Example, Targets, Texts
from lora_repro.tasks.text_metrics import protocols
from lora_repro.tasks.texts import TextConfig

FIRST = ("Amber", "Blue", "Copper", "Crooked", "Golden", "Green", "Hidden", "Little", "Lucky", "Old", "Red", "Silver")
SECOND = ("Anchor", "Barn", "Bell", "Fox", "Garden", "Kettle", "Lantern", "Oak", "Pear", "Spoon")
SPLIT_OF_FIRST = {"train": FIRST[:8], "eval": FIRST[8:10], "test": FIRST[10:]}
"""Each split has names of its own: 80, 20 and 20."""
VALUES = {
    "price": ("cheap", "expensive", "moderately priced"),
    "food": ("Chinese", "French", "Greek", "Indian", "Italian", "Mexican", "Thai", "Turkish"),
    "area": ("castle", "harbour", "market", "park", "riverside", "station"),
    "rating": ("average", "excellent", "good", "poor"),
    "dogs": ("no", "yes"),
    "open": ("at noon", "in the evening", "on Sundays"),
}
"""The attributes beside the name, in their order, and what they can be."""
DOGS = {"yes": "Dogs are welcome.", "no": "Dogs must stay outside."}
PRICES = {"cheap": "low", "expensive": "high", "moderately priced": "moderate"}
FEWEST = 3
"""Attributes beside the name that a restaurant has at least."""

TRIES = 10_000
"""So many meanings are drawn at most, of which those are taken that are new."""

Meaning = dict[str, str]


@dataclass
class RestaurantsConfig(TextConfig):
    """The examples are the same on all machines."""

    fixed: ClassVar[tuple[str, ...]] = ("digest", "split_sizes")

    split_sizes: dict[str, int] = MISSING
    """The number of pairs of train, and of meanings of eval and test."""

    @property
    def targets(self) -> Targets:
        """Texts, scored by those metrics of the E2E challenge that need no Java."""
        return Texts(*protocols.E2E.declared[:2])

    def sizes(self) -> dict[str, int] | None:
        """Returns split_sizes."""
        return dict(self.split_sizes)

    def load(self, data: str | None, cache: str) -> Splits:
        """Makes all examples.

        Args:
            data: Not used, as nothing is read.
            cache: Not used.

        Raises:
            InputError: If the examples are not those of `digest`.
        """
        splits = examples(self.split_sizes)
        refuse_other_digest(self, splits)
        return splits

    def notices(self, splits: Splits) -> list[str]:
        """Says that the texts are generated, how many there are, and whether some repeat."""
        return [f"{self.name} is a generated task.", *notices.of_texts(splits)]


def examples(split_sizes: dict[str, int]) -> Splits:
    """Makes the examples of each split: a pair a text for train, a meaning with its texts for the others.

    Raises:
        InputError: If there are not so many meanings.
    """
    splits: Splits = {}
    known: set[tuple[tuple[str, str], ...]] = set()
    for split, size in split_sizes.items():
        made: list[Example] = []
        for meaning in _meanings(split, known):
            texts, name = _texts(meaning), " | ".join(f"{key} : {value}" for key, value in meaning.items())
            each = [[text] for text in texts] if split == "train" else [texts]
            made += [Example(f"{split}-{len(made) + i}", name, target, name) for i, target in enumerate(each)]
            if len(made) >= size:
                break
        splits[split] = made[:size]
    return splits


def _meanings(split: str, known: set[tuple[tuple[str, str], ...]]) -> Iterator[Meaning]:
    """Draws meanings whose attributes without the name are new.

    Args:
        split: The split, which the names belong to.
        known: The attributes that were drawn before, of all splits; it is added to.
    """
    rng = draw.generator("restaurants", split)
    for _ in range(TRIES):
        keys = sorted(rng.permutation(len(VALUES))[: int(rng.integers(FEWEST, len(VALUES) + 1))].tolist())
        chosen = [[*VALUES][i] for i in keys]
        attributes = tuple((key, _one(rng, VALUES[key])) for key in chosen)
        name = f"The {_one(rng, SPLIT_OF_FIRST[split])} {_one(rng, SECOND)}"
        if attributes not in known:
            known.add(attributes)
            yield {"name": name, **dict(attributes)}
    raise InputError(f"task.split_sizes: there are too few different restaurants for {split}.")


def _one(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _texts(meaning: Meaning) -> list[str]:
    """Returns three to five different texts, the more the more attributes there are."""
    name, price, food, area, rating, dogs, hours = map(meaning.get, ("name", *VALUES))
    kind = " ".join(part for part in (price, food, "restaurant") if part)
    dishes = f"{food} food" if food else "food"
    place = f" in the {area} area" if area else ""
    pets = DOGS.get(dogs or "", "")
    first = [
        f"{name} is {_with_article(kind)}{place}.",
        rating and f"Its rating is {rating}.",
        pets,
        hours and f"It opens {hours}.",
    ]
    second = [
        f"{f'In the {area} area there' if area else 'There'} is {_with_article(kind)} called {name}"
        f"{f', which is rated {rating}' if rating else ''}.",
        hours and f"It is open {hours}.",
        pets,
    ]
    third = [
        f"{name}{place} serves {dishes}{f' at {PRICES[price]} prices' if price else ''}{f' {hours}' if hours else ''}.",
        pets,
        rating and f"Guests find it {rating}.",
    ]
    fourth = [
        f"{pets[:-1]} at {name}, {_with_article(kind)}{place}." if pets else f"{name}{place} is {_with_article(kind)}.",
        rating and f"Visitors call it {rating}.",
        hours and f"It welcomes guests {hours}.",
    ]
    fifth = [
        f"You can eat {dishes}{f' {hours}' if hours else ''} at {name}{place}.",
        price and f"It is {price}.",
        rating and f"It has {_with_article(rating)} rating.",
        pets,
    ]
    texts = [" ".join(part for part in parts if part) for parts in (first, second, third, fourth, fifth)]
    return texts[: len(meaning) - 1]


def _with_article(words: str) -> str:
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"
