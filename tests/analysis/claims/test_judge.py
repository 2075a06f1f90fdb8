"""Claims judged from stores of hand-made runs: what is there, what is missing, and what cannot be trusted."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.claim_stores import (
    EXAMPLES,
    answer,
    sweep_jobs,
    tuning_jobs,
    write_margin,
    write_ranks,
    write_rows,
    write_scored,
    write_section7,
)
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_runs import PROVENANCE, write_run, write_status

from analysis.claims.criteria import Side, Verdict
from analysis.claims.declared import Part, Study, load_claims
from analysis.claims.judge import judge
from analysis.claims.judged import Judged
from analysis.claims.printed import printed
from analysis.claims.question import _log_ratio
from analysis.items import read_item
from analysis.section7.statistics import PERMUTED, Statistic, write_statistics
from analysis.store import opened
from lora_repro.config.catalogue import HOME
from lora_repro.config.compose import compose
from lora_repro.store import ledger
from lora_repro.store.record import Record
from lora_repro.sweep.grid import load

LEVELS = {"q,v": 0.84, "q,k,v,o": 0.845, "q": 0.80, "k": 0.70}
ONE = ("+sweeps=table6", "regime=one_rate", "model=minilm")


def scores(**changes: float) -> Callable[[str, int, int], float]:
    """Returns scores by targets that hardly depend on the rank; `r64=0.03` adds to them at r = 64."""

    def score(targets: str, r: int, seed: int) -> float:
        return LEVELS[targets] + changes.get(f"r{r}", 0.0) + (0.002 if (seed + r) % 2 else -0.002)

    return score


def part_of(store: Path, regime: str = "one_rate", claim: str = "rank_one", number: int = 0) -> Judged:
    """Judges one part of a claim on minilm in one regime: whether r = 1 is enough on q and v."""
    declared = load_claims()
    own = next(each for each in declared.claims if each.id == claim)
    study = Study(model="minilm", task="movies", regimes=[regime])
    part = replace(own.parts[number], asked_of=[])
    (found,) = judge(replace(declared, claims=[replace(own, studies=[study], parts=[part])]), str(store), "proxy")
    (judged,) = found.parts
    return judged


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that has the margin: 1.6 points."""
    write_margin(tmp_path)
    return tmp_path


def test_a_whole_sweep_without_a_gain_supports_the_claim(store: Path) -> None:
    write_ranks(store, scores())
    part = part_of(store)
    assert part.outcome.verdict is Verdict.supported and part.limit == pytest.approx(0.016)
    assert (part.finished, part.expected) == (50, 50)  # q and v: 10 + 5 + 5 + 10 + 10; the control: k 10
    assert {name: each.n for name, each in part.estimates.items()} == {
        "q,v r = 2 over q,v r = 1": 5,
        "q,v r = 4 over q,v r = 1": 5,
        "q,v r = 8 over q,v r = 1": 10,
        "q,v r = 64 over q,v r = 1": 10,
    }
    assert part.control is not None and part.control.verdict is Verdict.supported


def test_a_gain_beyond_the_margin_contradicts_it(store: Path) -> None:
    write_ranks(store, scores(r64=0.03))
    part = part_of(store)
    assert part.outcome.verdict is Verdict.contradicted and part.outcome.reason.startswith("q,v r = 64 over q,v r = 1")


def test_a_missing_seed_makes_it_interim_and_says_the_command(store: Path) -> None:
    whole = scores()
    write_ranks(
        store, lambda targets, r, seed: None if (targets, r, seed) == ("q,v", 64, 9) else whole(targets, r, seed)
    )
    part = part_of(store)
    assert part.outcome.verdict is Verdict.interim and part.outcome.reason.startswith("49 of 50 runs have a score.")
    assert part.estimates["q,v r = 64 over q,v r = 1"].n == 9  # whole pairs alone
    assert any("method.r=64" in command and "seed=0,1,2" in command for command in part.commands)


def test_a_failed_run_is_missing_and_one_seed_estimates_nothing(store: Path) -> None:
    whole = scores()
    write_ranks(store, lambda targets, r, seed: whole(targets, r, seed) if seed == 0 else None)
    job = next(
        job for job in sweep_jobs("+sweeps=table6", "regime=one_rate", "model=minilm") if "-r1-qv-s1-" in job.run_id
    )
    write_status(store, job, "failed", "out of memory")
    part = part_of(store)
    assert part.outcome.verdict is Verdict.interim and part.outcome.reason == "6 of 50 runs have a score."


def test_a_diverged_run_is_no_score(store: Path) -> None:
    whole = scores()
    write_ranks(
        store, lambda targets, r, seed: None if (targets, r, seed) == ("q,v", 64, 9) else whole(targets, r, seed)
    )
    jobs = sweep_jobs("+sweeps=table6", "regime=one_rate", "model=minilm")
    write_status(store, next(job for job in jobs if "-r64-qv-s9-" in job.run_id), "diverged", "the loss is nan")
    part = part_of(store)
    assert part.outcome.verdict is Verdict.uninformative and "Runs diverged: q,v r = 64" in part.outcome.reason


def test_a_control_that_shows_no_loss_makes_it_uninformative(store: Path) -> None:
    whole = scores()
    write_ranks(store, lambda targets, r, seed: whole("q,v" if targets == "k" else targets, r, seed))
    part = part_of(store)
    assert part.outcome.verdict is Verdict.uninformative and "positive control" in part.outcome.reason
    assert part.control is not None and part.control.verdict is Verdict.contradicted


