"""Figures of Section 7, drawn from adapters made by hand."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from helpers import planned
from helpers.commands import Figures, figure, smoke
from helpers.fixture_types import Captured
from helpers.handmade_runs import jobs
from helpers.section7_runs import SECTION7, factors, item, section7, write_toy
from safetensors.numpy import load_file, save_file

from analysis.cells import read_cells
from analysis.commands.options import SIDES
from analysis.items import Request, load_item
from analysis.kinds.phi import PhiFigure, PhiGrids
from analysis.kinds.projections import ProjectionTable
from analysis.kinds.scores import ScoreTable
from analysis.kinds.weight import WeightFigure
from analysis.render import captions, style
from analysis.render.grids import Frame, Panel, lay_out, outline
from analysis.section7 import chance
from analysis.section7.chance import excess, left_factor, unexplained
from analysis.section7.compared_runs import ComparedRuns, Trained, read_updates
from analysis.section7.grid import Grid
from analysis.section7.item import layer_at
from analysis.section7.nulls import Band, pair_of_directions
from analysis.section7.sides import Side, directions_of
from analysis.section7.statistics import GAUSSIAN, INPUTS, START
from analysis.section7.subspace import phi_grid, svd
from lora_repro.config.compose import compose
from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError, MissingInputError
from lora_repro.methods import LoRAConfig
from lora_repro.sweep.grid import load

pytestmark = pytest.mark.usefixtures("one_cache")


@pytest.mark.parametrize(
    ("number", "entries", "layers", "words"),
    [
        ("3", 2, {0}, "Figure 3: Subspace similarity between ranks 8 and 16; tiny_bert on generated, scale=smoke"),
        ("4", 3, {0, None}, "two runs of r = 16, of seed 0 (rows, i) and seed 1 (columns, j)"),
        (
            "6",
            4,
            {0, 1},
            "Layers 0 and 1 of 0 to 1, at 1/96, 1/3, 2/3, 1 of the depth (paper: layers 1, 32, 64 and 96 of 96,",
        ),
        ("7", 4, {0, 1}, "colours from 0 to 0.8 as in the paper"),
        (
            "8",
            4,
            {0},
            "the first i directions of W_q (its first 4, 1/10 of all) and the first j of its update (4)",
        ),
        ("shared_directions", 4, {0, 1}, "trained from the same seed (0 and 1); by chance 16 / 32 = 0.500"),
    ],
)
def test_each_figure_is_drawn_and_its_caption_says_what_it_is(
    number: str, entries: int, layers: set[int | None], words: str, drawn: Figures
) -> None:
    figure = drawn(number)
    assert len(figure.data) == entries and {entry["layer"] for entry in figure.data} == layers
    assert words in figure.err and "Nulls: Gaussian, uniformly random directions" in figure.err
    nulls = [each for entry in figure.data for each in (entry["nulls"] if "rho" in entry else [entry["nulls"]])]
    assert all(set(each) == {GAUSSIAN, START, INPUTS} for each in nulls)
    (file,) = re.findall("^Written: (.*)$", figure.err, re.MULTILINE)
    assert Path(file).read_text().count("<path") > 100


def test_captions_name_the_panels_that_show_the_first_columns_again_by_their_titles(drawn: Figures) -> None:
    """Figure 6 has them layer by layer, so that they do not stand on one side."""
    for number in ("3", "6"):
        words = " ".join(drawn(number).err.split())
        assert ' Panels "j to 8" show the first 8 columns again. ' in words and "on the right" not in words
    assert "columns again" not in drawn("4").err


def test_phi_of_figure_3_is_that_of_the_tensors_and_so_are_the_counts(store: Path, drawn: Figures) -> None:
    entries = drawn("3").data
    runs = [section7(8, 0), section7(16, 0)]
    assert [entry["run_ids"] for entry in entries] == [[run.run_id for run in runs]] * 2
    files = [load_file(store / "runs" / run.run_id / "adapter" / "adapter_model.safetensors") for run in runs]
    for entry, module in zip(entries, ("query", "value"), strict=True):
        name = f"base_model.model.bert.encoder.layer.0.attention.self.{module}.lora_A.weight"
        one, other = (np.linalg.svd(file[name].astype(np.float64))[2].T for file in files)
        expected = [[np.square(one[:, :i].T @ other[:, :j]).sum() / min(i, j) for j in (1, 5, 16)] for i in (1, 8)]
        assert np.array(entry["phi"])[np.ix_([0, 7], [0, 4, 15])] == pytest.approx(np.array(expected), abs=1e-9)
        for null in entry["nulls"].values():
            phi = np.array(entry["phi"])
            assert null["above"] == (phi > np.array(null["high"])).sum()
            assert null["below"] == (phi < np.array(null["low"])).sum()


def test_what_runs_share_is_found_and_what_they_do_not_share_is_not(drawn: Figures) -> None:
    for number in ("3", "4"):
        q, v = drawn(number).data[:2]
        assert q["phi"][0][0] > 0.9 and q["nulls"][GAUSSIAN]["above"] > 5 and q["nulls"][START]["above"] > 5
        assert v["nulls"][GAUSSIAN]["above"] == v["nulls"][START]["above"] == 0


def test_two_gaussian_matrices_lie_within_their_band(drawn: Figures) -> None:
    random = drawn("4").data[-1]
    assert random["weight"] == "random" and random["nulls"][GAUSSIAN]["above"] == 0
    assert random["phi"][15][15] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("side", ["B", "dW-right", "dW-left"])
def test_the_other_sides_are_compared_too(side: str, store: Path, capsys: Captured) -> None:
    drawn = smoke(capsys, store, "3", "--format", "json", "--side", side)
    entry = drawn.data[0]
    one, other = (read_updates(_weights(store, r), section7(r, 0).resolved.run, _sites())[0] for r in (8, 16))
    expected = phi_grid(directions_of(one, Side(side)).U, directions_of(other, Side(side)).U)
    assert np.array(entry["phi"]) == pytest.approx(expected)
    assert set(entry["nulls"]) == ({GAUSSIAN, START, INPUTS} if side == "dW-right" else {GAUSSIAN})
    assert ("A is drawn for the nulls, B is the runs' own" in drawn.err) == (side == "dW-right")


def _weights(store: Path, r: int) -> Path:
    return store / "runs" / section7(r, 0).run_id / "adapter" / "adapter_model.safetensors"


def _sites() -> list[Any]:
    return item("3").sites(section7(8, 0).resolved.run.arch)


def test_the_factor_that_stands_in_for_B_gives_the_directions_of_B_A(store: Path) -> None:
    (update, *_) = read_updates(_weights(store, 8), section7(8, 0).resolved.run, _sites())
    seen, _ = pair_of_directions(update.A, update.A, (left_factor(update), np.eye(8)))
    assert np.abs((seen * svd(update).V).sum(0)) == pytest.approx(np.ones(8))


def test_side_names_are_those_of_the_command_line() -> None:
    assert tuple(side.value for side in Side) == SIDES


def test_a_figure_has_the_same_bytes_in_every_format_whatever_is_written_beside_it(
    store: Path, tmp_path: Path, capsys: Captured
) -> None:
    files = {(turn, form): tmp_path / f"{turn}.{form}" for turn in ("one", "two") for form in style.FORMATS}
    first, *others = style.FORMATS
    for turn, forms in (("one", style.FORMATS), ("two", others[::-1]), ("two", [first])):
        outs = [argument for form in forms for argument in ("--out", str(files[turn, form]))]
        assert smoke(capsys, store, "3", *outs).code == 0
    for form in style.FORMATS:
        one, two = (files[turn, form].read_bytes() for turn in ("one", "two"))
        assert one == two and len(one) > 10_000


def test_without_out_it_is_written_under_its_own_name(
    store: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = smoke(capsys, store, "3")
    assert (drawn.code, drawn.out) == (0, "") and "Written: figure3.svg" in drawn.err
    assert [path.name for path in tmp_path.iterdir()] == ["figure3.svg"]
    assert smoke(capsys, store, "3", "--format", "json").code == 0
    assert len(list(tmp_path.iterdir())) == 1


def test_without_weights_there_is_no_null_of_inputs_and_the_figure_says_so(
    store: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise MissingInputError("model tiny_bert: no weights.\nFetch it: python -m lora_repro.fetch tiny_bert")

    monkeypatch.setattr(chance, "inputs_of", missing)
    drawn = smoke(capsys, store, "3", "--format", "json")
    assert drawn.code == 0 and set(drawn.data[0]["nulls"]) == {GAUSSIAN, START}
    assert "No null of inputs: model tiny_bert: no weights. Fetch it: python -m lora_repro.fetch tiny_bert" in drawn.err


def test_a_missing_run_is_named_with_the_command_that_computes_it(tmp_path: Path, capsys: Captured) -> None:
    write_toy(tmp_path, section7(8, 0))
    drawn = smoke(capsys, tmp_path, "3", "seed=0")
    assert drawn.code == 1 and drawn.out == ""
    assert f"figure3: 1 of 2 runs are missing in {tmp_path}: {section7(16, 0).run_id} (to do)." in drawn.err
    command = f"python -m lora_repro -m +sweeps=section7 scale=smoke seed=0 paths.outputs={tmp_path}"
    assert f"Compute them: {command}\n" in drawn.err
    write_toy(tmp_path, section7(16, 0))
    drawn = smoke(capsys, tmp_path, "3", "seed=0", "--format", "json")
    assert drawn.code == 0 and drawn.data[0]["permuted"] is None
    assert f"Runs on permuted labels are not shown: they are not computed yet: {command}" in drawn.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["9"], ["figure 9: there is no such item", "figure 3, figure 4"]),
        (["shared_direction"], ["Did you mean 'shared_directions'?"]),
        (["3", "+sweeps=table6"], ["+sweeps: a figure of the paper has a sweep of its own"]),
        (["3", "method.r=8"], ["method.r: figure3 compares 2 (given: 8)", "method.r=8,16"]),
        (["3", "method.r=1,2"], ["2 of 2 runs are missing", "method.r=1,2"]),
        (["4", "seed=0"], ["seed: figure4 compares two seeds", "seed=0,1"]),
        (
            ["3", "train.epochs=1,2"],
            [
                "train.epochs: the compared runs may differ in",
                "Give one value: train.epochs=1",
            ],
        ),
        (["3", "method.targets=[q]"], ["do not adapt v"]),
        (
            ["3", "method.r_pattern={v:6}"],
            ["method.r_pattern: figure3 compares", "Leave it out"],
        ),
        (
            ["3", "method.layers=[1]"],
            ["method.layers: figure3 compares layers.0.", "the runs do not adapt it (given: 1)"],
        ),
        (["3", "--side", "C"], ["--side", "dW-right"]),
    ],
)
def test_bad_input_is_refused_in_words(arguments: list[str], words: list[str], store: Path, capsys: Captured) -> None:
    drawn = smoke(capsys, store, *arguments)
    assert drawn.code != 0 and drawn.out == "" and "Traceback" not in drawn.err
    for word in words:
        assert word in drawn.err


def test_planned_runs_say_why_they_cannot_be_drawn(
    store: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned.plan(monkeypatch, "analysis.section7.compared_runs")
    drawn = figure(capsys, store, "3", "--scale", "paper")
    assert drawn.code == 1 and planned.WHY in drawn.err and "--scale proxy" in drawn.err


def test_parts_of_the_depth_are_the_papers_layers_at_96_and_round_up_elsewhere() -> None:
    parts = ("1/96", "1/3", "1/2", "2/3", "1")
    expected = {96: [0, 31, 47, 63, 95], 12: [0, 3, 5, 7, 11], 6: [0, 1, 2, 3, 5], 2: [0, 0, 0, 1, 1], 1: [0] * 5}
    for depth, layers in expected.items():
        assert [layer_at(part, depth) for part in parts] == layers


def test_figure_8_of_another_weight_names_it_and_has_no_points_of_the_papers_q(store: Path) -> None:
    picture = replace(cast(WeightFigure, item("8")), weights=["v"]).picture(Request("smoke", str(store)))
    words = "\n".join(picture.caption)
    assert "Figure 8: W_v against" in words and "directions of W_v" in words
    assert "W_q" not in words and "circles" not in words


def test_colours_and_ranks_are_the_papers() -> None:
    figures = {number: cast(PhiFigure | WeightFigure, item(number)) for number in ("3", "4", "6", "7", "8")}
    assert {number: each.colours for number, each in figures.items()} == {
        **{"3": [0, 1], "6": [0, 1], "4": [0, 0.5], "7": [0, 0.8], "8": [0.09, 0.21]}
    }
    assert [figures[number].ranks for number in ("3", "4", "8")] == [[8, 64], [64, 64], [4, 8, 64]]
    assert isinstance(item("7t"), ProjectionTable) and item("7t").ranks == [4, 64]
    for each in figures.values():
        assert all(f"{end:g}" in each.facts["normalisation"] for end in each.colours)


def test_values_of_the_papers_figures_stand_at_our_layers() -> None:
    run = resolve(compose([])).run
    runs = (Trained("", run, Path()), Trained("", run, Path()))

    def points(
        number: str, layer: int, weight: str, curve: str, ranks: tuple[int, int], side: Side = Side.A
    ) -> list[float] | None:
        (site,) = [site for site in run.arch.select([weight]) if site.layer == layer]
        figure = cast(PhiFigure, item(number))
        found = PhiGrids(figure, "proxy", side, runs, ranks, [], None, None, "", "", None, "").paper_points(site, curve)
        return found[1] if found is not None else None

    assert points("3", 2, "q", "whole", (8, 64)) == [0.43, 0.36, 0.34, 0.33, 0.3, 0.27, 0.24, 0.21]
    assert points("6", 1, "v", "diagonal", (8, 64)) == [0.46, 0.36, 0.3, 0.24, 0.22, 0.19, 0.16, 0.14]
    assert points("7", 5, "v", "diagonal", (64, 64)) == [0.53, 0.26, 0.17, 0.1, 0.05, 0.03, 0.01]
    assert points("4", 2, "q", "whole", (64, 64)) is None and points("3", 2, "q", "whole", (1, 64)) is None
    for side in (Side.B, Side.update_left, Side.update_right):
        assert points("3", 2, "q", "whole", (8, 64), side) is None


@pytest.mark.parametrize("side", ["B", "dW-right"])
def test_figure_8_of_a_side_that_the_paper_did_not_measure_has_none_of_its_points(side: str, store: Path) -> None:
    """Ranks 4 and 8 are in the paper, as the smoke's are."""
    figure = cast(WeightFigure, item("8"))
    at = {each: "\n".join(figure.picture(Request("smoke", str(store), side=each)).caption) for each in ("A", side)}
    assert "circles" in at["A"] and "circles" not in at[side]


