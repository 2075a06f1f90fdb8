"""Every tuner that the installed PEFT has computes here what it computes in PEFT's own model, forward and backward."""

from typing import Any

import pytest
import torch
from helpers.fixture_types import Compose
from helpers.peft_tuners import CASES, EACH, TARGETS, TYPES, marked, overrides, plain
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.save_and_load import get_peft_model_state_dict
from torch import nn

from lora_repro.config.resolve import resolve
from lora_repro.methods import PeftConfig
from lora_repro.methods.peft import declared
from lora_repro.methods.peft.tuner import NAME, owner_of, peft_config
from lora_repro.tasks.encoding import encode
from lora_repro.training.train import build

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what PEFT says of layers and defaults

CPU = torch.device("cpu")
ALL = [marked(name, given) for name in TYPES for given in CASES.get(name, [[TARGETS]])]


def stir(model: nn.Module) -> None:
    """Moves everything that is trained, as many tuners start by changing nothing."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def test_the_tuners_are_those_that_peft_registers() -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    assert {*declared.tuners()} == {kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    assert len(TYPES) >= 30
    for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        assert {*declared.tuners()[kind.value].keys} >= {*config.__dataclass_fields__} - {"runtime_config"}


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_llama"])
@pytest.mark.parametrize(("kind", "given"), ALL)
def test_a_tuner_computes_what_it_does_in_pefts_model(kind: str, given: list[str], family: str, tiny: Compose) -> None:
    cfg = tiny(*overrides(kind, family, given))
    resolved = resolve(cfg)
    run, method = resolved.run, resolved.run.method
    assert isinstance(method, PeftConfig)
    ours = build(resolved, CPU)
    stir(ours)
    theirs = PeftModel(plain(cfg), peft_config(method, run.arch), NAME)  # pyright: ignore[reportArgumentType]
    tensors = {**dict(ours.named_parameters()), **dict(ours.named_buffers())}
    with torch.no_grad():
        inner: Any = theirs.base_model.model
        for name, tensor in (*inner.named_parameters(), *inner.named_buffers()):
            assert tensor.shape == tensors[name].shape, name
            tensor.copy_(tensors[name])
    inputs, targets = encode(run, resolved.settings)["train"].batch(list(range(8)), CPU)
    inputs = {key: value[:, : int(inputs["attention_mask"].sum(1).min())] for key, value in inputs.items()}
    for model in (ours, theirs):
        model.eval()
    one, other = ours(**inputs).logits, theirs(**inputs).logits
    assert torch.allclose(one, other, atol=1e-5), (one - other).abs().max()
    nn.functional.cross_entropy(one, targets).backward()
    nn.functional.cross_entropy(other, targets).backward()
    trained = [name for name, parameter in ours.named_parameters() if parameter.requires_grad]
    adapted = [name for name in trained if not run.arch.is_head(name)]
    assert adapted and {name for name, p in inner.named_parameters() if p.requires_grad} == {*adapted}
    for name in adapted:
        mine, other = ours.get_parameter(name).grad, inner.get_parameter(name).grad
        assert (mine is None) == (other is None) and (mine is None or torch.allclose(mine, other, atol=1e-5)), name
    assert any(ours.get_parameter(name).grad is not None for name in adapted)


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_llama"])
@pytest.mark.parametrize("kind", EACH)
def test_what_is_saved_is_what_peft_would_save(kind: str, family: str, tiny: Compose) -> None:
    run = resolve(cfg := tiny(*overrides(kind, family))).run
    model = build(resolve(cfg), CPU)
    names = run.method.file_names(model, run.arch)
    expected = get_peft_model_state_dict(owner_of(model), save_embedding_layers=False)
    heads = {f"base_model.model.{name}" for name in run.arch.parameters if run.arch.is_head(name)}
    pointers = {key: tensor.data_ptr() for key, tensor in expected.items()}
    assert {*names.values()} - heads <= {*expected}  # RandLoRA's shared tables once, and not once a layer
    assert {pointers[key] for key in {*names.values()} - heads} == {*pointers.values()}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained <= {*names}


@pytest.mark.parametrize("kind", EACH)
def test_no_tuner_mixes_positions_or_examples(kind: str, tiny: Compose) -> None:
    """So a score does not depend on padding or neighbours, and the last layer may compute the first position alone."""
    model = build(resolve(tiny(*overrides(kind, "tiny_bert"))), CPU)
    stir(model)
    layers = [module for module in model.eval().modules() if isinstance(module, BaseTunerLayer)]
    assert layers
    for layer in layers:
        is_table = isinstance(layer.get_base_layer(), nn.Embedding)
        x = torch.randint(60, (4, 6)) if is_table else torch.randn(4, 6, 32)
        assert torch.allclose(layer(x)[:2, :3], layer(x[:2, :3]), atol=1e-6)
