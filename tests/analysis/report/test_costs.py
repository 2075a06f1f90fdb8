"""Costs and provenance of runs, added up by hand."""

import pandas as pd

from analysis.report.costs import commits_of, costs_of, environment_of

ROWS = [
    (1800.0, "a CPU", 2, "a" * 40, False),
    (1800.0, "a CPU", 2, "a" * 40, False),
    (None, "a GPU", 8, None, None),
    (7200.0, "a GPU", 8, "b" * 40, True),
]
COLUMNS = ["device_class", "threads", "commit", "dirty"]
RUNS = pd.DataFrame(ROWS, columns=["run_seconds", *(f"provenance.{name}" for name in COLUMNS)])


def test_hours_are_added_up_by_machine() -> None:
    assert [(cost.machine, cost.runs, cost.hours, cost.text) for cost in costs_of(RUNS)] == [
        ("a CPU, 2 threads", 2, 1.0, "1.00 h"),
        ("a GPU, 8 threads", 2, 2.0, "2.00 h (1 without a time)"),
        ("all", 4, 3.0, "3.00 h (1 without a time)"),
    ]


def test_a_run_that_was_resumed_early_on_counts_as_long_as_it_trained() -> None:
    runs = RUNS.assign(train_seconds=[9000.0, 60.0, None, 60.0])
    assert [cost.hours for cost in costs_of(runs)] == [3.0, 2.0, 5.0]


def test_commits_say_what_was_changed() -> None:
    assert commits_of(RUNS) == ("aaaaaaaaaa", "bbbbbbbbbb with uncommitted changes")
    assert commits_of(pd.DataFrame({"run_id": []})) == ()


def test_the_environment_counts_what_differs() -> None:
    found = dict(environment_of(RUNS))
    assert found["threads"] == "2 (2); 8 (2)" and "not recorded (1)" in found["commit"]
