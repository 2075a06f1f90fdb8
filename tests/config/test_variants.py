"""A point of a sweep that takes its sections from earlier points is what it is when it is resolved as a whole."""

import itertools
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache
from random import Random
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_repro.config import variants
from lora_repro.config.compose import compose
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import Resolved, resolve
from lora_repro.config.variants import Variants
from lora_repro.errors import InputError
from lora_repro.sweep.grid import expand
from lora_repro.sweep.jobs import Jobs

LORA = ("model=tiny_bert", "task=generated")
FULL = ("model=tiny_bert", "task=movies", "method=full")
TEXT = ("model=tiny_llama", "task=movies", "task.form=text", "preset@train=tiny_llama")
RUN = "tiny_bert-generated-lora-r2-qv-s0-0123456789"

VALUES: dict[str, list[Any]] = {
    "seed": [0, 1, 7, 2**32, -1, True, 1.5, "1", "one", None, "${method.name}"],
    "method.r": [1, 2, 2.0, "2", 0, 10**6, "two", None, True, "${seed}", [1]],
    "method.targets": [["q"], ["v", "q"], ["q", "q"], ["q", "x"], [], "q", None, [["q"]], [1], {"q": 1}, ["${seed}"]],
    "method.alpha": [8, 8.0, "8", float("nan"), float("inf"), -0.0, "???", "${method.r}", "\\${method.r}"],
    "method.r_pattern": [None, {"v": 2}, {"q": 1, "v": 2}, {"nowhere": 1}, [1, 2], 3, {}, "${task}"],
    "method.budget": [None, 2000, 2000.0, "1K", "0.4%", "9Z", "", [1], True],
    "method.init": ["kaiming", "gaussian", "Gaussian", 1, None],
    "method.freeze_A": [True, False, "yes", 0, None],
    "method.rank": [4],
    "method.name": ["full"],
    "train.learning_rate": [1e-3, "1e-3", 1, 0.0, float("inf"), float("nan"), "fast", None, "${seed}"],
    "train.max_steps": [None, 5, 0, "5", 5.5, "???"],
    "train.max_grad_norm": [None, 1, 1.0, "null", "${train.learning_rate}"],
    "train.dtype": ["fp32", "bf16", "fp16", None],
    "train.init_from": [None, RUN, "nowhere", "${model.name}"],
    "task.train_size": [None, 10, 10**9, "ten", "${seed}"],
    "task.prompt": ["{text}", "{text} ${seed}", "{text} \\${seed}", "$ {text}", "", "???", None, 7],
    "task.label_words": [[" a", " b"], [" a", " a"], [], None, [1, 2]],
    "task.digest": ["0" * 64],
    "task.split_sizes": [{"train": 4043}, {"train": 4000, "eval": 2043, "test": 4000}, None],
    "model.dropout": [0, 0.1, 1, "${method.dropout}"],
    "model.digest": ["0" * 64],
    "model.config.hidden_size": [64],
    "model.sites": [{}, {"q": "x"}, None],
    "log.snapshots": [[], [0, 0.5, 1], [2], None, "${seed}", [True]],
    "log": [{"level": "debug"}, None],
    "paths.outputs": ["here", "", "~/there", "${oc.env:HOME}", "${paths.cache}"],
    "compute.threads": [None, 1, 0],
    "scale.name": ["huge", "demo"],
    "sweep": [None, 1],
    "nothing.here": [1],
    "seed.more": [1],
    "": [1],
}
"""Values that are right, wrong or odd, among them those that follow from others."""


@cache
def composed(choice: tuple[str, ...]) -> DictConfig:
    cfg = compose(choice)
    cfg.sweep = None
    return cfg


def as_a_whole(cfg: DictConfig, values: Mapping[str, Any]) -> Resolved:
    whole = deepcopy(cfg)
    for key, value in values.items():
        OmegaConf.update(whole, key, value)
    return resolve(whole)


