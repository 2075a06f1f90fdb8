"""Budgets: what they mean, the size that meets them, and where that is seen."""

import re
from collections.abc import Callable
from dataclasses import replace
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from helpers.architectures import PAPER_ARCHS
from omegaconf import DictConfig

from analysis.budgets import utilisation_lines
from lora_repro.cli import normalise
from lora_repro.config.compose import compose
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.config.schema import load_group
from lora_repro.costs import budget
from lora_repro.errors import InputError
from lora_repro.methods import AdapterHConfig, AdapterLConfig, LoRAConfig, PrefixEmbedConfig, SizedConfig
from lora_repro.methods.lora import Bias
from lora_repro.models.arch import Arch, arch_of
from lora_repro.store.record import Record
from lora_repro.sweep.grid import load
from lora_repro.training.job import run_job

GPT3, MEDIUM, BASE = PAPER_ARCHS["gpt3_175b"], PAPER_ARCHS["gpt2_medium"], PAPER_ARCHS["roberta_base"]
LLAMA = arch_of(load_group("model", "smollm2").config, None)
SMOKE = ["model=tiny_bert", "task=generated"]
SMALL = arch_of(
    load_group("model", "roberta_base").config
    | dict(hidden_size=48, num_hidden_layers=2, vocab_size=100, intermediate_size=64),
    2,
)
ONE = 2 * 32  # weights of r = 1 on one matrix of a layer of tiny_bert, which has two layers


def lora(targets: str, given: object, **more: Any) -> LoRAConfig:
    return LoRAConfig("lora", targets.split(","), 8, 1.0, 0.0, budget=given, **more)


@pytest.mark.parametrize(
    ("targets", "r"), [("q", 8), ("k", 8), ("v", 8), ("o", 8), ("q,k", 4), ("q,v", 4), ("q,k,v,o", 2)]
)
def test_18m_of_gpt3_is_table_5(targets: str, r: int) -> None:
    method = lora(targets, "18M")
    assert budget.solve(method, GPT3) == r and budget.count_at(method, GPT3, r) == 18_874_368
    method.r = r
    used = budget.utilisation(method, GPT3)
    assert used is not None and used == pytest.approx(18_874_368 / 18_000_000) and not budget.is_unequal(used)


@pytest.mark.parametrize(
    ("arch", "targets", "given", "r"),
    [
        (GPT3, "q,v", "0.01%", 4),  # 17.46M: r = 3 is 3.3M off, r = 4 1.4M
        (GPT3, "q,v", "37.7M", 8),
        (GPT3, "q,v", "18.8M", 4),  # cut, as Table 15 prints it
        (GPT3, "q,v", 18_874_368, 4),
        (GPT3, "q,v", 18_874_367, 3),
        (GPT3, "q,v", "18,874,368", 4),
        (GPT3, "q,v", 18_874_368.0, 4),
        (GPT3, "q", 29 * 10**9, 12_288),  # a bound a little above all that there is: the largest r
        (BASE, "q,v", "0.3M", 8),
        (BASE, "q,v", "0.3m", 8),
        (PAPER_ARCHS["deberta_v2_xxlarge"], "q,v", "4.7M", 16),
        (LLAMA, "q", "0.5M", 14),
        (LLAMA, "k", "0.5M", 22),
    ],
)
def test_a_budget_is_met_by_the_nearest_rank_and_a_bound_by_the_largest(
    arch: Arch, targets: str, given: object, r: int
) -> None:
    method = lora(targets, given)
    assert budget.solve(method, arch) == r


def test_a_budget_below_one_direction_a_layer_is_met_on_some_layers() -> None:
    assert budget.solve(lora("q,v", 6_144, layers=[11]), BASE) == 2
    with pytest.raises(InputError, match=r"r = 1 trains 36,864"):
        budget.solve(lora("q,v", 6_144), BASE)


def prints_so(count: int, text: str) -> bool:
    """Tells by writing it out whether a count prints as a text when it is rounded or cut."""
    unit = {"K": 10**3, "M": 10**6}[text[-1]]
    exponent = Decimal(text[:-1]).as_tuple().exponent
    exact = Decimal(count) / unit
    ways = (exact.quantize(Decimal(1).scaleb(int(exponent)), way) for way in (ROUND_HALF_UP, ROUND_DOWN))
    return Decimal(text[:-1]) in list(ways)


