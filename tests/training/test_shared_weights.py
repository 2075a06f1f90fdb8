"""Runs of one process share the frozen weights: each starts as in a fresh process, whatever ran before it."""

from collections.abc import Iterator

import pytest
import torch
from helpers.fixture_types import Compose
from omegaconf import DictConfig
from torch import Tensor, nn

from lora_repro.config.resolve import resolve
from lora_repro.errors import RunFailedError
from lora_repro.methods import METHODS
from lora_repro.models import load as models
from lora_repro.models.shared import COLUMNS, digest
from lora_repro.training import train
from lora_repro.training.job import run_job
from lora_repro.training.train import assemble

CPU = torch.device("cpu")
STEPS = ("train.max_steps=2", "train.learning_rate=0.1")
BEFORE = [
    *([f"method={method}"] for method, kind in METHODS.items() if kind.is_trained),
    ["method=lora", "method.targets=[q,v,embed]", "method.bias=all"],
    ["method=full", "train.dtype=fp32"],
    ["method=full", "seed=5", "model.dropout=0.1"],
]


@pytest.fixture(autouse=True)
def nothing_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_all_kept", {})


def assembled(cfg: DictConfig) -> nn.Module:
    return assemble(resolve(cfg), CPU).model


def tensors(tiny: Compose, *overrides: str) -> dict[str, Tensor]:
    model = assembled(tiny(*overrides))
    return {name: tensor.clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def fresh(tiny: Compose, *overrides: str) -> dict[str, Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "SHARED_UP_TO", 0)
        return tensors(tiny, *overrides)


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if one[name].dtype != other[name].dtype or not one[name].equal(other[name])] == []


BERT, LLAMA = ["model=tiny_bert"], ["model=tiny_llama", "task.form=text"]
OF_LLAMA = ("method=full", "method=llama_adapter")
"""What changes a decoder in ways of its own; of the other methods the quick tests see the encoder alone."""
LIKE_OTHERS = ("method=adapter_l", "method=adapter_p", "method=adapter_d", "method=lora_prefix_embed")
"""What changes an encoder as adapter_h does, and prefix_embed."""


@pytest.mark.parametrize(
    ("model", "before"),
    [
        *(
            pytest.param(
                BERT,
                before,
                id=f"bert {' '.join(before)}",
                marks=pytest.mark.long if before[0] in LIKE_OTHERS else [],
            )
            for before in BEFORE
        ),
        *(
            pytest.param(
                LLAMA,
                before,
                id=f"llama {' '.join(before)}",
                marks=[] if len(before) == 1 and before[0] in OF_LLAMA else pytest.mark.long,
            )
            for before in BEFORE
        ),
    ],
)
def test_a_run_starts_as_in_a_fresh_process_whatever_ran_before(
    before: list[str], model: list[str], tiny: Compose
) -> None:
    if model[0] == "model=tiny_llama" and before[0] in ("method=head_only", "method=bitfit"):
        pytest.skip("this model has no head and no biases")
    run_job(tiny(*model, *STEPS, *before))
    for after in (["method=lora"], ["method=full"], ["method=lora", "train.dtype=fp32", "seed=1"]):
        assert_same(tensors(tiny, *model, *after), fresh(tiny, *model, *after))


