"""Every number of trained weights that Tables 2, 3, 4 and 15 print is derived from shapes, or has a reason."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from helpers.architectures import PAPER_ARCHS

from analysis.items import facts_of
from lora_repro.costs import budget
from lora_repro.methods import (
    METHODS,
    AdapterDConfig,
    AdapterLConfig,
    FullConfig,
    LoRAConfig,
    MethodConfig,
    PrefixLayerConfig,
    SizedConfig,
)

TABLES = (2, 3, 4, 15)
DECIMALS = {2: 1, 3: 2, 4: 1, 15: 1}
"""Of millions; in Table 15 full fine-tuning alone is printed in billions."""
NAMES = {"ft": "full", "lora_pe": "lora_prefix_embed", "lora_pl": "lora_prefix_layer"}
"""How the facts call methods that are called otherwise here."""

GIVEN: dict[tuple[int, str, str, int], dict[str, Any]] = {
    (2, "roberta_base", "lora", 300_000): {"targets": "qv", "r": 8},  # Table 9
    (2, "roberta_large", "lora", 800_000): {"targets": "qv", "r": 8},  # Table 9
    (2, "roberta_large", "adapter_p", 3_000_000): {"bottleneck": 64},  # Table 9, and so the next three
    (2, "roberta_large", "adapter_p", 800_000): {"bottleneck": 16},
    (2, "roberta_large", "adapter_h", 6_000_000): {"bottleneck": 64},
    (2, "roberta_large", "adapter_h", 800_000): {"bottleneck": 8},
    (2, "deberta_v2_xxlarge", "lora", 4_700_000): {
        "targets": "qv",
        "r": 16,
    },  # the scripts; Table 10 says 8, half of it
    (3, "gpt2_medium", "lora", 350_000): {"targets": "qv", "r": 4},  # Table 11
    (3, "gpt2_large", "lora", 770_000): {"targets": "qv", "r": 4},  # Table 11
    (4, "gpt3_175b", "prefix_embed", 3_200_000): {"l_p": 256, "l_i": 8},  # Section 5.5
    (4, "gpt3_175b", "prefix_layer", 20_200_000): {"l_p": 8, "l_i": 8},  # Section 5.5
    (4, "gpt3_175b", "lora", 4_700_000): {"targets": "v", "r": 2},  # Appendix D.4; q and v with r = 1 count the same
    (4, "gpt3_175b", "lora", 37_700_000): {"targets": "qv", "r": 8},  # Appendix D.4
}
"""Settings that the paper gives elsewhere. Of rows without any the solver finds the bottleneck or number of tokens."""

HOLDS_MORE = "Section 5.1's formula gives {count:,}: the printed number holds something more"
REASONS: dict[tuple[int, str, str, str], str] = {
    (
        2,
        "roberta_base",
        "ft",
        "",
    ): "in round numbers from prior work: 124,647,939 with the head, 125M in whole millions",
    (2, "roberta_large", "ft", ""): "in round numbers from prior work: 355,362,819 with the head",
    (2, "deberta_v2_xxlarge", "ft", ""): "in round numbers from prior work: 1,566,915,075 with the head, 1.5B if cut",
    (
        2,
        "roberta_base",
        "adapter_d",
        "0.3M",
    ): "not unique: 12 numbers of dropped blocks have a bottleneck that prints so",
    (
        2,
        "roberta_base",
        "adapter_d",
        "0.9M",
    ): "not unique: 12 numbers of dropped blocks have a bottleneck that prints so",
    (2, "roberta_large", "adapter_p", "bottleneck=64"): "Table 9's bottleneck of 64 makes 3,171,840, printed as 3.0M",
    (2, "roberta_large", "adapter_h", "bottleneck=64"): "Table 9's bottleneck of 64 makes 6,343,680, printed as 6.0M",
    (3, "gpt2_medium", "ft", ""): "354,823,168 as transformers counts it; the 774.03M of GPT-2 large are exact",
    (3, "gpt2_medium", "adapter_h", "11.09M"): "no bottleneck: 112 makes 11,064,576, 113 makes 11,162,928",
    (3, "gpt2_medium", "prefix_layer", "0.35M"): "no number of tokens: 14 make 344,064, 15 make 368,640",
    (3, "gpt2_large", "prefix_layer", "0.77M"): "no number of tokens: 16 make 737,280, 17 make 783,360",
    (3, "gpt2_medium", "lora", "targets=qv r=4"): "393,216; the printed 0.35M are the prefix row's",
    (3, "gpt2_large", "lora", "targets=qv r=4"): "737,280; the printed 0.77M are the prefix row's",
    (4, "gpt3_175b", "ft", ""): "174,604,259,328 by the shapes of Brown et al.; the 651M more are nowhere explained",
    (4, "gpt3_175b", "bitfit", ""): "12,988,416: 11 d a block and one LayerNorm; 14.2M would be 12 d a block",
    (4, "gpt3_175b", "prefix_layer", "l_p=8 l_i=8"): HOLDS_MORE.format(count=18_874_368),
    (15, "gpt3_175b", "ft", ""): "printed in whole billions: 174,604,259,328",
    (15, "gpt3_175b", "prefix_layer", "l_p=2 l_i=2"): HOLDS_MORE.format(count=4_718_592),
    (15, "gpt3_175b", "prefix_layer", "l_p=8 l_i=0"): HOLDS_MORE.format(count=9_437_184),
    (15, "gpt3_175b", "prefix_layer", "l_p=8 l_i=8"): HOLDS_MORE.format(count=18_874_368),
    (15, "gpt3_175b", "prefix_layer", "l_p=32 l_i=4"): HOLDS_MORE.format(count=42_467_328),
    (15, "gpt3_175b", "prefix_layer", "l_p=64 l_i=0"): HOLDS_MORE.format(count=75_497_472),
    (15, "gpt3_175b", "lora", "targets=qkvo r=64"): "603,979,776; the printed 603.8M are twice the row of q and v, cut",
    (15, "gpt3_175b", "lora_pl", "targets=qv r=8 l_p=8 l_i=4"): HOLDS_MORE.format(count=51_904_512),
}
"""Rows that no setting derives, with the reason; where there is one, it holds our count."""


def rows(table: int) -> list[dict[str, Any]]:
    return facts_of(f"table{table}")["rows"]


ROWS = [(table, row) for table in TABLES for row in rows(table)]


def settings_of(table: int, row: dict[str, Any]) -> dict[str, Any]:
    """Returns what the row, or the paper elsewhere, says of the method's settings."""
    known = GIVEN.get((table, row["model"], row["method"], row["trainable_params"]), {})
    own = {"targets": row["adapted_weights"]} if "adapted_weights" in row else {}
    return known | own | {key: row[key] for key in ("r", "bottleneck", "l_p", "l_i") if key in row}