_HIGH: Mapping[str, list[float]] = {GAUSSIAN: [0.2] * 4, START: [0.3] * 4, INPUTS: [0.6, 0.6, 0.6, 0.1]}


def _bands() -> dict[str, Band]:
    return {name: Band(np.array(high) / 2, np.zeros(4), np.array(high)) for name, high in _HIGH.items()}


def test_what_is_left_of_a_cell_is_measured_from_the_strongest_null_there() -> None:
    values = np.array([0.1, 0.6, 0.7, 0.31])
    assert excess(values, _bands()) == pytest.approx([0.1 - 0.3, 0.6 - 0.3, 0.7 - 0.3, 0.31 - 0.15])
    assert unexplained(values, _bands()).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("phi", "words"),
    [
        ([0.7, 0.7, 0.7, 0.7], "more than chance, untrained A and shared inputs explain in every cell"),
        (
            [0.4, 0.5, 0.5, 0.1],
            "more than chance and untrained A explain in 3 of 4 cells; nowhere more than shared inputs explain",
        ),
        (
            [0.31, 0.31, 0.31, 0.31],
            "more than chance and untrained A explain in every cell; more than shared inputs explain in 1 of 4 cells",
        ),
        (
            [0.25, 0.25, 0.25, 0.1],
            "more than chance explains in 3 of 4 cells; nowhere more than untrained A and shared inputs explain",
        ),
    ],
)
def test_the_caption_says_in_a_sentence_what_follows(phi: list[float], words: str) -> None:
    grid = Grid(
        _sites()[0],
        4,
        np.array([phi]),
        {name: Band(*(e[None] for e in b)) for name, b in _bands().items()},
        None,
        ([], []),
    )
    assert captions.conclusion([grid]) == f"What is shared is {words}."


