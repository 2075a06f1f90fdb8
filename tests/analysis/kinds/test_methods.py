"""A table of methods: lines, differences that are paired by seed, and what it says of noise."""

import csv
import json
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from helpers import planned
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_runs import PROVENANCE, write_run
from scipy.stats import ttest_rel

from analysis.arms import read_arms
from analysis.items import Request, load_item, names
from analysis.kinds.methods import Memory, MethodTable, Noise, read_methods
from analysis.protocol import Protocol
from analysis.render.methods import printed
from analysis.render.printed import markdown, write
from analysis.stats import holm, paired
from lora_repro.config.compose import compose
from lora_repro.errors import InputError
from lora_repro.sweep.grid import Job, Sweep, load

RATE = "train.learning_rate"
LEADERBOARD = cast(MethodTable, load_item("table", "leaderboard"))
SEEDS = {0: 0.01, 1: -0.02}
MEANS = {"lora q,v 512": 0.70, "lora q,k,v,o 512": 0.72, "lora q,v 1024": 0.74, "lora q,k,v,o 1024": 0.71}


def name(job: Job) -> str:
    method: Any = job.resolved.run.method
    if method.name != "lora":
        return method.name
    return f"lora {','.join(method.targets)} {method.budget}"


def sweep(store: Path) -> Sweep:
    return load(compose, ["+sweeps=leaderboard", "scale=smoke"], store)


def finish(store: Path, extra: float = 0.0, cpu: dict[str, float] | None = None) -> None:
    """Finishes the tuning (the smaller rate is better, by more than an inner one) and then all reported runs.

    Some arms may have recorded what the CPU computed.
    """
    while sweep(store).waiting:
        for job in sweep(store).tuning_jobs:
            rate = job.resolved.run.train.learning_rate
            score = {1e-3: 0.9, 3e-3: 0.8}.get(rate, 0.5)
            if not (store / "runs" / job.run_id).exists():
                write_run(store, job, [(score, score)])
    for job in sweep(store).jobs:
        seed = job.resolved.run.seed
        mean = MEANS.get(name(job), 0.6)
        slope = {"lora q,k": 2, "lora q,v": 1}.get(name(job)[:8], 1.01)  # so no difference is the same with all seeds
        score = mean + slope * SEEDS[seed] + extra * (-1) ** seed
        times = {"train_seconds": 10.0 if name(job) == "full" else 5.0, "train_cpu_seconds": (cpu or {}).get(name(job))}
        write_run(store, job, [(0.5, 0.4), (score, score)], **times)


def request(store: Path, **more: Any) -> Request:
    return Request("smoke", str(store), (), "json", **more)


def lines(store: Path) -> dict[str, dict[str, Any]]:
    found = json.loads(LEADERBOARD.text(request(store)))
    budget = {None: None, 512: "512", 1024: "1,024"}
    return {" ".join(filter(None, [e["method"], e["settings"].get("targets"), budget[e["budget"]]])): e for e in found}


def test_differences_are_taken_seed_by_seed_from_the_baseline_of_the_same_budget(tmp_path: Path) -> None:
    finish(tmp_path)
    found = lines(tmp_path)
    assert found["lora q,v 512"]["is_baseline"] and found["lora q,v 1,024"]["is_baseline"]
    small = found["lora q,k,v,o 512"]["difference"]
    assert small["mean"] == pytest.approx(0.02 + statistics.fmean(SEEDS.values()))
    assert small["p"] == pytest.approx(ttest_rel([0.74, 0.68], [0.71, 0.68]).pvalue)
    large = found["lora q,k,v,o 1,024"]["difference"]
    assert large["mean"] == pytest.approx(-0.03 + statistics.fmean(SEEDS.values()))
    own = found["head_only"]["difference"]  # of the last budget's baseline
    assert own["mean"] == pytest.approx(0.60 - 0.74 + 0.01 * statistics.fmean(SEEDS.values()))
    assert found["full"]["time"] == 2.0 and found["head_only"]["time"] == 1.0


def test_time_is_what_the_cpu_computed_where_both_arms_recorded_it(tmp_path: Path) -> None:
    finish(tmp_path, cpu={"lora q,v 1024": 2.0, "full": 3.0})
    found = lines(tmp_path)
    assert found["full"]["time"] == 1.5 and found["head_only"]["time"] == 1.0


