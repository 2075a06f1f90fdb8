"""Statistics of Section 7: planted subspaces give the numbers of a hand, and numbers outlive weights."""

import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from helpers import local_models
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_runs import jobs, write_run
from helpers.section7_runs import SECTION7
from safetensors.numpy import load_file, save_file

from analysis.section7 import measuring, shared_statistics
from analysis.section7.measuring import measure, models_of, truncations
from analysis.section7.run_weights import WITHOUT_WEIGHTS, RunWeights
from analysis.section7.statistics import (
    AGAINST,
    ANOTHER_SEED,
    GAUSSIAN,
    INPUTS,
    NAMES,
    OTHER_LABELS,
    PERMUTED,
    RANDOM_UPDATE,
    START,
    SWEEP,
    Statistic,
    merge,
    name_of,
    read_statistics,
    write_statistics,
)
from analysis.section7.truncation import Cut, Truncation, truncate
from analysis.store import opened
from lora_repro import draw
from lora_repro.config.compose import compose
from lora_repro.errors import InputError
from lora_repro.methods import LoRAConfig
from lora_repro.methods.lora import Start
from lora_repro.methods.lora.names import FACTORS, factor_name
from lora_repro.models.arch import Site
from lora_repro.models.base_weights import base_matrices
from lora_repro.store import statistics_files
from lora_repro.store.adapter_identity import PEFT_WEIGHTS
from lora_repro.sweep.grid import Job
from lora_repro.training.job import run_job

D = 32
"""d_model of tiny_bert."""
THREE = "seed=0,1,2"
"""With three seeds the jackknife has numbers."""
Q16 = ([0, 1, 2, *range(8, 21)], [0, *range(8, 23)], [*range(8, 24)])
"""The axes that r = 16 learns in W_q, with seeds 0, 1 and 2; r = 8 learns the first eight."""
V16 = [*range(8, 24)]
"""In W_v: the same with every seed, and none of those of r = 8."""
PERMUTED16 = [0, 1, *range(8, 22)]
"""On permuted labels, of both."""

pytestmark = pytest.mark.usefixtures("one_cache")

Adapter = Callable[[Job, Site], tuple[np.ndarray, np.ndarray]]
"""Returns A and B of a job's matrix."""


def all_jobs() -> list[Job]:
    return jobs(*SECTION7, THREE)


def method_of(job: Job) -> LoRAConfig:
    method = job.resolved.run.method
    assert isinstance(method, LoRAConfig)
    return method


def write(store: Path, made: Adapter, which: Iterable[Job]) -> None:
    """Writes finished runs; of those on permuted labels a snapshot at the end too."""
    for job in which:
        folder = write_run(store, job, [(0.8, 0.7)])
        tensors = {}
        sites = job.resolved.run.arch.select(method_of(job).targets)
        own = any(site.part is not None for site in sites)
        for site in sites:
            A, B = made(job, site)
            tensors[factor_name(site, "lora_A", own)] = A.astype(np.float32)
            tensors[factor_name(site, "lora_B", own)] = B.astype(np.float32)
        paths = [folder / "adapter" / (FACTORS if own else PEFT_WEIGHTS)]
        if job.resolved.run.task.permute_labels:
            paths.append(folder / "snapshots" / "1.safetensors")
        for path in paths:
            path.parent.mkdir()
            save_file(tensors, path)


def planted(job: Job, site: Site) -> tuple[np.ndarray, np.ndarray]:
    """Returns an A whose right singular vectors are axes, in their order, and a B that keeps this order in dW."""
    run, r = job.resolved.run, method_of(job).r
    axes = [*range(r)]
    if r == 16:
        axes = PERMUTED16 if run.task.permute_labels else Q16[run.seed] if site.role == "q" else V16
    sizes = np.linspace(2, 1, r)
    A = sizes[:, None] * np.eye(D)[axes]
    A *= 100 / np.linalg.norm(A)  # all have moved equally far from their starts
    return A, np.linalg.qr(draw.generator("B", run.seed, r, site.name).standard_normal((site.d_out, r)))[0]


def measured(store: Path, *given: str) -> tuple[list[Statistic], RunWeights]:
    (weights,) = models_of("smoke", store, given)
    return measure(weights), weights


