"""The benchmark of the training speed: equal work on every side, and a table that says what was measured."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lora_repro.bench import speed, window
from lora_repro.bench.sides import SIDES, adapters, peft_loop, trainer
from lora_repro.bench.window import Clock, Found, Work, resolve_case, sample, train_window, write_weights
from lora_repro.errors import InputError
from lora_repro.tasks.batches import batches, padded_length
from lora_repro.tasks.encoding import Encoded, encode

CPU = torch.device("cpu")
FOREIGN = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
"""What transformers' Trainer and PEFT warn of."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes the weights of a tiny model, once."""

    @cache
    def written(model: str) -> Path:
        folder = tmp_path_factory.mktemp(model)
        write_weights(resolve_case(model, ["task=generated"]), folder)
        return folder

    return written


def found_by(side: str, model: str, method: str, weights: Callable[[str], Path]) -> Found:
    resolved = resolve_case(
        model,
        ["task=generated", f"method={method}", "compute.device=cpu", "compute.threads=1", "train.learning_rate=1e-3"],
    )
    return train_window(side, resolved, weights(model), seconds=0.0, count=2)


@FOREIGN
@pytest.mark.parametrize("model", ["tiny_bert", "tiny_llama"])
@pytest.mark.parametrize("side", SIDES)
def test_every_side_starts_at_our_loss_and_trains_as_many_weights(
    side: str, model: str, weights: Callable[[str], Path]
) -> None:
    """As in huggingface/peft#245, where what was timed did not train what was thought."""
    ours, theirs = (found_by(name, model, "lora", weights) for name in ("ours", side))
    assert theirs.first_loss == pytest.approx(ours.first_loss, rel=0.01)
    assert theirs.trained == ours.trained
    assert theirs.seconds > 0 and theirs.examples % 16 == 0 and theirs.examples > 0
    assert theirs.peak_memory_gib is None or theirs.peak_memory_gib > 0


@FOREIGN
@pytest.mark.parametrize("method", ["full", "head_only"])
@pytest.mark.parametrize("side", ["best", "authors"])
def test_the_other_methods_train_the_same_weights_on_both_sides(
    side: str, method: str, weights: Callable[[str], Path]
) -> None:
    ours, theirs = (found_by(name, "tiny_bert", method, weights) for name in ("ours", side))
    assert (theirs.trained, round(theirs.first_loss, 3)) == (ours.trained, round(ours.first_loss, 3))


def test_a_method_that_is_not_measured_is_refused(weights: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="method=bitfit: not measured beside PEFT"):
        found_by("best", "tiny_bert", "bitfit", weights)


def test_a_task_without_classes_is_refused() -> None:
    with pytest.raises(InputError, match="task=reverse: only tasks with classes"):
        resolve_case("tiny_llama", ["task=reverse"])