def test_times_are_all_of_the_machine_that_computed_the_most_arms_and_of_whole_runs(tmp_path: Path) -> None:
    finish(tmp_path)
    results = {}
    for job in sweep(tmp_path).jobs:
        path = tmp_path / "runs" / job.run_id / "result.json"
        results.setdefault(name(job), []).append((path, json.loads(path.read_text())))
    # A second machine, on which full takes three times the baseline's time: it did not compute head_only.
    for which, seconds in (("lora q,v 1024", 5.0), ("full", 15.0)):
        path, result = results[which][1]
        there = result["provenance"] | {"device_class": "another CPU"}
        path.write_text(json.dumps(result | {"provenance": there, "train_seconds": seconds, "run_seconds": seconds}))
    assert lines(tmp_path)["full"]["time"] == 2.0
    path, result = results["head_only"][0]
    path.write_text(json.dumps(result | {"train_seconds": 500.0, "run_seconds": 3.0}))  # resumed, as early records were
    assert lines(tmp_path)["head_only"]["time"] == 1.0
    path, result = results["head_only"][1]
    path.write_text(json.dumps(result | {"provenance": result["provenance"] | {"compiled": True}}))
    assert lines(tmp_path)["head_only"]["time"] is None


def test_arms_far_from_their_budget_are_marked(tmp_path: Path) -> None:
    arms = ["model=tiny_bert", "task=generated", "method=lora", "method.budget=512,1000", "method.targets=[q,v]"]
    found = load(compose, [*arms, "seed=0,1"], tmp_path)
    for job in found.jobs:  # 256 weights for each r: r = 2 and r = 3
        write_run(tmp_path, job, [(0.5, 0.5)], params={"method": job.resolved.run.trained_by_method})
    table = printed(read_methods(LEADERBOARD, request(tmp_path), found), names())
    (header, *rows) = table.grid
    shares = {row[header.index("budget")]: row[header.index("of the budget")] for row in rows}
    assert shares == {"512": "100.0 %", "1,000": "76.8 % (!)"}
    assert "- (!) outside 97 to 105 % of the budget: not a comparison at equal budgets." in markdown(table)
    records = json.loads(write(table, "json"))
    assert [(each["utilisation"], each["unequal"]) for each in records] == [(1.0, False), (0.768, True)]
    lines = list(csv.DictReader(write(table, "csv").splitlines()))
    assert [(line["utilisation"], line["unequal"]) for line in lines] == [("1.0", "False"), ("0.768", "True")]


def test_full_fine_tuning_trains_the_whole_model_as_the_head_is_in_neither_number(tmp_path: Path) -> None:
    found = load(compose, ["model=tiny_bert", "task=generated", "method=full", "seed=0,1"], tmp_path)
    for job in found.jobs:
        write_run(tmp_path, job, [(0.5, 0.5)], params={"method": job.resolved.run.trained_by_method})
    table = printed(read_methods(replace(LEADERBOARD, baseline={}), request(tmp_path), found), names())
    assert [each["share"] for each in table.json] == [1.0]
    assert table.grid[1][table.grid[0].index("of the model")] == "100 %"


def test_each_task_has_its_own_baseline(tmp_path: Path) -> None:
    given = ("task=generated,tweets", "tune=null")
    for job in load(compose, ["+sweeps=leaderboard", "scale=smoke", *given]).jobs:
        score = MEANS.get(name(job), 0.6) - 0.3 * (job.resolved.run.task.name == "tweets")
        write_run(tmp_path, job, [(score, score)])
    found = json.loads(LEADERBOARD.text(Request("smoke", str(tmp_path), given, "json")))
    for task in ("generated", "tweets"):
        differences = [line["difference"]["mean"] for line in found if line["task"] == task and line["difference"]]
        assert differences == pytest.approx([0.02, -0.03, 0.60 - 0.74, 0.60 - 0.74])
    with pytest.raises(InputError, match="two of the arms are its baseline"):
        read_methods(LEADERBOARD, Request("smoke", str(tmp_path), ("train.epochs=1,2", "tune=null"), "json"))


