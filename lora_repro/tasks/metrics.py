"""What predictions are worth: plain functions on arrays of class numbers. Scores are in [0, 1]."""

import numpy as np
from jaxtyping import Int


def accuracy(predictions: Int[np.ndarray, " examples"], references: Int[np.ndarray, " examples"]) -> float:
    """Returns the share of predictions that equal their reference.

    Raises:
        ValueError: If there are no examples, or not one prediction for each.
    """
    if len(references) == 0 or predictions.shape != references.shape:
        raise ValueError(
            f"accuracy: needs one prediction for each of at least one reference "
            f"(given: {predictions.shape} and {references.shape})."
        )
    return float(np.mean(predictions == references))


def majority(references: Int[np.ndarray, " examples"]) -> float:
    """Returns the accuracy of always naming the most frequent reference: the baseline beside each accuracy.

    Raises:
        ValueError: If there are no examples.
    """
    if len(references) == 0:
        raise ValueError("majority: needs at least one reference (given: none).")
    return float(np.unique_counts(references).counts.max() / len(references))