@pytest.mark.parametrize("program", [speed.main, window.main])
def test_an_unknown_side_is_refused(program: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--sides", "axolotl"] if program is speed.main else ["axolotl", "--weights", "w", "model=tiny_bert"]
    with pytest.raises(SystemExit):
        program(arguments)
    assert "axolotl" in (message := capsys.readouterr().err) and all(side in message for side in SIDES)


def tiny_split(model: str, *overrides: str) -> Encoded:
    resolved = resolve_case(model, ["task=generated", *overrides])
    return encode(resolved.run, resolved.settings)["train"]


def test_a_sample_has_whole_batches_of_the_epochs_lengths() -> None:
    """As in instructlab/training#392: a rate counted in batches is wrong where their sizes differ."""
    split = tiny_split("tiny_bert")
    some = sample(split, 16, 0, 5)
    assert len(some.examples) == len(some.targets) == len(some.inputs["input_ids"]) == 5 * 16
    assert len({example.id for example in some.examples}) == 5 * 16
    assert mean_padded(some) == pytest.approx(mean_padded(split), rel=0.05)


def mean_padded(split: Encoded) -> float:
    """Returns the mean over an epoch's batches of the tokens to which they are padded."""
    lengths: list[int] = split.lengths.tolist()
    each = [padded_length(max(lengths[index] for index in batch)) for batch in batches(lengths, 16, 0, 0)]
    return sum(each) / len(each)


def test_a_sample_of_more_batches_than_there_are_is_all_whole_ones() -> None:
    assert len(sample(tiny_split("tiny_bert", "task.train_size=40"), 16, 0, 99).examples) == 32


def test_too_few_examples_for_a_batch_are_refused() -> None:
    with pytest.raises(InputError, match="8 examples do not fill a batch"):
        sample(tiny_split("tiny_bert", "task.train_size=8"), 16, 0, 10)


def test_the_clock_counts_no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in alpa-projects/alpa#823, where the first steps' compilation was counted."""
    wall, processor = iter([0.0, 10.0, 11.0, 13.5, 13.5]), iter([7.0, 9.0])
    fake = SimpleNamespace(perf_counter=lambda: next(wall), process_time=lambda: next(processor))
    monkeypatch.setattr(window, "time", fake)
    clock = Clock(seconds=3.0, warm_up=2, device=CPU)
    assert [clock.tick(examples) for examples in (16, 48, 64, 112)] == [False, False, False, True]
    found = clock.found(0.7, 12)
    assert (found.examples, found.seconds, found.cpu_seconds, found.warm_up_seconds) == (64, 3.5, 2.0, 10.0)


def test_prompts_padded_on_the_left_count_their_positions_from_their_first_token() -> None:
    """As in ndif-team/nnsight#672 and tloen/alpaca-lora#315, where they counted from the padding."""
    split = tiny_split("tiny_llama")
    given: dict[str, torch.Tensor] = {}

    class Model:
        def base_model(self, **inputs: Any) -> Any:
            given.update(inputs)
            return type("Output", (), {"last_hidden_state": torch.zeros(*inputs["input_ids"].shape, 8)})

        def lm_head(self, hidden: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(hidden), 64)

    words = peft_loop.Words(split, CPU)
    short, long = (int(index) for index in (split.lengths.argmin(), split.lengths.argmax()))
    words(Model(), [short, long])
    for row, index in enumerate((short, long)):
        label = split.objective.words[int(split.targets[index])]  # pyright: ignore[reportAttributeAccessIssue]
        tokens = [*split.inputs["input_ids"][index, : split.lengths[index]].tolist(), *label[:-1]]
        shown = given["attention_mask"][row].bool()
        assert given["input_ids"][row][shown].tolist() == tokens
        assert given["position_ids"][row][shown].tolist() == list(range(len(tokens)))
        assert shown[-1] and words.targets[index].tolist()[-len(label) :] == label


@FOREIGN
def test_peft_at_its_best_trains_in_fp32_and_keeps_the_rest_in_bf16(weights: Callable[[str], Path]) -> None:
    resolved = resolve_case("tiny_bert", ["task=generated", "method=lora"])
    work = Work(resolved, tiny_split("tiny_bert"), weights("tiny_bert"), 0.0)
    model = peft_loop.prepared(work, torch.bfloat16, CPU)
    kinds = {parameter.requires_grad: parameter.dtype for parameter in model.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    assert {parameter.dtype for parameter in adapters.load(work).parameters()} == {torch.float32}


def test_rows_are_padded_to_their_longest_or_to_a_length() -> None:
    rows = [{"input_ids": [5, 6], "attention_mask": [1, 1], "labels": [-100, 6]}]
    rows += [{"input_ids": [7], "attention_mask": [1], "labels": [7]}]
    assert {name: values.tolist() for name, values in trainer.collate(rows).items()} == {
        "input_ids": [[5, 6], [7, 0]],
        "attention_mask": [[1, 1], [1, 0]],
        "labels": [[-100, 6], [7, -100]],
    }
    assert trainer.collate(rows, 4)["input_ids"].shape == (2, 4)


def measured(side: str, rate: float, **other: Any) -> speed.Window:
    found = Found(int(rate * 4), 4.0, 3.0, 0.5, 0.7, 100, 1.25, "cpu")._asdict()
    return {"model": "minilm", "method": "lora", "threads": 1, "side": side} | found | other


def test_the_table_has_medians_ranges_and_ratios_of_medians() -> None:
    windows = [measured("ours", rate) for rate in (30, 20, 90)] + [measured("best", rate) for rate in (10, 20, 5)]
    windows.append(measured("ours", 50, method="full", peak_memory_gib=None))
    lines = speed.table(windows).splitlines()[2:]
    assert lines == [
        "| minilm | 1 | lora_repro | 30.0 (20.0 to 90.0) | 1.00 | 1.25 |",
        "| minilm | 1 | PEFT at its best | 10.0 (5.0 to 20.0) | 3.00 | 1.25 |",
        "| minilm, full | 1 | lora_repro | 50.0 (50.0 to 50.0) | 1.00 | unknown |",
    ]


def test_a_table_without_our_side_has_no_ratios() -> None:
    assert "(8.0 to 8.0) |  | 1.25 |" in speed.table([measured("best", 8)])


def test_the_notes_describe_each_side_and_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name : A CPU\nflags : fpu avx2 amx_bf16\n")
    monkeypatch.setattr(speed, "CPUINFO", cpuinfo)
    text = speed.notes([measured("ours", 8), measured("authors", 2, first_loss=0.71)])
    assert "- **the authors' way** is loralib" in text and "PEFT at its best" not in text
    assert "A CPU (amx_bf16, avx2)" in text and f"torch {torch.__version__}" in text
    assert "Windows of each side: 1, the shortest of 4.0 s." in text
    assert "minilm 0.7000 to 0.7100" in text and "at least 75 % of a core" in text


@pytest.mark.parametrize("other", [{"first_loss": 0.73}, {"trained": 99}])
def test_a_side_that_trains_something_else_is_refused(other: dict[str, Any]) -> None:
    speed.refuse_other_work([measured("ours", 1), measured("best", 1, first_loss=0.71)])
    speed.refuse_other_work([measured("ours", 1), measured("best", 1, model="mpnet", **other)])
    with pytest.raises(InputError, match="PEFT at its best"):
        speed.refuse_other_work([measured("ours", 1), measured("best", 1, **other)])


def test_windows_of_the_sides_alternate_and_are_written_as_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[list[str]] = []

    def run_window(command: list[str], threads: int) -> speed.Window:
        calls.append([*command, str(threads)])
        return measured(command[0], 8)

    monkeypatch.setattr(speed, "run_window", run_window)
    file = tmp_path / "windows.json"
    arguments = ["--models", "tiny_bert", "--threads", "1", "2", "--windows", "2", "--sides", "ours", "best"]
    speed.main([*arguments, "--json", str(file), "--device", "cpu", "task=generated", "train.dtype=fp32"])
    assert [(call[0], call[-1]) for call in calls] == [(s, t) for t in "12" for _ in range(2) for s in ("ours", "best")]
    assert all({"model=tiny_bert", "task=generated", "train.dtype=fp32"} <= set(call) for call in calls)
    assert len(json.loads(file.read_text())["windows"]) == len(calls)
    assert capsys.readouterr().out.startswith("| model | threads | side |")


def test_a_window_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="unrecognized arguments"):
        speed.run_window(["ours", "--weights", "w", "--wrong", "model=tiny_bert"], 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--windows", "0"], "--windows: must be 1 or more"),
        (["--threads", "1", "-2"], "-2"),
        (["--batches", "few"], "--batches: must be 1 or more"),
    ],
)
def test_numbers_that_measure_nothing_are_refused_at_once(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        speed.main(given)
    assert said in capsys.readouterr().err


def test_a_window_has_a_length_of_its_own() -> None:
    """Behind train.max_steps ours would train nothing until the window is over, and seem slow."""
    with pytest.raises(InputError, match=r"--seconds: must be above 0 \(given: -1\)"):
        speed.main(["--seconds", "-1"])
    with pytest.raises(InputError, match=r"train\.max_steps: the length of a window is --seconds"):
        resolve_case("tiny_bert", ["task=generated", "train.max_steps=10"])
