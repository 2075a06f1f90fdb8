"""Scores a split: logits, metrics, and the predictions that the record stores."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lora_repro.config import Dtype
from lora_repro.encoding import Encoded
from lora_repro.precision import products
from lora_repro.tasks import TaskConfig

BATCH = 64


class Scores(NamedTuple):
    """A split, scored, in the split's order."""

    logits: Float[np.ndarray, "n labels"]
    loss: float


def score(model: nn.Module, split: Encoded, dtype: Dtype, where: torch.device) -> Scores:
    """Scores every example of a split, in batches of like length."""
    order = split.lengths.argsort(stable=True).tolist()
    logits: list[Tensor] = []
    model.eval()
    with torch.inference_mode(), products(dtype, where):
        for start in range(0, len(order), BATCH):
            inputs, _ = split.batch(order[start : start + BATCH], where)
            logits.append(model(**inputs).logits)
    in_order = torch.empty(len(order), logits[0].shape[1])
    in_order[order] = torch.cat(logits).float().cpu()
    return Scores(in_order.numpy(), F.cross_entropy(in_order, split.labels).item())


def metrics(task: TaskConfig, split: Encoded, scores: Scores, name: str) -> dict[str, float]:
    """Returns the task's metrics and the loss, spelt `split/metric`."""
    found = task.score(scores.logits.argmax(1), split.labels.numpy()) | {"loss": scores.loss}
    return {f"{name}/{metric}": value for metric, value in found.items()}


def predictions(split: Encoded, scores: Scores, name: str, epoch: int) -> list[dict[str, Any]]:
    """Returns the rows of predictions.parquet."""
    rows = zip(split.examples, scores.logits.argmax(1).tolist(), scores.logits.tolist(), strict=True)
    return [
        {
            "split": name,
            "epoch": epoch,
            "id": example.id,
            "label": example.label,
            "prediction": chosen,
            "scores": logits,
        }
        for example, chosen, logits in rows
    ]


def balance(split: Encoded) -> dict[str, Any]:
    """Returns the number of examples, and of each label."""
    labels, counts = split.labels.unique(return_counts=True)
    return {"n": len(split.examples), "labels": dict(zip(map(str, labels.tolist()), counts.tolist(), strict=True))}


def words(metrics: dict[str, Any]) -> str:
    """Writes an epoch's metrics for people; the majority baseline, always the same, stands in the record."""
    shown = {key: value for key, value in metrics.items() if "/" in key and not key.endswith("/majority")}
    return ", ".join(f"{key} {value:.4f}" for key, value in shown.items())
