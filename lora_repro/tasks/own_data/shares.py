"""Divides rows among splits by a seed: stratified by class, and without dividing a document. No torch."""

import math
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lora_repro import draw
from lora_repro.errors import InputError

SPLITS = ("train", "eval", "test")


def refuse_shares(given: Mapping[str, float]) -> None:
    """Refuses shares of train, eval and test that are none.

    Raises:
        InputError: If one is no fraction, or they do not add up to 1.
    """
    shares = dict(given)
    if not all(0 < shares[split] < 1 for split in ("train", "eval")) or not 0 <= shares["test"] < 1:
        raise InputError(
            f"task.shares: must be fractions above 0, and test may be 0 (given: {shares}).\n"
            "Example: 'task.shares={train: 0.8, eval: 0.1, test: 0.1}'"
        )
    if not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        raise InputError(f"task.shares: must add up to 1 (given: {shares}, which is {sum(shares.values()):g}).")


class Division(NamedTuple):
    """Which rows are divided here, and how: those that are in no split, or those of train where there is no dev."""

    source: str
    """The split whose rows are divided; empty: those that are in none."""
    shares: dict[str, float]
    """The share of each split that lacks rows; empty where none does."""
    seed: int

    @classmethod
    def of(cls, there: Container[str], shares: Mapping[str, float], seed: int) -> "Division":
        """Returns how the splits that are missing come about.

        Args:
            there: The splits that have rows of their own; "" stands for rows that are in no split.
            shares: task.shares.
            seed: task.split_seed.
        """
        lacking = [split for split in SPLITS if shares[split] and not (split == "test" and "test" in there)]
        if "eval" in there:
            lacking = []
        total = sum(shares[split] for split in lacking)
        return cls("" if "" in there else "train", {split: shares[split] / total for split in lacking}, seed)

    def draw(self, classes: Sequence[int] | None, documents: Sequence[str]) -> dict[str, list[int]]:
        """Gives each row of the source to a split, as `divide` does."""
        return divide(classes, documents, self.shares, self.seed)

    def told(self, how: str) -> str:
        """Says that the rows are divided, and how beside the shares."""
        return (
            f"The rows{f' of {self.source}' if self.source else ''} are divided here into {', '.join(self.shares)} in "
            f"shares {' / '.join(f'{share:.2g}' for share in self.shares.values())} (task.split_seed={self.seed}; "
            f"{how})."
        )


def divide(
    classes: Sequence[int] | None, documents: Sequence[str], shares: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
    """Gives each row to a split; all rows of a document go to the same one.

    Each class is divided in the given shares as closely as whole documents allow, so that splits are balanced alike.
    Documents of several rows come first, the largest before the smaller ones: each goes where its classes lack most.
    The others then fill what is left.

    Args:
        classes: The class of each row; None where targets are scores.
        documents: What each row belongs to.
        shares: The share of each split; they add up to 1.
        seed: Keys the draw.

    Returns:
        The rows of each split, in their order.
    """
    n, splits = len(documents), [*shares]
    kinds = np.zeros(n, np.int64) if classes is None else np.asarray(classes)
    of_name: dict[str, int] = {}
    codes = np.fromiter((of_name.setdefault(name, len(of_name)) for name in documents), np.int64, n)
    sizes = np.bincount(codes)
    rng = draw.generator("shares", seed)
    place = rng.permutation(len(sizes))  # the drawn order of the documents
    wanted = np.outer(list(shares.values()), np.bincount(kinds))
    size_of = np.where(wanted > 0, wanted, 1)
    given, split_of = np.zeros_like(wanted), np.full(len(sizes), -1)
    together = np.flatnonzero(sizes > 1)
    rows_of = np.argsort(codes, kind="stable")
    ends = np.cumsum(sizes)
    for document in together[np.lexsort((place[together], -sizes[together]))]:
        rows = rows_of[ends[document] - sizes[document] : ends[document]]
        counts = np.bincount(kinds[rows], minlength=wanted.shape[1])
        # How much the squared distance to what is wanted grows, each class in proportion to its size.
        growth = (counts * (2 * (given - wanted) + counts) / size_of).sum(1)
        split = int(growth.argmin())
        given[split] += counts
        split_of[document] = split
    alone = sizes[codes] == 1
    owed = np.zeros(len(splits))
    for kind in range(wanted.shape[1]):
        rows = np.flatnonzero(alone & (kinds == kind))
        rows = rows[np.argsort(place[codes[rows]])]
        counts = _whole(np.maximum(wanted[:, kind] - given[:, kind], 0), len(rows), owed, bool(given[0, kind] == 0))
        split_of[codes[rows]] = np.repeat(np.arange(len(splits)), counts)
    found = split_of[codes]
    return {split: np.flatnonzero(found == i).tolist() for i, split in enumerate(splits)}


def _whole(lacking: np.ndarray, rows: int, owed: np.ndarray, first_lacks: bool) -> np.ndarray:
    """Divides a number of rows in proportion to what is lacking.

    What rounding takes from a split is owed to it, so that many small classes do not all round the same way.

    Args:
        lacking: What each split lacks of a class.
        rows: How many there are.
        owed: What rounding has taken from each split so far; it is updated.
        first_lacks: The first split (train) has no row of this class yet, and must get one.
    """
    total = lacking.sum()
    exact = lacking * (rows / total) if total else np.eye(len(lacking))[0] * rows
    counts = np.floor(exact + 1e-9).astype(np.int64)
    claims = exact - counts + owed
    for split in np.argsort(-claims, kind="stable")[: rows - counts.sum()]:
        counts[split] += 1
    if first_lacks and rows and not counts[0]:
        counts[counts.argmax()] -= 1
        counts[0] = 1
    owed += exact - counts
    return counts
