"""Keys of PEFT's patterns: matched as Python's re does, and never for long."""

import random
import re
import time

import pytest

from lora_repro.methods.patterns import LONGEST, Budget, Pattern

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
        ("model.attn.q_proj", "model.attn.q_proj", True),
        ("^q_proj", "model.q_proj", False),
        (r"layers\.(?:0|1[0-9])\.self_attn\.[qk]_proj", "model.layers.17.self_attn.k_proj", True),
        (r".*\.layers\.\d{1,2}\..*", "model.layers.7.mlp.up_proj", True),
        ("[]a]", "]", True),
        (r"(q|k)\3", "m.kk", True),  # behind the two groups that PEFT puts around a key
    ],
)
def test_keys_as_people_write_them(key: str, module: str, matches: bool) -> None:
    assert Pattern(key).matches(module) == matches == (re.match(rf"(.*\.)?({key})$", module) is not None)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("(", "is no pattern"),
        ("a**", "is no pattern"),
        ("[b-a]", "is no pattern"),
        ("(?R)", "is no pattern"),  # regex knows it, and Python does not
        ("[[:alpha:]]", "is no pattern"),  # regex and Python read it differently
        ("a{e}", "counts nothing"),  # so do they this one
        ("a{999999999}", "is too large to match"),
        ("((a{300}){300}){300}", "is too large to match"),
        ("(" * 499 + ")" * 499, "is no pattern"),
        ("a" * (LONGEST + 1), f"longer than {LONGEST}"),
    ],
)
def test_what_is_no_expression_or_cannot_be_bounded_is_refused(key: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Pattern(key)


def test_all_keys_of_a_file_share_one_time_and_are_refused_when_it_is_spent() -> None:
    budget = Budget(0.2)
    start = time.perf_counter()
    for end in "xyz":
        with pytest.raises(ValueError, match="is too costly to match"):
            Pattern(rf"((a|a)+|[{end}b])+[^a!]", budget).matches("a" * 200 + "!")
    assert 0.2 <= time.perf_counter() - start < 2
    assert Pattern("q_proj", budget).matches("q_proj")  # a module's name costs nothing
