import json
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers.computed_runs import computed, record_of
from helpers.fixture_types import Compose
from omegaconf import DictConfig
from torch import nn

from lora_repro.config.resolve import resolve
from lora_repro.config.schema import Dtype
from lora_repro.errors import RunFailedError
from lora_repro.methods import METHODS
from lora_repro.methods.lora.layers import LoRALinear, LoRAUpdate, merge
from lora_repro.models.fused import NAME
from lora_repro.models.load import _template
from lora_repro.models.precision import products
from lora_repro.store.status import State
from lora_repro.tasks.batches import batches
from lora_repro.tasks.encoding import Encoded, encode
from lora_repro.training import checks, train
from lora_repro.training.checkpoint import Checkpointer
from lora_repro.training.job import run_job
from lora_repro.training.train import build

TRAINED = [name for name, kind in METHODS.items() if kind.is_trained]
CPU = torch.device("cpu")


def built(cfg: DictConfig) -> nn.Module:
    return build(resolve(cfg), CPU)


def test_a_run_leaves_its_whole_record(tiny: Compose) -> None:
    record, result = computed(tiny("seed=3"))
    assert record.state is State.finished
    assert {path.name for path in record.folder.iterdir()} == {
        "config.yaml", "status.json", "metrics.jsonl", "result.json", "predictions.parquet", "adapter", "run.log",
    }  # fmt: skip
    method = {"name": "lora", "targets": ["q", "v"], "r": 8, "alpha": 8.0, "dropout": 0.0}
    assert method.items() <= result["config"]["method"].items()
    assert yaml.safe_load((record.folder / "config.yaml").read_text())["run"] == result["config"]
    assert [metrics["epoch"] for metrics in result["metrics_by_epoch"]] == [1, 2]
    assert result["params"]["method"] == 2 * 2 * 2 * 32 * 8 == sum(result["params"]["by_module"].values())
    flags = dict(result["flags"])
    assert isinstance(flags.pop("one_class"), bool)
    assert flags == {"untrained": False, "unmoved": False, "b_zero": False}
    rows = pd.read_parquet(record.folder / "predictions.parquet")
    answered = rows.groupby(["epoch", "split"])["prediction"].nunique()
    expected = {str(epoch): {"one_class": bool((answered[epoch] == 1).any())} for epoch in (1, 2)}
    assert result["flags_by_epoch"] == expected and result["flags"].items() >= expected["2"].items()
    assert result["merge_max_abs_error"] < 1e-5
    assert result["train_examples_per_s"] > 0 and result["peak_memory_gib"] > 0 and result["run_seconds"] > 0
    assert result["data"]["eval"]["n"] == 32 == sum(result["data"]["eval"]["labels"].values())
    rows = [json.loads(line) for line in (record.folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    assert [row["examples"] for row in steps] == [64, 128]
    assert steps[-1]["lr"] == pytest.approx(0.01 / 7)  # one of the seven steps after the warm-up is left
    assert {"step", "epoch", "loss", "lr", "wall_time_s"} <= steps[0].keys()


def test_stored_predictions_give_the_stored_metrics(tiny: Compose) -> None:
    record, result = computed(tiny())
    stored = pd.read_parquet(record.folder / "predictions.parquet")
    assert len(stored) == 2 * (32 + 32)
    for metrics in result["metrics_by_epoch"]:
        for split in ("eval", "test"):
            rows = stored[(stored.split == split) & (stored.epoch == metrics["epoch"])]
            assert (rows.label == rows.prediction).mean() == pytest.approx(metrics[f"{split}/accuracy"])
            assert rows.label.value_counts(normalize=True).max() == pytest.approx(metrics[f"{split}/majority"])
            logits = torch.tensor(np.stack(rows.scores.tolist()))
            loss = nn.functional.cross_entropy(logits, torch.tensor(rows.label.to_numpy()))
            assert loss.item() == pytest.approx(metrics[f"{split}/loss"], rel=1e-5)


@pytest.mark.parametrize(
    "method", [pytest.param(method, marks=[] if method == "lora" else pytest.mark.long) for method in TRAINED]
)
def test_the_same_run_gives_the_same_bits(tiny: Compose, method: str, tmp_path: Path) -> None:
    """In the quick tests of lora alone: resumed runs of every method are held against undisturbed ones, bit for bit."""
    _, first = computed(tiny(f"method={method}", f"paths.outputs={tmp_path}/a"))
    _, again = computed(tiny(f"method={method}", f"paths.outputs={tmp_path}/b"))
    assert first["metrics_by_epoch"] == again["metrics_by_epoch"]


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_what_is_trained_is_fp32_and_the_rest_has_the_runs_dtype(tiny: Compose, method: str, dtype: str) -> None:
    model = built(tiny(f"method={method}", f"train.dtype={dtype}"))
    frozen = {p.dtype for p in model.parameters() if not p.requires_grad}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert frozen == (set() if method == "full" else {torch.float32 if dtype == "fp32" else torch.bfloat16})


@pytest.mark.parametrize("method", TRAINED)
def test_the_residual_stream_is_bf16_for_every_method(tiny: Compose, method: str) -> None:
    cfg = tiny(f"method={method}", "train.dtype=bf16")
    model, dtypes = built(cfg), []
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(lambda _, __, output: dtypes.append(output.dtype))
    inputs, _ = encode(resolve(cfg).run, resolve(cfg).settings)["eval"].batch([0, 1], CPU)
    with products(Dtype.bf16, CPU):
        model(**inputs)
    assert {*dtypes} == {torch.bfloat16} and len(dtypes) >= 5


@pytest.mark.parametrize("method", TRAINED)
def test_a_method_trains_what_it_counts_and_nothing_else(tiny: Compose, method: str) -> None:
    targets = ["method.targets=[q,k,v,o]"] if method == "lora" else []
    cfg = tiny(f"method={method}", *targets)
    run, model = resolve(cfg).run, built(cfg)
    count = run.method.count(run.arch)
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert sum(trained.values()) == count.trainable
    assert sum(p.numel() for p in model.parameters()) == count.total
    assert sum(size for name, size in trained.items() if run.arch.is_head(name)) == count.head
    if method == "lora":
        assert sum(isinstance(module, LoRALinear) for module in model.modules()) == 8
        assert {name.rpartition(".")[2] for name in trained if not run.arch.is_head(name)} == {"lora_A", "lora_B"}


def test_the_head_starts_alike_for_all_methods_and_ranks(tiny: Compose) -> None:
    arms = (["method.r=1"], ["method.r=8"], ["method.r=8", "method.targets=[k]"], ["method=full"], ["method=head_only"])
    heads = []
    for arm in arms:
        cfg = tiny(*arm)
        arch = resolve(cfg).run.arch
        heads.append({name: p for name, p in built(cfg).named_parameters() if arch.is_head(name)})
    for head in heads[1:]:
        assert head.keys() == heads[0].keys()
        assert all(torch.equal(head[name], heads[0][name]) for name in head)
    other = dict(built(tiny("seed=1")).named_parameters())
    assert not torch.equal(other["classifier.weight"], heads[0]["classifier.weight"])


def test_lora_starts_as_the_unchanged_model(tiny: Compose) -> None:
    cfg = tiny()
    inputs, _ = encode(resolve(cfg).run, resolve(cfg).settings)["eval"].batch(list(range(8)), CPU)
    with torch.inference_mode():
        ours, plain = (built(each).eval()(**inputs).logits for each in (cfg, tiny("method=head_only")))
    assert torch.equal(ours, plain)


def test_flags_say_what_did_not_move(tiny: Compose) -> None:
    cfg = tiny("method.targets=[q,k,v,o]")
    _, result = computed(cfg)
    assert not result["flags"]["b_zero"] and not result["flags"]["unmoved"]
    model = built(cfg)
    untouched = checks.flags(model, resolve(cfg).run.method, checks.digests(model), 1)
    assert untouched["b_zero"] and untouched["unmoved"]


def test_full_fine_tuning_learns_the_generated_task(tiny: Compose) -> None:
    _, result = computed(tiny("method=full", "task.train_size=400", "train.epochs=4", "task.eval_size=100"))
    assert result["metrics"]["eval/accuracy"] > result["metrics"]["eval/majority"] + 0.2


def test_two_methods_consume_the_same_examples_in_the_same_order(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumed: list[list[str]] = []
    original = Encoded.batch

    def spy(self: Encoded, indices: list[int], device: torch.device) -> object:
        if torch.is_grad_enabled():  # the training loop, not scoring
            consumed[-1] += [self.examples[i].id for i in indices]
        return original(self, indices, device)

    monkeypatch.setattr(Encoded, "batch", spy)
    for arm in (["method.r=1"], ["method=full"], ["method.r=8", "train.dtype=bf16"]):
        consumed.append([])
        run_job(tiny(*arm))
    assert consumed[0] == consumed[1] == consumed[2]
    assert len(consumed[0]) == 2 * 64 and len(set(consumed[0])) == 64
    cfg = tiny()
    split = encode(resolve(cfg).run, resolve(cfg).settings)["train"]
    expected = [i for epoch in (0, 1) for batch in batches(split.lengths.tolist(), 16, 0, epoch) for i in batch]
    assert consumed[0] == [split.examples[i].id for i in expected]


def test_a_frozen_weight_that_changes_stops_the_run(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    original = train.train_epoch

    def tampered(state: train.TrainState, *rest: object) -> None:
        original(state, *rest)  # pyright: ignore
        with torch.no_grad():
            state.model.bert.embeddings.word_embeddings.weight[3, 3] += 1e-6  # pyright: ignore

    monkeypatch.setattr(train, "train_epoch", tampered)
    cfg = tiny()
    with pytest.raises(RunFailedError, match="A frozen weight changed"):
        run_job(cfg)
    record = record_of(cfg)
    assert record.state is State.failed and not (record.folder / "result.json").exists()
    assert "A frozen weight changed" in json.loads((record.folder / "status.json").read_text())["error"]
    assert "Traceback" in (record.folder / "run.log").read_text()


def test_a_wrong_trainable_count_stops_the_run(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    attach = METHODS["lora"].attach

    def too_much(self: object, model: nn.Module, *rest: object) -> None:
        attach(self, model, *rest)  # pyright: ignore
        model.bert.embeddings.LayerNorm.weight.requires_grad_(True)  # pyright: ignore

    monkeypatch.setattr(METHODS["lora"], "attach", too_much)
    with pytest.raises(RunFailedError, match="does not train what the method counts"):
        run_job(tiny())


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(tiny: Compose) -> None:
    cfg = tiny("method=full", "train.learning_rate=1e30", "train.max_grad_norm=null")
    with pytest.raises(RunFailedError, match="diverged: the loss is nan"):
        run_job(cfg)
    record = record_of(cfg)
    assert record.state is State.diverged and record.read().result is None


def test_a_last_step_that_breaks_the_model_ends_the_run_as_diverged(tiny: Compose) -> None:
    overrides = ["train.max_steps=1", "train.warmup_steps=0", "train.learning_rate=1e38", "train.max_grad_norm=null"]
    with pytest.raises(RunFailedError, match="diverged: the loss on eval is nan"):
        run_job(tiny("method=full", *overrides))


def test_max_steps_ends_the_training_and_its_schedule(tiny: Compose) -> None:
    record, _ = computed(tiny("train.max_steps=5", "log.every_steps=1"))
    rows = [json.loads(line) for line in (record.folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5]
    assert [row["lr"] for row in steps] == pytest.approx([0, 0.01, 0.0075, 0.005, 0.0025])
    assert [row["epoch"] for row in rows if "eval/loss" in row] == [1, 2]


def test_a_warm_up_that_is_longer_than_the_run_is_logged_with_the_rate_that_is_reached(
    tiny: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    record, _ = computed(tiny("train.max_steps=4", "train.warmup_steps=8", "log.every_steps=1"))
    rows = [json.loads(line) for line in (record.folder / "metrics.jsonl").read_text().splitlines()]
    assert max(row["lr"] for row in rows if "loss" in row) == pytest.approx(0.00375)
    assert "never reaches train.learning_rate=0.01; the highest rate is 0.00375" in caplog.text


def test_no_weight_decay_on_vectors_and_a_rate_of_its_own_for_the_head(tiny: Compose) -> None:
    cfg = tiny("train.weight_decay=0.1", "train.head_learning_rate=0.5", "method=full")
    resolved = resolve(cfg)
    state = train.start(built(cfg), resolved.run, 64)
    groups = {
        (group["initial_lr"], group["weight_decay"], parameter.dim() > 1)
        for group in state.optimizer.param_groups
        for parameter in group["params"]
    }
    assert groups == {(0.5, 0.1, True), (0.5, 0.0, False), (0.01, 0.1, True), (0.01, 0.0, False)}


def test_loraplus_raises_the_rate_of_the_factor_that_starts_at_zero(tiny: Compose) -> None:
    cfg = tiny("method.loraplus_lr_ratio=16", "method.targets=[q,embed]")
    model = built(cfg)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    state = train.start(model, resolve(cfg).run, 64)
    rates = {names[id(p)]: group["initial_lr"] for group in state.optimizer.param_groups for p in group["params"]}
    for name, rate in rates.items():
        fast = name.endswith("embed.lora_A" if "embed" in name else ".lora_B")
        assert rate == pytest.approx(0.16 if fast else 0.01), name
    assert sum(rate > 0.1 for rate in rates.values()) == 3


def test_the_rate_that_is_logged_is_that_of_the_learning_rate(tiny: Compose) -> None:
    """LoRA+ puts the embedding's A, which learns 16 times as fast, in front of all others."""
    fast = ("method.loraplus_lr_ratio=16", "method.targets=[embed,q]")
    record, _ = computed(tiny(*fast, "train.max_steps=5", "log.every_steps=1"))
    rows = [json.loads(line) for line in (record.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["lr"] for row in rows if "loss" in row] == pytest.approx([0, 0.01, 0.0075, 0.005, 0.0025])


def test_the_mean_loss_that_is_logged_is_the_mean_over_examples(tiny: Compose) -> None:
    each, _ = computed(tiny("log.every_steps=1", "seed=5"))
    rows = [json.loads(line) for line in (each.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    (each.folder / "result.json").unlink()
    rows = [
        json.loads(line) for line in (computed(tiny("seed=5"))[0].folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row["loss"] for row in rows if "loss" in row] == pytest.approx(
        [np.mean(losses[:4]).item(), np.mean(losses[4:]).item()]
    )


def test_merged_equals_unmerged(tiny: Compose) -> None:
    cfg = tiny("method.targets=[q,k,v,o]", "method.alpha=32")
    model = built(cfg).eval()
    random = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, LoRAUpdate):
            module.lora_B.data = torch.randn(module.lora_B.shape, generator=random)
    inputs, _ = encode(resolve(cfg).run, resolve(cfg).settings)["eval"].batch(list(range(8)), CPU)
    with torch.inference_mode():
        before = model(**inputs).logits
        split = encode(resolve(cfg).run, resolve(cfg).settings)["eval"]
        error = checks.merge_max_abs_error(model, resolve(cfg).run.method, split, CPU)
        merge(model)
        after = model(**inputs).logits
    assert not any(isinstance(module, LoRALinear) for module in model.modules())
    assert torch.allclose(before, after, atol=1e-4) and not torch.equal(before, torch.zeros_like(before))
    assert error is not None and 0 < error < 1e-4


def test_a_model_of_which_a_copy_would_take_too_much_memory_is_not_merged_to_be_looked_at(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny()
    model, resolved = built(cfg).eval(), resolve(cfg)
    split = encode(resolved.run, resolved.settings)["eval"]
    weights = sum(parameter.numel() for parameter in model.parameters())
    found = []
    for most in (weights, weights - 1):
        monkeypatch.setattr(checks, "COPIED_UP_TO", most)
        found.append(checks.merge_max_abs_error(model, resolved.run.method, split, CPU))
    assert found[0] is not None and found[1] is None


@pytest.mark.parametrize("eager_up_to", [0, 256])
def test_only_the_first_position_of_the_last_layer_is_exact(
    tiny: Compose, eager_up_to: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_repro.models.load.EAGER_UP_TO", eager_up_to)
    cfg = tiny()
    model = built(cfg).eval()
    attention = "eager" if eager_up_to else "sdpa"
    assert model.config._attn_implementation == (NAME if eager_up_to else "sdpa")  # pyright: ignore
    plain = deepcopy(_template("", *_template_arguments(cfg), attention).model)
    arch = resolve(cfg).run.arch
    plain.load_state_dict({k.replace(".base.", "."): v for k, v in model.state_dict().items() if ".updates." not in k})
    inputs, _ = encode(resolve(cfg).run, resolve(cfg).settings)["eval"].batch(list(range(8)), CPU)
    assert len(set(inputs["attention_mask"].sum(1).tolist())) > 1 and arch.num_layers == 2
    with torch.inference_mode():
        assert torch.allclose(model(**inputs).logits, plain.eval()(**inputs).logits, atol=1e-6)


def _template_arguments(cfg: DictConfig) -> tuple[str, str, float, None, int]:
    run = resolve(cfg).run
    return json.dumps(run.model.config, sort_keys=True), run.model.digest, 0.0, None, 2


def test_the_time_of_training_holds_what_a_gpu_computes_behind_the_last_step(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the loss waits for it: here for five seconds each time. The step that compiles counts for no other.

    Checkpoints, here one after each step, count for none.
    """
    now, begin, item, states = [0.0], train.start, torch.Tensor.item, list[train.TrainState]()

    def start(*arguments: Any) -> train.TrainState:
        states.append(begin(*arguments))
        return states[-1]

    def waits(tensor: torch.Tensor) -> float:
        now[0] += 5.0 * any(tensor is state.loss_sum for state in states)
        return item(tensor)

    clock = SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0])
    monkeypatch.setattr(train, "time", clock)
    monkeypatch.setattr(train, "start", start)
    monkeypatch.setattr(torch.Tensor, "item", waits)
    monkeypatch.setattr(Checkpointer, "write", lambda *_: now.__setitem__(0, now[0] + 100.0))
    record, result = computed(tiny("log.checkpoint_every_s=0"))
    lines = [json.loads(line) for line in (record.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["wall_time_s"] for line in lines if "loss" in line] == [5.0, 10.0]
    assert result["train_seconds"] == result["train_cpu_seconds"] == 10.0
    monkeypatch.setattr(train, "compile_blocks", lambda *arguments: True)
    _, compiled = computed(tiny("log.every_steps=1", "seed=5"))
    assert compiled["train_seconds"] == compiled["train_cpu_seconds"] == 5.0 * 7  # of eight steps
