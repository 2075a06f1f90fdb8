"""EVA: a start of LoRA's A from the inputs of each adapted layer, computed by PEFT before the first step.

Source: peft/tuners/lora/eva.py, PEFT 0.21; https://arxiv.org/abs/2410.07170.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from peft.tuners.lora.eva import get_eva_state_dict
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn

from lora_repro.errors import InputError
from lora_repro.methods.peft.tuner import NAME, owner_of
from lora_repro.models.pooling import reading_every_position

MOST_BATCHES = 500
"""After so many batches without convergence the run is refused: PEFT itself would go on for ever."""
_KEY = "method.config.init_lora_weights=eva"


@torch.no_grad()
def start(model: nn.Module, losses: Iterable[Callable[[], Tensor]]) -> None:
    """Writes into A the principal directions of what each layer is given at all positions that are no padding.

    Args:
        model: The model, in fp32.
        losses: Each computes the loss of a training batch.

    Raises:
        InputError: If a layer's inputs are no positions, or the directions do not settle.
    """
    owner, passes, shown = owner_of(model), [0], [torch.empty(0)]

    def keep_mask(_: nn.Module, __: object, given: dict[str, Any]) -> None:
        shown[0] = given["attention_mask"].bool().flatten()

    def forward(_: nn.Module, loss: Callable[[], Tensor]) -> None:
        passes[0] += 1
        if passes[0] > MOST_BATCHES:
            raise InputError(
                f"{_KEY}: the directions have not settled after {MOST_BATCHES} batches.\n"
                "Give a smaller r, a larger train.batch_size, or a lower eva_config.tau."
            )
        loss()

    def rows(given: tuple[Tensor, ...], _: object, layer: str) -> Float[Tensor, "positions d_in"]:
        flat = given[0].flatten(0, -2)
        if len(flat) != len(shown[0]):
            raise InputError(
                f"{_KEY}: {layer} is given something else than the positions of the text.\n"
                "Leave the layer out of method.targets, or give another start."
            )
        return flat[shown[0]]

    body: Any = model.base_model
    hook = body.register_forward_pre_hook(keep_mask, with_kwargs=True)
    try:
        with reading_every_position(model), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a function cannot be moved to a device
            found = get_eva_state_dict(
                owner,
                [*losses],
                forward_fn=forward,
                prepare_model_inputs_fn=lambda *_: None,
                prepare_layer_inputs_fn=rows,
                adapter_name=NAME,
                show_progress_bar=False,
            )
    finally:
        hook.remove()
    for name, layer in owner.named_modules():
        if isinstance(layer, LoraLayer):
            if name not in found:
                raise InputError(f"{_KEY}: PEFT finds no directions for {name}.\nLeave it out of method.targets.")
            owner.get_parameter(f"{name}.lora_A.{NAME}.weight").copy_(found[name])
