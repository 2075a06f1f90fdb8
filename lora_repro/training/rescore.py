"""Scores a finished run again with some trained weights replaced, to see what a part of an update contributes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lora_repro.config.resolve import Resolved
from lora_repro.config.schema import InitHead, Run
from lora_repro.config.settings import Settings
from lora_repro.tasks.encoding import encode
from lora_repro.training import provenance, scoring
from lora_repro.training.device import prepare
from lora_repro.training.train import build


class Rescorer:
    """The model that a run ended with, in the run's own dtype, and the splits it is scored on.

    Args:
        folder: The directory of the finished run.
        run: The run.
        settings: Paths of weights and data, and the device.

    Raises:
        MissingInputError: If weights, data, or what the run trained are missing or damaged.
    """

    def __init__(self, folder: Path, run: Run, settings: Settings) -> None:
        self.run = run
        self._device = prepare(settings.compute)
        self._splits = encode(run, settings)
        ended = replace(run, train=replace(run.train, init_head=InitHead.fitting))  # the head it trained, not its start
        self._model = build(Resolved(ended, settings, str(folder.absolute())), self._device)

    @property
    def trained(self) -> list[str]:
        """The names of the parameters that training changed."""
        return [name for name, parameter in self._model.named_parameters() if parameter.requires_grad]

    @property
    def machine(self) -> dict[str, Any]:
        """What decides the exact bits of the scores besides the run; scoring is never compiled."""
        found = provenance.machine(self._device, self.run.train.dtype)
        return {key: value for key, value in found.items() if key != "compiled"}

    def parameter(self, name: str) -> np.ndarray:
        """Returns a parameter as the run ended with it, by its name in the model that the method is attached to."""
        return self._model.get_parameter(name).detach().float().cpu().numpy()

    def score(self, replaced: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns the metrics of the scored splits with these parameters in the place of the run's own.

        Without any they are those of the record: to the bit, on the same machine with as many threads.
        """
        own = {name: self._model.get_parameter(name).detach().clone() for name in replaced}
        self._put({name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in replaced.items()})
        found: dict[str, float] = {}
        answered: dict[str, torch.Tensor] = {}
        try:
            method = self.run.method
            model = scoring.merged(self._model, method) if self.run.train.score_merged else self._model
            for name in self.run.task.scored:
                split = self._splits[name]
                answered[name] = scoring.predict(model, split, self.run.train.dtype, self._device)
                found |= scoring.metrics(self.run.task, split, answered[name], name)
            found |= scoring.overall(self.run.task, self._splits, answered)
        finally:
            self._put(own)
        return found

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            self._model.get_parameter(name).copy_(tensor)