def test_a_line_runs_around_the_cells_above_all_nulls_and_around_a_grid_of_them() -> None:
    cells = np.array([[True, False, False], [True, True, False]])
    inside = [((1.5, 0.5), (1.5, 1.5)), ((2.5, 1.5), (2.5, 2.5)), ((1.5, 1.5), (2.5, 1.5))]
    left, top = [((0.5, i), (0.5, i + 1)) for i in (0.5, 1.5)], [((0.5, 0.5), (1.5, 0.5))]
    bottom = [((j, 2.5), (j + 1, 2.5)) for j in (0.5, 1.5)]
    assert sorted(outline(cells)) == sorted([*inside, *left, *top, *bottom])
    assert len(outline(np.ones((2, 3), bool))) == 10 and outline(np.zeros((2, 3), bool)) == []


@pytest.mark.parametrize(("panels", "shape"), [(4, (8, 64)), (16, (8, 64)), (8, (64, 64))], ids=["3", "6", "7"])
def test_many_panels_stand_side_by_side_and_the_middle_row_is_centred_on_the_nulls(
    panels: int, shape: tuple[int, int]
) -> None:
    bands = {GAUSSIAN: Band(*(np.full(shape, value) for value in (0.2, 0.1, 0.3)))}
    grid = Grid(_sites()[0], 384, np.linspace(0, 1, math.prod(shape)).reshape(shape), bands, None, ([], []))
    frame = Frame("title", ["caption"], (0.0, 1.0), "i", shape[0] == shape[1])
    with style.styled():
        figure = lay_out([Panel("panel", grid, False)] * panels, lambda ax, _: ax, frame)
    assert figure.get_figheight() < 11
    images = [ax.images[0] for ax in figure.axes if ax.images]
    middle = [image for image in images if image.get_clim() == pytest.approx((-0.8, 0.8))]
    assert len(images) == 2 * panels and len(middle) == panels
    assert all(np.asarray(image.get_array()).max() == pytest.approx(0.8) for image in middle)