def values(found: Iterable[Statistic], **wanted: object) -> dict[tuple[int, ...], tuple[float, float | None]]:
    """Returns value and chance by seeds of the statistics that have all these fields."""
    chosen = [each for each in found if wanted.items() <= each._asdict().items()]
    assert len({each.key for each in chosen}) == len(chosen) == len({each.seeds for each in chosen}), chosen[:3]
    return {each.seeds: (each.value, each.chance) for each in chosen}


def expect(
    found: Mapping[tuple[int, ...], tuple[float, float | None]], wanted: Mapping[int, tuple[float, float]]
) -> None:
    assert set(found) == {(seed,) for seed in wanted}
    for seed, numbers in wanted.items():
        assert found[seed,] == pytest.approx(numbers, abs=1e-6)


@pytest.fixture(scope="module")
def planted_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three seeds that share axes as planted; to be read, not changed."""
    store = tmp_path_factory.mktemp("planted")
    write(store, planted, all_jobs())
    return store


@pytest.fixture(scope="module")
def of_planted(planted_store: Path) -> list[Statistic]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "inputs_or_why_not", lambda *_: (None, "not asked for"))
        return measured(planted_store, THREE)[0]


@pytest.mark.parametrize("side", ["A", "dW-right"])
def test_two_ranks_share_what_was_planted_beside_chance_and_every_control(
    side: str, of_planted: list[Statistic]
) -> None:
    def shared(first: int, where: str, against: str) -> dict[tuple[int, ...], tuple[float, float | None]]:
        setting = f"{side}, first {first} of r=8 in r=16"
        return values(of_planted, name="shared_dims", where=where, setting=setting, against=against)

    # q: of the first 8, 3, 1 and 0 axes lie in r = 16 of the same seed; the ranks alone give 8 * 16 / 32 = 4.
    expect(shared(8, "q", GAUSSIAN), {0: (3 - 4, 0), 1: (1 - 4, 0), 2: (0 - 4, 0)})
    expect(shared(1, "q", GAUSSIAN), {0: (0.5, 0), 1: (0.5, 0), 2: (-0.5, 0)})
    expect(shared(8, "v", GAUSSIAN), {seed: (-4, 0) for seed in range(3)})
    # Another seed: the mean over r = 16 of the other two.
    expect(shared(8, "q", ANOTHER_SEED), {0: (-1, -3.5), 1: (-3, (-1 - 4) / 2), 2: (-4, (-1 - 3) / 2)})
    # Permuted labels: 2 axes of the first 8, whichever labels r = 8 has learned.
    for against in (PERMUTED, OTHER_LABELS):
        expect(shared(8, "q", against), {0: (-1, -2), 1: (-3, -2), 2: (-4, -2)})
    at_start = shared(8, "q", START)
    assert {seeds for seeds in at_start} == {(0,), (1,), (2,)}
    assert all(chance is not None and abs(chance) < 0.15 for _, chance in at_start.values())


def test_single_directions_lie_where_they_were_planted(of_planted: list[Statistic]) -> None:
    for k in range(1, 9):
        setting = f"A, direction {k} of r=8 in r=16"
        found = values(of_planted, name="rho", where="q", setting=setting, against=GAUSSIAN)
        expect(found, {0: (float(k <= 3), 0.5), 1: (float(k == 1), 0.5), 2: (0, 0.5)})


def test_runs_are_named_with_every_number(of_planted: list[Statistic]) -> None:
    ids = {
        (method_of(job).r, job.resolved.run.seed, job.resolved.run.task.permute_labels): job.run_id
        for job in all_jobs()
    }

    def runs(against: str, name: str = "rho") -> set[str]:
        (found,) = {
            each.run_ids for each in of_planted if (each.name, each.seeds, each.against) == (name, (1,), against)
        }
        return set(found)

    assert {each.name for each in of_planted} <= set(NAMES) and {each.against for each in of_planted} <= {"", *AGAINST}
    own = {ids[8, 1, False], ids[16, 1, False]}
    assert runs(GAUSSIAN) == own
    assert runs(ANOTHER_SEED) == own | {ids[16, 0, False], ids[16, 2, False]}
    assert runs(OTHER_LABELS) == own | {ids[16, 1, True]}
    assert runs(PERMUTED) == own | {ids[8, 1, True], ids[16, 1, True]}
    every = {ids[16, seed, False] for seed in range(3)}
    assert runs(GAUSSIAN, "seeds_shared_dims_jackknife") == every
    assert runs(PERMUTED, "seeds_shared_dims_jackknife") == every | {ids[16, seed, True] for seed in range(3)}


@pytest.mark.parametrize("side", ["A", "dW-right"])
def test_pairs_of_seeds_share_what_was_planted_and_give_one_number_a_seed(
    side: str, of_planted: list[Statistic]
) -> None:
    def shared(
        where: str, against: str, name: str = "seeds_shared_dims"
    ) -> dict[tuple[int, ...], tuple[float, float | None]]:
        setting = f"{side}, first 16 of r=16"
        return values(of_planted, name=name, where=where, setting=setting, against=against)

    # q: 14, 13 and 15 axes in common, of which 16 * 16 / 32 = 8 by chance; v: all 16; on permuted labels all 16.
    pairs = {(0, 1): 6, (0, 2): 5, (1, 2): 7}
    assert shared("q", GAUSSIAN) == {pair: pytest.approx((n, 0), abs=1e-6) for pair, n in pairs.items()}
    assert shared("v", GAUSSIAN) == {pair: pytest.approx((8, 0), abs=1e-6) for pair in pairs}
    assert shared("q - v", GAUSSIAN) == {pair: pytest.approx((n - 8, 0), abs=1e-6) for pair, n in pairs.items()}
    assert shared("q", PERMUTED) == {pair: pytest.approx((n, 8), abs=1e-6) for pair, n in pairs.items()}
    # Pseudo-values, n U - (n - 1) U without the seed: 3 * 6 - 2 * 7, 3 * 6 - 2 * 5, 3 * 6 - 2 * 6.
    jackknife = "seeds_shared_dims_jackknife"
    expect(shared("q", GAUSSIAN, jackknife), {0: (4, 0), 1: (8, 0), 2: (6, 0)})
    expect(shared("q - v", PERMUTED, jackknife), {0: (-4, 0), 1: (0, 0), 2: (-2, 0)})


def rotated(job: Job, site: Site) -> tuple[np.ndarray, np.ndarray]:
    """Returns the same dW with rows of A mixed, reversed and of other signs, so that only its factors differ."""
    A, B = planted(job, site)
    Q = np.linalg.qr(draw.generator("mix", site.name, len(A)).standard_normal((len(A), len(A))))[0]
    Q = -Q[::-1]
    return Q @ A, B @ Q.T


def sheared(job: Job, site: Site) -> tuple[np.ndarray, np.ndarray]:
    """Returns the same dW by factors whose own singular vectors are others: (B G^-1)(G A)."""
    A, B = planted(job, site)
    G = draw.generator("shear", site.name, len(A)).standard_normal((len(A), len(A))) + 3 * np.eye(len(A))
    return G @ A, B @ np.linalg.inv(G)


def in_bf16(job: Job, site: Site) -> tuple[np.ndarray, np.ndarray]:
    """Returns the factors rounded to bf16, as some adapters are stored."""

    def rounded(X: np.ndarray) -> np.ndarray:
        bits = X.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)

    A, B = planted(job, site)
    return rounded(A), rounded(B)


@pytest.mark.parametrize(
    ("made", "sides", "tolerance"),
    [(rotated, ("A", "dW-right"), 1e-5), (sheared, ("dW-right",), 1e-3), (in_bf16, ("A", "dW-right"), 0.02)],
)
def test_numbers_are_those_of_the_update_and_not_of_how_it_is_written(
    made: Adapter,
    sides: tuple[str, ...],
    tolerance: float,
    of_planted: list[Statistic],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reports of others compare flattened A and B, which change with every rotation between them."""
    monkeypatch.setattr(measuring, "inputs_or_why_not", lambda *_: (None, ""))
    monkeypatch.setattr(shared_statistics, "DRAWS", 2)
    write(tmp_path, made, all_jobs())
    again = {each.key: each for each in measured(tmp_path, THREE)[0]}
    compared = [each for each in of_planted if each.against != START and each.setting.partition(",")[0] in sides]
    assert len(compared) > 300
    for each in compared:
        other = again[each.key]
        assert (other.value, other.chance) == pytest.approx((each.value, each.chance), abs=tolerance), each.key


