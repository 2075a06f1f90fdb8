"""A method that nothing knows but its own class and the registry: it trains, resumes, saves, scores, merges, counts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers.computed_runs import computed, record_of
from helpers.fixture_types import Compose
from helpers.local_models import words_tokenizer, write
from hydra.core.config_store import ConfigStore
from safetensors.torch import load_file, save_file
from torch import nn

from analysis.adapters import read
from analysis.adapters.base import Options
from lora_repro import interrupt
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.doctor.base import Subject, Verdict
from lora_repro.doctor.jobs import one_step
from lora_repro.errors import InputError
from lora_repro.methods import METHODS, Count, MethodConfig
from lora_repro.methods.base import Tensors
from lora_repro.models.arch import Arch, Site
from lora_repro.store.digests import as_written, trained_files
from lora_repro.store.finished_runs import run_of
from lora_repro.store.tensors import Saved, read_tensors
from lora_repro.sweep.grid import Job
from lora_repro.tasks.encoding import encode
from lora_repro.training.checks import merge_max_abs_error
from lora_repro.training.job import run_job
from lora_repro.training.train import build

CPU = torch.device("cpu")


@dataclass
class ScaleConfig(MethodConfig):
    """Multiplies the output of W_o in each block by a trained number that starts at one."""

    why_not_merged: ClassVar[str | None] = None

    def sites(self, arch: Arch) -> list[Site]:
        return arch.select(["o"])

    def count(self, arch: Arch) -> Count:
        by_module = {site.name: 1 for site in self.sites(arch)}
        return Count(len(by_module), arch.head_size, arch.size() + len(by_module), by_module)

    def attach(self, model: nn.Module, arch: Arch, seed: int) -> None:
        for site in self.sites(arch):
            layer = model.get_submodule(site.module)
            layer.register_parameter("scale", nn.Parameter(torch.ones(())))
            layer.register_forward_hook(_scaled)

    def merge(self, model: nn.Module) -> None:
        for layer in model.modules():
            if isinstance(scale := layer._parameters.pop("scale", None), nn.Parameter):
                layer._forward_hooks.clear()
                for parameter in layer.parameters():
                    parameter.data *= scale.data

    def delta_W(self, site: Site, after: Tensors, before: Tensors) -> np.ndarray:
        return (after(f"{site.module}.scale") - 1) * site.matrix_in(before(f"{site.module}.weight"))


def _scaled(layer: nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
    return layer.scale * output  # pyright: ignore[reportOperatorIssue]


@dataclass
class PromptConfig(MethodConfig):
    """Puts trained vectors in front of a decoder's input, as prefix tuning does, and takes them off its states."""

    tokens: int = 3

    @property
    def added_tokens(self) -> int:
        return self.tokens

    def count(self, arch: Arch) -> Count:
        added = self.tokens * arch.d_model
        return Count(added, arch.head_size, arch.size() + added, {"prompt": added})

    def attach(self, model: nn.Module, arch: Arch, seed: int) -> None:
        body = model.base_model
        assert isinstance(body, nn.Module)
        model.prompt = nn.Parameter(torch.full((self.tokens, arch.d_model), 0.01))

        def put_in(_: object, args: tuple[torch.Tensor, ...], given: dict[str, torch.Tensor]) -> tuple[tuple[()], dict]:
            tokens, mask = args[0] if args else given.pop("input_ids"), given["attention_mask"]
            table = body.get_input_embeddings()(tokens)  # pyright: ignore[reportCallIssue]
            front = model.prompt.to(table.dtype).expand(len(tokens), -1, -1)  # pyright: ignore
            given["inputs_embeds"] = torch.cat([front, table], 1)
            given["attention_mask"] = torch.cat([mask.new_ones(len(tokens), self.tokens), mask], 1)
            return (), given

        def take_off(_: object, __: object, output: Any) -> Any:
            output.last_hidden_state = output.last_hidden_state[:, self.tokens :]
            return output

        body.register_forward_pre_hook(put_in, with_kwargs=True)
        body.register_forward_hook(take_off)


