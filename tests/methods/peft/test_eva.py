"""EVA's start: PEFT's own on the same batches, in runs that are saved, opened, resumed and scored again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.computed_runs import computed
from helpers.fixture_types import Compose
from helpers.peft_tuners import (
    TARGETS,
    marked,
    opens_and_scores_again,
    overrides,
    plain,
    same_logits,
    stops_and_goes_on,
)
from omegaconf import DictConfig
from peft import PeftModel
from peft.tuners.lora.eva import initialize_lora_eva_weights
from torch import nn

from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError
from lora_repro.methods import PeftConfig
from lora_repro.methods.peft import eva
from lora_repro.methods.peft.tuner import NAME, peft_config
from lora_repro.tasks.batches import batches
from lora_repro.tasks.encoding import encode
from lora_repro.training.train import build

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning"),
]

CPU = torch.device("cpu")
EVA = "method.config={init_lora_weights:eva,r:3,eva_config:{rho:1}}"
DORA = "method.config={init_lora_weights:eva,r:3,use_dora:true,eva_config:{rho:1.0,tau:0.9}}"
ALL = "method.targets=[q,k,v,o,up,down]"


def composed(tiny: Compose, family: str, *given: str) -> DictConfig:
    return tiny(*overrides("LORA", family, [*given]))


def pefts(cfg: DictConfig) -> Any:
    """PEFT's model around transformers' own, started by PEFT on the batches of the run's first epoch."""
    resolved = resolve(cfg)
    run, method = resolved.run, resolved.run.method
    assert isinstance(method, PeftConfig)
    split = encode(run, resolved.settings)["train"]
    order = batches(split.lengths.tolist(), run.train.batch_size, run.seed, 0)
    loader = [split.batch(indices, CPU)[0] for indices in order]
    model = PeftModel(plain(cfg).eval(), peft_config(method, run.arch), NAME)  # pyright: ignore[reportArgumentType]
    initialize_lora_eva_weights(model, loader, adapter_name=NAME, show_progress_bar=False)
    return model


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_llama"])
@pytest.mark.parametrize("given", [[TARGETS, EVA], [ALL, EVA], [TARGETS, DORA, "method.layers=[1]"]])
def test_the_start_is_pefts(given: list[str], family: str, tiny: Compose) -> None:
    cfg = composed(tiny, family, *given)
    resolved = resolve(cfg)
    ours, theirs = build(resolved, CPU).eval(), pefts(cfg).eval()
    inner: nn.Module = theirs.base_model.model
    names = [name for name, parameter in inner.named_parameters() if parameter.requires_grad]
    assert {*names} == {
        name for name, p in ours.named_parameters() if p.requires_grad and not resolved.run.arch.is_head(name)
    }
    signs = {}
    for name in (name for name in names if ".lora_A." in name):
        mine, other = ours.get_parameter(name).detach(), inner.get_parameter(name).detach()
        signs[name] = (mine * other).sum(1, keepdim=True).sign()
        assert torch.allclose(mine, signs[name] * other, atol=1e-4), (mine - signs[name] * other).abs().max()
        assert torch.allclose(mine @ mine.T, torch.eye(3), atol=1e-4)
    same_logits(ours, theirs, resolved)
    for name in names:
        mine, other = ours.get_parameter(name).grad, inner.get_parameter(name).grad
        assert mine is not None and other is not None
        other = other * signs.get(name.replace("lora_B", "lora_A"), torch.ones(1, 1)).T if "lora_B" in name else other
        assert torch.allclose(mine, other, atol=1e-5), name
    assert any(ours.get_parameter(name).grad.any() for name in names if "lora_B" in name)  # pyright: ignore


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_llama"])
def test_the_first_direction_is_the_one_that_varies_most(family: str, tiny: Compose) -> None:
    """Against a decomposition of all inputs at once; PEFT's goes batch by batch until little changes."""
    cfg = composed(tiny, family, TARGETS, EVA)
    resolved, model = resolve(cfg), build(resolve(cfg), CPU).eval()
    split = encode(*resolved[:2])["train"]
    layer, seen = next((m for n, m in model.named_modules() if n.endswith(("query", "q_proj"))), None), []
    assert layer is not None
    handle = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for index in range(len(split.examples)):
        inputs = {key: value[[index], : int(split.lengths[index])] for key, value in split.inputs.items()}
        with torch.no_grad():
            model(**inputs)
    handle.remove()
    states = torch.cat([each.flatten(0, 1) for each in seen])
    whole = torch.linalg.svd(states - states.mean(0), full_matrices=False)
    share = (whole.S[:3] ** 2).sum()
    A = layer.lora_A[NAME].weight  # pyright: ignore
    assert ((states - states.mean(0)) @ A.T).square().sum() > 0.95 * share


