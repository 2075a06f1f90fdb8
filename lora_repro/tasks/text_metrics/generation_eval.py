"""WebNLG and DART as the authors score them: GenerationEval on the texts of their gpt2_decode.py.

Texts are written in lower case and split at every character that is no letter, digit or underscore. Of the references
the first six count; an example with fewer has its first one repeated. This rule matters for BLEU: reference files with
empty lines count as references of length 0 in GenerationEval, which excuses short texts.
(github.com/microsoft/LoRA at c4593f0, examples/NLG: README.md, src/gpt2_decode.py, eval/eval.py)
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from lora_repro.tasks.text_metrics.edit_rate import edit_rates
from lora_repro.tasks.text_metrics.given import padded, refuse_unfit
from lora_repro.tasks.text_metrics.meteor import meteor_of
from lora_repro.tasks.text_metrics.ngrams import unsmoothed_bleu

REFERENCES = 6
"""The README's `--ref_num 6` and `-nr 6`."""


def split(text: str) -> str:
    """Returns a text in lower case with spaces around everything that is no letter, digit or underscore."""
    return " ".join(" ".join(re.split(r"(\W)", text.lower())).split())


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns BLEU, from 0 to 1: what multi-bleu-detok.perl prints as percent, not smoothed.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
    """
    refuse_unfit("BLEU", predictions, references)
    right = [list(map(split, texts)) for texts in padded(references, REFERENCES)]
    written = [split(text) for text in predictions]
    return unsmoothed_bleu(written, list(zip(*right, strict=True)), tokenize="13a", lowercase=False)


def meteor(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns METEOR 1.5 with `-l en -norm`, from 0 to 1.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
        MissingInputError: If Java or a package is missing.
        RunFailedError: If its program fails.
    """
    refuse_unfit("METEOR", predictions, references)
    written, right = _words(predictions, references)
    return meteor_of([" ".join(text) for text in written], [[" ".join(text) for text in texts] for texts in right])


def ter(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns TER by pyter3, 0 or more, lower is better: the mean over texts of the rate to the nearest reference.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
    """
    rates = ter_of_each(predictions, references)
    return sum(rates) / len(rates)


def ter_of_each(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Returns TER of each text, of which `ter` is the mean."""
    refuse_unfit("TER", predictions, references)
    return list(_ter_of_each(tuple(predictions), tuple(map(tuple, references))))


@lru_cache(maxsize=1)
def _ter_of_each(predictions: tuple[str, ...], references: tuple[tuple[str, ...], ...]) -> tuple[float, ...]:
    return tuple(edit_rates(*_words(predictions, references)))


def _words(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Returns the words of each text and of its references, as nltk's word_tokenize finds them in the split text.

    word_tokenize divides a text into sentences first, which needs a downloaded model. In a split text that changes no
    word, as every period stands alone. What is left are quotation marks and words such as cannot.
    """
    from nltk.tokenize import NLTKWordTokenizer

    find = NLTKWordTokenizer().tokenize
    right = [[find(split(text)) for text in texts[:REFERENCES]] for texts in references]
    return [find(split(text)) for text in predictions], right