def untrained(job: Job, site: Site) -> tuple[np.ndarray, np.ndarray]:
    r = method_of(job).r
    return Start(job.resolved.run.seed).draw_A(site.name, r, site.d_in), np.zeros((site.d_out, r))


def test_untrained_runs_share_what_chance_gives_and_permuted_labels_change_nothing(tmp_path: Path) -> None:
    write(tmp_path, untrained, all_jobs())
    found, weights = measured(tmp_path, THREE)
    assert found and not any("dW" in each.setting for each in found)  # B is zero: nothing was learned
    assert not {"amplification", "position"} & {each.name for each in found}
    assert any("dW of" in why for why in weights.left_out) and any(
        "changes q in no layer" in why for why in weights.left_out
    )
    differences: dict[tuple[str, str], list[float]] = {}
    for each in found:
        if each.name == "shared_dims" and "first 8" in each.setting and each.chance is not None:
            differences.setdefault((each.name, each.against), []).append(each.value - each.chance)
        if each.against == PERMUTED and each.name in ("shared_dims", "rho"):
            assert each.value == each.chance
    # The standard deviation of one is 0.3 / sqrt(2 layers) (two random subspaces of 8 and 16 of 32 dimensions).
    for (_, against), each in differences.items():
        assert len(each) == 6
        if against in (GAUSSIAN, START):
            assert abs(np.mean(each)) < 4 * 0.3 / math.sqrt(12)
    by_start = values(found, name="shared_dims", where="q", setting="A, first 8 of r=8 in r=16", against=START)
    by_inputs = values(found, name="shared_dims", where="q", setting="A, first 8 of r=8 in r=16", against=INPUTS)
    assert all(abs(chance or 0) < 0.15 for _, chance in by_start.values())
    assert all((chance or 0) > 1 for _, chance in by_inputs.values())  # inputs of tiny_bert are far from isotropic


