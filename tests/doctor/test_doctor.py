"""`python -m analysis doctor`: all is well on a tiny job, and each check can fail."""

import fcntl
import shutil
from collections import namedtuple
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import processes
from torch import Tensor, nn
from torch.nn.functional import linear

from lora_repro import doctor
from lora_repro.doctor import Check, Verdict, machine
from lora_repro.methods.lora import layers
from lora_repro.methods.lora.layers import LoRAUpdate
from lora_repro.models import load as models
from lora_repro.models import precision
from lora_repro.tasks.targets import Texts
from lora_repro.tasks.text_metrics import protocols, tools
from lora_repro.tasks.texts import TextConfig
from lora_repro.training import train

TINY = ("model=tiny_bert", "task=generated", "compute.device=cpu", "compute.threads=1")
Patch = pytest.MonkeyPatch
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Gives back the threads that a check has set."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def examine(outputs: Path | str, *arguments: str, only: str = "") -> list[Check]:
    """Makes all checks, or those of the names in `only`."""
    rules = doctor.RULES
    with Patch.context() as patch:
        patch.setattr(doctor, "RULES", [rule for rule in rules if not only or rule.name in only.split(",")])
        checks = list(doctor.examine([*TINY, *arguments], str(outputs)))
    assert checks
    return checks


def check(outputs: Path | str, name: str, *arguments: str) -> Check:
    (one,) = examine(outputs, *arguments, only=name)
    return one


def test_all_is_well_with_a_tiny_job(tmp_path: Path) -> None:
    checks = examine(tmp_path)
    assert [each.name for each in checks] == [rule.name for rule in doctor.RULES]
    assert {each.verdict for each in checks} == {Verdict.ok}, [each.describe() for each in checks]
    assert list(tmp_path.iterdir()) == []
    named = {each.name: each.found for each in checks}
    assert named["targets"] == "tiny_bert: 4 matrices (q, v), 32 x 32"
    assert named["data"].endswith("400 / 100 / 100 examples (train / dev / test)")
    assert "every trained tensor changed, no other did, merged equals unmerged" in named["one step"]
    for each in checks:
        assert "\n" not in each.describe()
        assert each.describe(verbose=True).splitlines()[1:] == [
            f"     protects from: {each.protects}",
            f"     do: {each.remedy}",
        ]
    assert doctor.summary(checks).startswith("13 checks: 13 ok, 0 warnings, 0 failed, in ")


