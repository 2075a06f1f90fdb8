"""`python -m analysis score`: keys, signatures, samples, and refusals before anything is computed."""

import json
import math
from pathlib import Path

import pytest
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.generated_texts import PREDICTIONS, REFERENCES, needs_java

from analysis.commands import score
from analysis.texts import pairs
from lora_repro.tasks.text_metrics import tools
from lora_repro.tasks.text_metrics.protocols import PROTOCOLS


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The options that name a system's texts and their references."""
    (tmp_path / "out.txt").write_text("".join(f"{text}\n" for text in PREDICTIONS))
    (tmp_path / "refs.txt").write_text("\n".join("".join(f"{text}\n" for text in texts) for texts in REFERENCES))
    return ["--predictions", str(tmp_path / "out.txt"), "--references", str(tmp_path / "refs.txt")]


def test_help_names_all_protocols_and_categories() -> None:
    assert tuple(PROTOCOLS) == score.PROTOCOLS and pairs.CATEGORIES == score.CATEGORIES


def test_json_has_the_official_scripts_names_and_units(files: list[str], capsys: Captured) -> None:
    """BLEU in percent as every table prints it, the edit rate as a fraction; all to the last digit."""
    code, out, _ = call(
        capsys, "score", "webnlg", *files, "--metrics", "bleu", "TER", "--format", "json", "--samples", 1
    )
    found = json.loads(out)
    assert code == 0 and (found["protocol"], found["texts"], found["references"]) == ("webnlg", 5, 9)
    assert found["BLEU"] == pytest.approx(42.48, abs=0.005) and found["TER"] == 0.6337995337995338
    assert set(found["signatures"]) == {"BLEU", "TER"} and "sacrebleu:2." in found["signatures"]["BLEU"]
    assert found["samples"]["metric"] == "TER"
    (worst,), (best,) = found["samples"]["worst"], found["samples"]["best"]
    assert worst == {"place": "line 4", "value": 1.0, "text": "", "references": ["There is nothing here."]}
    assert best["place"] == "line 1" and best["value"] < worst["value"]


def test_markdown_shows_values_with_signatures_and_samples(files: list[str], capsys: Captured) -> None:
    code, out, err = call(capsys, "score", "samsum", *files, "--samples", "2")
    assert code == 0 and err == ""
    assert "## samsum: 5 texts, 9 references" in out and "| ROUGE_1 | 0." in out
    assert "- ROUGE_L: `F, mean over texts|stem:porter|tok:a-z0-9|case:lc|rouge-score:" in out
    worst, best = out.partition("### Worst by ROUGE_L")[2].split("### Best by ROUGE_L")
    assert "- line 4, ROUGE_L 0.0000\n  - written: (nothing)\n  - right: There is nothing here." in worst
    assert worst.count("written:") == best.count("written:") == 2 and "line 4" not in best


@needs_java
@pytest.mark.long
def test_all_of_e2e_is_what_the_official_script_prints(files: list[str], capsys: Captured) -> None:
    """But for BLEU, which is that of its Perl script: some of these texts have fewer than four words."""
    _, out, _ = call(capsys, "score", "e2e", *files, "--format", "json")
    found = json.loads(out)
    assert list(found)[3:8] == ["BLEU", "NIST", "METEOR", "ROUGE_L", "CIDEr"]
    expected = {"BLEU": 33.93, "NIST": 4.6295, "METEOR": 0.4122, "ROUGE_L": 0.4015, "CIDEr": 2.3975}
    assert {key: found[key] for key in expected} == {
        key: pytest.approx(value, abs=0.005 if key == "BLEU" else 5e-5) for key, value in expected.items()
    }
    _, out, _ = call(capsys, "score", "dart", *files, "--format", "json")
    found = json.loads(out)
    assert list(found)[3:6] == ["BLEU", "METEOR", "TER"] and math.isclose(found["METEOR"], 0.37851430518255297)


