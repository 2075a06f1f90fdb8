"""Every table in every format: nothing that a typesetter, a browser or a reader of CSV takes for something else."""

import csv
import json
import math
from pathlib import Path

import pytest
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_runs import fill
from helpers.markup import html_table, tex_rows

from analysis.commands.options import FORMATS
from analysis.items import Request, load_item
from analysis.render.printed import PrintedTable, markdown, write
from lora_repro.errors import InputError


def of(grid: list[list[str]], **more: object) -> PrintedTable:
    return PrintedTable("Table 1: A & B_1 < 5 % of {C}", grid, [])._replace(**more)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("68 %", r"68 \%"),  # a comment up to the end of the line: cells are lost without a word
        ("learning_rate", r"learning\_rate"),
        ("a & b", r"a \& b"),
        ("$5 #1 {x}", r"\$5 \#1 \{x\}"),
        ("C:\\new", r"C:\textbackslash{}new"),  # no line break
        ("~x ^y", r"\textasciitilde{}x \textasciicircum{}y"),  # no accents
        ("a < b | c > d", r"a \textless{} b \textbar{} c \textgreater{} d"),  # in OT1 other characters
        ("[0.1, 0.2]", "{}[0.1, 0.2]"),  # no argument of the line before
        ("*", "{}*"),
        ("-0.5 [-1.2, +0.3]", "$-$0.5 [$-$1.2, +0.3]"),
        ("1e-3 GPT-3 2024-01-02", "1e-3 GPT-3 2024-01-02"),  # no minus
        ("--again ---x", "-{}-again -{}-{}-x"),  # no dashes
        ("‖ΔW‖ — ± 0.1", r"$\Vert$$\Delta$W$\Vert$ \textemdash{} $\pm$ 0.1"),
        ("", ""),
    ],
)
def test_a_cell_prints_as_it_is_in_headers_and_lines(cell: str, expected: str) -> None:
    table = of([[cell, cell], [cell, "1"], ["x", cell]])
    rows = tex_rows(write(table, "latex"))
    assert rows == [[expected, expected], [expected, "1"], ["x", expected]]
    assert html_table(write(table, "html")).grid == table.grid


def test_titles_lines_and_paragraphs_are_escaped_too_and_code_is_code() -> None:
    table = of(
        [["a"], ["1"]],
        above=["5 % of <b> & x_1"],
        below=[[], ["Notes:", "- run `python -m x 'a_b=[q]' --out f` & <wait>"]],
    )
    text = write(table, "latex")
    assert r"\caption{Table 1: A \& B\_1 \textless{} 5 \% of \{C\}}" in text and r"\label{tab:table-1}" in text
    assert r"5 \% of \textless{}b\textgreater{} \& x\_1\par" in text
    code = (
        r"\texttt{python -m x \textquotesingle{}a\_b=[q]\textquotesingle{} -{}-out f} \& \textless{}wait\textgreater{}"
    )
    assert rf"\textbullet{{}} run {code}\par" in text
    assert tex_rows(text) == [["a"], ["1"]] and text.index("bottomrule") < text.index("{}b")
    found = html_table(write(table, "html"))
    assert found.caption == table.title
    assert found.below == "5 % of <b> & x_1Notes:\n• run python -m x 'a_b=[q]' --out f & <wait>"


def test_markup_in_a_name_stays_text() -> None:
    grid = [["<script>alert(1)</script>", "a&lt;b"], ["</table>", "\"x\" onload='y'"]]
    assert html_table(write(of(grid), "html")).grid == grid


def test_columns_of_equal_names_stay_and_numbers_stand_to_the_right() -> None:
    text = write(of([["r", "r", "n"], ["-1.5", "x", "12,000"], ["", "2", "30 %"]]), "latex")
    assert r"\begin{tabular}{rlr}" in text and tex_rows(text)[0] == ["r", "r", "n"]


def test_a_table_without_lines_keeps_its_header_and_without_numbers_is_refused() -> None:
    table = of([["a", "b"]])
    assert tex_rows(write(table, "latex")) == [["a", "b"]] and html_table(write(table, "html")).grid == [["a", "b"]]
    for form in ("latex", "html", "csv"):
        with pytest.raises(InputError, match=f"--format {form}: there are no numbers in Table 1"):
            write(of([]), form)


