"""The size of GPT-3 175B, in processor seconds: two cores have twice the clock's, and other processes take none."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from analysis.bench import subspace as bench


@pytest.mark.parametrize(
    "arguments",
    [["compare", "--pairs", "3", "--workers", "2"], ["compare", "--pairs", "1", "--deficient"], ["project"]],
)
def test_the_benchmark_runs_at_any_size(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    bench.main([*arguments, "--d", "256"])
    found = json.loads(capsys.readouterr().out)
    assert found["what"] == arguments[0] and found["seconds"] >= 0 and found["peak_memory_gib"] > 0


def test_a_deficient_update_lacks_half_of_its_rank() -> None:
    update = bench.drawn(50, 7, np.random.default_rng(0), deficient=True)
    assert np.linalg.matrix_rank(update.B) == 4 and np.linalg.matrix_rank(update.A) == 7


def test_the_benchmarks_weight_has_the_norms_of_table_7() -> None:
    W = bench.weight(1500, np.random.default_rng(0))
    assert np.linalg.norm(W) == pytest.approx(bench.WEIGHT_NORM, rel=0.02)
    assert np.linalg.norm(np.linalg.svd(W, compute_uv=False)[:64]) == pytest.approx(
        bench.TOP_NORM, rel=0.08
    )  # the bulk lifts it where d is small


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "seconds", "gib"), [("compare", 10, 2), ("compare --deficient", 10, 2), ("project", 60, 2)]
)
def test_the_size_of_gpt3_fits_two_cores(what: str, seconds: float, gib: float) -> None:
    command = [sys.executable, "-m", "analysis.bench.subspace", *what.split(), "--workers", "2"]
    alone = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=alone).stdout)
    assert found["cpu_seconds"] <= 2 * seconds
    assert found["peak_memory_gib"] <= gib