def test_queries_are_scored_in_wikisqls_own_files(tmp_path: Path, capsys: Captured) -> None:
    query = {"sel": 0, "agg": 3, "conds": [[1, 0, "X"], [2, 1, 5]]}
    other = {**query, "conds": [[2, 1, 5], [1, 0, "x"]]}
    (tmp_path / "dev.jsonl").write_text(json.dumps({"sql": query}) + "\n" + json.dumps({"sql": query}) + "\n")
    (tmp_path / "out.jsonl").write_text(json.dumps({"query": other}) + "\n" + json.dumps({"error": "?"}) + "\n")
    given = ["--predictions", tmp_path / "out.jsonl", "--references", tmp_path / "dev.jsonl"]
    code, out, _ = call(capsys, "score", "wikisql", *given, "--format", "json")
    found = json.loads(out)
    assert code == 0 and (found["logical_form"], found["exact_match"], found["match_in_any_case"]) == (0.5, 0.0, 0.0)


@pytest.mark.parametrize(
    ("protocol", "right", "said"),
    [
        ("samsum", "今天天气很好", "ROUGE: the references of example 2 have no word of a to z"),
        ("samsum", "今天天气很好", "The protocol any_language compares words of any script."),
        ("wikisql", "no query", "logical form: the reference of example 2 is no query of WikiSQL (given: 'no query')"),
    ],
)
def test_a_reference_that_a_metric_cannot_read_is_refused(
    protocol: str, right: str, said: str, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "refs.txt").write_text(f"select a from b\n{right}\n", encoding="utf-8")
    given = ["--predictions", tmp_path / "refs.txt", "--references", tmp_path / "refs.txt"]
    code, out, err = call(capsys, "score", protocol, *given)
    assert code == 1 and out == "" and said in err


def test_json_beside_other_texts_is_refused_of_queries_alone(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "refs.txt").write_text('{"a": 1}\nno answer\n')
    (tmp_path / "out.txt").write_text('{"a": 1}\n{"a": 2}\n')
    given = ["--predictions", tmp_path / "out.txt", "--references", tmp_path / "refs.txt"]
    code, out, _ = call(capsys, "score", "any_language", *given, "--format", "json")
    assert code == 0 and json.loads(out)["ROUGE_L"] == 0.5
    code, _, err = call(capsys, "score", "wikisql", *given)
    assert code == 1 and "line 2: numbers columns" in err


def test_missing_java_is_told_before_a_file_is_read(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    tools.java_version.cache_clear()
    monkeypatch.setattr(tools, "_java", lambda: None)
    code, out, err = call(capsys, "score", "e2e", "--predictions", "none.txt", "--references", "none.txt")
    assert code == 1 and out == "" and "METEOR: needs Java" in err and "apt-get install" in err
    code, _, err = call(
        capsys, "score", "e2e", "--predictions", "none.txt", "--references", "none.txt", "--metrics", "BLEU", "NIST"
    )
    assert code == 1 and "none.txt: No such file" in err
    tools.java_version.cache_clear()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["e2e", "--metrics", "METEROR"], "--metrics: e2e has no metric 'METEROR'. Did you mean 'METEOR'?"),
        (
            ["webnlg", "--metrics", "BLEU", "--samples"],
            "--samples: none of these metrics has a value for a single text.\n",
        ),
        (["webnlg", "--metrics", "BLEU", "--samples", "-1"], "--samples: must be 0 or more (given: -1)"),
        (["samsum", "--categories", "seen"], "--categories seen: "),
        (["e2e", "--metrics", "BLEU", "x=1"], "has no metric 'x=1'"),
        (["samsum", "--predictions", ""], "--predictions: no file is given"),
    ],
)
def test_impossible_options_are_refused(options: list[str], said: str, files: list[str], capsys: Captured) -> None:
    code, out, err = call(capsys, "score", options[0], *files, *options[1:])
    assert code != 0 and out == "" and said in err


def test_scores_are_written_to_a_file(files: list[str], tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "scores.json"
    for _ in range(2):  # a file of ours is written over
        code, printed, _ = call(capsys, "score", "samsum", *files, "--format", "json", "--out", out)
        assert code == 0 and printed == "" and json.loads(out.read_text())["texts"] == 5