def test_runs_that_wait_for_their_tuning_are_no_part_of_an_arm_with_the_smallest_value(tmp_path: Path) -> None:
    store, arm = str(tmp_path), ["model=tiny_bert", "task=generated", "method=lora", "seed=0"]
    plain = load(compose, [*arm, f"{RATE}=1e-3"], store).jobs
    write_run(tmp_path, plain[0], [(0.7, 0.7)])
    tuned = load(compose, [*arm, f"tune={{{RATE}:[1e-3,3e-3],seed:[100]}}"], store)
    assert tuned.reported[0].run_id == plain[0].run_id
    arms = read_arms([*plain, *tuned.reported], store, ["accuracy"], Protocol.last_epoch, "x")
    assert [[run.score for run in arm.runs] for arm in arms] == [[0.7], [None]]


def test_the_table_says_what_it_tells_apart(tmp_path: Path) -> None:
    finish(tmp_path)
    text = markdown(printed(read_methods(LEADERBOARD, request(tmp_path)), names()))
    assert "The paper has no such table." in text and "Verdict: smoke: plumbing, not judged." in text
    told = "Of 4 differences to the baseline 2 exclude 0 one by one, and 2 when all are tested together (Holm, 5 %)"
    assert told in text
    assert "the baseline" in text and "own size" in text and "@ 0.001" in text


def test_the_noise_of_a_rerun_stands_beside_that_of_seeds(tmp_path: Path) -> None:
    finish(tmp_path / "one")
    finish(tmp_path / "two", extra=0.003)
    table = read_methods(LEADERBOARD, request(tmp_path / "one", again=str(tmp_path / "two")))
    noise = Noise.of(table.again)
    assert noise.runs == len(sweep(tmp_path / "one").jobs)
    assert noise.sd == pytest.approx(0.003 / 2**0.5) and noise.largest == pytest.approx(0.003)
    assert "Noise of a rerun" in markdown(printed(table, names()))
    shutil.copytree(tmp_path / "one", tmp_path / "three")
    copied = "none of the runs of leaderboard was computed again there"  # and would show no noise
    for other, message in (("three", copied), ("four", "there is no store and no ledger")):
        with pytest.raises(InputError, match=message):
            read_methods(LEADERBOARD, request(tmp_path / "one", again=str(tmp_path / other)))


def test_memory_is_the_smallest_peak_of_processes_that_had_computed_nothing_before(tmp_path: Path) -> None:
    finish(tmp_path / "one")  # as early records, which say of no peak that it is the run's alone
    finish(tmp_path / "two", extra=0.003)

    def record(store: str, seed: int, peak: float, **more: Any) -> None:
        (job,) = (job for job in sweep(tmp_path / store).jobs if (name(job), job.resolved.run.seed) == ("full", seed))
        path = tmp_path / store / "runs" / job.run_id / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"peak_memory_gib": peak} | more))

    def full(**more: str) -> tuple[Memory | None, str]:
        table = read_methods(LEADERBOARD, request(tmp_path / "one", **more))
        line = next(line for line in table.lines if line.arm.place.row == "full")
        printed_line = next(text for text in markdown(printed(table, names())).splitlines() if "| full " in text)
        return line.memory, printed_line.split("|")[-2].strip()

    record("one", 0, 2.5)
    record("one", 1, 2.0)
    assert full() == ((2.0, True), "≤ 2.00")
    record("two", 0, 3.5, peak_memory_is_bound=False)
    record("two", 1, 1.5, peak_memory_is_bound=True)
    assert full(again=str(tmp_path / "two")) == ((3.5, False), "3.50")
    record(
        "one", 1, 0.5, peak_memory_is_bound=False, run_seconds=1.0
    )  # of the last attempt alone, as it trained longer
    record("one", 0, 3.0, peak_memory_is_bound=False)
    assert full(again=str(tmp_path / "two")) == full() == ((3.0, False), "3.00")


def test_equal_scores_of_the_same_machine_and_threads_are_no_rerun_and_those_of_others_are(tmp_path: Path) -> None:
    finish(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    changed: Any = {"a": {"digests": {"adapter": "0" * 64}, "run_seconds": 9.0}}
    changed["b"] = {"provenance": PROVENANCE | {"threads": 5}}
    for job, more in zip(sweep(tmp_path / "one").jobs, changed.values(), strict=False):
        path = tmp_path / "two" / "runs" / job.run_id / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | more))
    again = read_methods(LEADERBOARD, request(tmp_path / "one", again=str(tmp_path / "two"))).again
    assert Noise.of(again)[:3] == (1, 0.0, 0.0)


