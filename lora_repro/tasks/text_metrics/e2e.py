"""The E2E NLG Challenge's metrics: measure_scores.py of e2e-metrics, as the authors' README runs it (`-p`).

All references of a meaning count. BLEU and NIST split texts as mteval-v13a does, the others as Stanford's tokenizer
does, without punctuation; all ignore case. (github.com/tuetschek/e2e-metrics at 1b9c4d8)
"""

from collections.abc import Sequence

from lora_repro.tasks.text_metrics.given import refuse_unfit
from lora_repro.tasks.text_metrics.meteor import meteor_of
from lora_repro.tasks.text_metrics.ngrams import streams, unsmoothed_bleu
from lora_repro.tasks.text_metrics.nist import nist
from lora_repro.tasks.text_metrics.treebank import tokenized

__all__ = ["bleu", "cider", "meteor", "nist", "rouge_l", "rouge_l_of_each"]


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns BLEU, from 0 to 1, not smoothed: 0 where no four words in a row are right in any text.

    On texts of fewer than four words pymteval.py, which the README runs, takes away from the number of longer n-grams;
    sacrebleu and the challenge's own Perl script do not. All three are equal on texts of four words and more.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
    """
    refuse_unfit("BLEU", predictions, references)
    return unsmoothed_bleu(predictions, streams(references), tokenize="13a", lowercase=True)


def meteor(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns METEOR 1.5 with `-l en -norm`, from 0 to 1.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
        MissingInputError: If Java or a package is missing.
        RunFailedError: If its program fails.
    """
    refuse_unfit("METEOR", predictions, references)
    return meteor_of(*tokenized(predictions, references))


def rouge_l(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns ROUGE-L as for MS COCO, from 0 to 1: the mean over texts of an F of the longest common subsequence.

    Recall counts more (beta = 1.2), and the best precision and the best recall may be of two references.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
        MissingInputError: If Java or a package is missing.
        RunFailedError: If the tokenizer fails.
    """
    scores = rouge_l_of_each(predictions, references)
    return sum(scores) / len(scores)


def rouge_l_of_each(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Returns ROUGE-L of each text, of which `rouge_l` is the mean."""
    from pycocoevalcap.rouge.rouge import Rouge

    refuse_unfit("ROUGE-L", predictions, references)
    scorer = Rouge()
    pairs = zip(*tokenized(predictions, references), strict=True)
    return [float(scorer.calc_score([text], texts)) for text, texts in pairs]


def cider(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Returns CIDEr as for MS COCO (CIDEr-D), from 0 to 10: how alike n-grams are, weighed by how rare they are.

    How rare they are is counted over the references of the examples that are scored, so subsets do not compare, and a
    single example has 0.

    Raises:
        ValueError: If there is no example, not one prediction for each, or an example without a reference.
        MissingInputError: If Java or a package is missing.
        RunFailedError: If the tokenizer fails.
    """
    from pycocoevalcap.cider.cider import Cider

    refuse_unfit("CIDEr", predictions, references)
    written, right = tokenized(predictions, references)
    if not any(text for texts in right for text in texts):
        return 0.0  # no words to weigh, which pycocoevalcap cannot say
    score, _ = Cider().compute_score(dict(enumerate(right)), {i: [text] for i, text in enumerate(written)})
    return float(score)