@pytest.mark.parametrize("method", ["full", "head_only"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_step_of_other_methods_works_too(tmp_path: Path, method: str, dtype: str) -> None:
    found = check(tmp_path, "one step", f"method={method}", f"train.dtype={dtype}")
    assert found.verdict is Verdict.ok and found.found.startswith(f"tiny_bert generated {method} {dtype}: loss 0.")


def test_each_kind_of_job_takes_a_step_with_its_largest_r(tmp_path: Path) -> None:
    checks = examine(tmp_path, "method.r=1,4,2", "train.dtype=fp32,bf16", "seed=0,1", only="one step")
    assert [each.found.partition(":")[0] for each in checks] == [
        "tiny_bert generated lora-r4-qv fp32",
        "tiny_bert generated lora-r4-qv bf16",
    ]


def test_missing_weights_are_told_once_with_the_command_that_fetches_them(tmp_path: Path) -> None:
    checks = examine(tmp_path, "model=minilm", f"paths.model={tmp_path}/nowhere", only="weights,data,targets,one step")
    weights, data, targets, step = checks
    assert weights.verdict is Verdict.fail and f"no folder {tmp_path}/nowhere" in weights.found
    assert "python -m lora_repro.fetch minilm" in weights.remedy
    assert data.verdict is Verdict.ok
    for later in (targets, step):
        assert (later.verdict, later.found) == (Verdict.fail, "skipped, because weights failed with the same error")


def test_missing_data_is_told_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    arguments = ("task=movies", f"paths.cache={tmp_path}/nowhere")
    data, step = examine(tmp_path, *arguments, only="data,one step")
    assert data.verdict is Verdict.fail and "no hutto_ICWSM_2014.tar.gz" in data.found
    assert f"python -m lora_repro.fetch movies --cache {tmp_path}/nowhere" in data.remedy
    assert step.found == "skipped, because data failed with the same error"


def test_a_missing_program_of_a_metric_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    assert check(tmp_path, "metrics").found == "generated: accuracy, majority"
    monkeypatch.setattr(TextConfig, "targets", property(lambda config: Texts(*protocols.WEBNLG.declared)))
    monkeypatch.setattr(tools, "_java", lambda: None)
    tools.java_version.cache_clear()
    found = check(tmp_path, "metrics", "model=tiny_llama", "task=reverse")
    tools.java_version.cache_clear()
    assert found.verdict is Verdict.fail and "METEOR: needs Java" in found.found
    assert "apt-get install default-jre-headless" in found.remedy


@pytest.mark.parametrize("store", ["/proc/nothing", "/dev/null", "/dev/null/below"])
def test_a_store_that_cannot_be_written_fails(store: str) -> None:
    found = check(store, "store")
    assert found.verdict is Verdict.fail and "cannot be written" in found.found
    assert "paths.outputs=DIR" in found.remedy


def test_a_store_without_locks_is_a_warning(tmp_path: Path, monkeypatch: Patch) -> None:
    def refuse(file: Any, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    found = check(tmp_path / "new" / "store", "store")
    assert found.verdict is Verdict.warn and "flock is refused (No locks available)" in found.found
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("free", "verdict"), [(2**20, "fail"), (3 * 2**20, "warn"), (2**30, "ok")])
def test_the_free_disk_is_held_against_the_records(tmp_path: Path, monkeypatch: Patch, free: int, verdict: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40 - free, free))
    assert check(tmp_path, "disk").verdict.value == verdict


def test_snapshots_and_full_weights_take_disk(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 0, 6 * 2**20))
    sparse = check(tmp_path, "disk", "method=full")
    many = check(tmp_path, "disk", "method=full", "log.save_full=true", f"log.snapshots={[i / 50 for i in range(51)]}")
    assert (sparse.verdict, many.verdict) == (Verdict.ok, Verdict.fail)


@pytest.mark.parametrize(
    ("free", "verdict"), [(730 * 2**20, "fail"), (743 * 2**20, "warn"), (2**30, "ok"), (None, "ok")]
)
def test_the_free_memory_is_held_against_the_largest_job(
    tmp_path: Path, monkeypatch: Patch, free: int | None, verdict: str
) -> None:
    monkeypatch.setattr(machine, "_free_memory", lambda where: free)
    found = check(tmp_path, "memory", "method.r=2,8")
    assert found.verdict.value == verdict and "tiny_bert lora-r8-qv" in found.found
    assert "where all 16 inputs of a batch have 64 tokens" in found.found


@pytest.mark.parametrize(
    ("wanted", "words"),
    [("torch>=99", "torch is 2"), ("nothing-of-this-name>=1", "nothing-of-this-name is not installed")],
)
def test_packages_that_are_old_or_missing_fail(tmp_path: Path, monkeypatch: Patch, wanted: str, words: str) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: ["numpy>=2.0", wanted, 'absent; extra == "dev"'])
    found = check(tmp_path, "packages")
    assert found.verdict is Verdict.fail and words in found.found and "absent" not in found.found


def test_a_device_that_is_not_there_fails_and_the_rest_goes_on(tmp_path: Path) -> None:
    checks = {each.name: each for each in examine(tmp_path, "compute.device=gpu9")}
    assert checks["device"].verdict is Verdict.fail and "no device 'gpu9'" in checks["device"].found
    assert checks["device"].remedy == "Use auto, cpu, cuda or cuda:N."
    assert checks["one step"].found == "skipped, because device failed with the same error"
    assert checks["data"].verdict is checks["store"].verdict is Verdict.ok


def test_more_threads_than_cores_are_a_warning(tmp_path: Path) -> None:
    found = check(tmp_path, "device", "compute.threads=512")
    assert found.verdict is Verdict.warn and "512 threads of " in found.found