def name_of(row: dict[str, Any]) -> str:
    method = str(row["method"])
    return NAMES.get(method, method)


def printed(table: int, row: dict[str, Any]) -> str:
    return f"{row['trainable_params'] / 10**6:.{DECIMALS[table]}f}M"


def methods_of(table: int, row: dict[str, Any]) -> list[MethodConfig]:
    """Returns the row's method with the settings that are given, or with every one that prints so."""
    name, arch = name_of(row), PAPER_ARCHS[row["model"]]
    kind, settings = METHODS[name], settings_of(table, row)
    if issubclass(kind, LoRAConfig):
        targets = list(settings.pop("targets"))
        return [kind(name, targets, settings.pop("r"), 1.0, 0.0, **settings)]
    if settings or not issubclass(kind, SizedConfig):
        return [kind(name, **settings)]
    more = [{"dropped": n} for n in range(arch.num_layers)] if kind is AdapterDConfig else [{}]
    more = [{"l_i": 0}] if issubclass(kind, PrefixLayerConfig) else more
    found: list[MethodConfig] = []
    for other in more:
        method = kind(name, **({kind.size_key: 1} | other))  # pyright: ignore[reportArgumentType]
        if sizes := budget.Line.of(method, arch).meeting(budget.read(printed(table, row), arch)):
            found += [replace(method, **{kind.size_key: size}) for size in sizes.meeting]
    return found


def outcome(table: int, row: dict[str, Any]) -> str | None:
    """Returns how the count prints as the paper does: rounded, cut, or both; None if it does not, or is not unique."""
    methods = methods_of(table, row)
    if len(methods) != 1:
        return None
    arch = PAPER_ARCHS[row["model"]]
    count = methods[0].count(arch)
    exact = Fraction(count.trainable if row["method"] == "ft" else count.method, 10**6) * 10 ** DECIMALS[table]
    wanted = Fraction(row["trainable_params"], 10**6) * 10 ** DECIMALS[table]
    ways = {"rounded": math.floor(exact + Fraction(1, 2)) == wanted, "cut": math.floor(exact) == wanted}
    return "both" if all(ways.values()) else next((way for way, holds in ways.items() if holds), None)


def key_of(table: int, row: dict[str, Any]) -> tuple[int, str, str, str]:
    settings = " ".join(f"{key}={value}" for key, value in settings_of(table, row).items())
    sized = issubclass(METHODS[name_of(row)], SizedConfig)
    return table, row["model"], row["method"], settings or (printed(table, row) if sized else "")