def test_before_its_runs_are_finished_it_prints_dashes_and_the_command(tmp_path: Path, capsys: Captured) -> None:
    code, out, _ = call(capsys, "table", "leaderboard", "--scale", "smoke", "--runs", tmp_path)
    assert code == 0 and "— (0/2 seeds, 2 tuning)" in out
    assert f"Compute them: `python -m lora_repro -m +sweeps=leaderboard scale=smoke paths.outputs={tmp_path}`" in out


def test_the_papers_lines_of_table_15_stand_with_ours_of_the_same_method(capsys: Captured, tmp_path: Path) -> None:
    _, out, _ = call(capsys, "table", "15", "--scale", "smoke", "--runs", tmp_path)
    table = [line for line in out.splitlines() if line.startswith("|")]
    methods = [line.split("|")[1].strip() for line in table[2:]]
    assert [each for n, each in enumerate(methods) if n == 0 or methods[n - 1] != each] == [
        "full", "prefix_embed", "prefix_layer", "adapter_h", "lora", "lora_prefix_embed", "lora_prefix_layer",
        "bitfit", "ft_top2", "head_only",
    ]  # fmt: skip
    lora = next(line for line in table if "301.9M" in line)
    assert "targets=q,v r=64" in lora and "73.6" in lora and "91.4" in lora
    assert table[2].split("|")[3].strip() == "175B"
    of_layers, of_embedding = 96 * 12288 * (8 + 0), 12288 * (32 + 8)
    assert f"prefix_layer are above its formula (10.1M for {of_layers / 1e6:.1f}M at l_p=8, l_i=0)" in out
    assert f"the 0.4M of prefix_embed at l_p=32, l_i=8 is below it ({of_embedding / 1e6:.2f}M)" in out


def test_planned_lines_say_why(capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned.plan(monkeypatch, "lora_repro.sweep.grid")
    _, out, _ = call(capsys, "table", "leaderboard", "--scale", "paper", "--runs", tmp_path)
    assert f"planned and cannot run yet: {planned.WHY}" in out


def test_lines_of_several_tasks_say_which_and_have_a_noise_each(capsys: Captured, tmp_path: Path) -> None:
    tasks = "task=generated,generated_three"
    for job in load(compose, ["+sweeps=table15", "scale=smoke", tasks], tmp_path).jobs:
        run = job.resolved.run
        score = 0.5 + 0.01 * run.seed * (1 if run.task.name == "generated" else 4)
        device = "a GPU" if run.seed else "a CPU"
        write_run(tmp_path, job, [(score, score)], provenance=PROVENANCE | {"device_class": device})
    _, out, _ = call(capsys, "table", "15", "--scale", "smoke", "--runs", tmp_path, tasks)
    assert "- Computed on machines or versions that differ, which changes results a little: a CPU" in out
    (full, other) = [line for line in out.splitlines() if line.startswith("| full") and "(tiny_bert)" in line]
    assert "| generated (tiny_bert)" in full and "| generated_three (tiny_bert)" in other
    noise = "Noise of seeds: the scores of one arm have a standard deviation of"
    assert f"\ngenerated (tiny_bert): {noise} 0.71 over" in out
    assert f"\ngenerated_three (tiny_bert): {noise} 2.83 over" in out


def test_paired_equals_scipys_test_and_holm_its_own_example() -> None:
    one, other = [0.1, 0.5, 0.3, 0.9], [0.2, 0.4, 0.1, 0.6]
    found = paired([a - b for a, b in zip(one, other, strict=True)])
    expected = ttest_rel(one, other)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    for equal in ([0.25, 0.25], [0.3 - 0.1, 0.2]):  # the second differs in its last bit
        found = paired(equal)
        assert found.p is None and found.are_equal
    assert not paired([0.2]).are_equal and not paired([0.2, 0.3]).are_equal
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]  # 0.03 > 0.05 / 2 stops it
    assert holm([0.2]) == [False] and holm([]) == []