@pytest.mark.parametrize(
    ("dtype", "native", "verdict"), [("bf16", False, "warn"), ("bf16", True, "ok"), ("fp32", False, "ok")]
)
def test_bf16_that_is_not_native_is_a_warning_where_jobs_use_it(
    tmp_path: Path, monkeypatch: Patch, dtype: str, native: bool, verdict: str
) -> None:
    monkeypatch.setattr(precision, "has_fast_bf16", lambda where: native)
    found = check(tmp_path, "speeds", f"train.dtype={dtype}")
    assert found.verdict.value == verdict and "width 1024: fp32 " in found.found and "width 32: " in found.found


def test_a_sweep_that_does_not_compose_fails_and_the_machine_is_examined_all_the_same(tmp_path: Path) -> None:
    checks = {each.name: each for each in examine(tmp_path, "method.r=1,99")}
    assert checks["jobs"].verdict is Verdict.fail and "method.r: must be from 1 to 32" in checks["jobs"].found
    assert "method.r=99" in checks["jobs"].remedy
    assert checks["store"].verdict is checks["packages"].verdict is Verdict.ok
    assert "one step" not in checks


def test_a_choice_that_does_not_exist_is_told_in_words(tmp_path: Path) -> None:
    found = check(tmp_path, "jobs", "task=moveis")
    assert found.verdict is Verdict.fail and "there is no 'moveis'" in found.found and "Choices" in found.remedy


def test_a_sweep_that_is_planned_for_later_is_a_warning(tmp_path: Path) -> None:
    (found,) = [
        each for each in doctor.examine(["+sweeps=margin", "scale=paper"], str(tmp_path)) if each.name == "jobs"
    ]
    assert found.verdict is Verdict.warn and found.found.startswith("0 composed, 4 planned: ")


def test_a_warm_up_that_is_longer_than_the_run_is_a_warning_with_the_rate_that_is_reached(tmp_path: Path) -> None:
    found = check(tmp_path, "jobs", "train.max_steps=4", "train.learning_rate=0.01", "train.warmup_steps=4,8,3")
    assert found.verdict is Verdict.warn and found.found.startswith("3 composed, 2 with a warm-up that is too long")
    words = "train.warmup_steps=4: a run of 4 steps never reaches train.learning_rate=0.01; the highest rate is 0.0075."
    assert found.remedy.startswith(words) and "give train.warmup_steps=null and train.warmup_ratio" in found.remedy


def test_targets_of_another_shape_or_name_fail(tmp_path: Path, monkeypatch: Patch) -> None:
    real = models.load_model

    def load(*arguments: Any) -> nn.Module:
        model = real(*arguments)
        attention: Any = model.get_submodule("bert.encoder.layer.0.attention.self")
        attention.query, attention.val = nn.Linear(32, 16), attention.value
        del attention.value
        return model

    monkeypatch.setattr(models, "load_model", load)
    found = check(tmp_path, "targets")
    assert found.verdict is Verdict.fail and found.found.startswith("2 of 4 matrices are not in tiny_bert")
    assert "first bert.encoder.layer.0.attention.self.query (32 x 32)" in found.found