def test_an_update_that_is_a_part_of_W_amplifies_it_by_its_factor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here dW is three times W's first four directions: amplification 3, position 1, all of it in W's first tenth."""
    monkeypatch.setattr(measuring, "inputs_or_why_not", lambda *_: (None, ""))
    first = all_jobs()[0]
    sites = [site for site in first.resolved.run.arch.select(["q"])]
    W = base_matrices(first.resolved.run, first.resolved.settings, sites)

    def amplifying(job: Job, site: Site) -> tuple[np.ndarray, np.ndarray]:
        r = method_of(job).r
        if site.role != "q" or r != 4:
            return planted(job, site)
        U, s, Vt = np.linalg.svd(W[site.name].astype(np.float64))
        return s[:4, None] * Vt[:4], 3 * U[:, :4] / method_of(job).scaling_of(site)

    write(tmp_path, amplifying, [job for job in all_jobs() if job.resolved.run.seed == 0])
    found, _ = measured(tmp_path, "seed=0")
    for where in ("q", "layer 0 q"):
        of_table = {each.name: each for each in found if (each.where, each.setting) == (where, "r=4")}
        assert {each.against for each in of_table.values()} == {RANDOM_UPDATE}
        amplified = of_table["amplification"]
        assert amplified.value == pytest.approx(3, rel=1e-5)
        assert of_table["amplification_ratio"].value == pytest.approx(3 / (amplified.chance or 0), rel=1e-5)
        assert of_table["amplification_ratio"].chance == 1 and (amplified.chance or 0) > 15
        assert of_table["position"].value == pytest.approx(1, abs=1e-5)
        assert abs(of_table["position"].chance or 0) < 0.1
        chosen = [site for site in sites if where == "q" or site.layer == 0]
        norms = [np.linalg.svd(W[site.name].astype(np.float64), compute_uv=False) for site in chosen]
        cosines = [np.linalg.norm(s[:4]) / np.linalg.norm(s) for s in norms]  # <dW, W> = 3 times the first four squares
        assert of_table["sign"].value == pytest.approx(D * np.mean(cosines), rel=1e-4)
        setting = "A, first 4 of r=4"
        assert values(found, name="phi_in_top_of_w", where=where, setting=setting) == {
            (0,): pytest.approx((1, 4 / D), abs=1e-5)
        }


def test_the_matrices_of_a_fused_layer_are_each_measured_beside_their_own_part_of_W(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPT-2 computes q, k and v in one module, so the module's name does not tell their updates apart."""
    monkeypatch.setattr(measuring, "inputs_or_why_not", lambda *_: (None, ""))
    folder = local_models.write(tmp_path / "gpt2", "gpt2", local_models.words_tokenizer())
    given = ("seed=0", "model=local", f"paths.model={folder}", "method.r=8,16", "preset@train=tiny_bert")
    every = [job for job in jobs(*SECTION7, *given) if not job.resolved.run.task.permute_labels]
    write(tmp_path, planted, every)
    found, _ = measured(tmp_path, *given)
    c_attn = load_file(folder / "model.safetensors")["transformer.h.0.attn.c_attn.weight"].astype(np.float64)
    W_q = c_attn[:, :D].T
    for job in every:
        A, B = planted(job, next(site for site in job.resolved.run.arch.sites if site.name == "layers.0.q"))
        dW, r = method_of(job).alpha / method_of(job).r * B @ A, method_of(job).r
        U, _, Vt = np.linalg.svd(dW)
        of_table = {each.name: each.value for each in found if (each.where, each.setting) == ("layer 0 q", f"r={r}")}
        amplification = np.linalg.norm(dW) / np.linalg.norm(U[:, :r].T @ W_q @ Vt[:r].T)
        assert of_table["amplification"] == pytest.approx(amplification, rel=1e-5)
        cosine = (dW * W_q).sum() / np.linalg.norm(dW) / np.linalg.norm(W_q)
        assert of_table["sign"] == pytest.approx(D * cosine, rel=1e-4)


