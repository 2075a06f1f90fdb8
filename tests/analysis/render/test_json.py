"""JSON of figures that a record may hold as NaN: null, as JSON has no NaN."""

import json
import math

from analysis.diff import Difference, Kind
from analysis.render import differences, truncation
from analysis.section7.truncation import Cut, Truncation
from lora_repro.tasks import Metric, Unit


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_a_difference_from_nan_is_json() -> None:
    text = differences.to_json([Difference("eval/loss", math.nan, 0.5, Kind.result)])
    assert json.loads(text, parse_constant=no_constant) == [
        {"key": "eval/loss", "first": None, "second": 0.5, "kind": "result"}
    ]


def test_a_cut_that_scores_nan_is_json() -> None:
    cut = Cut(1, math.nan, {"eval/accuracy": math.inf})
    found = Truncation("run", 1, 1, [cut], {}, [], Metric("accuracy", Unit.percent))
    assert json.loads(truncation.to_json(found), parse_constant=no_constant) == [
        {"keep": 1, "eval/accuracy": None, "energy": None}
    ]