def test_a_head_of_another_width_and_another_dropout_start_as_in_a_fresh_process(tiny: Compose) -> None:
    run_job(tiny(*STEPS, "method=full"))
    for other in (["model.dropout=0.3"], ["task=movies", "task.target=rating"], ["seed=9"]):
        assert_same(tensors(tiny, *other), fresh(tiny, *other))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_frozen_weights_lie_in_one_memory_and_trained_ones_in_their_own(dtype: str, tiny: Compose) -> None:
    one, other = (assembled(tiny("method=lora", f"method.r={r}", f"train.dtype={dtype}")) for r in (1, 4))
    places = [{p.data_ptr(): p.requires_grad for p in model.parameters()} for model in (one, other)]
    frozen = [{place for place, is_trained in found.items() if not is_trained} for found in places]
    assert frozen[0] == frozen[1] and len(frozen[0]) > 20
    trained = [{place for place, is_trained in found.items() if is_trained} for found in places]
    assert trained[0].isdisjoint(trained[1])
    full = assembled(tiny("method=full"))
    assert {p.data_ptr() for p in full.parameters()}.isdisjoint(frozen[0])


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("how", ["fails", "is interrupted"])
def test_a_write_by_a_run_that_does_not_end_is_found_before_the_next_run(
    how: str, dtype: str, tiny: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    steps = train.train_epoch

    def writes(state: train.TrainState, *arguments: object) -> None:
        steps(state, *arguments)  # pyright: ignore[reportArgumentType]
        next(p for p in state.model.parameters() if not p.requires_grad and p.dim() > 1).data[3, 1] += 1
        raise KeyboardInterrupt if how == "is interrupted" else ValueError

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_epoch", writes)
        with pytest.raises(KeyboardInterrupt if how == "is interrupted" else RunFailedError):
            run_job(tiny(*STEPS, f"train.dtype={dtype}"))
    found = tensors(tiny, f"train.dtype={dtype}")
    assert "Frozen weights in memory were changed" in caplog.text
    assert_same(found, fresh(tiny, f"train.dtype={dtype}"))


def test_a_write_to_weights_whose_copy_is_trained_is_found_before_the_next_run(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a GPU a run computes with a copy; here it lies in other memory of this machine."""
    attach, to = train.attach, nn.Module.to

    def writes(model: nn.Module, *arguments: object) -> None:
        attach(model, *arguments)  # pyright: ignore[reportArgumentType]
        next(p for p in model.parameters() if not p.requires_grad and p.dim() > 1).data[3, 1] += 1

    def copies(model: nn.Module, *arguments: object) -> nn.Module:
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        return to(model, *arguments)  # pyright: ignore[reportCallIssue, reportArgumentType]

    with monkeypatch.context() as patch:
        patch.setattr(train, "attach", writes)
        patch.setattr(nn.Module, "to", copies)
        run_job(tiny(*STEPS, "train.dtype=fp32"))
    found = tensors(tiny, "train.dtype=fp32")
    assert "Frozen weights in memory were changed" in caplog.text
    assert_same(found, fresh(tiny, "train.dtype=fp32"))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_write_while_a_run_is_scored_fails_that_run(
    dtype: str, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = train.score_epoch

    def writes(state: train.TrainState, *arguments: object) -> None:
        scored(state, *arguments)  # pyright: ignore[reportArgumentType]
        next(p for p in state.model.parameters() if not p.requires_grad).data.add_(1)

    monkeypatch.setattr(train, "score_epoch", writes)
    with pytest.raises(RunFailedError, match="A frozen weight changed"):
        run_job(tiny(*STEPS, "train.epochs=1", f"train.dtype={dtype}"))


def test_weights_are_read_once_for_a_sweep_and_not_looked_at_again_between_runs_that_end(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    template = models._template
    monkeypatch.setattr(models, "_template", lambda *key: read.append(key[0]) or template(*key))
    for method in ("lora", "full", "bitfit"):
        run_job(tiny(*STEPS, f"method={method}"))
    ((_, shared),) = models._all_kept.values()
    assert len(read) == 1 and not shared._is_lent


def test_only_the_last_runs_weights_in_bf16_are_kept(tiny: Compose) -> None:
    assembled(tiny("method=lora", "train.dtype=bf16"))
    ((_, shared),) = models._all_kept.values()
    assert len(shared._in_bf16) > 20
    assembled(tiny("method=full", "train.dtype=bf16"))
    assert shared._in_bf16 == {}


def test_a_model_that_is_built_apart_shares_nothing(tiny: Compose) -> None:
    one, other = (train.build(resolve(tiny(f"seed={seed}")), CPU) for seed in (0, 1))
    places = [{p.data_ptr() for p in model.parameters()} for model in (one, other, assembled(tiny()))]
    assert places[0].isdisjoint(places[1] | places[2]) and places[1].isdisjoint(places[2])


def changes() -> Iterator[tuple[str, Tensor]]:
    base = torch.arange(3 * COLUMNS * 8 + 5, dtype=torch.int32)
    yield "one bit", base.index_fill(0, torch.tensor([77]), 78)
    yield "the last element", base.index_fill(0, torch.tensor([len(base) - 1]), 0)
    yield "two swapped", base.index_copy(0, torch.tensor([10, 5000]), base[[5000, 10]])
    rows = base.clone()
    rows[: 4 * COLUMNS] = base[: 4 * COLUMNS].view(2, -1).flip(0).flatten()
    yield "two rows swapped", rows
    yield "another type", base.view(torch.float32)
    yield "another shape", base[None]


@pytest.mark.parametrize(("what", "changed"), list(changes()), ids=[what for what, _ in changes()])
def test_a_digest_sees(what: str, changed: Tensor) -> None:
    base = torch.arange(3 * COLUMNS * 8 + 5, dtype=torch.int32)
    assert digest(base) == digest(base.clone()) != digest(changed)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (1, 5), (4097,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool])
def test_a_digest_reads_tensors_of_any_size_and_place(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = nn.init.uniform_(torch.empty(shape)).to(dtype)
    longer = torch.cat([torch.zeros(1).to(dtype), tensor.flatten()])
    assert digest(longer[1:].view(shape)) == digest(tensor)