def test_without_the_margin_nothing_is_judged(tmp_path: Path) -> None:
    write_ranks(tmp_path, scores())
    part = part_of(tmp_path)
    assert part.outcome.verdict is Verdict.interim and part.outcome.reason.startswith("The margin is not known")
    assert "+sweeps=margin" in part.outcome.reason


def test_dev_that_still_rises_by_more_than_the_margin_is_unfinished_training(store: Path) -> None:
    write_ranks(store, scores(), rise=0.02)
    part = part_of(store)
    assert part.outcome.verdict is Verdict.uninformative and "Training had not ended" in part.outcome.reason


def test_dev_that_was_scored_once_says_nothing_of_training(store: Path) -> None:
    write_ranks(store, scores())
    job = next(job for job in sweep_jobs(*ONE) if "-r1-qv-s3-" in job.run_id)
    shutil.rmtree(store / "runs" / job.run_id)
    write_run(store, job, [(0.84, 0.84)])
    answer(store, job, [n < 840 for n in range(EXAMPLES)], list(range(EXAMPLES)), epoch=1)
    part = part_of(store)
    assert part.outcome.verdict is Verdict.uninformative and "dev was scored once (q,v r = 1)" in part.outcome.reason


def disagree(store: Path) -> None:
    """Lets r = 64 and r = 1 be wrong on different documents, of a hundred with ten examples each."""
    write_ranks(store, scores())
    for job in sweep_jobs(*ONE):
        method, seed = job.resolved.run.method, job.resolved.run.seed
        wrong = EXAMPLES - round(EXAMPLES * scores()(",".join(method.targets), method.r, seed))  # pyright: ignore[reportAttributeAccessIssue]
        first = 500 if method.r == 64 else 0  # pyright: ignore[reportAttributeAccessIssue]
        right = [not first <= n < first + wrong for n in range(EXAMPLES)]
        answer(store, job, right, [n // 10 for n in range(EXAMPLES)])


def test_documents_can_undo_what_seeds_alone_would_say(store: Path) -> None:
    disagree(store)
    part = part_of(store)
    estimate = part.estimates["q,v r = 64 over q,v r = 1"]
    assert estimate.draws is not None and estimate.high is not None and estimate.high > 0.05
    assert part.outcome.verdict is Verdict.undecided and part.outcome.seeds is None  # more seeds would not help


def test_arms_that_learned_nothing_cannot_lose_anything_either(store: Path) -> None:
    """All answers are those of the most frequent class, so q and k alone are as good as q and v."""
    for job in sweep_jobs("+sweeps=table5", "regime=one_rate"):
        rows = {"eval/accuracy": 0.5, "eval/majority": 0.5, "test/accuracy": 0.5, "test/majority": 0.5}
        write_rows(store, job, [{"epoch": epoch, **rows} for epoch in (1, 2)])
        answer(store, job, [n < 500 for n in range(EXAMPLES)], list(range(EXAMPLES)), epoch=1)
    part = part_of(store, claim="weights_spread", number=2)
    assert part.outcome.verdict is Verdict.uninformative
    assert part.outcome.reason.startswith(
        "No arm learned more than the margin over naming the most frequent class (q,v,"
    )


def test_the_control_needs_answers_too(store: Path) -> None:
    disagree(store)
    job = next(job for job in sweep_jobs(*ONE) if "-r1-k-s3-" in job.run_id)
    (store / "runs" / job.run_id / "predictions.parquet").unlink()
    part = part_of(store)
    assert part.outcome.verdict is Verdict.interim
    assert "no bounds over documents: 1 of 50 runs" in part.outcome.reason


@pytest.mark.parametrize("fault", ["no file", "no documents", "other answers"])
def test_one_run_without_sound_answers_leaves_no_verdict(store: Path, fault: str) -> None:
    disagree(store)
    job = next(job for job in sweep_jobs(*ONE) if "-r64-qv-s9-" in job.run_id)
    if fault == "no file":
        (store / "runs" / job.run_id / "predictions.parquet").unlink()
    elif fault == "no documents":
        answer(store, job, [n < 838 for n in range(EXAMPLES)], None)
    else:  # of another epoch, say: they do not give the score that the record holds
        answer(store, job, [n < 500 for n in range(EXAMPLES)], [n // 10 for n in range(EXAMPLES)])
    part = part_of(store)
    assert part.outcome.verdict is Verdict.interim
    assert "no bounds over documents: 1 of 50 runs" in part.outcome.reason


def test_an_arm_that_the_sweep_lacks_is_named(store: Path) -> None:
    declared = load_claims()
    own = next(each for each in declared.claims if each.id == "rank_one")
    wrong = replace(own.parts[0], than=[*own.parts[0].than[:-1], {"targets": "q,v", "r": 46}])
    write_ranks(store, scores())
    study = Study(model="minilm", task="movies", regimes=["one_rate"])
    (found,) = judge(replace(declared, claims=[replace(own, studies=[study], parts=[wrong])]), str(store), "proxy")
    (part,) = found.parts
    assert part.outcome.verdict is Verdict.not_run
    assert part.outcome.reason == "The sweep has no runs of q,v r = 46 at scale=proxy."


def test_fewer_seeds_than_declared_are_interim(store: Path) -> None:
    declared = load_claims()
    own = next(each for each in declared.claims if each.id == "rank_one")
    write_ranks(store, scores())
    more = replace(own.parts[0], seeds=7)
    study = Study(model="minilm", task="movies", regimes=["one_rate"])
    (found,) = judge(replace(declared, claims=[replace(own, studies=[study], parts=[more])]), str(store), "proxy")
    (part,) = found.parts
    assert (
        part.outcome.verdict is Verdict.interim and "Fewer than the declared 7 seeds: q,v r = 2" in part.outcome.reason
    )


def test_q_alone_wants_more_only_if_some_rank_gains(store: Path) -> None:
    write_ranks(store, scores())
    assert part_of(store, number=2).outcome.verdict is Verdict.contradicted


def test_one_rank_that_gains_is_enough_for_that(store: Path) -> None:
    write_ranks(store, scores(r64=0.04))
    part = part_of(store, number=2)
    assert part.outcome.verdict is Verdict.supported and part.outcome.reason.startswith("q r = 64 over q r = 1")
    # 40 of 1,000 documents differ: one of four is tested at 0.0125, which is 2.24 standard errors of a share
    assert part.holds_from == pytest.approx(0.04 - 2.24 * (0.04 * 0.96 / 1000) ** 0.5, abs=1.5e-3)
    assert part.side.name == "above"
    assert "claimed: above +1.60" in part.outcome.reason


def test_no_margin_is_named_while_an_arm_has_no_runs(store: Path) -> None:
    write_ranks(store, scores())
    assert part_of(store).holds_from is not None
    for folder in (store / "runs").glob("minilm-movies-lora-r64-qv-s*"):
        shutil.rmtree(folder)
    part = part_of(store)
    assert part.outcome.verdict is Verdict.interim and len(part.estimates) == 3 and part.holds_from is None


def test_an_arm_of_another_regime_is_looked_up_there(store: Path) -> None:
    part = part_of(store, claim="alpha_rule", number=1)
    assert part.outcome.verdict is Verdict.not_run and part.expected == 40
    assert any("tune={train.learning_rate" in command and "method.r=1 " in command for command in part.commands)
    write_ranks(store, scores())
    part = part_of(store, claim="alpha_rule", number=1)
    assert part.outcome.verdict is Verdict.interim
    assert [command for command in part.commands if "tune=" not in command] == []  # what is there is not asked for


def test_a_tuned_arm_with_the_rate_of_the_other_is_the_same_runs_and_no_estimate(store: Path) -> None:
    write_ranks(store, scores())  # the margin's runs tune r = 8 on q and v, and 3e-3 is best: the preset's rate
    part = part_of(store, claim="alpha_rule", number=2)
    assert part.outcome.verdict is Verdict.supported and not part.estimates and part.holds_from is None
    assert (
        part.outcome.reason
        == "Nothing was compared: both arms are the same runs, as tuning chose the value that both have."
    )


def test_a_margin_that_is_none_is_said(tmp_path: Path) -> None:
    write_margin(tmp_path, gain=-0.05)
    write_ranks(tmp_path, scores())
    part = part_of(tmp_path)
    assert part.outcome.verdict is Verdict.uninformative and part.outcome.reason.startswith("There is no margin")


def timed(store: Path, full: float, elsewhere: str | None = None) -> Judged:
    """Judges whether full fine-tuning takes 1.33 times the time of LoRA's 30 s, over three seeds of table 15."""
    declared = load_claims()
    part = Part(
        **{"says": "", "test": "ratio", "item": "table15", "measure": "train_seconds", "least": 1.33, "seeds": 3},
        **{"of": {"method": "full"}, "than": [{"method": "lora", "targets": "q,v", "r": 4}]},
    )
    for job in sweep_jobs("+sweeps=table15", "regime=one_rate"):
        run = job.resolved.run
        method: Any = run.method
        if method.name == "full" or (method.name == "lora" and (method.targets, method.r) == (["q", "v"], 4)):
            seconds = full + run.seed if method.name == "full" else 30.0
            machine = elsewhere if elsewhere and run.seed == 0 and method.name == "full" else "a CPU"
            more = {"train_seconds": seconds, "provenance": PROVENANCE | {"device_class": machine}}
            write_run(store, job, [(0.5, 0.5)], **more)
    own = replace(
        declared.claims[0], parts=[part], studies=[Study(model="minilm", task="movies", regimes=["one_rate"])]
    )
    (found,) = judge(replace(declared, claims=[own]), str(store), "proxy")
    return found.parts[0]


def test_times_are_compared_as_ratios_seed_by_seed(tmp_path: Path) -> None:
    part = timed(tmp_path, 60)
    assert part.outcome.verdict is Verdict.supported
    assert (
        part.outcome.reason.startswith("full over lora q,v r = 4: 2.03 times (")
        and "at least 1.33" in part.outcome.reason
    )


def test_a_time_of_another_machine_does_not_count(tmp_path: Path) -> None:
    part = timed(tmp_path, 60, elsewhere="another CPU")
    assert part.outcome.verdict is Verdict.interim and "Fewer than the declared 3 seeds" in part.outcome.reason


def test_measured_ratios_are_of_what_was_computed_and_of_peaks_that_are_the_runs_own() -> None:
    def cell(**costs: Any) -> Any:
        result = {"provenance": PROVENANCE, "run_seconds": 5000.0, **costs}
        return SimpleNamespace(runs=[SimpleNamespace(seed=0, draw=None, result=result)])

    one, other = (cell(train_seconds=clock, train_cpu_seconds=50.0) for clock in (50.0, 1300.0))
    found = _log_ratio(one, other, "train_seconds")
    assert found is not None and found.mean == 0.0
    own, bound = (cell(peak_memory_gib=peak, peak_memory_is_bound=peak > 2) for peak in (1.4, 3.5))
    assert _log_ratio(own, bound, "peak_memory_gib") is None and _log_ratio(own, own, "peak_memory_gib") is not None


def test_a_trend_is_a_slope_by_doublings(store: Path) -> None:
    for job in sweep_jobs("+sweeps=table15", "regime=one_rate"):
        method: Any = job.resolved.run.method
        if method.name == "prefix_embed":
            lost = 0.01 * math.log2(method.l_p) + 0.001 * job.resolved.run.seed
            write_scored(store, job, 0.8 - lost)
    part = part_of(store, claim="prefix_non_monotone", number=2)
    assert part.outcome.verdict is Verdict.supported
    assert part.estimates["each doubling of l_p"].mean == pytest.approx(-0.01, abs=1e-3) and part.expected == 9


def test_a_rate_at_the_edge_of_its_grid_is_uninformative(store: Path) -> None:
    """Tunes every arm of table 6; that of r = 64 gets better with every growth of its grid."""
    given, whole = ["+sweeps=table6", "regime=tuned", "model=minilm", "scale=proxy"], scores()
    for _ in range(6):
        sweep = load(compose, given, store)
        new = [job for job in sweep.to_compute if not (store / "runs" / job.run_id).exists()]
        if not new:
            break
        for job in new:
            run, method = job.resolved.run, job.resolved.run.method
            value = whole(",".join(method.targets), method.r, run.seed)  # pyright: ignore[reportAttributeAccessIssue]
            steps = math.log(run.train.learning_rate / 1e-3, 3)
            better = 0.001 * steps if method.r == 64 else -0.01 * abs(steps - 1)  # pyright: ignore[reportAttributeAccessIssue]
            write_scored(store, job, value + better)
    part = part_of(store, "tuned")
    assert part.outcome.verdict is Verdict.uninformative
    assert "at the edge of its grid: q,v r = 64." in part.outcome.reason


def test_what_is_counted_needs_no_runs(tmp_path: Path) -> None:
    names = frozenset(["param_reduction", "theta_fraction", "checkpoint", "storage_100_tasks"])
    found = {each.claim.id: each for each in judge(load_claims(), str(tmp_path), "proxy", names)}
    assert [each.verdict for each in found.values() if each.verdict is not Verdict.supported] == [Verdict.contradicted]
    (reduction,) = found["param_reduction"].parts
    assert "4,718,592" in reduction.outcome.reason  # 96 layers * 2 matrices * 2 * 12,288
    whole, update = found["checkpoint"].parts
    assert whole.outcome.verdict is Verdict.supported and "349 GB" in whole.outcome.reason
    assert update.outcome.verdict is Verdict.contradicted and "37.7 MB" in update.outcome.reason  # 35 MB is printed


def test_the_papers_numbers_go_through_the_same_question(tmp_path: Path) -> None:
    part = part_of(tmp_path)
    assert part.outcome.verdict is Verdict.not_run
    assert part.limit is None and part.holds_from is None
    by_task = {each.task: each for each in part.printed}
    assert by_task["wikisql"].differences["q,v r = 8 over q,v r = 1"] == pytest.approx(0.004)  # 73.8 - 73.4
    assert by_task["wikisql"].outcome is None  # the paper has no margin
    assert by_task["wikisql"].holds_from == pytest.approx(0.0156, abs=1e-4)  # +0.4 + 1.645 * 0.5 * sqrt(2)
    assert by_task["mnli"].holds_from == pytest.approx(0.0053, abs=1e-4)  # +0.3 + 1.645 * 0.1 * sqrt(2)
    more = {each.task: each.holds_from for each in part_of(tmp_path, number=2).printed}
    assert more["wikisql"] == pytest.approx(0.0012, abs=5e-5)  # 70.5 - 68.8 - 2.241 * 0.5 * sqrt(2), one of four
    assert more["mnli"] == pytest.approx(0.0008, abs=5e-5)  # 91.1 - 90.7 - 2.241 * 0.1 * sqrt(2)
    spread = part_of(tmp_path, claim="weights_spread")
    (wikisql,) = (each.outcome for each in spread.printed if each.task == "wikisql")
    assert wikisql is not None and wikisql.verdict is Verdict.undecided  # q and v over o: +0.5
    assert "at least -0.66" in wikisql.reason


def test_the_papers_prefixes_have_sizes_of_their_own(tmp_path: Path) -> None:
    """Table 15: 63.1 with 256 tokens and 55.9 with 512; MNLI 88.6 and 85.8; of layers 70.1 and 66.4, 89.5 and 89.6."""
    for number, wikisql, mnli in ((0, 0.072, 0.028), (1, 0.037, -0.001)):
        part = part_of(tmp_path, claim="prefix_non_monotone", number=number)
        by_task = {each.task: each.holds_from for each in part.printed}
        assert by_task["wikisql"] == pytest.approx(wikisql - 1.645 * 0.005 * 2**0.5, abs=1e-5)
        assert by_task["mnli"] == pytest.approx(mnli - 1.645 * 0.001 * 2**0.5, abs=1e-5)


def test_each_printed_number_has_its_own_spread_and_what_is_not_printed_is_said() -> None:
    """Table 3: LoRA 70.4 +- 0.1 on GPT-2 medium and large; adapter_h 67.3 +- 0.6 on medium alone."""
    item = read_item("table3")
    own, than = {"method": "lora"}, {"lora over adapter_h": {"method": "adapter_h"}}
    medium, large = printed(item, own, than, 0.0, Side.above, -1.0, 0.05, lambda _: None, "bleu")
    assert (medium.task, large.task) == ("gpt2_medium", "gpt2_large")
    assert medium.outcome is not None and "at least +2.10" in medium.outcome.reason  # 3.1 - 1.645 * hypot(0.1, 0.6)
    both = {**than, "lora over full": {"method": "full"}}
    (medium, large) = printed(item, own, both, 0.0, Side.above, -1.0, 0.05, lambda _: None, "bleu")
    assert large.lacking == ("lora over adapter_h",) and large.outcome is None and medium.lacking == ()


def other(store: Path, claim: str, number: int = 0, regime: str = "by_method") -> Judged:
    """Judges one part of a claim on the model and task of its first study."""
    declared = load_claims()
    own = next(each for each in declared.claims if each.id == claim)
    studies = [replace(own.studies[0], regimes=[regime])]
    (found,) = judge(replace(declared, claims=[replace(own, studies=studies)]), str(store), "proxy")
    return found.parts[number]


def few(store: Path, full: float, leave_out: tuple[int, int] | None = None) -> Judged:
    """Judges whether LoRA is better from 100 examples: it scores 0.71 to 0.75 by draw, 0.002 less with each seed."""
    for job in sweep_jobs("+sweeps=table16", "regime=one_rate"):
        run = job.resolved.run
        draw = getattr(run.task, "subset_seed", None) or 0
        own = run.method.name
        if (
            run.task.train_size == 100
            and own in ("lora", "full")
            and (own, draw, run.seed) != ("lora", *(leave_out or ()))
        ):
            score = 0.71 + 0.01 * draw - 0.002 * run.seed + (full if own == "full" else 0)
            write_scored(store, job, score)
    return other(store, "low_data", regime="one_rate")


def test_draws_of_the_training_examples_are_the_replicates(store: Path) -> None:
    """Five draws with three seeds each are five numbers and not fifteen, as runs on one draw are alike."""
    part = few(store, full=-0.05)
    (estimate,) = part.estimates.values()
    assert (part.finished, part.expected, estimate.n) == (30, 30, 5)
    assert estimate.values == pytest.approx([0.05] * 5) and part.outcome.verdict is Verdict.supported


def test_a_draw_counts_once_all_its_seeds_are_there(store: Path) -> None:
    part = few(store, full=-0.05, leave_out=(3, 1))
    (estimate,) = part.estimates.values()
    assert (part.finished, part.expected, estimate.n, part.replicates) == (29, 30, 4, "draws")
    assert part.outcome.verdict is Verdict.interim


def test_a_lower_loss_is_better_and_is_no_score_in_points(tmp_path: Path) -> None:
    """By loss r = 16 is 0.1 nats better than r = 4 and 0.3 than r = 1; by BLEU r = 4 is behind r = 64."""
    loss, bleu = {1: 1.5, 4: 1.3, 16: 1.2, 64: 1.25}, {1: 0.50, 4: 0.60, 16: 0.58, 64: 0.66}
    rates = tuning_jobs("+sweeps=table18")
    for job in rates:
        loss_of_rate = 1.3 if job.resolved.run.train.learning_rate == 3e-3 else 1.4
        row = {"eval/loss": loss_of_rate, "test/loss": 1.3}
        write_rows(tmp_path, job, [{"epoch": 2, **row}])
    for job in load(compose, ["+sweeps=table18", "scale=proxy"], str(tmp_path)).reported:
        run: Any = job.resolved.run
        rank, more = run.method.r, 0.0001 * (-1) ** run.seed * {4: 1, 16: -1}.get(run.method.r, 0)
        names = {"loss": loss[rank] + more, "bleu": bleu[rank] + more}
        row = {f"{split}/{name}": value for split in ("eval", "test") for name, value in names.items()}
        first = {"epoch": 1, "eval/loss": loss[rank] - 0.1, "test/loss": 2.0}  # as Table 18, by the epoch of BLEU
        write_rows(tmp_path, job, [first, {"epoch": 2, **row}])
    part = other(tmp_path, "gpt2_rank", 1)
    assert part.outcome.verdict is Verdict.supported and "+0.100 (95 % bound: at least +0.099)" in part.outcome.reason
    assert {name: each.mean for name, each in part.estimates.items()} == {
        "r = 16 over r = 1": pytest.approx(0.3),
        "r = 16 over r = 4": pytest.approx(0.1),
    }
    part = other(tmp_path, "gpt2_rank", 0)
    assert (
        part.outcome.verdict is Verdict.contradicted
        and "-6.00 points (95 % bound: at most -5.94)" in part.outcome.reason
    )
    assert "has no margin, so whether training had ended is not asked" in " ".join(part.notes)


@pytest.mark.parametrize("keep", [True, False])
def test_halves_of_dev_have_bounds_over_documents_where_answers_are_kept(tmp_path: Path, keep: bool) -> None:
    """RTE has no test: of 200 examples of dev LoRA is right about 120 and prompting about 100, on other ones."""
    for job in sweep_jobs("+sweeps=table8", "task=rte"):
        run = job.resolved.run
        right = range(120) if run.method.name == "lora" else range(100, 200)
        score = len(right) / 200
        rows = [{"epoch": epoch, "eval/accuracy": score} for epoch in ((0,) if run.train.epochs == 0 else (1, 2))]
        write_rows(tmp_path, job, rows, cross_fitted={"accuracy": score})
        if keep:
            for_dev = [
                {
                    **{"split": "eval", "epoch": row["epoch"], "id": str(n), "document": n, "label": n % 2},
                    "prediction": n % 2 if n in right else 1 - n % 2,
                }
                for row in rows
                for n in range(200)
            ]
            Record(tmp_path, job.run_id).save_predictions(for_dev)
    part = other(tmp_path, "few_shot")
    estimate = next(iter(part.estimates.values()))
    assert estimate.values == pytest.approx([0.1] * 3)
    if keep:  # 200 documents, each +1, 0 or -1: their mean has a standard deviation of 6.7 points
        assert estimate.draws is not None and estimate.low == pytest.approx(0.1 - 1.645 * 0.067, abs=0.01)
        assert part.outcome.verdict is Verdict.undecided
        ledger.write(tmp_path / "study.parquet", ledger.collect(tmp_path, part.run_ids), {})
        with opened(str(tmp_path / "study.parquet")) as kept:
            (again, _) = other(Path(kept), "few_shot").estimates.values()
        assert again.low == pytest.approx(estimate.low, abs=1e-6)
    else:
        assert part.outcome.verdict is Verdict.interim and "no bounds over documents: 9 of 9" in part.outcome.reason


def test_the_papers_columns_go_through_the_same_question(tmp_path: Path) -> None:
    """Table 3: BLEU 70.4 +- 0.1 and 68.2, on the large model 68.5; Table 16: 63.8 and 60.2 from 100, +- 0.3."""
    by_model = {each.task: each for each in other(tmp_path, "e2e").printed}
    assert {name: each.differences["lora over full"] for name, each in by_model.items()} == {
        "gpt2_medium": pytest.approx(0.022),
        "gpt2_large": pytest.approx(0.019),
    }
    assert all(each.outcome is None for each in by_model.values())  # full's rows are copied, and have no spread
    large = {each.task: each for each in other(tmp_path, "e2e", 1).printed}["gpt2_large"]
    name = "lora over adapter_l trainable_params = 370000 or 880000"
    assert large.differences[name] == pytest.approx(0.013) and large.outcome is None
    (mnli,) = other(tmp_path, "low_data").printed
    assert mnli.task == "mnli" and list(mnli.differences.values()) == [pytest.approx(0.036)]
    assert mnli.outcome is not None and "at least +2.90" in mnli.outcome.reason  # 3.60 - 1.645 * 0.3 * sqrt(2)
    (whole,) = other(tmp_path, "low_data", 2).printed
    assert list(whole.differences.values()) == [pytest.approx(0.022)]  # 91.7 - 89.5 from all examples
    (rank,) = other(tmp_path, "gpt2_rank", 1).printed
    assert rank.outcome is None  # no spread is printed
    assert rank.differences == {"r = 16 over r = 1": pytest.approx(0.07), "r = 16 over r = 4": pytest.approx(0.02)}


def test_every_claim_has_a_verdict_or_says_what_is_missing_and_every_selector_means_one_arm(tmp_path: Path) -> None:
    found = judge(load_claims(), str(tmp_path), "proxy")
    assert len(found) == 32 and all(each.parts or each.missing for each in found)
    for claim, part in ((each.claim.id, part) for each in found for part in each.parts):
        # a selector that means no arm, or two, would make its claim easier, or stop all claims
        assert not part.outcome.reason.startswith("The sweep has no runs"), (claim, part.part.says)


def test_a_scale_that_is_not_judged_says_so(tmp_path: Path) -> None:
    for job in load(compose, ["+sweeps=table6", "scale=smoke", "regime=one_rate"]).jobs:
        write_run(tmp_path, job, [(0.5, 0.5)])
    (found,) = judge(load_claims(), str(tmp_path), "smoke", frozenset(["rank_one"]))
    part = found.parts[-1]
    assert part.regime is None and found.verdict in (Verdict.not_judged, Verdict.not_run)
    assert part.outcome.verdict is Verdict.not_judged and part.study is not None and part.study.model == "tiny_bert"


def test_where_a_scale_has_no_single_arm_of_a_claim_no_command_is_said_to_help(tmp_path: Path) -> None:
    (found,) = judge(load_claims(), str(tmp_path), "paper", frozenset(["prefix_non_monotone"]))
    reasons = " ".join(part.outcome.reason for part in found.parts)
    assert "The sweep has several arms of prefix_layer l_p = 8" in reasons
    assert "The sweep has no runs of prefix_embed l_p = 16" in reasons
    assert all(part.commands == () for part in found.parts if "The sweep has" in part.outcome.reason)
    (found,) = judge(load_claims(), str(tmp_path), "smoke", frozenset(["subspace_ranks"]))
    of_weights = [part for part in found.headline if part.part.test == "above_chance"]
    assert {part.outcome.reason for part in of_weights} == {"The sweep has no runs of r = 64 at scale=smoke."}
    assert all(part.commands == () for part in of_weights)
    assert found.command == f"python -m analysis claims subspace_ranks --scale smoke --runs {tmp_path}"


def test_what_updates_learn_is_asked_where_no_margin_is_planned(tmp_path: Path) -> None:
    found = seeds_share({"q": [4.0, 4.2], "v": [3.0, 3.0], "q - v": [1.0, 1.2]})
    runs = [each._replace(model="cerebras_13b", task="wikisql") for each in found]
    write_statistics(tmp_path, "section7", "paper", runs, "a command")
    (claim,) = judge(load_claims(), str(tmp_path), "paper", frozenset(["subspace_seeds"]))
    assert "q beside Gaussian: +2.600" in claim.headline[0].outcome.reason


def seeds_share(values: dict[str, list[float]], chance: float = 1.5) -> list[Statistic]:
    """Returns dimensions that seeds share, one number a seed, for q, v and q - v."""
    return [
        Statistic(
            **{"name": "seeds_shared_dims_jackknife", "model": "minilm", "task": "movies", "where": where},
            **{"setting": "A, first 64 of r=64", "seeds": (seed,), "value": value, "chance": by_chance},
            **{"against": "Gaussian", "run_ids": ()},
        )
        for where, numbers in values.items()
        for by_chance in [0.0 if where == "q - v" else chance]
        for seed, value in enumerate(numbers)
    ]


@pytest.mark.parametrize(
    ("q_less_v", "verdict", "reason"),
    [
        ([1.0, 1.2, 0.9, 1.1, 1.3], Verdict.supported, "q - v beside Gaussian: +1.100 (95 % bound: at least +0.949)"),
        (
            [-1.0, -1.2, -0.9, -1.1, -1.3],
            Verdict.contradicted,
            "q - v beside Gaussian: -1.100 (95 % bound: at most -0.949)",
        ),
        ([1.0, -1.2, 0.9, -0.8, 0.3], Verdict.undecided, "q - v beside Gaussian: +0.04"),
        ([1.0, 1.2, 0.9, 1.1], Verdict.interim, "4 of 5 seeds."),
        ([1.0], Verdict.not_run, "Its statistics are not measured for enough seeds."),
    ],
)
def test_what_updates_learn_is_judged_beside_chance(
    store: Path, q_less_v: list[float], verdict: Verdict, reason: str
) -> None:
    write_section7(store)
    found = seeds_share({"q": [4.0, 4.2, 4.1, 3.9, 4.0], "v": [3.0] * 5, "q - v": q_less_v})
    write_statistics(store, "section7", "proxy", found, "a command")
    (claim,) = judge(load_claims(), str(store), "proxy", frozenset(["subspace_seeds"]))
    by_chance, difference = claim.headline
    assert by_chance.outcome.verdict is Verdict.supported
    assert by_chance.estimates["q beside Gaussian"].mean == pytest.approx(2.54)  # 4.04 - 1.5
    assert difference.outcome.verdict is verdict and difference.outcome.reason.startswith(reason)
    assert (verdict in (Verdict.interim, Verdict.not_run)) == (
        f"python -m analysis measure section7 --runs {store}" in difference.commands
    )
    on_mpnet = [part for part in claim.parts if part.study and part.study.model == "mpnet"]
    assert {part.outcome.verdict for part in on_mpnet} == {Verdict.not_run}


@pytest.mark.parametrize(
    ("fault", "verdict", "reason"),
    [
        ("", Verdict.supported, "q beside Gaussian: "),
        ("no margin", Verdict.interim, "The margin is not known"),
        (
            "rise",
            Verdict.uninformative,
            "Training had not ended: dev got better by more than the margin in the last epoch (r",
        ),
        ("once", Verdict.uninformative, "Whether training had ended is not known, as dev was scored once (r = 64)."),
        ("absent", Verdict.interim, "The store lacks runs of r = 64, so whether training had ended is not known. q b"),
        (
            "one absent",
            Verdict.interim,
            "The store lacks runs of r = 64, so whether training had ended is not known. q",
        ),
        ("diverged", Verdict.uninformative, "Runs diverged: r = 64."),
        ("diverged at r = 8", Verdict.supported, "q beside Gaussian: "),
    ],
)
def test_weights_say_nothing_of_runs_that_diverged_or_had_not_ended(
    tmp_path: Path, fault: str, verdict: Verdict, reason: str
) -> None:
    """The part reads r = 64 alone; in runs on permuted labels, which it does not read, dev rises by 50 points."""
    if fault != "no margin":
        write_margin(tmp_path)
    write_section7(tmp_path, rise=0.017 if fault == "rise" else 0.015)  # the margin is 0.016
    found = seeds_share({"q": [4.0, 4.2, 4.1, 3.9, 4.0], "v": [3.0] * 5, "q - v": [1.0] * 5})
    write_statistics(tmp_path, "section7", "proxy", found, "a command")
    of = "-r8-qv-s4-" if fault.endswith("8") else "-r64-qv-s4-"
    job = next(
        job
        for job in sweep_jobs("+sweeps=section7", "regime=one_rate", "model=minilm")
        if of in job.run_id and not job.resolved.run.task.permute_labels
    )
    if fault == "absent":
        for folder in (tmp_path / "runs").glob("minilm-movies-lora-r64-qv-s*"):
            shutil.rmtree(folder)
    if fault.startswith("diverged") or fault in ("once", "one absent"):
        shutil.rmtree(tmp_path / "runs" / job.run_id)
    if fault.startswith("diverged"):
        write_status(tmp_path, job, "diverged", "the loss is nan")
    if fault == "once":
        write_run(tmp_path, job, [(0.84, 0.84)])
    (claim,) = judge(load_claims(), str(tmp_path), "proxy", frozenset(["subspace_seeds"]))
    assert claim.headline[0].outcome.verdict is verdict
    assert claim.headline[0].outcome.reason.startswith(reason)


@pytest.mark.parametrize(
    ("nothing", "verdict", "reason"),
    [
        ([0.18, 0.17, 0.19, 0.2, 0.18], Verdict.supported, "test: +0.20 points (95 % bound: at most "),
        ([0.003, 0.002, 0.004, 0.001, 0.002], Verdict.uninformative, "Cut to nothing, LoRA is not shown to lose more"),
        (
            [],
            Verdict.uninformative,
            "Cut to nothing, LoRA is not shown to lose more than the margin. It is not measured",
        ),
    ],
)
def test_a_cut_update_that_loses_nothing_says_something_only_if_no_update_loses(
    store: Path, nothing: list[float], verdict: Verdict, reason: str
) -> None:
    write_section7(store)
    kept = [0.002, 0.003, 0.001, 0.004, 0.0]
    found = [
        Statistic(
            **{"name": "truncated_gap", "model": "minilm", "task": "movies", "where": "test", "seeds": (seed,)},
            **{"setting": f"keep={keep} of r=64", "value": value, "chance": None, "against": "", "run_ids": ()},
        )
        for keep, values in ((4, kept), (0, nothing))
        for seed, value in enumerate(values)
    ]
    write_statistics(store, "section7", "proxy", found, "a command")
    (claim,) = judge(load_claims(), str(store), "proxy", frozenset(["subspace_ranks"]))
    part = next(each for each in claim.headline if each.part.statistic == "truncated_gap")
    assert part.outcome.verdict is verdict and part.outcome.reason.startswith(reason)
    assert any("after the last epoch, with bounds by a t test over seeds alone" in note for note in part.notes)


def test_permuted_labels_are_asked_only_of_models_that_the_sweep_trains_on_them() -> None:
    jobs = sweep_jobs("+sweeps=section7")
    trained = {job.resolved.run.model.name for job in jobs if job.resolved.run.task.permute_labels}
    asked = {
        study.model
        for claim in load_claims().claims
        for part in claim.parts
        for study in claim.studies
        if PERMUTED in part.against and part.is_asked_of(study)
    }
    assert asked == trained == {"minilm"}


def test_amplification_is_judged_by_the_factor_that_the_claim_names() -> None:
    """By the ledger: factors of 0.67 to 0.92 of a random update's at r = 4, so the claim's factor is not shown."""
    with opened(str(HOME / "analysis" / "results" / "section7.parquet")) as store:
        (claim,) = judge(load_claims(), store, "proxy", frozenset(["amplification"]))
    verdicts = {(part.part.statistic, part.part.setting): part.outcome.verdict for part in claim.headline[2:]}
    assert verdicts == {
        ("amplification_ratio", "r=4"): Verdict.contradicted,
        ("amplification_ratio", "r=64"): Verdict.contradicted,
        ("sign", "r=4"): Verdict.undecided,
    }
    assert claim.verdict is Verdict.contradicted
    assert claim.headline[2].estimates["q beside random update"].mean == pytest.approx(-0.212, abs=5e-4)


@pytest.mark.parametrize(("phi", "verdict"), [(0.25, Verdict.contradicted), (0.19, Verdict.supported)])
def test_an_update_holds_hardly_the_top_of_w_if_phi_is_about_the_papers_two_tenths(
    store: Path, phi: float, verdict: Verdict
) -> None:
    """The paper's 0.2 is phi itself, of which chance is 0.1."""
    write_section7(store)
    found = [
        Statistic(
            **{"name": "phi_in_top_of_w", "model": "minilm", "task": "movies", "where": "q"},
            **{"setting": "A, first 4 of r=64", "seeds": (seed,), "value": phi + more, "chance": 0.1},
            **{"against": "Gaussian", "run_ids": ()},
        )
        for seed, more in enumerate((-0.002, -0.001, 0.0, 0.001, 0.002))
    ]
    write_statistics(store, "section7", "proxy", found, "a command")
    (claim,) = judge(load_claims(), str(store), "proxy", frozenset(["update_vs_w"]))
    above, hardly = claim.headline
    assert above.outcome.verdict is Verdict.supported and hardly.outcome.verdict is verdict
    assert hardly.estimates["q beside Gaussian"].mean == pytest.approx(phi - 0.1)


def test_statistics_of_runs_that_are_not_the_sweeps_any_more_are_not_judged(store: Path) -> None:
    write_section7(store)
    values = {"q": [4.0, 4.2, 4.1, 3.9, 4.0], "v": [3.0, 3.1, 2.9, 3.0, 3.2], "q - v": [1.0, 1.2, 0.9, 1.1, 1.3]}
    runs = load(compose, ["+sweeps=section7"], store).reported
    (own, *_) = [job.run_id for job in runs if job.resolved.run.model.name == "minilm"]
    for run_id, verdict in ((own, Verdict.supported), ("minilm-movies-lora-r64-qv-s0-deadbeef00", Verdict.not_run)):
        found = [each._replace(run_ids=(run_id,)) for each in seeds_share(values)]
        write_statistics(store, "section7", "proxy", found, "a command")
        (claim,) = judge(load_claims(), str(store), "proxy", frozenset(["subspace_seeds"]))
        assert {part.outcome.verdict for part in claim.headline} == {verdict}
        assert {part.run_ids for part in claim.headline} == {(own,) if run_id == own else ()}


def test_statistics_of_weights_are_written_as_they_are(tmp_path: Path, capsys: Captured) -> None:
    write_statistics(tmp_path, "section7", "proxy", seeds_share({"q": [4.0, 4.2], "v": [3.0, 3.1]}), "a command")
    code, out, _ = call(capsys, "claims", "subspace_seeds", "--runs", tmp_path)
    assert code == 0 and "- q beside Gaussian: +2.600 [" in out and "+260" not in out
