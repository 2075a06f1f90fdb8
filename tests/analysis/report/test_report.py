"""The report of a store: its numbers are those of the records, and nothing that a record says becomes markup."""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.claim_stores import answer
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_runs import PROVENANCE, fill, job, jobs, write_run, write_status
from helpers.reports import HARM, Made, data_of, hostile_store, make

from analysis.cells import read_cells
from analysis.claims.arms import Arms
from analysis.claims.declared import load_claims
from analysis.items import read_item
from analysis.kinds.methods import MethodTable
from analysis.kinds.scores import ScoreTable
from analysis.protocol import Protocol
from analysis.render.report import page
from analysis.report.boxes import Boxes, compared
from analysis.report.build import report
from analysis.report.items import REGIMES, Items, _paper_row
from analysis.store import opened
from lora_repro.config.catalogue import HOME, regime_names

TITLE = "Table 6: Effect of the rank r: targets {}, r = {}, generated (tiny_bert), one_rate"
LARGEST = 5_000_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Table 6 at scale smoke, all runs finished: 0.8 with seed 0, 0.9 with seed 1."""
    store = tmp_path_factory.mktemp("store")
    fill(store)
    return make(store)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A store whose records mean harm, and one of whose runs failed."""
    store = hostile_store(tmp_path_factory.mktemp("hostile"))
    return make(store, f"python -m analysis report --out '{HARM}'")


def boxes_of(made: Made, item: str) -> dict[str, Any]:
    return {box["title"]: box for box in made.data["boxes"] if box["id"].startswith(item)}


def test_cells_hold_the_numbers_of_the_table_and_their_texts(made: Made) -> None:
    item = read_item("table6")
    assert isinstance(item, ScoreTable)
    table = read_cells(item, "smoke", made.store, ["regime=one_rate"], Protocol.held_out)
    boxes = boxes_of(made, "table6-one_rate-")
    assert len(boxes) == len(table.ours) == 4
    for cell in table.ours:
        place = cell.place
        box = boxes[TITLE.format(place.row, place.column)]
        assert (box["mean"], box["low"], box["high"]) == cell.summary[:3]
        assert (box["n"], box["expected"]) == (2, 2)
        assert box["text"] == cell.metric.format(cell.summary.mean or 0) == "75.0"
        assert [run["run_id"] for run in box["runs"]] == [run.run_id for run in cell.runs]
        assert [run["score"] for run in box["runs"]] == pytest.approx([0.7, 0.8])
        assert [run["text"] for run in box["runs"]] == ["70.00", "80.00"]
        assert box["runs"][1]["curve"] == [[1, 0.5], [2, 0.9]] and box["runs"][1]["curve_text"] == ["50.00", "90.00"]
        assert box["runs"][0]["commit"] == PROVENANCE["commit"][:10] and box["command"] == cell.command


def test_what_the_page_shows_of_a_cell_is_what_its_json_holds(made: Made) -> None:
    buttons = re.findall(r'<button[^>]*data-box="([^"]*)"[^>]*>(.*?)</button>', made.page)
    by_id = {box["id"]: box for box in made.data["boxes"]}
    assert {name for name, _ in buttons} == by_id.keys() and len(buttons) == len(by_id) > 0
    for name, inside in buttons:
        box = by_id[name]
        difference = [] if box["difference"] is None else [box["difference"]["text"]]
        parts = [box["text"], box["interval"], box["seeds"], *difference]
        assert re.findall(r">([^<]+)<", inside) == [part for part in parts if part]


def test_numbers_of_the_page_are_in_its_json(made: Made) -> None:
    numbers = set(re.findall(r"\d+\.\d+", made.text.replace(str(made.store), "")))
    texts = json.dumps(made.data)
    assert len(numbers) > 50 and [each for each in numbers if each not in texts] == []


def test_a_difference_is_taken_seed_by_seed(tmp_path: Path) -> None:
    """By hand: q,v minus q is 0.1 and 0.3 by seed, so 0.2 on average."""
    scores = {("q", 0): 0.5, ("q", 1): 0.4, ("qv", 0): 0.6, ("qv", 1): 0.7}
    for (targets, seed), score in scores.items():
        for r in (1, 2):
            write_run(tmp_path, job(targets, r, seed), [(score, score)])
    item = read_item("table6")
    assert isinstance(item, ScoreTable)
    cells = {cell.place.row: cell for cell in read_cells(item, "smoke", tmp_path).ours if cell.place.column == 1}
    q, qv = cells["q"], cells["q,v"]
    found = compared(qv, q)
    assert found is not None and found.mean == pytest.approx(0.2) and found.n == 2
    assert found.low is not None and found.low == pytest.approx(
        0.2 - 12.706 * 0.1, abs=1e-3
    )  # t of 1, sd 0.1414 / root 2
    assert found.text == "+20.00 [-107.06, +147.06]" and found.sign == 0
    assert compared(q, q) is None


