"""Scores a split: logits, metrics, and the predictions that the record stores."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lora_repro.config.schema import Dtype
from lora_repro.tasks import LOSS, TaskConfig, objective
from lora_repro.tasks.encoding import Encoded
from lora_repro.training import interrupt

BATCH = 64


def score(model: nn.Module, split: Encoded, dtype: Dtype, where: torch.device) -> Float[np.ndarray, "n labels"]:
    """Returns the logits of every example of a split, in its order; computed in batches of like length.

    Raises:
        AskedToEndError: If the process was asked to end.
    """
    order = split.lengths.argsort(stable=True).tolist()
    logits: list[Tensor] = []
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            interrupt.refuse_to_go_on()
            logits.append(objective.label_logits(model, split, order[start : start + BATCH], dtype, where))
    in_order = torch.empty(len(order), logits[0].shape[1])
    in_order[order] = torch.cat(logits).float().cpu()
    return in_order.numpy()


def metrics(task: TaskConfig, split: Encoded, logits: Float[np.ndarray, "n labels"], name: str) -> dict[str, float]:
    """Returns the task's metrics and the loss, spelt `split/metric`."""
    loss = F.cross_entropy(torch.from_numpy(logits), split.labels).item()
    found = task.targets.evaluate(split.examples, logits.argmax(1).tolist()) | {"loss": loss}
    return {f"{name}/{metric}": value for metric, value in found.items()}


def predictions(split: Encoded, logits: Float[np.ndarray, "n labels"], name: str, epoch: int) -> list[dict[str, Any]]:
    """Returns the rows of predictions.parquet."""
    rows = zip(split.examples, logits.argmax(1).tolist(), logits.tolist(), strict=True)
    return [
        {
            "split": name,
            "epoch": epoch,
            "id": example.id,
            "label": example.target,
            "prediction": chosen,
            "scores": scores,
        }
        for example, chosen, scores in rows
    ]


def describe(task: TaskConfig, metrics: dict[str, Any]) -> str:
    """Writes an epoch's metrics for the log; a baseline, which is always the same, only the record holds."""
    names = [metric.name for metric in (*task.targets.shown, LOSS)]
    shown = {key: value for key, value in metrics.items() if key.rpartition("/")[2] in names}
    return ", ".join(f"{key} {value:.4f}" for key, value in shown.items())
