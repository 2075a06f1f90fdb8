"""Texts that are scored as a whole and in parts, as seen and unseen categories. No torch."""

from collections.abc import Callable, Sequence

from lora_repro.tasks.metrics import Metric
from lora_repro.tasks.targets import Example, Texts


class Parts(Texts):
    """Every metric beside itself for each part: bleu, bleu_seen, bleu_unseen.

    A split that has no example of a part has no such metric.

    Args:
        whole: What scores them.
        parts: The names of the parts.
        part_of: Returns the part of an example.
    """

    def __init__(self, whole: Texts, parts: Sequence[str], part_of: Callable[[Example], str]) -> None:
        self._whole, self._parts, self._part_of = whole, parts, part_of
        in_parts = (_of_part(metric, part) for part in parts for metric in whole.metrics)
        self.metrics = (*whole.metrics, *in_parts)

    def evaluate(self, examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, float]:
        """Returns the metrics of all examples, and those of each part."""
        found = self._whole.evaluate(examples, predictions)
        for part in self._parts:
            indices = [i for i, example in enumerate(examples) if self._part_of(example) == part]
            if indices:
                of_part = self._whole.evaluate([examples[i] for i in indices], [predictions[i] for i in indices])
                found |= {f"{name}_{part}": value for name, value in of_part.items()}
        return found


def _of_part(metric: Metric, part: str) -> Metric:
    about = f"{metric.about or metric.name}, of the {part} ones"
    baseline = f"{metric.baseline}_{part}" if metric.baseline is not None else None
    return metric._replace(name=f"{metric.name}_{part}", about=about, baseline=baseline)
