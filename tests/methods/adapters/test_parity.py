"""The adapters compute what AdapterHub's library computes, forward and backward: see tests/data/adapters_library."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from lora_repro.methods import METHODS, AdapterConfig
from lora_repro.methods.adapters.layers import Adapter
from lora_repro.models.arch import arch_of

FOLDER = Path(__file__).parents[2] / "data" / "adapters_library"
OURS = {"houlsby": "adapter_h", "pfeiffer": "adapter_p", "lin": "adapter_l"}
assert_close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6)
"""Computed in fp64, as the files were."""
FAMILIES = ["bert", "gpt2", "llama"]


def expected(family: str, method: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(FOLDER / f"{family}-{method}.safetensors", "pt") as file:
        return json.loads(file.metadata()["about"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def named(adapters: list[Adapter], places: tuple[str, ...]) -> dict[str, nn.Parameter]:
    """The adapters' parameters by the names of the files."""
    return {
        f"layers.{index // len(places)}.{places[index % len(places)]}.{name}": parameter
        for index, adapter in enumerate(adapters)
        for name, parameter in adapter.named_parameters()
    }


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_gradients_equal_the_librarys(family: str, method: str) -> None:
    about, tensors = expected(family, method)
    given = AutoConfig.for_model(num_labels=2, attn_implementation="eager", **about["config"])
    model = AutoModelForSequenceClassification.from_config(given).eval()
    body: Any = model.base_model
    weights = {name.removeprefix("base."): value for name, value in tensors.items() if name.startswith("base.")}
    assert not body.load_state_dict(weights, strict=False).missing_keys
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    config = METHODS[OURS[method]](OURS[method], bottleneck=4)  # pyright: ignore[reportCallIssue]
    assert isinstance(config, AdapterConfig)
    config.attach(model, arch_of(about["config"], 2), seed=0)
    ours = named([module for module in body.modules() if isinstance(module, Adapter)], config.places)
    assert {f"weights.{name}" for name in ours} == {name for name in tensors if name.startswith("weights.")}
    for name, parameter in ours.items():
        parameter.data = tensors[f"weights.{name}"]
    model.double()
    shown = tensors["attention_mask"]
    output = body(input_ids=tensors["input_ids"], attention_mask=shown).last_hidden_state
    seen = shown.bool()
    assert_close(output[seen].float(), tensors["output"][seen])
    (output * tensors["cotangent"]).sum().backward()
    for name, parameter in ours.items():
        assert parameter.grad is not None
        assert_close(parameter.grad.float(), tensors[f"gradients.{name}"])