ONE_WAY: dict[tuple[int, str, str, str], str] = {
    (2, "roberta_base", "lora", "targets=qv r=8"): "rounded",
    (2, "roberta_large", "lora", "targets=qv r=8"): "rounded",
    (3, "gpt2_medium", "adapter_l", "0.37M"): "rounded",
    (3, "gpt2_medium", "adapter_l", "11.09M"): "rounded",
    (3, "gpt2_large", "adapter_l", "0.88M"): "rounded",
    (4, "gpt3_175b", "adapter_h", "7.1M"): "rounded",
    (15, "gpt3_175b", "prefix_embed", "l_p=32 l_i=8"): "cut",
    (15, "gpt3_175b", "prefix_embed", "l_p=64 l_i=8"): "rounded",
    (15, "gpt3_175b", "prefix_embed", "l_p=128 l_i=8"): "rounded",
    (15, "gpt3_175b", "prefix_embed", "l_p=512 l_i=8"): "rounded",
    (15, "gpt3_175b", "adapter_h", "bottleneck=1"): "rounded",
    (15, "gpt3_175b", "adapter_h", "bottleneck=16"): "rounded",
    (15, "gpt3_175b", "adapter_h", "bottleneck=64"): "rounded",
    (15, "gpt3_175b", "lora", "targets=qv r=4"): "cut",
    (15, "gpt3_175b", "lora", "targets=qkvo r=2"): "cut",
    (15, "gpt3_175b", "lora", "targets=qv r=64"): "cut",
    (15, "gpt3_175b", "lora_pe", "targets=qv r=8 l_p=8 l_i=4"): "cut",
}
"""Rows that print our count in one of the two ways; all others print so rounded and cut."""


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_every_printed_count_is_derived_or_has_a_reason(table: int, row: dict[str, Any]) -> None:
    key = key_of(table, row)
    assert not (key in REASONS and key in ONE_WAY)
    assert outcome(table, row) == (None if key in REASONS else ONE_WAY.get(key, "both"))


def test_no_row_is_left_out_and_no_entry_is_idle() -> None:
    assert [len(rows(table)) for table in TABLES] == [14, 12, 8, 30]
    keys = {key_of(table, row) for table, row in ROWS}
    assert REASONS.keys() | ONE_WAY.keys() <= keys and len(REASONS) == 24
    assert GIVEN.keys() <= {(table, row["model"], row["method"], row["trainable_params"]) for table, row in ROWS}


@pytest.mark.parametrize(("table", "row"), [(table, row) for table, row in ROWS if key_of(table, row) in REASONS])
def test_reasons_name_our_count(table: int, row: dict[str, Any]) -> None:
    reason, methods, arch = REASONS[key_of(table, row)], methods_of(table, row), PAPER_ARCHS[row["model"]]
    if "not unique" in reason:
        assert len({getattr(method, "dropped", None) for method in methods}) == 12
    elif not methods:
        kind = METHODS[row["method"]]
        method = kind(row["method"], **({"l_p": 1, "l_i": 0} if row["method"] == "prefix_layer" else {"bottleneck": 1}))
        assert isinstance(method, SizedConfig)
        line = budget.Line.of(method, arch)
        for size in line.neighbours(budget.read(printed(table, row), arch)):
            assert f"{size} make" in reason and f"{line.at(size):,}" in reason
    else:
        (method,) = methods
        count = method.count(arch)
        assert f"{count.trainable if row['method'] == 'ft' else count.method:,}" in reason


@pytest.mark.parametrize(
    ("table", "model", "unit", "rounds"),
    [
        (2, "roberta_base", 10**6, True),
        (2, "roberta_large", 10**6, True),
        (2, "deberta_v2_xxlarge", 10**8, False),
        (15, "gpt3_175b", 10**9, True),
    ],
)
def test_full_fine_tuning_is_printed_in_round_numbers(table: int, model: str, unit: int, rounds: bool) -> None:
    (row,) = [row for row in rows(table) if (row["model"], row["method"]) == (model, "ft")]
    count = FullConfig("full").count(PAPER_ARCHS[model]).trainable
    assert row["trainable_params"] == math.floor(count / unit + 0.5 * rounds) * unit


@pytest.mark.parametrize(
    ("model", "text", "bottlenecks"),
    [
        ("gpt2_medium", "0.37M", [6]),
        ("gpt2_medium", "11.09M", [224]),
        ("gpt2_large", "0.88M", [8]),
        ("gpt2_large", "23.00M", [248]),
    ],
)
def test_the_solver_finds_the_bottlenecks_of_table_3(model: str, text: str, bottlenecks: list[int]) -> None:
    arch, method = PAPER_ARCHS[model], AdapterLConfig("adapter_l", bottleneck=1)
    sizes = budget.Line.of(method, arch).meeting(budget.read(text, arch))
    assert sizes is not None and list(sizes.meeting) == bottlenecks