def test_a_missing_run_leaves_no_mean_and_no_difference(hostile: Made) -> None:
    box = boxes_of(hostile, "table6-one_rate-")[TITLE.format("q", 1)]
    assert (box["mean"], box["low"], box["difference"], box["text"]) == (None, None, None, "—")
    assert box["interval"] == "1/2 seeds, 1 failed" and box["n"] == 1


def test_nothing_that_a_record_says_becomes_markup(hostile: Made) -> None:
    assert HARM in json.dumps(hostile.data, ensure_ascii=False)
    assert hostile.page.count("</script>") == 2 and "<img src=x" not in hostile.page and HARM not in hostile.page
    assert hostile.page.count("<script") == 2
    first = hostile.page.partition("\n")[0]
    assert first.startswith("<!doctype html><!-- Generated by: python -m analysis report") and first.count("-->") == 1


def test_the_page_is_one_file_that_loads_nothing(made: Made) -> None:
    assert not re.search(
        r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|fetch\(|XMLHttp|<link(?! rel=\"icon\")|@@", made.page
    )
    assert all(source.startswith("data:") for source in re.findall(r'\bsrc="([^"]*)"', made.page))
    assert "default-src 'none'" in made.page and len(made.page.encode()) < LARGEST


def test_the_same_store_gives_the_same_bytes(made: Made) -> None:
    assert make(made.store).page == made.page


def test_the_first_line_names_command_and_commit(made: Made) -> None:
    first = made.page.partition("\n")[0]
    assert "Generated by: python -m analysis report --out report.html" in first and PROVENANCE["commit"][:10] in first


def test_claims_are_as_the_command_prints_them(made: Made, capsys: Captured) -> None:
    code, out, _ = call(capsys, "claims", "--scale", "smoke", "--runs", made.store, "--format", "json")
    assert code == 0
    assert [claim["record"] for claim in made.data["claims"]] == json.loads(out)
    shown = re.findall(r'<span class="verdict [^"]*">([^<]*)</span>', made.page)
    assert sorted(shown) == sorted(claim["record"]["verdict"] for claim in made.data["claims"])


def test_items_without_runs_say_what_computes_them(made: Made) -> None:
    sections = {section["id"]: section for item in made.data["items"] for section in item["sections"]}
    assert sections["table6-one_rate"]["missing"] is None
    assert "python -m lora_repro -m +sweeps=table5 scale=smoke regime=tuned" in sections["table5-tuned"]["missing"]
    assert all("+sweeps=section7" in sections[name]["missing"] for name in ("table7", "figure3", "figure4"))


def test_figures_of_section_7_are_drawn_where_weights_are(store: Path) -> None:
    found = report(str(store), "smoke", "python -m analysis report", ["figure3", "figure4", "rank_rates"])
    ranks, seeds, rates = found.items
    assert ranks.title == "Figure 3: Subspace similarity between ranks 8 and 16"
    assert rates.title == "Learning rate by rank"
    written = page(found)
    for item in (ranks, seeds):
        (section,) = item.sections
        assert section.missing is None and section.figure is not None and section.caption.startswith(item.title)
        data = base64.b64encode(section.figure.encode()).decode()
        assert f'src="data:image/svg+xml;base64,{data}"' in written and section.below[1][0] in written
    assert len(written.encode()) < LARGEST / 3


def test_a_report_of_the_same_store_is_the_same_page(made: Made, tmp_path: Path, capsys: Captured) -> None:
    place = tmp_path / "report.html"
    given = ("report", "--out", place, "--runs", made.store, "--scale", "smoke")
    assert call(capsys, *given)[0] == 0
    first = place.read_bytes()
    assert call(capsys, *given)[0] == 0 and place.read_bytes() == first
    code, _, err = call(capsys, "report", "--out", place, "--runs", made.store, "--scale", "smoke", "seed=0")
    assert code != 0 and "takes no seed=0" in err


def test_one_more_run_changes_the_page(tmp_path: Path) -> None:
    """Others' reports kept showing an earlier run's numbers."""
    *most, last = jobs()
    for each in most:
        write_run(tmp_path, each, [(0.8, 0.8)])
    before = make(tmp_path)
    write_run(tmp_path, last, [(0.8, 0.8)])
    after = make(tmp_path)
    assert before.page != after.page and (before.report.runs, after.report.runs) == (7, 8)
    unfinished, finished = (boxes_of(each, "table6-one_rate-")[TITLE.format("q,v", 2)] for each in (before, after))
    assert (unfinished["text"], unfinished["interval"], finished["text"]) == ("—", "1/2 seeds", "80.0")


def test_a_tie_is_rounded_as_in_the_table(tmp_path: Path, capsys: Captured) -> None:
    """83.25 is exact: Python writes 83.2, JavaScript's toFixed 83.3."""
    for each in jobs():
        write_run(tmp_path, each, [(0.8325, 0.8325)])
    box = boxes_of(make(tmp_path), "table6-one_rate-")[TITLE.format("q", 1)]
    assert (box["mean"], box["text"]) == (0.8325, "83.2")
    assert "83.2 [83.2, 83.2] n=2" in call(capsys, "table", "6", "--scale", "smoke", "--runs", tmp_path)[1]


def test_long_and_odd_texts_are_cut_and_escaped(tmp_path: Path) -> None:
    first, second, *rest = jobs()
    write_status(tmp_path, first, "failed", "x" * LARGEST)
    write_status(tmp_path, second, "failed", "a \u2028 separator and \x00")
    for each in rest:
        write_run(tmp_path, each, [(0.8, 0.8)])
    found = make(tmp_path, "python -m analysis report --out \udcff.html")  # a path that is no UTF-8
    assert len(found.page.encode("utf-8")) < LARGEST / 10
    reasons = {run["reason"] for box in found.data["boxes"] for run in box["runs"]}
    assert "a \u2028 separator and \x00" in reasons


def test_examples_are_counted_over_seeds(tmp_path: Path) -> None:
    """By hand: of three examples the first is right with both seeds, the second with seed 0, the third with none."""
    fill(tmp_path)
    for each in jobs():
        answer(tmp_path, each, [True, each.resolved.run.seed == 0, False], [0, 1, 1])
    box = boxes_of(make(tmp_path), "table6-one_rate-")[TITLE.format("q", 1)]
    found = box["answered"]
    assert (found["n"], found["runs"], found["always"], found["never"]) == (3, 2, 1, 1)
    assert [(each["number"], each["document"], each["answers"], each["right"]) for each in found["examples"]] == [
        (2, 1, ["0", "0"], 0),
        (1, 1, ["1", "0"], 1),
        (0, 0, ["1", "1"], 2),
    ]


def test_a_ledger_gives_the_cells_of_its_store(tmp_path: Path, capsys: Captured) -> None:
    store, ledger = tmp_path / "store", tmp_path / "study.parquet"
    fill(store)
    for each in jobs():
        answer(store, each, [True, each.resolved.run.seed == 0, False], [0, 1, 1])
    assert call(capsys, "ledger", "write", ledger, "--runs", store)[0] == 0
    pages = []
    for name, runs in (("a", store), ("b", ledger)):
        assert call(capsys, "report", "--out", tmp_path / f"{name}.html", "--runs", runs, "--scale", "smoke")[0] == 0
        pages.append(data_of((tmp_path / f"{name}.html").read_text(encoding="utf-8")))
    first, second = ([{**box, "command": None} for box in each["boxes"]] for each in pages)
    assert first == second and any(box["answered"] for box in first)
    assert pages[1]["store"] == str(ledger)


@pytest.mark.parametrize(("baseline", "costs"), [({}, 0), ({"method.name": "full"}, 2)])
def test_a_row_of_the_paper_leaves_room_for_ours_and_its_costs(baseline: dict[str, str], costs: int) -> None:
    item = read_item("table15")
    assert isinstance(item, MethodTable) and item.paper is not None
    row = _paper_row(replace(item, baseline=baseline), item.paper, item.facts["rows"][0])
    assert [entry.text for entry in row.entries] == [*[""] * (1 + costs), "73.8", "89.5"]


def test_every_regime_is_explained() -> None:
    assert REGIMES.keys() == set(regime_names())


def test_all_tables_show_the_scores_that_claims_are_judged_by(made: Made) -> None:
    assert {box["protocol"] for box in made.data["boxes"]} == {Protocol.held_out.description}


@pytest.mark.parametrize(
    ("name", "references"),
    [
        ("full_rank", {"full"}),
        ("leaderboard", {f"lora q,v at {at}" for at in ("68,000 weights", "226,000 weights")}),
    ],
)
def test_a_baseline_is_named_with_its_budget_where_there_are_budgets(name: str, references: set[str]) -> None:
    with opened(str(HOME / "analysis" / "results" / f"{name}.parquet")) as store:
        boxes = Boxes(store)
        Items(Arms(store, "proxy"), load_claims(), boxes, has_weights=False).read(name)
    found = {box.reference for box in boxes.boxes if box.reference is not None}
    own_size = "lora q,v at the largest budget, for methods of their own size"
    assert found - {own_size} == references and (own_size in found) == (name == "leaderboard")
