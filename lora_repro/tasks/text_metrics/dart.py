"""DART's own script, run_eval_on_dart.sh, which the scores of its leaderboard come from: not what Table 13 follows.

It compares texts as they are, in the case and with the spaces of its three reference files. Their empty lines count
for BLEU, as references of length 0. Its TER is that of tercom 0.7.25, a Java program that no package brings: there is
none here. (github.com/Yale-LILY/dart, evaluation/)
"""

from collections.abc import Sequence

from lora_repro.tasks.text_metrics.given import refuse_unfit
from lora_repro.tasks.text_metrics.meteor import meteor_of
from lora_repro.tasks.text_metrics.ngrams import unsmoothed_bleu

REFERENCES = 3
"""The script names three files."""


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns BLEU, from 0 to 1: what multi-bleu.perl prints as percent, not smoothed.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
    """
    refuse_unfit("BLEU", predictions, references)
    right = [[*texts[:REFERENCES], *[""] * (REFERENCES - len(texts))] for texts in references]
    return unsmoothed_bleu(predictions, list(zip(*right, strict=True)), tokenize="none", lowercase=False)


def meteor(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns METEOR 1.5 with `-l en -norm`, from 0 to 1.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
        MissingInputError: If Java or pycocoevalcap is missing.
        RunFailedError: If its program fails.
    """
    refuse_unfit("METEOR", predictions, references)
    return meteor_of(predictions, [texts[:REFERENCES] for texts in references])
