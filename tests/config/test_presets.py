"""Presets by model, method and task: what they set, what wins over them, and what is refused."""

from pathlib import Path

import pytest
from helpers.commands import run_here
from helpers.fixture_types import Captured
from helpers.quick_compose import compose_quickly

from lora_repro.cli import normalise
from lora_repro.config import catalogue, presets
from lora_repro.config.catalogue import BY_TASK, HOME
from lora_repro.config.compose import compose
from lora_repro.config.grammar import quoted
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import Resolved, resolve
from lora_repro.config.schema import register
from lora_repro.errors import InputError
from lora_repro.sweep.grid import load

TINY = ("model=tiny_bert", "task=generated")

MADE_UP = """
tiny_bert:
  lora:
    all: {train.warmup_steps: 7, train.weight_decay: 0, method.targets: [k], method.r: 2, method.alpha: 3}
    generated: {train.batch_size: 5, train.learning_rate: 2e-4, model.head_dropout: 0.25, task.train_size: 50}
    movies: {train.batch_size: 6}
  full:
    movies: {train.batch_size: 9}
"""


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of presets with one, `mine`, for a tiny model."""
    for module in (catalogue, presets):
        monkeypatch.setattr(module, "BY_TASK", tmp_path)
    (tmp_path / "mine.yaml").write_text(MADE_UP)
    presets.read.cache_clear()
    register()
    return tmp_path / "mine.yaml"


def resolved(*overrides: str) -> Resolved:
    return resolve(compose([*TINY, *overrides]))


@pytest.mark.usefixtures("made_up")
def test_a_preset_sets_what_its_entry_says_and_leaves_all_else() -> None:
    run, plain = resolved("preset=mine").run, resolved().run
    train, method = run.train, run.method
    assert (train.warmup_steps, train.weight_decay, train.batch_size, train.learning_rate) == (7, 0.0, 5, 0.0002)
    assert (method.targets, method.r, method.alpha) == (["k"], 2, 3.0)  # pyright: ignore[reportAttributeAccessIssue]
    assert (run.model.head_dropout, run.task.train_size) == (0.25, 50)
    assert (train.epochs, train.schedule, train.dtype, run.model.dropout) == (
        plain.train.epochs, plain.train.schedule, plain.train.dtype, plain.model.dropout,
    )  # fmt: skip


@pytest.mark.usefixtures("made_up")
def test_a_run_of_a_preset_is_the_run_of_its_values_typed_by_hand() -> None:
    by_hand = [
        f"{key}={quoted(value)}"
        for key, value in presets.values_of("mine", *["tiny_bert", "lora", "generated"]).items()
    ]
    assert len(by_hand) == 9
    assert run_id(resolved("preset=mine").run) == run_id(resolved(*by_hand).run) != run_id(resolved().run)
    assert run_id(resolved("preset=ours").run) == run_id(resolved().run)


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("order", [("preset=mine", "train.batch_size=11"), ("train.batch_size=11", "preset=mine")])
def test_the_command_line_wins_over_a_preset_in_any_order(order: tuple[str, str]) -> None:
    train = resolved(*order, "method.r=1", "model.head_dropout=null").run.train
    assert (train.batch_size, train.warmup_steps) == (11, 7)


@pytest.mark.usefixtures("made_up")
def test_a_preset_wins_over_settings_by_model_and_method() -> None:
    assert resolved().run.train.learning_rate == 0.01, "conf/preset/tiny_bert.yaml"
    assert resolved("preset=mine", "preset@train=tiny_bert").run.train.learning_rate == 0.0002


@pytest.mark.usefixtures("made_up")
def test_a_ratio_on_the_command_line_takes_away_the_steps_of_a_preset() -> None:
    """Steps win over a ratio, so those of the preset would have made the command line idle."""
    line = normalise([*TINY, "preset=mine", "train.warmup_ratio=0.5"])
    train = resolve(compose(line)).run.train
    assert (train.warmup_ratio, train.warmup_steps) == (0.5, None)
    both = normalise([*TINY, "preset=mine", "train.warmup_ratio=0.5", "train.warmup_steps=2"])
    assert resolve(compose(both)).run.train.warmup_steps == 2
    assert normalise([*TINY, "train.warmup_ratio=0.5"])[-1] == "train.warmup_ratio=0.5"
    with pytest.raises(InputError, match=r"preset=mine has train.warmup_steps=7 here, which wins over a ratio"):
        load(compose, [*TINY, "preset=mine", "train.warmup_ratio=0.1,0.5"])


@pytest.mark.usefixtures("made_up")
def test_presets_are_an_axis_of_a_sweep() -> None:
    jobs = load(compose, [*TINY, "preset=ours,mine", "seed=0,1"]).jobs
    assert [(job.point["preset"], job.point["seed"], job.resolved.run.train.batch_size) for job in jobs] == [
        ("ours", 0, 16), ("mine", 0, 5), ("ours", 1, 16), ("mine", 1, 5),
    ]  # fmt: skip
    assert [run_id(resolve(compose(job.overrides)).run) for job in jobs] == [job.run_id for job in jobs]


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("preset=mine", "has no values for model=minilm method=lora task=movies.\nIt has model=tiny_bert.\nNo other"),
        ("preset=mine model=tiny_bert method=bitfit", "It has with model=tiny_bert: method=lora, full."),
        (f"preset=mine method=full {' '.join(TINY)}", "It has with model=tiny_bert method=full: task=movies."),
        ("preset=mine model=tiny_bert method=full task=all", "task: there is no 'all'"),
        ("preset=mien", "preset: there is no 'mien'. Did you mean 'mine'?\nChoices: ours, mine."),
        ("preset=null", "preset: must be a name (given: null)"),
        ("preset=tiny_bert", "preset: there is no 'tiny_bert'"),
        ("preset@train=mine", "preset@train: there is no 'mine'"),
        ("preset=../train/default", "preset: there is no '../train/default'"),
    ],
)
def test_what_there_is_not_is_refused_in_words(line: str, words: str, tmp_path: Path, capsys: Captured) -> None:
    code, out, said = run_here(["lora_repro", *line.split(), "paths.outputs=store"], capsys, cwd=tmp_path)
    assert code == 1 and not out and words in said and "Traceback" not in said
    assert len(said.splitlines()) <= 4 and not (tmp_path / "store").exists()


@pytest.mark.usefixtures("made_up")
def test_other_presets_that_have_the_values_are_named(made_up: Path) -> None:
    (made_up.parent / "yours.yaml").write_text("minilm: {lora: {movies: {train.epochs: 1}}}")
    register()
    with pytest.raises(InputError, match=r"Others have some: preset=yours\."):
        presets.values_of("mine", "minilm", "lora", "movies")
    with pytest.raises(InputError, match=r"Others have some: preset=yours \(task=movies\)\."):
        presets.values_of("mine", "minilm", "lora", "nyt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("tiny_bert: {lora: {generated: {train.epoch: 1}}}", "epoch"),
        ("tiny_bert: {lora: {generated: {train.epochs: many}}}", "full_key: train.epochs"),
        ("tiny_bert: {lora: {generated: {trian.epochs: 1}}}", "trian"),
        ("tiny_bert: {lora: {generated: 3}}", "must hold MODEL: {METHOD: {TASK: {KEY: VALUE}}}"),
        ("tiny_bert: 3", "must hold MODEL: {METHOD: {TASK: {KEY: VALUE}}}"),
        ("tiny_bert: {lora: {generated: {train.epochs: 1}, generated: {train.epochs: 2}}}", "duplicate key"),
    ],
)
def test_a_wrong_file_is_refused(made_up: Path, content: str, words: str, capsys: Captured, tmp_path: Path) -> None:
    made_up.write_text(content)
    presets.read.cache_clear()
    code, _, said = run_here(["lora_repro", *TINY, "preset=mine", "paths.outputs=store"], capsys, cwd=tmp_path)
    assert code == 1 and words in said


WRITTEN = ("e2e", "webnlg", "dart", "dart_2020", "wikisql", "samsum")
"""Tasks of texts: what their presets set of decoding is no key of other tasks."""


STAND_INS = ("cerebras_", "opt_")
"""Models with the values of GPT-3, which are compared with it below."""


def entries() -> list[tuple[str, str, str, str]]:
    return [
        (name, model, method, task)
        for name in catalogue.preset_names()
        if name != catalogue.OURS
        for model, methods in presets.read(name).items()
        if not model.startswith(STAND_INS)
        for method, entry in methods.items()
        for task in entry
        if task != presets.ALL
    ]


def test_every_entry_is_possible_for_its_model_and_method() -> None:
    """Those of GLUE on another task: 8 tasks in 8 setups and 5 baselines, 4 sizes of MNLI for GPT-3, 26 scripts.

    Of Table 11 2 models on 3 tasks, one in two versions, and a script, of Table 12 6 methods on 3 tasks, 4 of which are
    MNLI's again.
    """
    assert {path.stem for path in BY_TASK.glob("*.yaml")} == {name for name, *_ in entries()}
    assert len(entries()) == 8 * (1 + 1 + 1 + 5) + 4 * 4 + 26 + 8 * 5 + (2 * 4 + 1) + (6 * 3 - 4)
    for name, model, method, task in entries():
        values = presets.values_of(name, model, method, task)
        is_text = task in WRITTEN
        keys = [f"{key}={quoted(value)}" for key, value in values.items() if is_text or not key.startswith("task.")]
        given = [f"model={model}", f"method={method}", f"task={task if is_text else 'generated'}"]
        run = resolve(compose_quickly([*given, *keys])).run
        assert run.train.learning_rate == values["train.learning_rate"]


@pytest.mark.parametrize("name", ["paper", "paper_n100", "paper_n1k", "paper_n10k"])
def test_each_model_of_gpt_3s_kind_takes_its_values(name: str) -> None:
    found = presets.read(name)
    models = {path.stem for path in (HOME / "conf" / "model").glob("*.yaml") if path.stem.startswith(STAND_INS)}
    assert len(models) == 15 and models <= set(found)
    assert all(found[model] == found["gpt3_175b"] for model in models)
    run = resolve(compose([f"preset={name}", "model=cerebras_111m", "task=mnli", "task.form=text", "method=lora"])).run
    assert run.train.learning_rate == 2e-4 and run.train.weight_decay == 0.1 and run.train.max_length == 768


@pytest.mark.parametrize(
    ("choice", "values"),
    [  # by eye from the PDF of the paper and from the scripts
        ("paper roberta_base lora cola", "32 80 4e-4 512 0.06 8 8"),
        ("paper roberta_large lora stsb", "8 30 2e-4 512 0.06 8 16"),
        ("paper_restricted roberta_large lora stsb", "4 10 2e-4 128 0.06 8 16"),
        ("paper deberta_v2_xxlarge lora qnli", "6 8 1e-4 512 0.1 8 8"),
        ("script roberta_base lora cola", "64 80 4e-4 512 0.06 8 16"),
        ("script roberta_large lora cola", "32 20 3e-4 128 0.06 8 16"),
        ("script deberta_v2_xxlarge lora mrpc", "256 30 2e-4 128 0.1 16 32"),
        ("script gpt2_medium lora e2e", "8 5 2e-4 512"),
        ("paper gpt2_large lora dart", "8 5 2e-4 512"),
        ("paper gpt2_large lora dart_2020", "8 5 2e-4 512"),
        ("paper gpt3_175b bitfit wikisql", "128 2 1.6e-3 384"),
        ("prior_work roberta_large full qqp", "32 10 1e-5 512 0.25"),
        ("prior_work roberta_base full rte", "16 10 2e-5 512 0.06"),
        ("prior_work roberta_base bitfit rte", "8 16 1e-3 128 0"),
    ],
)
def test_values_as_they_are_printed(choice: str, values: str) -> None:
    found = presets.values_of(*choice.split())
    keys = "train.batch_size train.epochs train.learning_rate train.max_length train.warmup_ratio method.r method.alpha"
    expected = [float(value) for value in values.split()]
    assert [found[key] for key in keys.split()[: len(expected)]] == expected


def test_the_warm_up_of_gpt_3_has_as_many_tokens_as_printed() -> None:
    """250,000 tokens (Table 17); a step has batch_size times 768 (Appendix D.4)."""
    found = [presets.values_of(f"paper{size}", "gpt3_175b", "lora", "mnli") for size in ("_n100", "_n1k", "_n10k", "")]
    steps = [(each["train.batch_size"], each["train.warmup_steps"]) for each in found]
    assert steps == [(20, 17), (20, 17), (100, 4), (128, 3)]
    assert all((warmup - 1) * batch * 768 < 250_000 <= warmup * batch * 768 for batch, warmup in steps)
    assert [each.get("task.train_size") for each in found] == [100, 1000, 10000, None]
    for task, length in (("wikisql", 384), ("samsum", 2048)):
        values = presets.values_of("paper", "gpt3_175b", "lora", task)
        steps = values["train.warmup_steps"]
        assert values["train.max_length"] == length and (steps - 1) * 128 * length < 250_000 <= steps * 128 * length


def test_a_wheel_finds_the_presets() -> None:
    assert BY_TASK.relative_to(HOME).as_posix() == "conf/preset/by_task"