def outcome(resolved: Callable[[], Resolved]) -> str:
    """Writes a configuration, types and id included, or why there is none."""
    try:
        found = resolved()
    except (InputError, OmegaConfBaseException, AssertionError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return f"{run_id(found.run)}: {found}"


def points(seed: int, number: int) -> list[dict[str, Any]]:
    """Draws points of few keys, most of them from the beginnings of the lists, where the values are right."""
    random, drawn = Random(seed), []
    for _ in range(number):
        keys = random.sample(sorted(VALUES), random.choice((1, 2, 2, 3, 4)))
        drawn.append({key: random.choice(VALUES[key][: random.choice((2, 2, 3, len(VALUES[key])))]) for key in keys})
    return drawn


@pytest.mark.parametrize(
    ("choice", "sections"),
    [
        (LORA, ("seed", "method", "train", "model", "log", "")),
        (TEXT, ("task", "paths", "compute", "scale", "sweep", "nothing")),
    ],
)
def test_points_of_single_keys_are_what_they_are_as_a_whole(choice: tuple[str, ...], sections: tuple[str, ...]) -> None:
    """All values of a key one after the other and back, so that each follows upon those on both sides."""
    cfg, known = composed(choice), Variants(deepcopy(composed(choice)))
    for key in (key for key in VALUES if key.partition(".")[0] in sections):
        expected = [outcome(lambda value=value, key=key: as_a_whole(cfg, {key: value})) for value in VALUES[key]]
        for index in (*range(len(expected)), *range(len(expected) - 1, -1, -1)):
            value = VALUES[key][index]
            assert outcome(lambda value=value, key=key: known.resolve({key: value})) == expected[index], (key, value)


@pytest.mark.parametrize(("choice", "seed"), [(LORA, 0), (FULL, 1), (TEXT, 2)])
def test_points_of_several_keys_are_what_they_are_as_a_whole(
    choice: tuple[str, ...], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: list[DictConfig] = []

    def counted(cfg: DictConfig) -> Resolved:
        whole.append(cfg)
        return resolve(cfg)

    monkeypatch.setattr(variants, "resolve", counted)
    cfg, known, drawn = composed(choice), Variants(deepcopy(composed(choice))), points(seed, 60)
    found = [outcome(lambda point=point: known.resolve(point)) for point in drawn]
    assert found == [outcome(lambda point=point: as_a_whole(cfg, point)) for point in drawn]
    assert 5 < sum(": Resolved(" in each for each in found) < len(found) - 5
    assert 5 < len(whole) < len(found) - 5


@pytest.mark.parametrize(
    ("key", "reference"),
    [
        ("method.alpha", "${method.r}"),
        ("train.max_steps", "${seed}"),
        ("train.learning_rate", "${oc.select:method.r}"),
        ("method.alpha", "${oc.env:LORA_REPRO_NEVER_SET,${method.r}}"),
        ("task.prompt", "{text} ${seed}"),
    ],
)
def test_a_key_that_follows_from_another_one_in_the_files_follows_it(key: str, reference: str) -> None:
    cfg = deepcopy(composed(TEXT if key == "task.prompt" else LORA))
    OmegaConf.update(cfg, key, reference)
    known = Variants(deepcopy(cfg))
    for r, seed in itertools.product((1, 2), (3, 4)):
        values = {"method.r": r, "seed": seed}
        assert outcome(lambda values=values: known.resolve(values)) == outcome(
            lambda values=values: as_a_whole(cfg, values)
        )


def test_no_point_changes_with_another_one() -> None:
    known = Variants(deepcopy(composed(LORA)))
    first, second, third = (known.resolve({"method.budget": 2000, "seed": seed}) for seed in (0, 1, 0))
    assert (first.run.method, first.run.train) == (second.run.method, second.run.train)
    before = repr(third)
    first.run.method.name, first.run.train.epochs, second.settings.compute.threads = "changed", 77, 1
    assert repr(third) == before == repr(known.resolve({"method.budget": 2000, "seed": 0}))


def test_a_sweep_composes_once_for_each_choice_and_types_each_section_once(monkeypatch: pytest.MonkeyPatch) -> None:
    composed_lines: list[list[str]] = []
    sections: list[str] = []

    def counted_compose(line: list[str]) -> DictConfig:
        composed_lines.append(line)
        return compose(line)

    def counted_typed(cfg: DictConfig, name: str) -> Any:
        sections.append(name)
        return typed(cfg, name)

    def none(cfg: DictConfig) -> Resolved:
        raise AssertionError(f"resolved as a whole: {cfg.seed}")

    typed = variants.typed
    monkeypatch.setattr(variants, "_known", {})
    monkeypatch.setattr(variants, "typed", counted_typed)
    monkeypatch.setattr(variants, "resolve", none)
    grids = [{"seed": [0, 1, 2, 3], "model": "tiny_bert", "task": "generated", "method.r": [1, 2], "method": "lora"}]
    axes = {"method.targets": [["q"], ["q", "v"]], "train.learning_rate": [1e-3, 1e-2, 1e-1]}
    found = Jobs(counted_compose, [], [], None, store=None)
    found.add(expand([grids[0] | axes]))
    jobs = found.sweep([]).jobs
    assert len(jobs) == 4 * 2 * 2 * 3
    assert composed_lines == [["model=tiny_bert", "task=generated", "method=lora"]]
    assert {name: sections.count(name) for name in sections} == {
        "model": 1, "task": 1, "method": 4, "train": 3, "log": 1, "compute": 1, "paths": 1, "scale": 1,
    }  # fmt: skip