@dataclass
class ApartConfig(ScaleConfig):
    """The same with files of its own, in a folder of its own, and only where they are asked for."""

    folder: ClassVar[str] = "mine"
    is_saved_on_request: ClassVar[bool] = True

    def write(self, tensors: Mapping[str, torch.Tensor], arch: Arch, folder: Path, base: str | None) -> list[Path]:
        (folder / "about.txt").write_text("a number for each block")
        save_file(dict(tensors), folder / "own.safetensors")
        return [folder / "about.txt", folder / "own.safetensors"]

    def read(self, arch: Arch, folder: Path) -> Saved:
        path = folder / "own.safetensors"
        return Saved(read_tensors(path), path, (path,))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a new method takes beside its class: a line of the registry, and its file in conf/method."""
    store = ConfigStore.instance()
    for name, method in (toys := {"scale": ScaleConfig, "prompt": PromptConfig, "apart": ApartConfig}).items():
        monkeypatch.setitem(METHODS, name, method)
        store.store(group="method", name=name, node=method(name=name))
    yield
    for name in toys:
        del store.repo["method"][f"{name}.yaml"]


def test_a_method_that_defines_attach_is_trained_and_counted(tiny: Compose) -> None:
    assert {"scale", "prompt"} <= METHODS.keys()
    record, result = computed(tiny("method=scale"))
    assert record.run_id.startswith("tiny_bert-generated-scale-s0-")
    assert result["params"]["method"] == 2 and result["params"]["by_module"] == {"layers.0.o": 1, "layers.1.o": 1}
    assert result["flags"] | {"one_class": False} == {
        "untrained": False, "unmoved": False, "b_zero": False, "one_class": False,
    }  # fmt: skip
    assert isinstance(run_of(result).method, ScaleConfig)
    saved = load_file(record.folder / "trained.safetensors")
    scales = [value.item() for name, value in saved.items() if name.endswith(".scale")]
    assert len(scales) == 2 and all(scale != 1 for scale in scales)
    assert {name for name in saved if not name.endswith(".scale")} == {
        "bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias",
    }  # fmt: skip


@pytest.mark.parametrize("method", ["scale", "bitfit", "ft_top2"])
def test_a_run_that_starts_from_anothers_files_scores_as_it_did(tiny: Compose, method: str) -> None:
    record, result = computed(tiny(f"method={method}"))
    _, again = computed(tiny(f"method={method}", "train.epochs=0", f"train.init_from={record.run_id}"))
    assert again["metrics"] == result["metrics"] and again["flags"]["untrained"]


def test_files_of_a_methods_own_are_asked_for_named_and_guarded(tiny: Compose) -> None:
    record, result = computed(tiny("method=apart"))
    asked = ("method=apart", "log.save_full=true")
    assert list(result["digests"]) == ["predictions.parquet"]
    assert record.missing_outputs(resolve(tiny(*asked)).settings.log, ApartConfig("apart")) == ["mine"]
    record, result = computed(tiny(*asked, "log.rebuild=true"))
    assert list(result["digests"]) == ["predictions.parquet", "mine/about.txt", "mine/own.safetensors"]
    path = record.folder / "mine" / "own.safetensors"
    assert path in trained_files(record.folder, result)
    start = ("method=apart", "train.epochs=0")
    _, again = computed(tiny(*start, f"train.init_from={path.parent}"))
    assert again["metrics"] == result["metrics"] and again["config"]["train"]["init_from"] == record.run_id
    save_file({name: 0 * tensor for name, tensor in load_file(path).items()}, path)
    with pytest.raises(InputError, match=r"mine/own\.safetensors: was changed after the run wrote it"):
        build(resolve(tiny(*start, f"train.init_from={record.run_id}")), CPU)
    path.rename(path.with_name("another.safetensors"))
    assert record.missing_outputs(resolve(tiny(*asked)).settings.log, ApartConfig("apart")) == ["mine/own.safetensors"]
    with pytest.raises(InputError, match="none of the files that the run wrote"):
        as_written(path.with_name("another.safetensors"))


def test_nothing_is_written_through_a_link_in_the_place_of_a_methods_folder(tiny: Compose, tmp_path: Path) -> None:
    cfg = tiny("method=apart", "log.save_full=true")
    folder = record_of(cfg).folder
    folder.mkdir(parents=True)
    (folder / "mine").symlink_to(tmp_path)
    with pytest.raises(InputError, match="left as it is"):
        run_job(cfg)
    assert not (tmp_path / "own.safetensors").exists()


def test_a_method_is_resumed_after_it_was_stopped(
    tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = ["method=scale", "log.checkpoint_every_s=0"]
    _, whole = computed(tiny(*same, f"paths.outputs={tmp_path}/whole"))
    cfg, calls = tiny(*same, f"paths.outputs={tmp_path}/cut"), iter(range(100))

    def stop() -> None:
        if next(calls) == 3:
            raise interrupt.AskedToEndError

    with monkeypatch.context() as patched:
        patched.setattr(interrupt, "refuse_to_go_on", stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(cfg)
    assert any(tmp_path.glob("cut/runs/*/checkpoint/*"))
    _, resumed = computed(cfg)
    assert resumed["metrics_by_epoch"] == whole["metrics_by_epoch"]


@pytest.mark.parametrize("method", ["scale", "lora", "ft_top2", "full"])
def test_dW_is_what_training_and_merging_add_to_a_matrix(tiny: Compose, method: str) -> None:
    record, result = computed(tiny(f"method={method}", "train.learning_rate=0.1", "log.save_full=true"))
    resolved = resolve(tiny(f"method={method}", "train.epochs=0", f"train.init_from={record.run_id}"))
    run, model = resolved.run, build(resolved, CPU)
    before = {name: p.detach().numpy() for name, p in build(resolve(tiny("method=head_only")), CPU).named_parameters()}
    after = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    if run.method.why_not_merged is None:
        assert result["merge_max_abs_error"] < 1e-4  # of a tiny model's four examples it may be 0: of more it is not
        examples = encode(run, resolved.settings)["eval"]
        error = merge_max_abs_error(model, run.method, examples, CPU, len(examples.examples))
        assert error is not None and 0 < error < 1e-4
        run.method.merge(model)
    else:
        assert result["merge_max_abs_error"] is None
    sites = run.method.sites(run.arch)
    assert len(sites) == {"scale": 2, "lora": 4, "ft_top2": 12, "full": 13}[method]
    for site in sites:
        dW = run.method.delta_W(site, after.__getitem__, before.__getitem__)
        merged = site.matrix_in(model.get_parameter(f"{site.module}.weight").detach().numpy())
        assert np.allclose(merged - site.matrix_in(before[f"{site.module}.weight"]), dW, atol=1e-6) and dW.any()


@pytest.mark.parametrize("method", ["scale", "bitfit", "ft_top2"])
def test_doctor_takes_a_step_of_any_method(tiny: Compose, method: str) -> None:
    resolved = resolve(tiny(f"method={method}", "train.dtype=bf16"))
    *_, examine = one_step
    found = examine(Subject([Job([], run_id(resolved.run), resolved, {})], InputError(""), resolved.settings))
    assert found.verdict is Verdict.ok, found


@pytest.mark.parametrize("form", ["label", "text"])
def test_tokens_in_front_of_the_input_are_masked_in_and_taken_off(tiny: Compose, form: str) -> None:
    cfg = tiny("model=tiny_llama", "method=prompt", f"task.form={form}", "train.batch_size=8")
    record, result = computed(cfg)
    assert result["params"]["method"] == 3 * resolve(cfg).run.arch.d_model and not result["flags"]["unmoved"]
    _, one_by_one = computed(
        tiny(
            *("model=tiny_llama", "method=prompt", f"task.form={form}", "train.batch_size=1"),
            *("train.epochs=0", f"train.init_from={record.run_id}"),
        )
    )
    for key in ("eval/loss", "test/loss"):  # padding beside an example changes nothing
        assert one_by_one["metrics"][key] == pytest.approx(result["metrics"][key], abs=1e-5)


def test_added_tokens_leave_less_room_for_the_input(tiny: Compose) -> None:
    longest = resolve(tiny("model=tiny_llama", "method=head_only")).run.arch.max_length
    resolve(tiny("model=tiny_llama", "method=prompt", f"train.max_length={longest - 3}"))
    with pytest.raises(InputError, match=rf"max_length: must be from 3 to {longest - 3} tokens"):
        resolve(tiny("model=tiny_llama", "method=prompt", f"train.max_length={longest - 2}"))


def test_what_a_method_changed_can_be_looked_at(tiny: Compose, tmp_path: Path) -> None:
    base = write(tmp_path / "base", "bert", words_tokenizer(pad_token="<unk>"), max_position_embeddings=80)
    local = ("model=local", f"paths.model={base}", "preset@train=tiny_bert", "train.learning_rate=0.1")
    record, _ = computed(tiny("method=scale", *local))
    saved, W = load_file(record.folder / "trained.safetensors"), load_file(base / "model.safetensors")
    found = {matrix.name: matrix.read() for matrix in read(str(record.folder), Options(base=str(base))).matrices}
    assert len(found) == 2
    for layer in (0, 1):
        module = f"bert.encoder.layer.{layer}.attention.output.dense"
        dW = (saved[f"{module}.scale"] - 1) * W[f"{module}.weight"]
        A, B, scaling, *_ = found[f"layer {layer}, o"]
        assert scaling is not None and np.allclose(scaling * B @ A, dW.numpy(), atol=1e-6)
