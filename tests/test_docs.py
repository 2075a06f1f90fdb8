"""README and docs/: links and files exist, every command that is shown parses and composes, the daily ones are run."""

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.commands import run_here
from helpers.fixture_types import Captured
from hydra.errors import HydraException
from omegaconf import DictConfig

from analysis import discrepancies, explain
from analysis.__main__ import _parser
from analysis.commands.options import FORMATS, request_of
from analysis.items import Request, item_names, read_item
from analysis.kinds.scores import ScoreTable
from analysis.states import STATES
from lora_repro.cli import normalise
from lora_repro.config.catalogue import HOME, group_names
from lora_repro.config.compose import compose
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError
from lora_repro.sweep.grid import load
from lora_repro.training.train import build

README = HOME / "README.md"
PAGES = [README, *sorted((HOME / "docs").glob("*.md"))]
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b|\bmine\b|layer_norms|letters|counts6?\b|nyu-mll|tatsu-lab")
"""A word that the reader replaces, such as DIR or RUN, or a name that a page makes up or the hub has."""

SMOKE = {
    "model=minilm": "model=tiny_bert",
    "task=movies": "task=generated",
    "scale=demo": "scale=smoke",
    "--scale demo": "--scale smoke",
    "--model minilm --budget 73728": "--model tiny_bert --budget 1024",
    "fetch minilm movies": "fetch tiny_bert generated",
    "method.r=1,2,4,8 'method.targets=[q],[q,v]' seed=0,1,2": "method.r=1,8 'method.targets=[q],[q,v]' seed=0,1",
}
"""What makes of a command of docs/running.md the same command at smoke scale."""


def by_name(page: Path) -> str:
    return page.name


