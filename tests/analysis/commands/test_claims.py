"""`python -m analysis claims`: the table, a claim in full, and JSON that says the same."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.claim_stores import sweep_jobs, write_margin, write_scored
from helpers.commands import call
from helpers.fixture_types import Captured

from lora_repro.config.catalogue import HOME

CHEAP = ("weights_spread", "param_reduction", "e2e", "vram")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Table 5 in one regime, with q and v first and k last."""
    write_margin(tmp_path)
    levels = {"q": 0.80, "k": 0.70, "v": 0.82, "o": 0.815, "q,k": 0.81, "q,v": 0.84, "q,k,v,o": 0.845}
    for job in sweep_jobs("+sweeps=table5", "regime=one_rate"):
        run, method = job.resolved.run, job.resolved.run.method
        score = levels[",".join(method.targets)] + 0.001 * (run.seed % 2)  # pyright: ignore[reportAttributeAccessIssue]
        write_scored(tmp_path, job, score)
    return tmp_path


def test_the_table_and_the_json_say_the_same(store: Path, capsys: Captured) -> None:
    code, text, _ = call(capsys, "claims", *CHEAP, "--runs", str(store))
    assert code == 0
    rows = {line.split("(")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert "not run on minilm (proxy, tuned); supported on minilm, one_rate" in rows["weights_spread"]
    assert "WikiSQL: (1) undecided, (2) undecided, (3) holds up to a margin of 2.14 points; " in rows["weights_spread"]
    assert "37,003 times as many" in rows["param_reduction"] and "supported (counted)" in rows["param_reduction"]
    assert "not run on smollm2 (proxy, by_method)" in rows["e2e"]
    assert "gpt2_medium: (1) no spread printed, (2) no spread printed; gpt2_large: (1) no" in rows["e2e"]
    assert "paper scale only" in rows["vram"]
    assert "`python -m lora_repro -m +sweeps=table5 scale=proxy regime=tuned" in rows["weights_spread"]
    assert "4 claims: 1 supported, 2 not run, 1 paper scale only." in text
    assert "\n- q,v over q: +4.00 [" in text
    assert "Margin: 1.60 points, 0.1 of what lora over head_only gains on dev with the tuning seeds." in text

    code, data, _ = call(capsys, "claims", *CHEAP, "--runs", str(store), "--format", "json")
    claims: dict[str, Any] = {claim["id"]: claim for claim in json.loads(data)}
    assert sorted(claims) == sorted(CHEAP)
    assert {claim["verdict"] for claim in claims.values()} == {"supported", "not run", "paper scale only"}
    one_rate = [each for each in claims["weights_spread"]["evidence"] if each["regime"] == "one_rate"]
    assert [each["verdict"] for each in one_rate] == ["supported"] * 3
    (first, *_) = one_rate[0]["estimates"]
    assert first["name"] == "q,v over q" and first["mean"] == pytest.approx(0.04) and first["n"] == 8
    assert one_rate[2]["limit"] == pytest.approx(0.016) and one_rate[2]["side"] == "above"
    assert len(one_rate[0]["run_ids"]) == one_rate[0]["expected"] == 40
    assert claims["vram"]["evidence"] == [] and claims["vram"]["missing"]


@pytest.mark.parametrize(
    ("form", "beginning"), [("html", "<table"), ("latex", "\\begin"), ("csv", "id,verdict,scale,")]
)
def test_every_format_is_offered(form: str, beginning: str, capsys: Captured, tmp_path: Path) -> None:
    code, text, words = call(capsys, "claims", "e2e", "vram", "--format", form, "--runs", str(tmp_path))
    assert code == 0, words
    assert beginning in text and "e2e" in text
    assert form == "csv" or "`" not in text


def test_csv_has_a_line_for_each_estimate(capsys: Captured) -> None:
    """By the ledger: four ranks over r = 1 on q and v in the regime of one rate, with the numbers of the JSON."""
    command = ("claims", "rank_one", "--runs", HOME / "analysis" / "results" / "table6.parquet", "--format")
    lines = [*csv.DictReader(io.StringIO(call(capsys, *command, "csv")[1]))]
    own = [each for each in lines if each["regime"] == "one_rate" and each["estimate"].startswith("q,v r = 8 over")]
    (claim,) = json.loads(call(capsys, *command, "json")[1])
    estimates = [
        each
        for part in claim["evidence"]
        if (part["model"], part["regime"], part["task"]) == ("minilm", "one_rate", "movies")
        for each in part["estimates"]
    ]
    by_name = {each["name"]: each["mean"] for each in estimates}
    assert float(own[0]["mean"]) == by_name["q,v r = 8 over q,v r = 1"] and own[0]["n"] == "10"


def test_what_is_no_claim_is_refused(capsys: Captured) -> None:
    code, _, words = call(capsys, "claims", "rank_won")
    assert code != 0 and "there is no claim 'rank_won'. Did you mean 'rank_one'?" in words
    code, _, words = call(capsys, "claims", "--scale", "prox")
    assert code != 0 and "no scale 'prox'" in words