def test_b_that_does_not_move_fails(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(layers, "multiply", lambda x, linears: [linear(x, *linears[0][:2])])
    found = check(tmp_path, "one step")
    assert found.verdict is Verdict.fail and "4 of 12 trained tensors do not move, first bert" in found.found
    assert "lora_B" in found.found


def test_an_optimizer_that_forgets_the_head_fails(tmp_path: Path, monkeypatch: Patch) -> None:
    real = train.start

    def start(*arguments: Any) -> train.TrainState:
        state = real(*arguments)
        groups: list[dict[str, Any]] = state.optimizer.param_groups
        groups[0]["params"] = [parameter for parameter in groups[0]["params"] if parameter.shape != (2, 32)]
        return state

    monkeypatch.setattr(train, "start", start)
    found = check(tmp_path, "one step")
    assert found.verdict is Verdict.fail and "1 of 12 trained tensors do not move, first classifier" in found.found


def test_a_frozen_weight_that_moves_fails(tmp_path: Path, monkeypatch: Patch) -> None:
    real = train.start

    def start(model: nn.Module, *arguments: Any) -> train.TrainState:
        next(parameter for parameter in model.parameters() if not parameter.requires_grad).data += 1
        return real(model, *arguments)

    monkeypatch.setattr(train, "start", start)
    found = check(tmp_path, "one step")
    assert found.verdict is Verdict.fail and "A frozen weight changed" in found.found


def test_a_merge_of_the_wrong_scale_fails(tmp_path: Path, monkeypatch: Patch) -> None:
    def delta_W(self: Any) -> Tensor:
        return 1.1 * self.scaling * (self.lora_B @ self.lora_A)

    monkeypatch.setattr(LoRAUpdate, "delta_W", delta_W)
    found = check(tmp_path, "one step")
    assert found.verdict is Verdict.fail and "merged and unmerged differ by " in found.found


def test_a_loss_that_is_not_finite_fails(tmp_path: Path, monkeypatch: Patch) -> None:
    real = train.build

    def build(*arguments: Any) -> nn.Module:
        model = real(*arguments)
        model.get_submodule("classifier").register_parameter("bias", nn.Parameter(torch.tensor([0.0, torch.nan])))
        return model

    monkeypatch.setattr(train, "build", build)
    found = check(tmp_path, "one step")
    assert found.verdict is Verdict.fail and found.found.endswith("the loss is nan")


def test_a_check_that_crashes_is_a_failure_and_the_others_go_on(tmp_path: Path, monkeypatch: Patch) -> None:
    def crash(*arguments: Any) -> None:
        raise RuntimeError("out of luck\nand more")

    monkeypatch.setattr(train, "build", crash)
    targets, step, tracker = examine(tmp_path, only="targets,one step,tracker")
    assert (step.verdict, step.found) == (Verdict.fail, "RuntimeError: out of luck")
    assert targets.verdict is tracker.verdict is Verdict.ok


def test_mirroring_online_needs_a_key(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "https://tracker.example")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    found = check(tmp_path, "tracker", "log.wandb=online")
    assert (found.verdict, found.found) == (Verdict.fail, "online, no key for tracker.example")
    assert "wandb login" in found.remedy
    for mode in ("offline", "off"):
        assert check(tmp_path, "tracker", f"log.wandb={mode}").verdict is Verdict.ok
    (tmp_path / "netrc").write_text("machine tracker.example\n  login user\n  password made-up\n")
    assert check(tmp_path, "tracker", "log.wandb=online").verdict is Verdict.ok
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "made-up")
    assert check(tmp_path, "tracker", "log.wandb=online").verdict is Verdict.ok


def test_a_tracker_that_is_not_installed_fails(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    found = check(tmp_path, "tracker", "log.wandb=offline", "log.tracker=trackio")
    assert (found.verdict, found.found) == (Verdict.fail, "trackio is not installed")
    assert "pip install trackio" in found.remedy


def run(*arguments: str) -> processes.Done:
    return processes.run(["analysis", "doctor", *arguments])


def test_the_command_line_ends_well_when_all_is_well(tmp_path: Path) -> None:
    done = run(*TINY, "--runs", str(tmp_path), "--verbose")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    assert len(lines) == 3 * len(doctor.RULES)
    assert lines[0].startswith("ok   packages  ") and lines[1].startswith("     protects from: ")
    assert last.startswith("13 checks: 13 ok, 0 warnings, 0 failed, in ")


def test_the_command_line_ends_with_an_error_when_a_check_fails() -> None:
    done = run(*TINY, "paths.outputs=/dev/null")
    assert (done.returncode, done.stderr) == (1, ""), done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith("fail store     /dev/null cannot be written")]
    assert lines[at + 1].startswith("     protects from: ") and lines[at + 2].startswith("     do: ")
    assert last.startswith("13 checks: 12 ok, 0 warnings, 1 failed, in ")