def commands(page: Path) -> list[str]:
    """Returns the commands of a page: lines of its blocks, and what stands between backticks."""
    text = page.read_text()
    blocks = re.findall(r"^```(?:bash)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.partition(" #")[0] for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    spans = [" ".join(span.split()) for span in re.findall(r"`(python -m [^`]+)`", text)]
    return [line.strip() for line in [*lines, *spans] if line.strip().startswith("python -m ")]


def anchors(page: Path) -> set[str]:
    """Returns the names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(docs/([^)#]+)", README.read_text()))
    assert linked == {page.name for page in PAGES[1:]} and len(linked) > 5


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_pages_name_only_files_that_exist(page: Path) -> None:
    folders = "conf|sweeps|lora_repro|analysis|hydra_plugins|tests|docs"
    for name in re.findall(rf"`((?:{folders})/[\w./]*)`", page.read_text()):
        assert (HOME / name).exists() or PLACEHOLDER.search(name.replace("_", " ")) or PLACEHOLDER.search(name), name


def test_code_refers_to_pages_and_headings_that_exist() -> None:
    """As in a remedy: (docs/records_and_resuming.md, What a run is)."""
    code = "\n".join(path.read_text() for name in ("lora_repro", "analysis") for path in (HOME / name).rglob("*.py"))
    found = re.findall(r"(README|docs/\w+)(?:\.md)?,[\s\"]+([A-Z][\w ]+)\)", code)
    assert found
    for page, heading in found:
        assert f"# {heading}\n" in (HOME / f"{page}.md").read_text(), (page, heading)


def test_every_item_is_named_where_the_items_are_listed() -> None:
    """A list by hand would age: each number of an item is in README and on the page of the tables."""
    for page in (README, HOME / "docs" / "sweeps_and_tables.md"):
        text = page.read_text()
        for word, numbers in (("Table", set[int]()), ("Figure", set[int]())):
            for listed in re.findall(rf"{word}s? ((?:\d+(?: \([^)]*\))?(?:, | and | to )?)+)", text):
                bare = re.sub(r" \([^)]*\)", "", listed)
                for first, last in re.findall(r"\b(\d+)(?: to (\d+))?\b", bare):
                    numbers |= {*range(int(first), int(last or first) + 1)}
            items = re.findall(rf"\b{word.lower()}(\d+)", " ".join(item_names()))
            assert numbers == {int(number) for number in items}, (page.name, word)


def test_every_state_of_a_run_is_explained() -> None:
    text = (HOME / "docs" / "records_and_resuming.md").read_text().partition("## States")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([a-z ]+) \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(["state", *(printed.label for printed in STATES.values())])


def test_the_map_has_every_folder() -> None:
    named = set(re.findall(r"^\| `([\w/]+)/` \|", README.read_text(), re.MULTILINE))
    packages = {f"lora_repro/{path.parent.name}" for path in (HOME / "lora_repro").glob("*/__init__.py")}
    assert named == {"conf", "sweeps", "analysis", "hydra_plugins", "docs", "tests"} | packages


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_commands_parse_and_compose(page: Path) -> None:
    """No command is run, and nothing is read of weights, data or a store."""
    for command in commands(page):
        module, *arguments = shlex.split(command)[2:]
        assert importlib.util.find_spec(module) is not None, command
        options, more = _parser().parse_known_args(arguments) if module == "analysis" else (None, [])
        assert not [argument for argument in more if argument.startswith("-")], command
        if PLACEHOLDER.search(command):
            continue
        if module == "lora_repro" and not arguments[0].startswith("--"):
            launchers = [word.partition("=")[2] for word in arguments if word.startswith("hydra/launcher=")]
            assert all((HOME / "conf" / "hydra" / "launcher" / f"{name}.yaml").exists() for name in launchers), command
            given = normalise([word for word in arguments if not word.startswith("hydra")])
            load(compose, given[1:]) if given[0] == "-m" else resolve(compose(given))
        elif module == "analysis":
            refuse_what_does_not_exist(arguments[0], options, more)
        elif module == "lora_repro.fetch":
            names = [argument for argument in arguments if "=" not in argument]
            assert set(names) <= {*group_names("model"), *group_names("task")}, command


def refuse_what_does_not_exist(name: str, options: Any, more: list[str]) -> None:
    """Finds the item and composes the runs that a command of analysis is given; reads no store."""
    given = [*getattr(options, "overrides", []), *more]
    options.overrides = normalise(["-m", *(word for word in given if "=" in word)])[1:]
    number = getattr(options, "number", None) or next((word for word in given if "=" not in word), None)
    if name in ("table", "figure") and number is not None:
        item, request = request_of(name, number, options)
        sweep = getattr(item, "sweep", None)
        assert not sweep or load(compose, [f"+sweeps={sweep}", f"scale={request.scale}", *request.overrides]).to_compute
    elif name == "explain":
        item = read_item(str(number))
        assert isinstance(item, ScoreTable)
        words = [word for word in given if "=" in word]
        assert explain.read(item, Request(options.scale or "proxy", "nowhere"), words).entries
    elif name == "discrepancies":
        assert discrepancies.select(discrepancies.read(), given)
    elif name in ("table", "plan", "status", "doctor") and options.overrides:
        scale = [f"scale={options.scale}"] if options.scale is not None else []
        assert load(compose, [*options.overrides, *scale]).jobs


@pytest.mark.parametrize(
    "wrong",
    [
        "table 66",
        "figure 99 --scale demo",
        "figure 3 --scale huge",
        "plan +sweeps=table6 scale=huge",
        "table +sweeps=table6 method.rank=3",
    ],
)
def test_a_command_of_what_does_not_exist_would_be_found(wrong: str) -> None:
    options, more = _parser().parse_known_args(shlex.split(wrong))
    with pytest.raises((InputError, HydraException)):
        refuse_what_does_not_exist(wrong.split()[0], options, more)


def test_the_pages_show_commands_of_every_kind() -> None:
    """The test above must have something to check."""
    shown = [command for page in PAGES for command in commands(page)]
    assert len(shown) > 30
    assert {shlex.split(command)[2] for command in shown} >= {"lora_repro", "analysis", "lora_repro.fetch"}


def test_the_daily_commands_run(tmp_path: Path, capsys: Captured) -> None:
    """All commands of the section on daily use, one after the other, from another directory, at smoke scale."""
    text = (HOME / "docs" / "running.md").read_text().partition("## Daily commands")[2]
    block = re.search(r"```bash\n(.*?)```", text, re.DOTALL)
    assert block is not None
    lines = [line for line in block[1].splitlines() if line and not line.startswith("#")]
    assert len(lines) >= 10 and all(line.startswith("python -m ") for line in lines)
    for command in lines:
        smoke = command
        for full, small in SMOKE.items():
            smoke = smoke.replace(full, small)
        assert "minilm" not in smoke and "movies" not in smoke, "a command that this test would run at full size"
        done = run_here(shlex.split(smoke)[2:], capsys, cwd=tmp_path)
        assert done.returncode == 0, f"{smoke}\n{done.stderr}"
    assert len(list(tmp_path.glob("outputs/runs/*/result.json"))) == 3 + 8 + 8 - 5  # those of r = 1, and the first


def example(page: str, language: str, heading: str) -> str:
    """Returns the first block of a language below a heading of a page."""
    block = re.search(rf"```{language}\n(.*?)```", (HOME / "docs" / page).read_text().partition(heading)[2], re.DOTALL)
    assert block is not None, heading
    return block[1]


def test_the_sweep_file_that_is_shown_is_fifteen_runs() -> None:
    text = example("sweeps_and_tables.md", "yaml", "## A sweep file of your own")
    assert text.startswith("# @package sweep\n")

    def composed(overrides: list[str]) -> DictConfig:
        cfg = compose([override for override in overrides if not override.startswith("+sweeps")])
        cfg.sweep = yaml.safe_load(text)
        return cfg

    assert len(load(composed, ["+sweeps=table6"]).jobs) == 2 * 2 * 3 + 3


@pytest.mark.parametrize(
    ("heading", "name", "count", "tensors"),
    [
        ("## A method", "LayerNormsConfig", (1 + 2 * 6) * 2 * 384, 2 * (1 + 2 * 2)),
        ("A method that adds parameters", "ScaleConfig", 6, 2),
    ],
)
def test_the_methods_that_are_shown_count_and_attach(heading: str, name: str, count: int, tensors: int) -> None:
    """On minilm, of 6 layers, and on tiny_bert, of 2. Building holds what is trained against the count."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(example("extending.md", "python", heading), names)
    method = names[name](name="shown")
    assert method.count(resolve(compose([])).run.arch).method == count
    resolved = resolve(compose(["model=tiny_bert", "task=generated"]))
    resolved.run.method = method
    model = build(resolved, torch.device("cpu"))
    head = set(resolved.run.arch.head_modules)
    trained = [key for key, p in model.named_parameters() if p.requires_grad]
    assert len([key for key in trained if not any(key.startswith(module) for module in head)]) == tensors


def test_the_task_that_is_shown_is_read_described_and_scored() -> None:
    names: dict[str, Any] = {"__name__": "example"}
    exec(example("extending.md", "python", "**A new family**"), names)
    shown = yaml.safe_load(example("extending.md", "yaml", "Its line in `FAMILIES`"))
    assert shown.pop("defaults") == ["letters_schema", "_self_"]
    task = names["LettersConfig"](**shown)
    task.check()
    splits = task.load(None, "")
    assert {split: len(examples) for split, examples in splits.items()} == {"train": 2, "eval": 2, "test": 2}
    assert task.targets.describe(splits["test"])["mean"] == 5.5
    assert task.targets.evaluate(splits["test"], [5.0, 7.0])["mse"] == 0.5
    assert task.objective.__name__ == "HeadWithScore"


def test_the_text_task_that_is_shown_is_scored_by_its_nearest_reference() -> None:
    names: dict[str, Any] = {"__name__": "example"}
    exec(example("extending.md", "python", "**A generated text with several references.**"), names)
    twelve, six = {"12": ["twelve", "a dozen"]}, {"6": ["six", "half a dozen"], "1": ["one"]}
    task = names["NumberNamesConfig"](name="shown", prompt="{text} is ", max_new_tokens=4, train_names=twelve)
    task.dev_names = six
    task.check()
    splits = task.load(None, "")
    assert [example.target for example in splits["train"]] == [["twelve"], ["a dozen"]]
    assert task.targets.evaluate(splits["eval"], ["half a dozen"]) == {"bleu1": 1.0, "exact_match": 1.0}
    assert task.targets.evaluate(splits["eval"], ["about half a dozen"]) == {"bleu1": 0.75, "exact_match": 0.0}
    assert task.targets.shown[0].name == "bleu1"


def test_the_kind_of_figure_that_is_shown_makes_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.items.KINDS", {})
    names: dict[str, Any] = {"__name__": "example"}
    exec(example("extending.md", "python", "**A new kind**"), names)
    exec("draw_bar = print\n" + example("extending.md", "python", "A kind of figures sets"), names)
    item = names["Bars"](name="bars6", title="Runs of Table 6", sweep="table6")
    picture = item.picture(Request("demo", "outputs", ["seed=0"]))
    assert picture.data == [{"runs": 3}] and len(picture.run_ids) == 3 and item.word == "figure"


def test_the_kind_that_is_shown_prints_its_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.items.KINDS", {})
    names: dict[str, Any] = {"__name__": "example"}
    exec(example("extending.md", "python", "**A new kind**"), names)
    item = names["RunCounts"](name="counts6", title="Runs of Table 6", sweep="table6")
    texts = {form: item.text(Request("demo", "outputs", ["seed=0"], form)) for form in FORMATS}
    assert "| demo  | 3    |" in texts["md"] and json.loads(texts["json"]) == [{"scale": "demo", "runs": 3}]
    assert texts["csv"] == "scale,runs\ndemo,3" and "demo & 3" in texts["latex"] and "<td >3</td>" in texts["html"]


def test_the_item_that_is_shown_is_that_of_table_6() -> None:
    shown = yaml.safe_load(example("extending.md", "yaml", "## A paper item"))
    item = yaml.safe_load((HOME / "analysis" / "items" / "table6.yaml").read_text())
    assert shown and shown.items() <= item.items()


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_pages_hold_no_placeholder(page: Path) -> None:
    assert "<!--" not in page.read_text() and not re.search(r"\b(TODO|HEAD_[A-Z]+)\b", page.read_text())


def test_readme_shows_the_papers_numbers_beside_ours_on_one_page() -> None:
    text = README.read_text()
    table = (HOME / "analysis" / "results" / "table6.md").read_text()
    ours = re.findall(r"\| ours, movies \(minilm\) \|[^\n]+", text)
    assert "| 73.4 " in text and len(ours) == 2
    assert all(line in table for line in ours)  # which has a column more, for the larger class
    assert len(re.findall(r"[^\s|-]\S*", text)) < 860


def test_readme_shows_the_verdicts_that_the_ledgers_give() -> None:
    shown = re.findall(r"^\| `(\w+)`: [^|]+ \| (\w+) \|$", README.read_text(), re.MULTILINE)
    printed = (HOME / "analysis" / "results" / "claims.md").read_text()
    given = dict(re.findall(r"^(\w+): ([\w ]+) on minilm\b", printed, re.MULTILINE))
    assert [(name, given.get(name)) for name, _ in shown] == shown and len(shown) > 8


def test_the_id_that_the_pages_show_is_that_of_the_default_run() -> None:
    assert run_id(resolve(compose([])).run) in (HOME / "docs" / "records_and_resuming.md").read_text()


def test_no_file_of_conf_is_unfinished() -> None:
    assert not [path.name for path in (HOME / "conf").rglob("*.yaml") if "TODO" in path.read_text()]
