"""A plan says how many weights a sweep's runs train, and which number the paper prints for them."""

import pytest

from analysis import printed_counts
from analysis.printed_counts import count_lines, printed_size, prints_as
from lora_repro.config.compose import compose
from lora_repro.config.resolve import resolve
from lora_repro.sweep.grid import load

LINE = ["model=roberta_base", "task=generated", "method=lora", "method.r=8,16", "train.learning_rate=1e-4", "seed=0,1"]


@pytest.mark.parametrize(
    ("count", "printed", "is_so"),
    [
        (294_912, 300_000, True), (786_432, 800_000, True), (249_999, 300_000, False), (400_000, 300_000, False),
        (3_171_840, 3_000_000, False), (4_718_592, 4_700_000, True), (2_359_296, 4_700_000, False),
        (393_216, 350_000, False), (344_064, 350_000, False), (368_784, 370_000, True), (875_808, 880_000, True),
        (11_089_152, 11_090_000, True), (11_064_576, 11_090_000, False),
        (174_604_300_000, 175_000_000_000, True), (174_604_300_000, 175_255_800_000, False),
    ],
)  # fmt: skip
def test_a_count_prints_as_another_if_it_is_rounded_or_cut_to_it(count: int, printed: int, is_so: bool) -> None:
    arch = resolve(compose(["model=tiny_bert", "task=generated"])).run.arch
    assert prints_as(count, printed, arch) is is_so


def test_a_printed_count_keeps_the_papers_digits() -> None:
    counts = (100_000, 350_000, 370_000, 3_000_000, 11_090_000, 1_500_000_000, 175_000_000_000, 175_255_800_000)
    written = ["0.1M", "0.35M", "0.37M", "3.0M", "11.09M", "1,500.0M", "175B", "175,255.8M"]
    assert [printed_size(count) for count in counts] == written


def test_each_model_and_method_is_told_once_beside_the_nearest_printed_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """12 layers of width 768: r on q and v trains 2 * 12 * 2 * 768 * r weights."""
    rows = [{"model": "roberta_base", "method": "lora", "trainable_params": n} for n in (300_000, 700_000, 10**7)]
    monkeypatch.setattr(printed_counts, "item_names", lambda: ["mine"])
    monkeypatch.setattr(printed_counts, "facts_of", lambda name: {"rows": [*rows, {"model": "roberta_base"}]})
    jobs = load(compose, LINE).jobs
    assert count_lines(["+sweeps=mine"], jobs) == [
        "Trained: roberta_base lora-r8-qv 294,912 weights; the paper prints 0.3M.",
        "Trained: roberta_base lora-r16-qv 589,824 weights; the paper prints 0.7M, and these are 15.7% fewer.",
    ]
    assert count_lines(["+sweeps=yours"], jobs) == count_lines(LINE, jobs) == []
