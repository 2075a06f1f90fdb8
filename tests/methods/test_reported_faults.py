"""Faults that others have reported of their code, which give wrong numbers without an error: tried on ours."""

import pytest
import torch
from helpers.computed_runs import computed
from helpers.damaged_files import change_json
from helpers.fixture_types import Compose
from safetensors.torch import load_file, save_file

from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError
from lora_repro.training import train
from lora_repro.training.train import build

CPU = torch.device("cpu")


def test_biases_of_adapted_layers_are_saved_and_demanded(tiny: Compose) -> None:
    """huggingface/peft#3306: bias="lora_only" trains the biases of adapted layers, and the file lacks them."""
    method = ["method.targets=[q,down]", "method.bias=lora_only"]
    record, mine = computed(tiny(*method))
    path = record.folder / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    biases = [name for name in tensors if name.endswith("base_layer.bias")]
    assert len(biases) == 4 and all(tensors[name].any() for name in biases)  # of tiny_bert, where they start at zero
    _, again = computed(tiny(*method, "train.epochs=0", f"train.init_from={record.run_id}"))
    assert mine["metrics"] == again["metrics"]
    save_file({name: tensor for name, tensor in tensors.items() if name not in biases}, path)
    change_json(record.folder / "result.json", digests=None)
    with pytest.raises(InputError, match=r"the adapter does not hold 4 tensors, first .*base_layer\.bias"):
        build(resolve(tiny(*method, "train.epochs=0", "seed=1", f"train.init_from={record.run_id}")), CPU)


def test_a_file_without_the_trained_head_is_not_scored_with_a_drawn_one(tiny: Compose) -> None:
    """huggingface/peft#310: what is saved holds no classification head, and loading it draws one at random."""
    record, _ = computed(tiny("method=bitfit"))
    path = record.folder / "trained.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if "classifier" not in name}, path)
    change_json(record.folder / "result.json", digests=None)
    start = f"train.init_from={record.run_id}"
    with pytest.raises(InputError, match="holds no trained head for this task"):
        build(resolve(tiny("method=bitfit", "train.epochs=0", start)), CPU)


def test_merging_twice_adds_an_update_once(tiny: Compose) -> None:
    """huggingface/peft#1355: merging again added B A again."""
    resolved = resolve(tiny("method.targets=[q,k,up]"))
    method, model = resolved.run.method, build(resolved, CPU)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter)
    method.merge(model)
    once = {name: parameter.clone() for name, parameter in model.named_parameters()}
    method.merge(model)
    assert all(torch.equal(parameter, once[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("method", ["bitfit", "ft_top2", "lora"])
def test_the_optimizer_holds_what_is_trained_and_decays_no_bias_and_no_norm(tiny: Compose, method: str) -> None:
    """dingo-actual/om#12: weight decay pulled biases and norms, so all that BitFit trains, to zero."""
    resolved = resolve(tiny(f"method={method}", "train.weight_decay=0.5"))
    model = build(resolved, CPU)
    groups = train.start(model, resolved.run, 64).optimizer.param_groups
    held = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert held.keys() == names.keys() and len(held) == sum(len(group["params"]) for group in groups)
    decayed = {names[key] for key, decay in held.items() if decay}
    assert decayed == {name for name in names.values() if not name.endswith(".bias") and "LayerNorm" not in name}


def test_bitfit_changes_biases_of_layers_and_norms_and_nothing_else(tiny: Compose) -> None:
    """Allen0307/AdapterBias#3: the text says that the norms are frozen, the code trains their weights."""
    record, _ = computed(tiny("method=bitfit"))
    before = dict(build(resolve(tiny("method=head_only")), CPU).named_parameters())
    saved = load_file(record.folder / "trained.safetensors")
    backbone = {name for name in saved if resolve(tiny()).run.arch.is_head(name) is False}
    assert all(name.endswith(".bias") and not saved[name].equal(before[name]) for name in backbone)
    assert sum("LayerNorm" in name for name in backbone) == 5 and len(backbone) == 5 + 2 * 6


@pytest.mark.parametrize(("trained", "asked"), [("bitfit", "ft_top2"), ("ft_top2", "bitfit"), ("lora", "bitfit")])
def test_no_method_starts_from_the_files_of_another(tiny: Compose, trained: str, asked: str) -> None:
    """huggingface/peft#2699: keys that do not fit are left out, and the model that is scored is half the base."""
    record, _ = computed(tiny(f"method={trained}"))
    with pytest.raises(InputError, match=rf"was trained with method={trained}, and this run has method={asked}"):
        build(resolve(tiny(f"method={asked}", "train.epochs=0", f"train.init_from={record.run_id}")), CPU)