@pytest.mark.parametrize(
    "method",
    [
        lora("q,v", None),
        lora("q,v", None, freeze_A=True),
        lora("q,v", None, bias=Bias.all),
        lora("q,k,v,o", None, r_pattern={"v": 16, "layers.0.q": 2}),
        lora("embed", None),
        lora("q,v", None, layers=[1]),
        AdapterHConfig("adapter_h", bottleneck=1),
        AdapterLConfig("adapter_l", bottleneck=1),
        PrefixEmbedConfig("prefix_embed", l_p=1, l_i=3),
    ],
)
def test_the_closed_form_finds_what_a_search_finds(method: SizedConfig) -> None:
    line = budget.Line.of(method, SMALL)
    counts = {size: budget.count_at(method, SMALL, size) for size in range(1, line.most + 1)}
    assert len(counts) >= 30 and all(line.at(size) == count for size, count in counts.items())
    texts = {
        f"{Decimal(counts[size] + more) / 1000:.{decimals}f}K"
        for size in (1, 7, 29)
        for more in (-400, 0, 900)
        for decimals in (0, 1)
    }
    found = 0
    for text in sorted(text for text in texts if Decimal(text[:-1]) > 0):
        expected = [size for size, count in counts.items() if prints_so(count, text)]
        asked = budget.read(text, SMALL)
        sizes = line.meeting(asked)
        assert (list(sizes.meeting) if sizes else []) == expected
        if sizes:
            found += 1
            off = {size: abs(counts[size] - asked.weights) for size in expected}
            assert off[sizes.best] == min(off.values())
    assert found >= 4
    for bound in (counts[1] - 1, counts[1], counts[9] + 1, 10**9):
        below = [size for size, count in counts.items() if count <= bound]
        sizes = line.meeting(budget.read(bound, SMALL))
        assert (sizes.best if sizes else None) == (max(below) if below else None)


def test_no_rank_is_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, count = [], LoRAConfig.count
    monkeypatch.setattr(LoRAConfig, "count", lambda self, arch: counted.append(self.r) or count(self, arch))
    with pytest.raises(InputError, match=r"r = 12288 trains 28,991,029,248"):
        budget.solve(lora("q", "99B"), GPT3)
    assert len(counted) == 2  # of 12,288


@pytest.mark.parametrize(
    ("method", "most"),
    [
        ("lora", "r = 32 trains 8,192, the most of r up to 32"),  # 2 layers, 2 matrices, 64 weights of each rank
        ("adapter_d", "bottleneck = 32 trains 2,112, the most of bottleneck up to 32"),
        ("prefix_embed", "l_p = 119 trains 4,064, the most of l_p up to 119"),
        ("llama_adapter", "l_p = 128 trains 8,194, the most of l_p up to 128"),
    ],
)
def test_a_bound_far_beyond_the_largest_size_is_not_met_by_it(method: str, most: str) -> None:
    """A line called 1 million that trains 8,192 weights would be no comparison at equal budgets."""
    arch = load_group("model", "tiny_bert").arch(2)
    with pytest.raises(InputError, match=f"no .* meets 1000000 on this bert .*: {re.escape(most)}"):
        budget.solve(replace(load_group("method", method), budget=1_000_000), arch)