def test_the_demos_runs_are_those_of_table_6() -> None:
    ours, table6 = (load(compose, [f"+sweeps={name}", "scale=demo"]).jobs for name in ("section7", "table6"))
    assert [job.run_id for job in ours] == [job.run_id for job in table6] and len(ours) == 6
    for number in ("3", "4", "6", "7", "8", "7t", "shared_directions"):
        compared = ComparedRuns(item(number), "demo", "outputs")
        assert set(compared.ranks) <= {1, 8, 64} and compared.seeds == [0, 1]
        assert compared.permuted([]) == (None, "")


def test_the_runs_of_the_proxy_are_those_that_the_items_ask_for() -> None:
    found = [job.resolved for job in jobs("+sweeps=section7", "scale=proxy")]
    there: dict[tuple[str, bool], list[tuple[int, int]]] = {}
    for run in (each.run for each in found):
        key = (run.model.name, run.task.permute_labels)
        there.setdefault(key, []).append((cast(LoRAConfig, run.method).r, run.seed))
    seeds = range(5)
    assert {key: sorted(runs) for key, runs in there.items()} == {
        ("minilm", False): [(r, seed) for r in (4, 8, 64) for seed in seeds],
        ("minilm", True): [(r, seed) for r in (8, 64) for seed in seeds],
        ("mpnet", False): [(r, seed) for r in (8, 64) for seed in seeds],
    }
    permuted = [each for each in found if each.run.task.permute_labels]
    assert all(each.settings.log.snapshots == [0, 0.125, 0.25, 0.5, 1] for each in permuted)