def test_csv_and_json_keep_each_bit_and_leave_empty_what_is_no_number() -> None:
    values = [0.1 + 0.2, 1 / 3, 1e-17, 5e-324, 2**53 + 1, -0.0]
    records = [{"a": value, "b": math.nan, "c": None, "d": (value, None, 0.5)} for value in values]
    table = PrintedTable("x", [["a"]], [*records, {"e": 'a,"b"\nc', "f": {"targets": "q,v", "r": 4}}])
    *lines, last = csv.DictReader(write(table, "csv").splitlines(keepends=True))
    assert [float(line["a"]) if "." in line["a"] or "e" in line["a"] else int(line["a"]) for line in lines] == values
    assert [line["d"] for line in lines] == [f"{value}  0.5" for value in values]
    assert {(line["b"], line["c"], line["e"]) for line in lines} == {("", "", "")}
    assert (last["a"], last["e"], last["f"]) == ("", 'a,"b"\nc', "targets=q,v r=4")
    assert [entry.get("a") for entry in json.loads(write(table, "json"))] == [*values, None]


@pytest.mark.parametrize(
    "number", ["2", "3", "4", "5", "6", "15", "freeze_a", "full_rank", "leaderboard", "rank_rates"]
)
def test_every_table_says_the_same_in_every_format(number: str, tmp_path: Path) -> None:
    fill(tmp_path)
    table = load_item("table", number).printed(Request("smoke", str(tmp_path)))
    rows = tex_rows(write(table, "latex"))
    assert len(rows) == len(table.grid) > 1
    found = html_table(write(table, "html"))
    assert (found.caption, found.grid) == (table.title, table.grid)
    assert "nan" not in f"{rows}{found.grid}".lower() and "None" not in f"{rows}{found.grid}"
    lines = list(csv.DictReader(write(table, "csv").splitlines()))
    assert len(lines) == len(table.records) and not any(
        value[:1] in ("{", "[") for line in lines for value in line.values()
    )
    for line in (line for part in (table.above, *table.below) for line in part):
        assert line.removeprefix("- ").strip().replace("`", "") in found.below and line in markdown(table)


def test_csv_and_json_of_methods_have_an_entry_for_each_arm_and_score_of_the_paper(tmp_path: Path) -> None:
    item = load_item("table", "15")
    lines = list(csv.DictReader(item.text(Request("smoke", str(tmp_path), format="csv")).splitlines()))
    full = [line for line in lines if (line["source"], line["method"]) == ("paper", "full")]
    assert [(line["task"], line["mean"], line["trained"]) for line in full] == [
        ("wikisql", "0.738", "175000000000"), ("mnli", "0.895", "175000000000"),
    ]  # fmt: skip
    records = json.loads(item.text(Request("smoke", str(tmp_path), format="json")))
    of_paper = [each for each in records if (each["source"], each["method"]) == ("paper", "lora")]
    assert of_paper[0] == {
        **{"source": "paper", "task": "wikisql", "model": "gpt3_175b", "method": "lora"},
        **{"settings": {"targets": "v", "r": 2}, "trained": 4_700_000, "mean": 0.734},
    }
    assert len(records) == len(lines)
    ours = [line for line in lines if line["source"] == "ours"]
    assert ours and all(line["mean"] == "" and line["states"] for line in ours)
    text = load_item("table", "leaderboard").text(Request("smoke", str(tmp_path), format="csv"))
    budgets = [line["budget"] for line in csv.DictReader(text.splitlines())]
    assert set(budgets) == {"512", "1024", ""}


def test_a_file_says_by_which_command_it_was_made_and_is_written_anew(tmp_path: Path, capsys: Captured) -> None:
    for form, first in {"md": "<!-- {} -->", "latex": "% {}", "html": "<!-- {} -->"}.items():
        file = tmp_path / form
        line = f"python -m analysis table 6 --scale smoke --runs {tmp_path} --format {form} --out {file}"
        for _ in range(2):
            assert call(capsys, *line.split()[3:])[0] == 0
        assert file.read_text().splitlines()[0] == first.format(f"Generated by: {line}")
    tex_rows((tmp_path / "latex").read_text().partition("\n")[2])
    html_table((tmp_path / "html").read_text())


def test_a_sweep_of_ones_own_prints_in_every_format(tmp_path: Path, capsys: Captured) -> None:
    fill(tmp_path)
    texts = {}
    for form in FORMATS:
        code, texts[form], _ = call(
            capsys, "table", "+sweeps=table6", "scale=smoke", "--format", form, "--runs", tmp_path
        )
        assert code == 0
    assert tex_rows(texts["latex"])[1][-1] == "60.0" and html_table(texts["html"]).caption == "Sweep table6"
    assert float(next(csv.DictReader(texts["csv"].splitlines()))["mean"]) == json.loads(texts["json"])[0]["mean"]