def test_a_budget_that_nothing_meets_names_the_neighbours() -> None:
    with pytest.raises(InputError) as refused:
        budget.solve(lora("q,v", "0.35M"), MEDIUM)
    assert str(refused.value) == (
        "method.budget: no r on q, v meets 0.35M on this gpt2 (d = 1024, 24 layers): "
        "r = 3 trains 294,912 (0.29M) and r = 4 trains 393,216 (0.39M).\n"
        "Give r itself, method.r=4, or another budget."
    )


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lora("q", 1000), r"no r on q meets 1000 .*: r = 1 trains 18,432\."),
        (lora("q,v", "300K"), r"r = 8 trains 294,912 \(295K\) and r = 9 trains 331,776 \(332K\)"),
        (lora("q", "1K"), r"r = 1 trains 18,432 \(18K\)"),
        (lora("q", "1K", layers="3-5"), r"no r on q, layers 3-5 meets .*: r = 1 trains 4,608 \(5K\)"),
        (lora("q", "10K", layers=[12]), r"method\.layers: there is no layer 12 \(given: 12\)\.\n.* layers 0 to 11"),
        (lora("q,x", "1M"), r"no matrix 'x' in roberta"),
        (
            lora("q", "1M", r_pattern={"q": 3}),
            r"method\.r changes no count, as other settings of the method set it",
        ),
        (lora("q", "1M", r_pattern={"z": 3}), r"method\.r_pattern: 'z' names none"),
        (lora("q", 90_000, bias=Bias.all), r"r = 1 trains 120,576"),  # 102,144 biases and 18,432
    ],
)
def test_impossible_budgets_are_refused(method: LoRAConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        budget.solve(method, BASE)


@pytest.mark.parametrize(
    "given", ["", "0", "-3M", "0M", "0.00M", "18 M", "18MM", "M", "0,35M", "1e6", "ten", True, 1.5]
)
def test_what_is_no_budget_is_refused(given: object) -> None:
    with pytest.raises(InputError, match=r"method\.budget: a number of weights.*\n.*method\.budget=18M"):
        budget.read(given, BASE)


@pytest.mark.parametrize(
    ("utilisation", "unequal"), [(0.97, False), (1.0, False), (1.05, False), (0.969, True), (1.051, True)]
)
def test_a_comparison_outside_97_to_105_percent_is_flagged(utilisation: float, unequal: bool) -> None:
    assert budget.is_unequal(utilisation) is unequal


def test_the_rank_is_solved_while_composing_and_the_budget_is_no_science() -> None:
    by_budget = resolve(compose([*SMOKE, f"method.budget={2 * 4 * 2 * ONE}", "method.targets=[q,v]"])).run
    by_r = resolve(compose([*SMOKE, "method.r=4", "method.targets=[q,v]"])).run
    assert isinstance(by_budget.method, LoRAConfig) and by_budget.method.r == 4
    assert run_id(by_budget) == run_id(by_r) and by_budget.utilisation == 1.0 and by_r.utilisation is None
    percent = resolve(compose([*SMOKE, "method.budget=5%", "method.targets=[q]"])).run
    assert percent.utilisation == pytest.approx(
        percent.trained_by_method / (0.05 * (percent.arch.size() - percent.arch.head_size))
    )


def test_a_size_beside_its_budget_is_refused_where_both_are_given() -> None:
    with pytest.raises(InputError, match=r"method\.r: follows from method\.budget, and both are given"):
        normalise(["method.budget=18M", "method.r=4"])
    with pytest.raises(InputError, match=r"both are given.*\n.*\nIn the job: .*\nIn sweeps/table5\.yaml"):
        load(compose, ["+sweeps=table5", "scale=smoke", "method.r=4"])
    assert normalise(["method.budget=18M", "method.targets=[q]"]) == ["method.budget=18M", "method.targets=[q]"]
    with pytest.raises(InputError, match=r"method\.l_p: follows from method\.budget"):
        normalise(["method=prefix_embed", "method.budget=4000", "method.l_p=4"])
    with pytest.raises(InputError, match=r"method\.r: follows from method\.budget"):
        load(compose, [*SMOKE, "method=lora_prefix_embed", "method.budget=4000", "method.l_p=4", "method.r=2,4"])


@pytest.mark.parametrize(
    ("method", "per_token"),
    [("lora_prefix_embed", 32), ("lora_prefix_layer", 2 * 32)],  # one vector a token, or one in each layer
)
def test_a_combination_takes_its_tokens_beside_a_budget(method: str, per_token: int) -> None:
    given = [*SMOKE, f"method={method}", "method.budget=4000", "method.l_i=4"]
    jobs = load(compose, [*given, "method.l_p=4,8"]).jobs
    assert normalise([*given, "method.l_p=4"]) == [*given, "method.l_p=4"]
    for job, tokens in zip(jobs, (4 + 4, 8 + 4), strict=True):
        run = job.resolved.run
        assert isinstance(run.method, LoRAConfig)
        assert run.method.r == (4000 - tokens * per_token) // (2 * 2 * ONE)  # q and v of two layers
        assert run.trained_by_method == run.method.r * 4 * ONE + tokens * per_token


def test_the_record_remembers_the_budget(tiny: Callable[..., DictConfig]) -> None:
    cfg = tiny(f"method.budget={2 * 3 * 2 * ONE + 5}", "method.targets=[q,v]", "train.max_steps=1")
    run_job(cfg)
    resolved = resolve(cfg)
    result = Record(resolved.settings.paths.outputs, run_id(resolved.run)).read().result
    assert result is not None
    assert (result["config"]["method"]["r"], result["config"]["method"]["budget"]) == (3, 2 * 3 * 2 * ONE + 5)
    assert result["provenance"]["budget"] == 2 * 3 * 2 * ONE + 5 and result["params"]["method"] == 2 * 3 * 2 * ONE


def test_plan_says_how_runs_use_their_budget() -> None:
    jobs = load(compose, ["+sweeps=table5", "scale=smoke"]).jobs
    assert utilisation_lines(jobs) == [
        "Budget 1024 on tiny_bert: lora-r8-q 1,024 (100.0 %), lora-r4-qv 1,024 (100.0 %), lora-r2-qkvo 1,024 (100.0 %)."
    ]
    grid = ["model=smollm2", "task=movies", "method.budget=0.5M", "method.targets=[q],[k],[q,k,v,o]"]
    line, note = utilisation_lines(load(compose, grid).jobs)
    assert line == (
        "Budget 0.5M on smollm2: lora-r14-q 483,840 (96.8 % (!)), lora-r22-k 506,880 (101.4 %), "
        "lora-r4-qkvo 460,800 (92.2 % (!))."
    )
    assert "outside 97 to 105 % of the budget" in note and "k, v of this llama are narrower" in note
    assert utilisation_lines(load(compose, SMOKE).jobs) == []
    layers = [
        "model=minilm",
        "task=movies",
        "method.budget=5000",
        "method.targets=[q,v]",
        "method.layers=[0,1],[0,1,2]",
    ]
    line, _ = utilisation_lines(load(compose, layers).jobs)  # of one label, as that does not hold the layers
    assert line == "Budget 5000 on minilm: lora-r1-qv 3,072 (61.4 % (!)), lora-r1-qv 4,608 (92.2 % (!))."
