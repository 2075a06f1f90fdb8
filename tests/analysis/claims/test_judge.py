"""Claims judged from stores of hand-made runs: what is there, what is missing, and what cannot be trusted."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.claim_stores import answer, sweep_jobs, write_margin, write_ranks
from helpers.handmade_runs import write_run, write_status

from analysis.claims.criteria import Verdict
from analysis.claims.declared import Study, load_claims
from analysis.claims.judge import Judged, judge
from analysis.section7.statistics import Statistic, write_statistics
from lora_repro.config.compose import compose
from lora_repro.sweep.grid import load

LEVELS = {"q,v": 0.84, "q,k,v,o": 0.845, "q": 0.80, "k": 0.70}


def scores(**changes: float) -> Callable[[str, int, int], float]:
    """Returns scores by targets that hardly depend on the rank; `r64=0.03` adds to q and v at r = 64."""

    def score(targets: str, r: int, seed: int) -> float:
        more = changes.get(f"r{r}", 0.0) if targets == "q,v" else 0.0
        return LEVELS[targets] + more + (0.002 if (seed + r) % 2 else -0.002)

    return score


def first_part(store: Path, regime: str = "one_rate") -> Judged:
    """Judges whether r = 1 is enough on q and v, on minilm in one regime."""
    declared = load_claims()
    claim = next(claim for claim in declared.claims if claim.id == "rank_one")
    alone = replace(claim, studies=[Study(model="minilm", task="movies", regimes=[regime])], parts=claim.parts[:1])
    (found,) = judge(replace(declared, claims=[alone]), str(store), "proxy")
    (part,) = found.parts
    return part


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that has the margin: 1.6 points."""
    write_margin(tmp_path)
    return tmp_path


def test_a_whole_sweep_without_a_gain_supports_the_claim(store: Path) -> None:
    write_ranks(store, scores())
    part = first_part(store)
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
    part = first_part(store)
    assert part.outcome.verdict is Verdict.contradicted and part.outcome.reason.startswith("q,v r = 64 over q,v r = 1")


def test_a_missing_seed_makes_it_interim_and_says_the_command(store: Path) -> None:
    whole = scores()
    write_ranks(
        store, lambda targets, r, seed: None if (targets, r, seed) == ("q,v", 64, 9) else whole(targets, r, seed)
    )
    part = first_part(store)
    assert part.outcome.verdict is Verdict.interim and part.outcome.reason.startswith("49 of 50 runs have a score.")
    assert part.estimates["q,v r = 64 over q,v r = 1"].n == 9  # whole pairs alone
    assert part.command is not None and "+sweeps=table6" in part.command and "regime=one_rate" in part.command


def test_a_failed_run_is_missing_and_one_seed_estimates_nothing(store: Path) -> None:
    whole = scores()
    write_ranks(store, lambda targets, r, seed: whole(targets, r, seed) if seed == 0 else None)
    job = next(
        job for job in sweep_jobs("+sweeps=table6", "regime=one_rate", "model=minilm") if "-r1-qv-s1-" in job.run_id
    )
    write_status(store, job, "failed", "out of memory")
    part = first_part(store)
    assert part.outcome.verdict is Verdict.interim and part.outcome.reason == "6 of 50 runs have a score."


def test_a_diverged_run_is_no_score(store: Path) -> None:
    whole = scores()
    write_ranks(
        store, lambda targets, r, seed: None if (targets, r, seed) == ("q,v", 64, 9) else whole(targets, r, seed)
    )
    jobs = sweep_jobs("+sweeps=table6", "regime=one_rate", "model=minilm")
    write_status(store, next(job for job in jobs if "-r64-qv-s9-" in job.run_id), "diverged", "the loss is nan")
    part = first_part(store)
    assert part.outcome.verdict is Verdict.uninformative and "Runs diverged: q,v r = 64" in part.outcome.reason


def test_a_control_that_shows_no_loss_makes_it_uninformative(store: Path) -> None:
    whole = scores()
    write_ranks(store, lambda targets, r, seed: whole("q,v" if targets == "k" else targets, r, seed))
    part = first_part(store)
    assert part.outcome.verdict is Verdict.uninformative and "positive control" in part.outcome.reason
    assert part.control is not None and part.control.verdict is Verdict.contradicted


def test_without_the_margin_nothing_is_judged(tmp_path: Path) -> None:
    write_ranks(tmp_path, scores())
    part = first_part(tmp_path)
    assert part.outcome.verdict is Verdict.interim and part.outcome.reason.startswith("The margin is not known")
    assert "+sweeps=margin" in part.outcome.reason


def test_dev_that_still_rises_by_more_than_the_margin_is_unfinished_training(store: Path) -> None:
    write_ranks(store, scores(), epochs=3, rise=0.02)
    part = first_part(store)
    assert part.outcome.verdict is Verdict.uninformative and "Training had not ended" in part.outcome.reason


def test_dev_that_rises_by_less_is_finished(store: Path) -> None:
    write_ranks(store, scores(), epochs=3, rise=0.01)
    assert first_part(store).outcome.verdict is Verdict.supported


