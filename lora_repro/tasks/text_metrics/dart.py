"""DART's own script, run_eval_on_dart.sh, which the scores of its leaderboard come from: not what Table 13 follows.

Its three reference files hold the first three texts of each entry of the test set, split at every character that is no
letter, digit or underscore and then written in lower case; so are texts here, and those that are so already stay as
they are. Empty lines of the files count for BLEU, as references of length 0. Its TER is that of tercom 0.7.25, a Java
program that no package brings: there is none here. (github.com/Yale-LILY/dart, evaluation/)
"""

import re
from collections.abc import Sequence

from lora_repro.tasks.text_metrics.given import refuse_unfit
from lora_repro.tasks.text_metrics.meteor import meteor_of
from lora_repro.tasks.text_metrics.ngrams import unsmoothed_bleu

REFERENCES = 3
"""The script names three files."""

_SPLIT = re.compile(r"(?!(?<=i)\u0307)(\W)")
"""Not at the dot that is left of a capital I with a dot, which is one letter before it is written small."""


def split(text: str) -> str:
    """Returns a text as the script's files have it."""
    return " ".join(" ".join(_SPLIT.split(text)).lower().split())


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns BLEU, from 0 to 1: what multi-bleu.perl prints as percent, not smoothed.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
    """
    refuse_unfit("BLEU", predictions, references)
    right = [[*map(split, texts[:REFERENCES]), *[""] * (REFERENCES - len(texts))] for texts in references]
    written = [split(text) for text in predictions]
    return unsmoothed_bleu(written, list(zip(*right, strict=True)), tokenize="none", lowercase=False)


def meteor(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns METEOR 1.5 with `-l en -norm`, from 0 to 1.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
        MissingInputError: If Java or pycocoevalcap is missing.
        RunFailedError: If its program fails.
    """
    refuse_unfit("METEOR", predictions, references)
    right = [[split(text) for text in texts[:REFERENCES]] for texts in references]
    return meteor_of([split(text) for text in predictions], right)