def test_a_random_update_gives_what_is_called_its_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "inputs_or_why_not", lambda *_: (None, ""))
    monkeypatch.setattr(shared_statistics, "DRAWS", 2)

    def random(job: Job, site: Site) -> tuple[np.ndarray, np.ndarray]:
        generator = draw.generator("random", job.resolved.run.seed, method_of(job).r, site.name)
        r = method_of(job).r
        return generator.standard_normal((r, site.d_in)), generator.standard_normal((site.d_out, r))

    seeds = range(8)
    given = f"seed={','.join(map(str, seeds))}"
    write(tmp_path, random, [job for job in jobs(*SECTION7, given) if not job.resolved.run.task.permute_labels])
    found, _ = measured(tmp_path, given)
    for name, tolerance in (("amplification_ratio", 0.12), ("position", 0.06), ("sign", 1.1)):
        away = [value - (chance or 0) for value, chance in values(found, name=name, where="q", setting="r=16").values()]
        assert len(away) == 8 and abs(np.mean(away)) < tolerance


def test_a_missing_run_leaves_out_what_needs_it_and_never_averages_over_the_rest(
    planted_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "inputs_or_why_not", lambda *_: (None, ""))
    monkeypatch.setattr(shared_statistics, "DRAWS", 2)
    store = tmp_path / "store"
    shutil.copytree(planted_store, store)
    of_seed_2 = {
        method_of(job).r: job
        for job in all_jobs()
        if job.resolved.run.seed == 2 and not job.resolved.run.task.permute_labels
    }
    (store / "runs" / of_seed_2[16].run_id / "result.json").unlink()
    shutil.rmtree(store / "runs" / of_seed_2[4].run_id / "adapter")
    found, weights = measured(store, THREE)
    assert weights.missing == {
        of_seed_2[16].run_id: weights.missing[of_seed_2[16].run_id],
        of_seed_2[4].run_id: WITHOUT_WEIGHTS,
    }
    assert {each.seeds for each in found if each.name == "rho"} == {(0,), (1,)}
    assert {each.against for each in found if each.name == "rho"} == {GAUSSIAN, START, PERMUTED, OTHER_LABELS}
    assert {each.seeds for each in found if each.name == "seeds_shared_dims"} == {(0, 1)}
    assert not any("jackknife" in each.name for each in found)
    assert {each.seeds for each in found if each.setting == "r=4"} == {(0,), (1,)}
    assert not any({of_seed_2[16].run_id, of_seed_2[4].run_id} & set(each.run_ids) for each in found)


@pytest.mark.parametrize(("content", "words"), [(None, "holds no snapshots"), (b"{", "is damaged")])
def test_a_control_without_readable_snapshots_is_left_out_and_said_to_be(
    content: bytes | None, words: str, planted_store: Path, tmp_path: Path
) -> None:
    (job,) = [
        job
        for job in all_jobs()
        if job.resolved.run.task.permute_labels and (method_of(job).r, job.resolved.run.seed) == (8, 1)
    ]
    shutil.copytree(planted_store, tmp_path / "store")
    path = tmp_path / "store" / "runs" / job.run_id / "snapshots" / "1.safetensors"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    (weights,) = models_of("smoke", tmp_path / "store", (THREE,))
    weights.read_all()
    (why,) = weights.left_out
    assert why.startswith("Against permuted labels, r = 8, seed 1: ") and words in why
    assert weights.permuted(8, 1) is None and weights.permuted(8, 0) is not None and not weights.missing


