"""task=hub: data sets in the hub's local cache, and how they get there. No test asks a hub."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers.quick_compose import compose_quickly
from huggingface_hub import constants

from lora_repro.config.compose import compose
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import Resolved, resolve
from lora_repro.errors import InputError, MissingInputError
from lora_repro.fetch import hub_data
from lora_repro.fetch.fetch import main as fetch
from lora_repro.fetch.hub_data import Listing, NotThereError
from lora_repro.store.record import plain
from lora_repro.tasks import HubConfig
from lora_repro.tasks.own_data import read_here as own

OLD, NEW = "a" * 40, "b" * 40
"""Commits."""
CARD = """---
license: mit
dataset_info:
- config_name: big
  features: [{name: text, dtype: string}]
- config_name: pairs
  features:
  - {name: sentence1, dtype: string}
  - {name: sentence2, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': yes it is, '1': maybe, '2': 'no'}}}
  splits:
  - {name: train, num_examples: %d, num_bytes: 1}
  - {name: validation, num_examples: 9, num_bytes: 1}
  - {name: test, num_examples: 3, num_bytes: 1}
configs:
- config_name: big
  data_files: [{split: train, path: big/train-*}]
- config_name: pairs
  data_files:
  - {split: train, path: pairs/train-*}
  - {split: validation, path: pairs/validation-*}
  - {split: test, path: pairs/test-*}
---
# A data set
"""
NAMES = ["yes it is", "maybe", "no"]
PAIRS = ("task=hub", "task.dataset=some/pairs", "task.subset=pairs", "task.text=[sentence1,sentence2]")

Make = Callable[..., Resolved]


def write(folder: Path, rows: int) -> None:
    """Writes a repository of which one configuration alone is there, as after a fetch of it."""
    features = datasets.Features(
        sentence1=datasets.Value("string"), sentence2=datasets.Value("string"), label=datasets.ClassLabel(names=NAMES)
    )
    (folder / "pairs").mkdir(parents=True)
    (folder / "README.md").write_text(CARD % rows)
    for split, n in (("train", rows), ("validation", 9), ("test", 3)):
        labels = [-1] * n if split == "test" else [i % 3 for i in range(n)]
        columns = {"sentence1": [f"{split} {i}" for i in range(n)], "sentence2": ["b"] * n, "label": labels}
        path = folder / "pairs" / f"{split}-00000-of-00001.parquet"
        datasets.Dataset.from_dict(columns, features).to_parquet(path)


@pytest.fixture(scope="module", autouse=True)
def _quietly() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def repository(cache: Path, name: str) -> Path:
    folder = cache / f"datasets--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's local cache, with two commits of a data set; main is the newer one."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    folder = repository(cache, "some/pairs")
    (folder / "refs" / "main").write_text(NEW)
    write(folder / "snapshots" / OLD, 30)
    write(folder / "snapshots" / NEW, 33)
    monkeypatch.setattr(own, "_known", {})
    monkeypatch.setattr(own, "_last", {})
    return cache


def make(*overrides: str) -> Resolved:
    return resolve(compose_quickly(["model=tiny_bert", "task.label=label", *PAIRS, *overrides]))


def task_of(resolved: Resolved) -> HubConfig:
    assert isinstance(resolved.run.task, HubConfig)
    return resolved.run.task


def load(resolved: Resolved) -> dict[str, list[Any]]:
    return resolved.run.task.load(None, "")


@pytest.mark.usefixtures("cache")
def test_what_is_cached_for_main_is_read_and_its_commit_noted() -> None:
    resolved = make()
    task, splits = task_of(resolved), load(resolved)
    assert (task.revision, task.labels, task.scored) == (NEW, NAMES, ("eval",))
    assert {split: len(of) for split, of in splits.items()} == {"train": 33, "eval": 9}
    assert splits["eval"][1][:3] == ("eval-2", ("validation 1", "b"), 1)


@pytest.mark.usefixtures("cache")
def test_a_commit_is_read_as_it_is_whatever_main_is() -> None:
    """`load_dataset` without a network takes the version that was prepared last (datasets issue 7928)."""
    old, new = make(f"task.revision={OLD}"), make()
    assert (len(load(old)["train"]), len(load(new)["train"])) == (30, 33)
    assert run_id(old.run) != run_id(new.run)
    with pytest.raises(MissingInputError, match=f"at {'c' * 40}"):
        make(f"task.revision={'c' * 40}")


def test_the_examples_make_the_id_and_not_the_name(cache: Path) -> None:
    first = make()
    shutil.copytree(cache / "datasets--some--pairs", cache / "datasets--fork--of_it")
    other = make("task.dataset=fork/of_it", f"task.revision={NEW}")
    assert run_id(first.run) == run_id(other.run)
    assert task_of(other).dataset == "fork/of_it"


def test_a_name_without_an_organisation_may_bring_its_configuration(cache: Path) -> None:
    shutil.copytree(cache / "datasets--some--pairs", cache / "datasets--glue")
    task = task_of(make("task.dataset=glue/pairs", "task.subset=null"))
    assert (task.dataset, task.subset) == ("glue", "pairs")


def test_a_run_tells_what_its_data_set_was_however_that_is_spelt(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "datasets--some--pairs").rename(cache / "datasets--glue")
    joined = ("task.dataset=glue/pairs", "task.subset=null")
    first = make(*joined)
    record = plain(first.run)["task"]
    shutil.rmtree(cache)
    monkeypatch.setattr(own, "_recorded", lambda data: record)
    for spelt in (joined, ("task.dataset=glue", "task.subset=pairs")):
        again = make(*spelt)
        assert run_id(again.run) == run_id(first.run)
        assert (task_of(again).dataset, task_of(again).subset) == ("glue", "pairs")
    with pytest.raises(InputError, match=r"the run there has task\.dataset=glue \(given: glue/other\)"):
        make("task.dataset=glue/other", "task.subset=null")


def test_a_file_that_the_card_counts_must_be_there(cache: Path) -> None:
    path = cache / "datasets--some--pairs" / "snapshots" / NEW / "pairs" / "test-00000-of-00001.parquet"
    path.unlink()
    with pytest.raises(InputError, match=r"datasets cannot read some/pairs at bbbbbbb .*\n.*fetch it again"):
        make()


def test_texts_of_csv_files_stay_texts(cache: Path) -> None:
    """Pandas takes "null" and "NA" for missing (datasets issue 4467)."""
    folder = repository(cache, "some/csv")
    (folder / "refs" / "main").write_text(NEW)
    (folder / "snapshots" / NEW).mkdir(parents=True)
    rows = [f"{word} {i},{('None', 'NA')[i % 2]}\n" for i, word in enumerate(["text"] * 40)]
    content = "text,label\n" + "".join(rows) + "null,NA\n"
    (folder / "snapshots" / NEW / "train.csv").write_text(content)
    resolved = make("task.dataset=some/csv", "task.subset=null", "task.text=text")
    assert task_of(resolved).labels == ["NA", "None"]
    assert "null" in {e.input for of in load(resolved).values() for e in of}


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("task.dataset=null",), r"task\.dataset: must name a data set of the hub"),
        (("task.dataset=no/such",), r"no no/such in the hub's local cache.*\n.*fetch task=hub task\.dataset=no/such"),
        (("task.dataset='a b'",), "is no name of a data set"),
        (("task.subset=null",), r"task\.subset: .* has several configurations: big, pairs"),
        (("task.subset=pears",), r"no configuration 'pears'\. Did you mean 'pairs'"),
        (("task.text=sentence",), r"some/pairs, train: there is no column 'sentence'"),
        (("task.splits={eval: dev}",), r"task\.splits\.eval: some/pairs has no split 'dev'"),
        (("task.splits={eval: train}",), "one split is taken for two"),
        (("task.label=null", "task.target=label"), r"no finite number \(found: .yes it is"),
    ],
)  # fmt: skip
def test_what_the_cache_does_not_have_is_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(*overrides)


@pytest.mark.usefixtures("cache")
def test_splits_are_chosen_by_name() -> None:
    resolved = make("task.splits={train: validation, eval: train}")
    assert {split: len(of) for split, of in load(resolved).items()} == {"train": 9, "eval": 33}


class Hub:
    """Stands in for the two functions that ask the hub."""

    def __init__(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache, self.asked = cache, list[tuple[str, str | None]]()
        monkeypatch.setattr(hub_data, "ask", self.ask)
        monkeypatch.setattr(hub_data, "bring", self.bring)

    def ask(self, repository: str, subset: str | None, revision: str | None) -> Listing:
        self.asked.append((repository, subset))
        if repository != "glue":
            raise NotThereError
        return Listing(NEW, ["pairs/train-00000-of-00001.parquet"])

    def bring(self, name: str, revision: str | None, listing: Listing) -> Path:
        folder = repository(self.cache, name)
        (folder / "refs" / "main").write_text(listing.commit)
        write(folder / "snapshots" / listing.commit, 33)
        return folder / "snapshots" / listing.commit


def test_fetch_needs_no_columns_and_tells_which_there_are(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = Hub(cache, monkeypatch)
    line = ["model=tiny_bert", "task=hub", "task.dataset=glue/pairs"]
    assert fetch(line) == 0
    assert hub.asked == [("glue/pairs", None), ("glue", "pairs")]
    told = capsys.readouterr().err
    assert f"glue at {NEW}" in told
    assert "splits: train 33, validation 9, test 3; columns: sentence1, sentence2, label" in told
    assert task_of(make("task.dataset=glue/pairs", "task.subset=null")).revision == NEW
    assert fetch(line) == 0 and len(hub.asked) == 2


def test_fetch_brings_all_data_sets_of_a_sweep(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(cache, monkeypatch)
    line = ["model=tiny_llama", "preset@train=tiny_llama", *PAIRS, "task.label=label", "task.form=text", "seed=0,1"]
    assert fetch([*line, "task.dataset=glue,some/pairs"]) == 0
    assert hub.asked == [("glue", "pairs")]


@pytest.mark.usefixtures("cache")
def test_without_network_fetch_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch(["model=tiny_bert", "task=hub", "task.dataset=no/such"]) == 1
    assert "no/such is not in the hub's local cache, and HF_HUB_OFFLINE is set" in capsys.readouterr().err
    assert fetch(["hub"]) == 1
    assert "task.dataset: must name a data set of the hub" in capsys.readouterr().err
    assert fetch(["table"]) == 0
    assert "your own files (paths.data), nothing to fetch" in capsys.readouterr().err


def test_composing_alone_reads_nothing() -> None:
    assert compose(["task=hub", "task.dataset=no/such", "task.text=a", "task.label=b"]).task.dataset == "no/such"


def test_data_to_be_written_is_fetched_whatever_the_model_is_once_all_else_is_possible(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that docs/own_data.md gives: the default model is an encoder."""
    hub = Hub(cache, monkeypatch)
    line = ["model=tiny_bert", "task=instructions", "task.dataset=glue/pairs"]
    assert fetch([*line, "task.max_new_tokens=0"]) and not hub.asked
    assert fetch(line) == 0 and len(hub.asked) == 2
    assert f"instructions: fetched (glue at {NEW}" in capsys.readouterr().err