def test_the_start_depends_on_the_seed_alone(tiny: Compose) -> None:
    from lora_repro.models import load as models

    cfg = composed(tiny, "tiny_bert", TARGETS, EVA)
    one = build(resolve(cfg), CPU).state_dict()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    other = build(resolve(cfg), CPU).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], other[name]) for name in one)
    lower = build(resolve(composed(tiny, "tiny_bert", TARGETS, EVA, "train.dtype=bf16")), CPU).state_dict()
    assert all(torch.equal(one[name], lower[name]) for name in one if ".lora_A." in name)
    seed = build(resolve(composed(tiny, "tiny_bert", TARGETS, EVA, "seed=5")), CPU).state_dict()
    assert all(not torch.equal(one[name], seed[name]) for name in one if ".lora_A." in name)
    computed(cfg)
    assert all(not shared.changed() for _, shared in models._all_kept.values())


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2", "opt", "roberta", "qwen3", "gpt_neox", marked("mpnet")])
def test_peft_opens_it_on_every_architecture(family: str, tiny: Compose, tmp_path: Path) -> None:
    quickly = EVA.replace("rho:1", "rho:1,tau:0.9")
    opens_and_scores_again("LORA", family, ["method.targets=[q,k,v]", quickly], tiny, tmp_path)


def test_it_works_on_texts(tiny: Compose) -> None:
    _, result = computed(composed(tiny, "tiny_llama", TARGETS, EVA, "task.form=text"))
    assert not result["flags"]["unmoved"]


@pytest.mark.parametrize("stop_at", [0, 3])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    stop_at: int, tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops_and_goes_on(overrides("LORA", "tiny_bert", [TARGETS, EVA]), stop_at, tiny, tmp_path, monkeypatch)


def test_a_run_that_trains_nothing_or_goes_on_from_an_adapter_looks_at_no_data(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, _ = computed(cfg := composed(tiny, "tiny_bert", TARGETS, EVA))
    monkeypatch.setattr(eva, "start", lambda *_: pytest.fail("it was started anew"))
    for more in (["train.epochs=0"], [f"train.init_from={record.run_id}"]):
        build(resolve(composed(tiny, "tiny_bert", TARGETS, EVA, *more)), CPU)
    assert resolve(cfg).run.method.count(resolve(cfg).run.arch).method == 4 * 3 * (32 + 32)


def test_directions_that_never_settle_end_the_run(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT would go on for ever."""
    monkeypatch.setattr(eva, "MOST_BATCHES", 20)
    cfg = composed(tiny, "tiny_bert", TARGETS, "method.config={init_lora_weights:eva,eva_config:{rho:1,tau:1.0}}")
    with pytest.raises(InputError, match=r"have not settled after 20 batches\.\nGive a smaller r"):
        build(resolve(cfg), CPU)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["method.config={init_lora_weights:eva}"], r"rho: must be 1 \(given: nothing, and PEFT takes 2\)"),
        (["method.config={init_lora_weights:eva,eva_config:{rho:1.5}}"], r"rho: must be 1 \(given: 1\.5\)"),
        (["method.config={init_lora_weights:eva,eva_config:{rho:1,whiten:true}}"], "whitens several times"),
        (["method.config={eva_config:{rho:1}}"], "no effect on another start"),
        ([EVA.replace("r:3", "rank_pattern:{query:2}")], "hands out ranks anew"),
        (["method.targets=[q,embed]", EVA], "knows no embedding"),
    ],
)
def test_what_cannot_work_is_refused_while_composing(given: list[str], message: str, tiny: Compose) -> None:
    with pytest.raises(InputError, match=message):
        resolve(composed(tiny, "tiny_bert", *given))
