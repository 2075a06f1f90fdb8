"""BLEU by sacrebleu, as the protocols need it."""

from collections.abc import Sequence
from typing import Any


def unsmoothed_bleu(
    predictions: Sequence[str], streams: Sequence[Sequence[str | None]], tokenize: str, lowercase: bool
) -> float:
    """Returns sacrebleu's BLEU, from 0 to 1, not smoothed.

    Args:
        predictions: A text for each example.
        streams: The first reference of all examples, the second of all, and so on. Where an example has no further one
            it is None; an empty text is a reference of length 0, which raises the BLEU of short texts by many points.
        tokenize: A tokenizer of sacrebleu.
        lowercase: Whether case is ignored.
    """
    from sacrebleu.metrics.bleu import BLEU

    # force: it does not warn of texts that were split into words before.
    scorer = BLEU(lowercase=lowercase, tokenize=tokenize, smooth_method="none", force=True)
    given: Any = streams  # where its types do not know of None
    return min(scorer.corpus_score(predictions, given).score / 100, 1.0)  # of equal texts it says 100.00000000000004


def streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Returns references as `unsmoothed_bleu` takes them, with None where an example has fewer than others."""
    most = max(map(len, references))
    return [[texts[i] if i < len(texts) else None for texts in references] for i in range(most)]