@pytest.mark.parametrize("number", ["3", "4", "6", "7", "8", "7t", "shared_directions"])
def test_an_item_shows_the_first_model_of_its_sweep_unless_another_is_given(number: str, tmp_path: Path) -> None:
    first = ComparedRuns(item(number), "proxy", tmp_path)
    added = {"8": ["method.r=4,8,64"], "7t": ["method.r=4,64"]}.get(number, [])  # mpnet is not trained at r = 4
    for each in added:
        with pytest.raises(InputError, match=rf"no runs of r = 4 at scale=proxy.\nGive .*; or {each}, which adds"):
            ComparedRuns(item(number), "proxy", tmp_path, ["model=mpnet"])
    other = ComparedRuns(item(number), "proxy", tmp_path, ["model=mpnet", *added])
    assert (first.run.model.name, other.run.model.name) == ("minilm", "mpnet")
    assert first.seeds == other.seeds == [0, 1, 2, 3, 4] and first.ranks == other.ranks
    assert {site.d_in for site in first.sites} == {384} and {site.d_in for site in other.sites} == {768}
    with pytest.raises(MissingInputError, match=r"minilm-movies-lora-r64-qv-s0[^$]*proxy model=minilm task=movies"):
        first.finished([(64, 0)])
    with pytest.raises(MissingInputError, match=r"mpnet-movies-lora-r64-qv-s0[^$]*scale=proxy model=mpnet"):
        other.finished([(64, 0)])