def test_documents_can_undo_what_seeds_alone_would_say(store: Path) -> None:
    write_ranks(store, scores())
    jobs = sweep_jobs("+sweeps=table6", "regime=one_rate", "model=minilm")
    for job in jobs:
        method: Any = job.resolved.run.method
        if method.targets == ["q", "v"]:  # ten documents; r = 64 is right on the fifth, r = 1 on the first
            right = [n != (0 if method.r == 64 else 4) for n in range(10)]
            answer(store, job, right, list(range(10)))
    part = first_part(store)
    estimate = part.estimates["q,v r = 64 over q,v r = 1"]
    assert estimate.draws is not None and estimate.high is not None and estimate.high > 0.1
    assert part.outcome.verdict is Verdict.undecided and part.outcome.seeds is None  # more seeds would not help


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
            rate = run.train.learning_rate
            better = 0.001 * rate if method.r == 64 else -0.01 * (rate != 3e-3)  # pyright: ignore[reportAttributeAccessIssue]
            write_run(store, job, [(value + better, 0.5)])
    part = first_part(store, "tuned")
    assert part.outcome.verdict is Verdict.uninformative
    assert "at the edge of its grid: q,v r = 64." in part.outcome.reason


def test_what_is_counted_needs_no_runs(tmp_path: Path) -> None:
    names = frozenset(["param_reduction", "theta_fraction", "checkpoint", "storage_100_tasks"])
    found = {each.claim.id: each for each in judge(load_claims(), str(tmp_path), "proxy", names)}
    assert {each.verdict for each in found.values()} == {Verdict.supported}
    (reduction,) = found["param_reduction"].parts
    assert "4,718,592" in reduction.outcome.reason  # 96 layers * 2 matrices * 2 * 12,288
    (checkpoint,) = found["checkpoint"].parts
    assert "37.7 MB" in checkpoint.outcome.reason


def test_the_papers_numbers_go_through_the_same_question(tmp_path: Path) -> None:
    part = first_part(tmp_path)
    assert part.outcome.verdict is Verdict.not_run
    by_task = {each.task: each for each in part.printed}
    assert by_task["wikisql"].differences["q,v r = 8 over q,v r = 1"] == pytest.approx(0.004)  # 73.8 - 73.4
    outcome = by_task["wikisql"].outcome
    assert outcome is not None and outcome.verdict is Verdict.undecided  # +0.4 + 1.645 * 0.5 * sqrt(2) = +1.56
    assert "at most +1.56" in outcome.reason
    mnli = by_task["mnli"].outcome
    assert mnli is not None and mnli.verdict is Verdict.supported


def test_every_claim_of_the_paper_is_declared_and_has_a_verdict_or_says_what_is_missing(tmp_path: Path) -> None:
    claims = load_claims().claims
    assert len(claims) == 32
    for found in judge(load_claims(), str(tmp_path), "proxy"):
        assert found.parts or found.missing, found.claim.id
        json.dumps([part.outcome.reason for part in found.parts])


def test_a_scale_that_is_not_judged_says_so(tmp_path: Path) -> None:
    for job in load(compose, ["+sweeps=table6", "scale=smoke", "regime=one_rate"]).jobs:
        write_run(tmp_path, job, [(0.5, 0.5)])
    (found,) = judge(load_claims(), str(tmp_path), "smoke", frozenset(["rank_one"]))
    part = next(part for part in found.parts if part.regime == "one_rate")
    assert part.outcome.verdict is Verdict.not_judged and part.study is not None and part.study.model == "tiny_bert"


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
        ([1.0, 1.2, 0.9, 1.1, 1.3], Verdict.supported, "q - v beside Gaussian: +1.10, at least +0.95"),
        ([-1.0, -1.2, -0.9, -1.1, -1.3], Verdict.contradicted, "q - v beside Gaussian: -1.10, at most -0.95"),
        ([1.0, -1.2, 0.9, -0.8, 0.3], Verdict.undecided, "q - v beside Gaussian: +0.04"),
        ([1.0, 1.2, 0.9, 1.1], Verdict.interim, "4 of 5 seeds."),
        ([1.0], Verdict.not_run, "Its statistics are not measured for enough seeds."),
    ],
)
def test_what_updates_learn_is_judged_beside_chance(
    tmp_path: Path, q_less_v: list[float], verdict: Verdict, reason: str
) -> None:
    found = seeds_share({"q": [4.0, 4.2, 4.1, 3.9, 4.0], "v": [3.0] * 5, "q - v": q_less_v})
    write_statistics(tmp_path, "section7", "proxy", found, "a command")
    (claim,) = judge(load_claims(), str(tmp_path), "proxy", frozenset(["subspace_seeds"]))
    by_chance, difference = claim.headline
    assert by_chance.outcome.verdict is Verdict.supported
    assert by_chance.estimates["q beside Gaussian"].mean == pytest.approx(2.54)  # 4.04 - 1.5
    assert difference.outcome.verdict is verdict and difference.outcome.reason.startswith(reason)
    assert difference.command is not None and difference.command.endswith("python -m analysis measure section7")
    on_mpnet = [part for part in claim.parts if part.study and part.study.model == "mpnet"]
    assert {part.outcome.verdict for part in on_mpnet} == {Verdict.not_run}
