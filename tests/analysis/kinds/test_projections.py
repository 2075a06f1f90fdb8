"""Table 7: golden numbers of the paper, and ours from adapters made by hand."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from helpers.fixture_types import Captured
from helpers.markup import tex_rows
from helpers.section7_runs import fill, section7

from analysis.__main__ import main
from analysis.items import Request, load_item
from analysis.kinds.projections import ProjectionTable, paper_blocks
from analysis.section7.compared_runs import read_updates
from lora_repro.config.catalogue import HOME
from lora_repro.methods import LoRAConfig
from lora_repro.models.base_weights import base_matrices
from lora_repro.models.load import load_model
from lora_repro.store.adapter_identity import PEFT_WEIGHTS

TABLE7 = cast(ProjectionTable, load_item("table", "7"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    fill(store)
    return store


def table(capsys: Captured, store: Path, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["table", "7", "--scale", "smoke", "--runs", str(store), *arguments])
    assert isinstance(ended.value.code, int)
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_what_random_directions_give_at_the_papers_shapes_is_what_it_prints() -> None:
    four, sixty_four = paper_blocks(TABLE7, "q")
    assert (four["r"], sixty_four["r"]) == (4, 64)
    assert four["on_random"] == pytest.approx(0.0202, abs=5e-5) and four["on_random_printed"] == 0.02
    assert sixty_four["on_random"] == pytest.approx(0.3227, abs=5e-5) and sixty_four["on_random_printed"] == 0.33
    assert four["random_amplification"] == pytest.approx(343, abs=0.5)
    assert sixty_four["random_amplification"] == pytest.approx(11.1, abs=0.05)
    assert four["amplification"] == pytest.approx(21.6, abs=0.05)
    assert sixty_four["amplification"] == pytest.approx(1.88, abs=5e-3)
    assert four["position"] == pytest.approx((0.32 - 0.0202) / (21.67 - 0.0202), abs=1e-4)


def test_ours_are_those_of_dense_matrices(store: Path, capsys: Captured) -> None:
    code, out, _ = table(capsys, store, "--format", "json")
    entries = json.loads(out)
    ours = [entry for entry in entries if entry["source"] == "ours"]
    assert code == 0 and [(entry["r"], entry["seed"]) for entry in ours] == [(4, 0), (4, 1), (16, 0), (16, 1)]
    run = section7(4, 0).resolved
    (site,) = TABLE7.sites(run.run.arch)
    alpha = cast(LoRAConfig, run.run.method).alpha
    W = base_matrices(run.run, run.settings, [site])[site.name].astype(np.float64)
    for entry in ours:
        (update,) = read_updates(store / "runs" / entry["run_id"] / "adapter" / PEFT_WEIGHTS, run.run, [site])
        r = entry["r"]
        dW = alpha / r * update.B.astype(np.float64) @ update.A
        u, _, vt = np.linalg.svd(dW)
        own = np.linalg.svd(W, compute_uv=False)
        assert entry["update_norm"] == pytest.approx(np.linalg.norm(dW))
        assert entry["on_update"] == pytest.approx(np.linalg.norm(u[:, :r].T @ W @ vt[:r].T))
        assert entry["on_weight"] == pytest.approx(np.linalg.norm(own[:r]))
        assert entry["on_random"] == pytest.approx(r * np.linalg.norm(W) / 32)
        assert entry["sign"] == pytest.approx((dW * W).sum() / np.linalg.norm(dW) / np.linalg.norm(W))
        assert entry["amplification"] == pytest.approx(entry["update_norm"] / entry["on_update"])
        assert (entry["layer"], entry["weight"]) == (0, "q")
    assert [entry["layer"] for entry in entries[:2]] == [47, 47]


def test_the_table_has_the_papers_numbers_beside_ours(store: Path, capsys: Captured) -> None:
    code, out, err = table(capsys, store)
    assert (code, err) == (0, "")
    lines = [[cell.strip() for cell in line.split("|")] for line in out.splitlines() if line.startswith("|")]
    rows = {cells[1]: cells[2:-1] for cells in lines}
    assert rows["Frobenius norms"] == ["paper, r = 4", "paper, r = 64", "ours, r = 4", "ours, r = 16"]
    assert rows["‖Uᵀ W_q V‖ on directions of ΔW_q"][:2] == ["0.32", "1.9"]
    assert rows["... on W_q's own"][:2] == ["21.67", "37.71"]
    assert rows["... on random ones, exactly"][:2] == ["0.0202", "0.323"]
    assert rows["‖W_q‖"][:2] == ["61.95", "61.95"] and rows["‖ΔW_q‖"][:2] == ["6.91", "3.57"]
    assert rows["amplification, ‖ΔW_q‖ / ‖Uᵀ W_q V‖"][:2] == ["21.59", "1.88"]
    assert "gives the amplification as 21.5 at r = 4 and about 2 at r = 64." in out
    assert rows["... of a random update of this norm"][:2] == ["343", "11.06"]
    assert rows["sign, cosine of ΔW_q and W_q"][0] == "—" and "n=2" in rows["sign, cosine of ΔW_q and W_q"][2]
    assert (
        "Layer 0 of 0 to 1, at 1/2 of the depth (paper: layer 48 of 96, counted from 1)" in out and "seeds 0, 1" in out
    )


def test_its_mathematics_is_known_to_latex_and_its_numbers_stand_in_csv(store: Path, capsys: Captured) -> None:
    rows = tex_rows(table(capsys, store, "--format", "latex")[1])
    assert rows[1][:3] == [r"$\Vert$U\textsuperscript{T} W\_q V$\Vert$ on directions of $\Delta$W\_q", "0.32", "1.9"]
    lines = list(csv.DictReader(table(capsys, store, "--format", "csv")[1].splitlines()))
    entries = json.loads(table(capsys, store, "--format", "json")[1])
    assert [float(line["update_norm"]) for line in lines] == [entry["update_norm"] for entry in entries]
    assert [line["seed"] for line in lines] == ["", "", "0", "1", "0", "1"] and lines[0]["sign"] == ""


def test_another_matrix_is_named_and_has_no_numbers_of_the_papers_q(store: Path) -> None:
    text = replace(TABLE7, weights=["v"]).text(Request("smoke", str(store)))
    assert "W_v projected" in text and "‖W_v‖" in text and "ΔW_v" in text
    assert "W_q" not in text and "paper, r" not in text and "Paper:" not in text


def test_missing_runs_and_a_protocol_are_refused(tmp_path: Path, capsys: Captured) -> None:
    code, out, err = table(capsys, tmp_path)
    assert (
        code == 1 and out == "" and "table7: 4 of 4 runs are missing" in err and "+sweeps=section7 scale=smoke" in err
    )
    code, out, err = table(capsys, tmp_path, "--protocol", "held_out")
    assert code == 1 and "--protocol held_out: table7 takes no --protocol. Leave it out." in err


def test_of_a_ledger_it_says_that_weights_are_not_kept_and_how_to_compute_them(capsys: Captured) -> None:
    """There the runs count as finished, so that the sweep's own command would compute none of them."""
    ledger = str(HOME / "analysis" / "results" / "section7.parquet")
    with pytest.raises(SystemExit) as ended:
        main(["table", "7", "--runs", ledger])
    err = capsys.readouterr().err
    assert ended.value.code and f"10 of 10 runs are without weights in {ledger}, as a ledger keeps records" in err
    command = "python -m lora_repro -m +sweeps=section7 scale=proxy model=minilm task=movies"
    assert f"and give --runs outputs/weights: {command} paths.outputs=outputs/weights\n" in err


def test_base_matrices_are_the_models_own() -> None:
    resolved = section7(4, 0).resolved
    sites = resolved.run.arch.select(["q", "down", "embed"])
    found = base_matrices(resolved.run, resolved.settings, sites)
    model: Any = load_model(resolved.run, None, resolved.settings.paths.cache, torch.device("cpu"))
    for site in sites:
        weight = model.get_parameter(f"{site.module}.weight").detach().numpy()
        assert np.array_equal(found[site.name], weight.T if site.layer is None else weight)
        assert found[site.name].shape == (site.d_out, site.d_in)
