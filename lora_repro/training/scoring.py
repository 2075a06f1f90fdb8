"""Scores a split: predictions, metrics, and the rows that the record stores."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lora_repro import interrupt
from lora_repro.config.schema import Dtype
from lora_repro.methods import MethodConfig
from lora_repro.tasks import LOSS, TaskConfig, cross_fitting
from lora_repro.tasks.batches import scoring_batches
from lora_repro.tasks.encoding import Encoded
from lora_repro.tasks.text_metrics.meteor import one_program
from lora_repro.training.device import threads
from lora_repro.training.waiting import watched


@torch.no_grad()
def merged(model: nn.Module, method: MethodConfig) -> nn.Module:
    """Returns a copy of a model with what the method adds folded into its weights; the copy shares all others."""
    tensors = (*model.parameters(), *model.buffers())
    copy = deepcopy(model, {id(tensor): tensor for tensor in tensors})
    method.merge(copy)
    return copy


def predict(
    model: nn.Module,
    split: Encoded,
    dtype: Dtype,
    device: torch.device,
    *,
    with_answers: bool = True,
    begun: list[Tensor] | None = None,
    after_batch: Callable[[], None] | None = None,
) -> Float[Tensor, "n width"]:
    """Returns the predictions for every example of a split, in its order; computed in batches of like length.

    Args:
        model: The model.
        split: The examples.
        dtype: Precision of the products.
        device: Where to compute.
        with_answers: False leaves out answers that cost more than the loss, as written texts do.
        begun: The rows of the shortest examples, if they are known, in pieces; what is computed is appended.
        after_batch: Called after each batch; None: only what is asked to end ends.

    Raises:
        AskedToEndError: If the process was asked to end.
    """
    objective, pieces = split.objective, [] if begun is None else begun
    predicted, lengths, reserved, texts = split.outputs, objective.lengths_read(split), 0, 1
    if with_answers:
        predicted, lengths = split.predict, split.lengths.tolist()
        reserved, texts = objective.reserved, objective.texts_at_once
    done = sum(map(len, pieces))
    model.eval()
    with torch.inference_mode():
        batches = scoring_batches(lengths, device.type == "cpu", reserved, texts)
        order = list(chain(*batches))
        for indices in watched(_after(batches, done), threads(device)):
            pieces.append(predicted(model, indices, dtype, device).float().cpu())
            (after_batch or interrupt.refuse_to_go_on)()
        offset = objective.calibration(model, dtype, device)
    in_order = torch.empty(len(order), pieces[0].shape[1])
    in_order[order] = torch.cat(pieces)
    return in_order if offset is None else in_order - offset.float().cpu()


def _after(batches: list[list[int]], done: int) -> list[list[int]]:
    """Returns batches without the first examples."""
    left = []
    for batch in batches:
        if len(batch) > done:
            left.append(batch[done:])
        done = max(done - len(batch), 0)
    return left


def metrics(task: TaskConfig, split: Encoded, predictions: Float[Tensor, "n width"], name: str) -> dict[str, float]:
    """Returns the loss and, where the predictions hold answers, the task's metrics, spelt `split/metric`."""
    found: dict[str, float] = {}
    if split.objective.has_answers(predictions):
        answers = [answer.prediction for answer in split.objective.answers(predictions)]
        with one_program():  # for all parts of the split
            found |= task.targets.evaluate(split.examples, answers)
    found |= task.targets.of_loss(split.objective.mean_loss(predictions, split))
    return {f"{name}/{metric}": value for metric, value in found.items()}


def overall(task: TaskConfig, splits: Mapping[str, Encoded], predictions: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns the metrics of all scored splits together, spelt `overall/metric`, where they are parts of one set."""
    if not task.has_overall or not all(splits[name].objective.has_answers(of) for name, of in predictions.items()):
        return {}
    examples = [example for name in predictions for example in splits[name].examples]
    answers = [each.prediction for name, of in predictions.items() for each in splits[name].objective.answers(of)]
    return {f"overall/{metric}": value for metric, value in task.targets.evaluate(examples, answers).items()}


def rows(
    task: TaskConfig, split: Encoded, predictions: Float[Tensor, "n width"], name: str, epoch: int
) -> list[dict[str, Any]]:
    """Returns the rows of predictions.parquet; documents are counted from 0 in the order of the examples.

    There are none where nothing was answered.
    """
    if not split.objective.has_answers(predictions):
        return []
    answers = split.objective.answers(predictions)
    documents = {document: number for number, document in enumerate(dict.fromkeys(e.document for e in split.examples))}
    return [
        {
            **{"split": name, "epoch": epoch, **task.targets.row(example, answer.prediction)},
            **{"document": documents[example.document], "scores": answer.scores},
        }
        for example, answer in zip(split.examples, answers, strict=True)
    ]


def flags(
    task: TaskConfig, splits: Mapping[str, Encoded], predictions: Mapping[str, Tensor], epoch: int
) -> dict[str, bool]:
    """Returns what a reader must know about the answers after an epoch; nothing where there are none."""
    found = {name: predictions[f"{name}/{epoch}"] for name in task.scored}
    if not all(splits[name].objective.has_answers(of) for name, of in found.items()):
        return {}
    answers = {name: splits[name].objective.answers(of) for name, of in found.items()}
    return task.targets.flags({name: [answer.prediction for answer in found] for name, found in answers.items()})


def cross_fitted(
    task: TaskConfig, splits: Mapping[str, Encoded], predictions: Mapping[str, Tensor], by_epoch: list[dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """Returns the entry `cross_fitted` of result.json, for a task whose dev split is all that has labels."""
    if "test" in task.scored:
        return {}
    dev = splits["eval"]
    found = {line["epoch"]: predictions[f"eval/{line['epoch']}"] for line in by_epoch}
    answers = {epoch: dev.objective.answers(of) for epoch, of in found.items() if dev.objective.has_answers(of)}
    plain = {epoch: [answer.prediction for answer in given] for epoch, given in answers.items()}
    return {"cross_fitted": cross_fitting.cross_fitted(task, dev.examples, plain)}


def describe(task: TaskConfig, metrics: dict[str, Any]) -> str:
    """Writes an epoch's metrics for the log; a baseline, which is always the same, only the record holds."""
    names = [metric.name for metric in (*task.targets.shown, LOSS)]
    shown = {key: value for key, value in metrics.items() if key.rpartition("/")[2] in names}
    return ", ".join(f"{key} {value:.4f}" for key, value in shown.items())