def copy_to_measure(store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a store the default one of a folder, which becomes the working directory; measuring it takes moments."""
    monkeypatch.setattr(measuring, "inputs_or_why_not", lambda *_: (None, ""))
    monkeypatch.setattr(shared_statistics, "DRAWS", 2)
    monkeypatch.chdir(folder)
    shutil.copytree(store, "outputs")


def test_the_command_keeps_numbers_that_outlive_the_weights(
    planted_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    copy_to_measure(planted_store, tmp_path, monkeypatch)
    code, out, err = call(capsys, "measure", "section7", "--scale", "smoke", "--format", "json")
    assert code == 0, err
    found = read_statistics("outputs", SWEEP, "smoke")
    assert [each["name"] for each in json.loads(out)] == [each.name for each in found] and len(found) > 300
    assert "Written: outputs/statistics/section7-smoke.json" in err and f"{len(found)} numbers" in err
    assert call(capsys, "ledger", "write", "study.parquet", *SECTION7)[0] == 0
    with opened("study.parquet") as store:
        assert read_statistics(store, SWEEP, "smoke") == found
    shutil.rmtree("outputs")
    assert call(capsys, "ledger", "restore", "study.parquet")[0] == 0
    code, out, err = call(capsys, "measure", "section7", "--scale", "smoke")
    assert code == 0 and "10 of 10 runs of tiny_bert are missing" in err and "(without weights)" in err
    assert "+sweeps=section7 scale=smoke" in err and "log.rebuild=true" in err
    assert read_statistics("outputs", SWEEP, "smoke") == found
    assert "| tiny_bert on generated | amplification " in out and "| less another seed " in out
    assert "direction 1" not in out and "layer 0" not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--runs", "study.parquet"), "--runs is a store with weights"),
        (("seed=0,1",), "seed=0,1: what is measured is the whole sweep"),
        ((), "no run of section7 at scale=smoke has weights here"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "runs").mkdir(parents=True)
    assert call(capsys, "ledger", "write", "study.parquet")[0] == 0
    code, _, err = call(capsys, "measure", "section7", "--scale", "smoke", *arguments)
    assert code != 0 and words in err


def one(**fields: object) -> Statistic:
    made = Statistic("rho", "m", "t", "q", "A", (0,), 0.5, 0.1, GAUSSIAN, ("a", "b"))
    return made._replace(**fields)  # pyright: ignore[reportArgumentType]


def test_old_numbers_stay_unless_they_are_measured_again_or_of_other_runs() -> None:
    old, stale = one(), one(setting="dW", run_ids=("a", "gone"))
    assert merge([], [old, stale], ["a", "b"]) == [old]
    new = one(value=0.6)
    assert merge([new], [old], ["a", "b"]) == [new]


def test_a_file_of_another_version_is_refused_and_none_is_empty(tmp_path: Path) -> None:
    assert read_statistics(tmp_path, SWEEP, "smoke") == []
    path = write_statistics(tmp_path, SWEEP, "smoke", [one(), one(chance=None, seeds=(0, 1))], "a command")
    assert read_statistics(tmp_path, SWEEP, "smoke") == [one(), one(chance=None, seeds=(0, 1))]
    assert statistics_files.read(tmp_path, name_of(SWEEP, "smoke"))["run_ids"] == ["a", "b"]
    for text in (path.read_text().replace('"version": 1', '"version": 0'), "{"):
        path.write_text(text)
        with pytest.raises(InputError, match="Measure again: python -m analysis measure section7 --scale smoke"):
            read_statistics(tmp_path, SWEEP, "smoke")


SMALL = ("task.train_size=64", "task.eval_size=32", "task.test_size=32", "train.learning_rate=0.02")


@pytest.fixture(scope="module")
def trained_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs of section7 at scale smoke, trained on fewer examples."""
    store = tmp_path_factory.mktemp("trained")
    for job in jobs(*SECTION7, *SMALL):
        run_job(compose([*job.overrides, f"paths.outputs={store}", "compute.device=cpu", "log.wandb=off"]))
    return store


def test_trained_runs_are_measured_and_cut(trained_store: Path) -> None:
    found, weights = measured(trained_store, *SMALL)
    assert not weights.missing and all(math.isfinite(each.value) for each in found)
    controls = {each.against for each in found}
    assert controls >= {GAUSSIAN, START, INPUTS, ANOTHER_SEED, RANDOM_UPDATE}
    assert PERMUTED in controls or any("at its nearest snapshot" in why for why in weights.left_out)
    of_dW = [each.value for each in found if each.name == "rho" and "dW-right" in each.setting]
    assert of_dW and all(0 <= value <= 1 + 1e-9 for value in of_dW)

    cut = [each for of_run in truncations(weights, found) for each in of_run]
    for r, seed in ((8, 0), (16, 1)):
        folder = trained_store / "runs" / weights.run_id(r, seed)
        metrics = json.loads((folder / "result.json").read_text())["metrics"]
        again = truncate(folder, [k for k in (0, 1, 2, 4, 8) if k < r], deepcopy(weights.compared.settings))
        assert len(again.cuts) == (4 if r == 8 else 5)
        for where, key in (("dev", "eval/accuracy"), ("test", "test/accuracy")):
            own = {"where": where, "seeds": (seed,)}
            whole = values(cut, name="whole_score", setting=f"r={r}", **own)
            assert whole == {(seed,): (metrics[key], None)}
            for each in again.cuts:
                gap = values(cut, name="truncated_gap", setting=f"keep={each.keep} of r={r}", **own)
                assert gap == {(seed,): (metrics[key] - each.metrics[key], None)}
    assert list(truncations(weights, cut)) == []  # what is known is not computed again
    some = [each for each in cut if each.name == "whole_score" or each.setting[:6] in ("keep=0", "keep=4")]
    assert list(truncations(weights, some, keep=(0, 4))) == []
    rest = [each for of_run in truncations(weights, some) for each in of_run if each.name == "truncated_gap"]
    assert {each.setting for each in rest} == {f"keep={k} of r={r}" for r in (8, 16) for k in (1, 2, 8) if k < r}
    assert all(each in cut for each in rest)


def test_truncation_is_asked_for_and_kept_run_by_run(
    planted_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    copy_to_measure(planted_store, tmp_path, monkeypatch)
    cut_runs: list[str] = []

    def cut(folder: Path, keep: list[int], _: object) -> Truncation:
        if len(cut_runs) == 3:
            raise InputError("interrupted")
        cut_runs.append(folder.name)
        whole = {"eval/accuracy": 0.75, "test/accuracy": 0.5}
        cuts = [Cut(k, 0.5, {"eval/accuracy": 0.75 - 0.25 / (k + 1), "test/accuracy": 0.5}) for k in keep]
        return Truncation(folder.name, 8, 4, cuts, whole, [], metric)

    metric = all_jobs()[0].resolved.run.task.targets.metrics[0]
    monkeypatch.setattr(measuring, "truncate", cut)
    ours = ("measure", "section7", "--scale", "smoke")
    assert call(capsys, *ours)[0] == 0 and not cut_runs
    assert call(capsys, *ours, "--truncate")[0] != 0
    found = read_statistics("outputs", SWEEP, "smoke")
    assert sorted({each.run_ids[0] for each in found if each.name == "truncated_gap"}) == sorted(cut_runs)
    cut_runs.clear()
    code, out, _ = call(capsys, *ours, "--truncate")
    assert code == 0 and len(cut_runs) == 1  # of the four, seeds 0 and 1 and r = 8 and 16
    (line,) = [
        line
        for line in out.splitlines()
        if "| truncated_gap " in line and "| dev " in line and "keep=0 of r=8 " in line
    ]
    assert "| 2 | 0.250 |" in " ".join(line.split())
    code, out, _ = call(capsys, *ours)
    assert code == 0 and "| truncated_gap " in out  # they are kept by a measurement without them
    cut_runs.clear()
    code, out, _ = call(capsys, *ours, "--truncate", "--keep", "0,3")
    assert code != 0 and len(cut_runs) == 3  # no run is known with 3
    for given, words in (
        (("--keep", "0"), "Give --truncate too"),
        (("--truncate", "--keep", "x"), "numbers of directions"),
    ):
        code, _, said = call(capsys, *ours, *given)
        assert code != 0 and words in said
