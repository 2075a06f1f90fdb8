"""Values into Hydra's grammar and out of it: writing one is the inverse of reading it."""

import random
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lora_repro.config.compose import compose
from lora_repro.config.grammar import quoted, values
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.sweep.grid import load

NASTY = (
    "", " ", "\\", "\\\\", "a\\", "a\\\\", "\\'", "'", "''", '"', "it's", "a\\'b", "\\\\'", "'\\", "{", "}",
    "{a:1}", "[q,v]", "a,b", "a=b", "a b", " a", "a ", "\ta", "a\n", "a\nb", "\n", "\r", "${seed}", "${",
    "\\${seed}", "$x", "(1)", "glob(*)", "range(1,3)", "1", "01", "-1", "1.0", "1e3", "1_000", "0x1", "inf",
    "-inf", "nan", "NaN", "null", "Null", "true", "TRUE", "~", "~x", "+x", "é", "моделью", "😀", "\u202e",
    "\x00", "\x1b[2J", "#", "# a", "a:b", ":", "a/b", "*", "%d", "@", "|", "?",
)  # fmt: skip


def read(line: str) -> list[Any]:
    (override,) = OverridesParser.create().parse_overrides([line])
    return values(override)


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_any_text_is_read_as_it_was_written(text: str) -> None:
    for value in (text, [text], [text, text], {"k": text}, [[text], {"k": [text]}]):
        assert read(f"task.prompt={quoted(value)}") == [value]
    assert read(f"task.prompt={quoted(text)},{quoted(text)}") == [text, text]


def test_random_texts_are_read_as_they_were_written() -> None:
    rng = random.Random(0)
    texts = ["".join(rng.choices("\\\\'\"{}[](),:=$ \n1ae.-é", k=rng.randrange(1, 9))) for _ in range(400)]
    assert [read(f"task.prompt={quoted(text)}") for text in texts] == [[text] for text in texts]


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, -3, 10**30, 0.1, 1e-05, 1e22, -2.5e-300, float("inf"), [], [1, "1", None, "null"], {}],
)
def test_numbers_and_words_keep_their_type(value: Any) -> None:
    (found,) = read(f"x={quoted(value)}")
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("prompt", ["{text} it is \\\\", "{text} \\", "it's {text}: \\'", "1 {text}", "{text}\n\\\\"])
def test_a_job_composes_to_the_run_that_it_was_planned_as(prompt: str) -> None:
    """A launcher composes a job from its overrides: where they say something else, the sweep never completes."""
    tiny = ["model=tiny_llama", "task=generated", "task.form=text", "task.label_words=[bad,good]"]
    (job,) = load(compose, [*tiny, f"task.prompt={quoted(prompt)}"]).jobs
    composed = resolve(compose(job.overrides)).run
    assert composed.task == job.resolved.run.task and getattr(composed.task, "prompt", None) == prompt
    assert run_id(composed) == job.run_id


def test_a_pattern_picks_choices_of_a_group() -> None:
    found = load(
        compose, ["model=glob(tiny*)", "task=generated", "method=glob(*,exclude=[a*,b*,f*_*,ft*,head*,l*_*,p*])"]
    ).jobs
    assert [(job.point["model"], job.point["method"]) for job in found] == [
        (model, method) for model in ("tiny_bert", "tiny_llama") for method in ("full", "lora")
    ]


def test_a_range_is_an_axis() -> None:
    assert read("seed=range(3)") == [0, 1, 2] and read("seed=range(0,1,0.5)") == [0.0, 0.5]
    assert read("seed=range(3,0,-1)") == [3, 2, 1]
    assert sorted(read("seed=shuffle(range(0,4))")) == [0, 1, 2, 3]
