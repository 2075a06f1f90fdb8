"""Keys of PEFT's patterns: matched as Python's re does, and never for long."""

import random
import re
import time
import warnings

import pytest

from lora_repro.methods.lora.patterns import LONGEST, Budget, Pattern

ATOMS = ("a", "b", ".", r"\.", "[ab]", "[^a]", r"\d", "1", r"\w", "^", "$", "-", "_", " ", "/")
ENDS = ("*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}", "*?", "+?", "??", "{0}")


def drawn(rng: random.Random, depth: int = 0) -> str:
    kind = rng.random()
    if depth > 3 or kind < 0.45:
        return rng.choice(ATOMS)
    if kind < 0.6:
        return f"({drawn(rng, depth + 1)})"
    if kind < 0.7:
        return f"{drawn(rng, depth + 1)}|{drawn(rng, depth + 1)}"
    if kind < 0.85:
        return f"(?:{drawn(rng, depth + 1)}){rng.choice(ENDS)}"
    return drawn(rng, depth + 1) + drawn(rng, depth + 1)


def test_a_key_matches_what_pythons_matcher_matches() -> None:
    rng = random.Random(0)
    matched = 0
    for _ in range(2000):
        key = drawn(rng)
        theirs, ours = re.compile(rf"(.*\.)?({key})"), Pattern(key)
        for _ in range(6):
            text = "".join(rng.choice("ab1.-_ /") for _ in range(rng.randrange(7)))
            assert ours.matches(text) == (theirs.fullmatch(text) is not None), (key, text)
            matched += ours.matches(text)
    assert 500 < matched < 11_000


@pytest.mark.parametrize(
    ("key", "module", "matches"),
    [
        ("q_proj", "model.layers.0.self_attn.q_proj", True),
        ("q_proj", "model.layers.0.self_attn.eq_proj", False),
        ("attn.q_proj", "model.attn.q_proj", True),
        ("model.attn.q_proj", "model.attn.q_proj", True),
        ("^model.q_proj", "model.q_proj", True),
        ("^q_proj", "model.q_proj", False),
        (r"layers\.(?:0|1[0-9])\.self_attn\.[qk]_proj", "model.layers.17.self_attn.k_proj", True),
        (r".*\.layers\.\d{1,2}\..*", "model.layers.7.mlp.up_proj", True),
        ("self_attn.(q|v)_proj", "layers.3.self_attn.v_proj", True),
        ("a]", "a]", True),
        ("[]a]", "]", True),
        ("x{2}", "m.xx", True),
    ],
)
def test_keys_as_people_write_them(key: str, module: str, matches: bool) -> None:
    assert Pattern(key).matches(module) == matches == (re.match(rf"(.*\.)?({key})$", module) is not None)


@pytest.mark.parametrize(
    "key",
    ["(a+)+$", "(a*)*b", "(a|a)*b", "(a|aa)+$", ".*.*.*.*.*.*x", "(.*)(.*)(.*)(.*)x", "(a?){30}a{30}", "(((a+)+)+)+b"],
)
def test_a_key_that_keeps_pythons_matcher_busy_is_matched_at_once(key: str) -> None:
    start = time.perf_counter()
    assert not Pattern(key).matches("a" * 200 + "!")
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("(", "a parenthesis is not closed"),
        (")", "a parenthesis is closed that was not opened"),
        ("*a", "repeats nothing"),
        ("a**", "a repetition is repeated"),
        ("a++", "a repetition is repeated"),
        ("[a", "a class of characters that is not closed"),
        ("[b-a]", "bad character range"),
        ("[[:alpha:]]", "not matched here"),
        ("a{3,1}", "is no number of repetitions"),
        ("a{99999999999}", "is no number of repetitions|repeats nothing"),
        ("a{999999999}", "is too large to match"),
        ("((a{300}){300}){300}", "is too large to match"),
        ("(?=a)b", r"holds \(\?="),
        ("(?i)a", r"holds \(\?i"),
        (r"(a)\1", r"holds \\1"),
        (r"\ba", r"holds \\b"),
        ("a\\", "is no pattern|not matched here"),
        ("(" * 400 + ")" * 400, "more than 20 deep"),
        ("a" * (LONGEST + 1), f"longer than {LONGEST}"),
    ],
)
def test_what_is_no_expression_or_cannot_be_bounded_is_refused(key: str, words: str) -> None:
    with warnings.catch_warnings(), pytest.raises(ValueError, match=words):
        warnings.simplefilter("error")
        Pattern(key)


def test_all_keys_of_a_file_have_one_budget() -> None:
    budget = Budget(2000)
    keys = [Pattern(rf"({'a?' * 20}b|c{n})+", budget) for n in range(10)]
    with pytest.raises(ValueError, match="is too costly to match"):
        for key in keys:
            key.matches("ab" * 30)
    assert Pattern("q_proj", budget).matches("q_proj")  # a module's name costs nothing