def test_two_models_are_not_compared_with_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model: the compared .* \(given: minilm, mpnet\)\.\nGive one value: model="):
        ComparedRuns(item("3"), "proxy", tmp_path, ["model=minilm,mpnet"])


def test_each_model_of_a_sweep_has_runs_of_its_own(tmp_path: Path) -> None:
    minilm, mpnet = ComparedRuns.each_model(item("3"), "proxy", tmp_path)
    assert [each.run.model.name for each in (minilm, mpnet)] == ["minilm", "mpnet"]
    assert minilm.seeds == mpnet.seeds == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="the sweep has no run of r = 4"):
        mpnet.finished([(4, 0)])


def test_frozen_A_trains_half_the_weights_of_the_same_runs() -> None:
    found = jobs("+sweeps=freeze_a", "scale=proxy")
    others = {job.run_id for name in ("table6", "section7") for job in jobs(f"+sweeps={name}", "scale=proxy")}
    trained: dict[tuple[str, int, bool], set[int]] = {}
    for job in found:
        run = job.resolved.run
        method = cast(LoRAConfig, run.method)
        assert (job.run_id in others) is not method.freeze_A
        trained.setdefault((run.model.name, method.r, method.freeze_A), set()).add(run.trained_by_method)
    assert len(found) == 40
    assert trained == {
        ("minilm", 8, False): {73_728},
        ("minilm", 8, True): {36_864},
        ("minilm", 64, False): {589_824},
        ("minilm", 64, True): {294_912},
        ("mpnet", 8, False): {294_912},
        ("mpnet", 8, True): {147_456},
        ("mpnet", 64, False): {2_359_296},
        ("mpnet", 64, True): {1_179_648},
    }


def test_the_table_of_frozen_A_has_a_line_for_each_model_and_rank(tmp_path: Path) -> None:
    table = read_cells(cast(ScoreTable, load_item("table", "freeze_a")), "proxy", tmp_path)
    places = [(cell.place.row, cell.model, cell.place.column) for cell in table.cells]
    lines = [("8", "minilm"), ("8", "mpnet"), ("64", "minilm"), ("64", "mpnet")]
    assert places == [(*line, frozen) for line in lines for frozen in ("false", "true")] and not table.outside


def test_captions_count_layers_from_0_as_checkpoints_do_and_give_the_papers_number(store: Path) -> None:
    run = resolve(compose([])).run
    words = captions.describe_layers(item("3"), run)
    assert words == "Layer 2 of 0 to 5, at 1/2 of the depth (paper: layer 48 of 96, counted from 1)"
    assert captions.describe_layers(item("6"), run).startswith("Layers 0, 1, 3 and 5 of 0 to 5")
    compared = ComparedRuns(item("4"), "smoke", store, ["seed=1,0"])
    assert compared.seeds == [0, 1] or compared.seeds == [1, 0]


def test_an_untrained_run_has_nothing_on_the_side_of_B(tmp_path: Path) -> None:
    compared = ComparedRuns(item("3"), "smoke", tmp_path)
    update = read_updates(_untrained(tmp_path), section7(8, 0).resolved.run, compared.sites)
    pair = chance.TwoRuns(compared.sites, update, update, Side.B)
    with pytest.raises(InputError, match=r"--side B: B is zero, nothing was learned"):
        chance.shared_numbers([pair])


def _untrained(folder: Path) -> Path:

    tensors = factors(section7(8, 0), 0.0)
    save_file({k: v * 0 if "lora_B" in k else v for k, v in tensors.items()}, folder / "untrained.safetensors")
    return folder / "untrained.safetensors"


def test_the_sweep_of_the_figures_is_one() -> None:
    assert {item(number).sweep for number in ("3", "4", "6", "7", "8", "7t", "shared_directions")} == {"section7"}
    assert (len(jobs(*SECTION7)), len(jobs("+sweeps=section7", "scale=proxy"))) == (10, 35)
