"""`python -m analysis diff RUN RUN`: on hand-made records with hand-computed answers, and on real tiny runs."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_runs import PROVENANCE, job, write_run
from omegaconf import DictConfig
from safetensors.numpy import save_file

from analysis.diff import COLUMNS, Difference, Kind, Recorded, differences, recorded
from analysis.render.differences import verdict
from lora_repro.errors import InputError
from lora_repro.training.job import run_job

A, B = (f"base_model.model.bert.encoder.layer.{{}}.attention.self.query.lora_{role}.weight" for role in "AB")
LOSSES = {25: 0.7, 50: 0.6, 75: 0.5}


def write(
    store: Path,
    r: int = 1,
    losses: dict[int, float] = LOSSES,
    scores: Sequence[Sequence[float]] = ((0.25, 0.5), (1.0, -1.0)),
    lora_B: Sequence[float] = (0.0, 0.5),
    epochs: Sequence[tuple[float, float]] = ((0.5, 0.5), (0.8, 0.7)),
    **more: Any,
) -> Path:
    """Writes a run with all its files: two dev examples, and A and B in two layers."""
    folder = write_run(store, job("q", r, 0), epochs, **more)
    lines = [{"step": step, "epoch": 1, "loss": loss, "wall_time_s": time.time()} for step, loss in losses.items()]
    lines.append({"step": 75, "epoch": 1, "eval/accuracy": 0.5})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [
        {"split": "eval", "epoch": epoch, "id": f"e{i}", "label": 0, "prediction": int(s[1] > s[0]), "scores": list(s)}
        for epoch, epoch_scores in ((1, ((0.0, 0.0), (0.0, 0.0))), (2, scores))
        for i, s in enumerate(epoch_scores)
    ]
    pd.DataFrame(rows).to_parquet(folder / "predictions.parquet")
    (folder / "adapter").mkdir()
    tensors = {A.format(layer): np.ones((1, 2), np.float32) for layer in (0, 1)}
    tensors |= {B.format(layer): np.array([[value]], np.float32) for layer, value in enumerate(lora_B)}
    save_file(tensors, folder / "adapter" / "adapter_model.safetensors")
    return folder


def compared(tmp_path: Path, **second: Any) -> tuple[list[Difference], str]:
    """Returns the differences, and the sentence, of a run and one that is written otherwise."""
    runs = recorded(str(write(tmp_path / "a")), ""), recorded(str(write(tmp_path / "b", **second)), "")
    found = differences(*runs)
    return found, verdict(*runs, found)


def test_the_same_bits_are_equal_whatever_time_they_took(tmp_path: Path) -> None:
    found, sentence = compared(tmp_path, run_seconds=99.0, peak_memory_gib=1.5)
    assert found == [
        Difference("peak_memory_gib", None, 1.5, Kind.other),
        Difference("run_seconds", 2.0, 99.0, Kind.other),
    ]
    assert sentence == "Bit-equal: metrics, predictions and weights."


def test_threads_are_named_as_the_reason(tmp_path: Path) -> None:
    found, sentence = compared(
        tmp_path,
        provenance=PROVENANCE | {"threads": 1},
        losses=LOSSES | {50: 0.61, 75: 0.49},
        scores=((0.25, 0.125), (1.0, -1.25)),
        lora_B=(0.25, 0.0),
        epochs=((0.5, 0.5), (0.8, 0.6)),
    )
    kernel = "bert.encoder.layer.*.attention.self.query.lora_B.weight"
    assert found == [
        Difference("threads", 2, 1, Kind.provenance),
        Difference("loss at step 50", 0.6, 0.61, Kind.result),
        Difference("test/accuracy after epoch 2", 0.7, 0.6, Kind.result),
        Difference("eval: predictions that differ, of 2", None, 1, Kind.result),
        Difference("eval: largest difference of a score", None, 0.375, Kind.result),
        Difference(f"largest difference of {kernel}", None, 0.5, Kind.result),
    ]
    assert sentence == (
        "They differ in threads (2, 1): products are summed in another order; first seen in loss at step 50."
    )


def test_the_likeliest_reason_comes_first(tmp_path: Path) -> None:
    provenance = PROVENANCE | {"commit": "another", "device_class": "another CPU", "unheard_of": 1}
    _, sentence = compared(tmp_path, provenance=provenance, lora_B=(0.0, 0.6))
    assert sentence.startswith("They differ in device_class (a CPU, another CPU), commit (0123456789abcdef, another), ")
    assert "unheard_of (null, 1): other hardware sums and rounds in another order; first seen in largest" in sentence


def test_a_variable_that_chose_other_kernels_is_named(tmp_path: Path) -> None:
    provenance = PROVENANCE | {"settings": {"ONEDNN_MAX_CPU_ISA": "AVX2"}}
    _, sentence = compared(tmp_path, provenance=provenance, lora_B=(0.0, 0.6))
    assert sentence.startswith("They differ in settings.ONEDNN_MAX_CPU_ISA (null, AVX2): a variable of the environment")


def test_equal_results_with_other_provenance_are_equal(tmp_path: Path) -> None:
    _, sentence = compared(tmp_path, provenance=PROVENANCE | {"versions": {"torch": "2.14.0"}})
    assert sentence == (
        "Bit-equal: metrics, predictions and weights, although they differ in versions.torch (2.13.0, 2.14.0)."
    )


def test_a_difference_that_nothing_explains_is_told_as_such(tmp_path: Path) -> None:
    _, sentence = compared(tmp_path, flags={"one_class": True, "b_zero": False, "untrained": False})
    assert sentence.startswith("They differ first in flags.one_class, and nothing recorded says why")
    dirty = PROVENANCE | {"dirty": True}
    runs = [
        recorded(str(write(tmp_path / store, provenance=dirty, losses={25: loss})), "")
        for store, loss in (("c", 0.7), ("d", 0.8))
    ]
    sentence = verdict(runs[0], runs[1], differences(runs[0], runs[1]))
    assert sentence.startswith("They differ first in loss at step 25, and both ran code that no commit holds")


def test_another_configuration_makes_another_run(tmp_path: Path) -> None:
    found, sentence = compared(tmp_path, r=2, scores=((0.0, 0.0), (0.0, 0.0)))
    assert found[0] == Difference("method.r", 1, 2, Kind.configuration)
    assert sentence == "Different configurations: method.r 1 | 2."


def test_losses_are_compared_over_the_same_steps_only(tmp_path: Path) -> None:
    found, sentence = compared(tmp_path, losses={50: 0.65, 75: 0.5})
    assert (found, sentence) == ([], "Bit-equal: metrics, predictions and weights.")
    assert recorded(str(tmp_path / "b" / "runs" / job("q", 1, 0).run_id), "").losses == {(0, 50): 0.65, (50, 75): 0.5}


def test_scores_of_epochs_that_other_examples_chose_are_results(tmp_path: Path) -> None:
    found, sentence = compared(tmp_path, cross_fitted={"accuracy": 0.75})
    assert found == [Difference("cross_fitted.accuracy", None, 0.75, Kind.result)]
    assert not sentence.startswith("Bit-equal")


def test_minus_zero_is_another_weight(tmp_path: Path) -> None:
    found, _ = compared(tmp_path, lora_B=(-0.0, 0.5))
    assert [(each.first, each.second) for each in found] == [(None, 0.0)]


def test_what_is_not_saved_is_not_called_equal(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    (second / "adapter" / "adapter_model.safetensors").unlink()
    runs: list[Recorded] = [recorded(str(folder), "") for folder in (first, second)]
    assert verdict(runs[0], runs[1], differences(*runs)) == (
        "Bit-equal: metrics and predictions (weights not saved by both)."
    )
    for folder in (first, second):
        (folder / "predictions.parquet").unlink()
    runs = [recorded(str(folder), "") for folder in (first, second)]
    assert verdict(runs[0], runs[1], []) == "Bit-equal: metrics (predictions and weights not saved by both)."


def test_of_nothing_nothing_is_equal(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    for folder in (first, second):
        pd.DataFrame({name: [] for name in COLUMNS}).to_parquet(folder / "predictions.parquet")
        save_file({}, folder / "adapter" / "adapter_model.safetensors")
    runs = [recorded(str(folder), "") for folder in (first, second)]
    assert verdict(runs[0], runs[1], differences(runs[0], runs[1])) == (
        "Bit-equal: metrics (predictions and weights not saved by both)."
    )


def test_a_split_that_one_run_alone_has_predicted_is_a_difference(tmp_path: Path) -> None:
    a = recorded(str(write(tmp_path / "a")), "")
    assert a.predictions is not None
    more = pd.concat([a.predictions, a.predictions.assign(split="test")])
    found = differences(a, a._replace(predictions=more))
    assert found == [Difference("test: predictions of one run only", None, 2, Kind.result)]


def test_the_same_bytes_of_another_type_are_other_weights(tmp_path: Path) -> None:
    a = recorded(str(write(tmp_path / "a")), "")
    assert a.tensors is not None
    other = {name: tensor.view(np.int32) if "lora_A" in name else tensor for name, tensor in a.tensors.items()}
    (found,) = differences(a, a._replace(tensors=other))
    assert "lora_A.weight" in found.key and found.second == np.float32(1).view(np.int32) - 1


def test_other_examples_and_other_tensors_are_counted(tmp_path: Path) -> None:
    a = recorded(str(write(tmp_path / "a")), "")
    assert a.predictions is not None and a.tensors is not None
    fewer = a._replace(predictions=a.predictions[a.predictions["id"] != "e1"], tensors={A.format(0): np.ones((2, 2))})
    assert differences(a, fewer) == [
        Difference("eval: other examples or outputs", 2, 1, Kind.result),
        Difference("tensors of a name or shape that the other lacks", 4, 1, Kind.result),
    ]


def test_a_run_is_found_by_its_id_and_printed_as_a_table(tmp_path: Path, capsys: Captured) -> None:
    write(tmp_path / "a")
    write(tmp_path / "a", r=2)
    first, second = (job("q", r, 0).run_id for r in (1, 2))
    code, out, err = call(capsys, "diff", first, second, "--runs", str(tmp_path / "a"))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{first} | {second}"
    assert lines[2].split() == ["|", "key", "|", "first", "|", "second", "|"]
    assert lines[4].split() == ["|", "method.r", "|", "1", "|", "2", "|"]
    assert lines[-1] == "Different configurations: method.r 1 | 2."


def test_times_are_listed_separately_and_json_is_a_list(tmp_path: Path, capsys: Captured) -> None:
    runs = [str(write(tmp_path / "a")), str(write(tmp_path / "b", run_seconds=3.5, lora_B=(0.0, 0.75)))]
    _, out, _ = call(capsys, "diff", *runs)
    results, apart = out.split("Times and memory:")
    assert "run_seconds" not in results and "lora_B.weight |" in results
    assert "| run_seconds | 2.0   | 3.5    |" in apart
    code, out, err = call(capsys, "diff", *runs, "--format", "json")
    assert code == 0 and err.startswith("They differ first in ")
    assert json.loads(out)[-1] == {"key": "run_seconds", "first": 2.0, "second": 3.5, "kind": "circumstance"}


def test_a_missing_run_is_refused_with_the_nearest(tmp_path: Path, capsys: Captured) -> None:
    run_id = write(tmp_path / "a").name
    code, out, err = call(capsys, "diff", run_id, f"{run_id[:-1]}x", "--runs", str(tmp_path / "a"))
    assert (code, out) == (1, "")
    assert f"Did you mean '{run_id}'?" in err and "--runs DIR" in err


def test_an_unfinished_run_is_refused(tmp_path: Path, capsys: Captured) -> None:
    folder = write(tmp_path / "a")
    (folder / "result.json").unlink()
    code, out, err = call(capsys, "diff", str(folder), str(folder))
    assert (code, out) == (1, "") and "the run is not finished" in err and "Compute it first" in err


@pytest.mark.parametrize("content", [b"{", b'{"step": 1, "loss"', b'{"loss": 1}'])
@pytest.mark.parametrize(
    "name", ["result.json", "metrics.jsonl", "predictions.parquet", "adapter/adapter_model.safetensors"]
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    folder = write(tmp_path / "a")
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name.rpartition('/')[2]}.* (is damaged|does not count)") as error:
        recorded(str(folder), "")
    assert "ompute" in str(error.value).splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["one"], "RUN"), (["one", "two", "three"], "takes two runs"), (["one", "two", "seed=1"], "takes two runs")],
)
def test_two_runs_are_asked_for_and_nothing_else(capsys: Captured, arguments: list[str], words: str) -> None:
    code, out, err = call(capsys, "diff", *arguments)
    assert code != 0 and out == "" and words in err and "Traceback" not in err


def test_two_runs_are_compared_without_torch(tmp_path: Path) -> None:
    program = "import sys; sys.modules['torch'] = None; from analysis.__main__ import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "diff", *[str(write(tmp_path / store)) for store in ("a", "b")]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "Bit-equal: metrics, predictions and weights."


@pytest.fixture
def threads() -> Iterator[None]:
    """Gives back the threads that a run has set."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_run_computed_twice_is_bit_equal_and_threads_are_recorded(
    tiny: Callable[..., DictConfig], tmp_path: Path, capsys: Captured
) -> None:
    folders = []
    for store, number in (("one", 1), ("same", 1), ("two", 2)):
        run_job(tiny(f"paths.outputs={tmp_path / store}", f"compute.threads={number}"))
        folders += [str(folder) for folder in (tmp_path / store / "runs").iterdir()]
    code, out, _ = call(capsys, "diff", folders[0], folders[1])
    assert code == 0 and out.splitlines()[-1] == "Bit-equal: metrics, predictions and weights."
    code, out, _ = call(capsys, "diff", folders[0], folders[2])
    assert code == 0 and "differ in threads (1, 2)" in out.splitlines()[-1]
