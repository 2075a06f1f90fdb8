"""What both programs refuse before anything starts: in words, and with the disk as it was. Each in this process."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.commands import run_here
from helpers.damaged_files import BOMB, bomb
from helpers.fixture_types import Captured
from omegaconf import DictConfig

from lora_repro.cli import guard
from lora_repro.errors import RunFailedError, did_you_mean
from lora_repro.training.job import run_job

TINY = ("model=tiny_bert", "task=generated", "paths.outputs=store")

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: Captured) -> Refused:
    """Gives a line to a program in an empty folder, where it must end in a few words and leave nothing."""
    (tmp_path / "mine").mkdir()

    def give(program: str, *arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        code, out, words = run_here([program, *arguments], capsys, cwd=tmp_path)
        assert code == 1 and not out
        assert words.startswith("Error: ") and "Traceback" not in words and len(words.splitlines()) <= 5
        assert sorted(tmp_path.rglob("*")) == before, "the disk is as it was"
        return words

    return give


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("method=null", "method: must be a name (given: null).\nChoices: "),
        ("model=", "model: must be a name (given: nothing)"),
        ("task=3", "task: must be a name (given: 3)"),
        ("method={lora:1}", "method: must be a name"),
        ("method=[lora,full]", "must be one name (given: [lora,full]).\nA sweep over them: -m method=lora,full"),
        ("-m method=[lora],full", "must be one name (given: [lora])"),
        ("-m method=lora,null", "method: must be a name (given: null)"),
        ("preset@train=null", "preset@train: must be a name"),
        ("method=${model}", "method: must be a name (given: ${model})"),
        ("method.targets={q:1}", "method.targets: must be a list, written [A,B], or keys and values"),
        ("task.prompt={a:b}", "task.prompt: must be text (given: {'a': 'b'})"),
        (f"seed={'[' * 3000}{']' * 3000}", "nested too deeply"),
        ("log.snapshots=[[]]", "log.snapshots: must be a list of numbers (given: [[]])"),
        ("log.snapshots=${seed}", "log.snapshots: must be a list of numbers (given: 0)"),
        ("method.targets=${seed}", "method.targets: must be a list of text (given: 0)"),
        ("-m method.targets=[${seed}],${seed}", "method.targets is an axis of lists (given: [['${seed}'],'${seed}'])"),
        ("task.prompt=\udcff", "task.prompt=\\xff: not UTF-8 text"),
        ("-m seed=range(3,3)", "seed=range(3,3): this axis has no value"),
        ("-m seed=range(0,9,0)", "a range needs numbers as its ends and a step other than 0"),
        ("-m seed=range(0,nan)", "a range needs numbers as its ends"),
        ("-m seed=range(0,1000000000)", "1,000,000,000 values, and one sweep has at most 10,000 runs"),
        ("-m seed=range(0,inf)", "Infinity values, and one sweep has at most 10,000 runs"),
        ("-m seed=shuffle(range(0,1000000000))", "1,000,000,000 values"),
        ("-m seed=range(0,5000) method.r=1,2,4", "15,000 runs, and one sweep has at most 10,000"),
        ("-m seed=interval(0,3)", "an interval has no list of values"),
        ("-m model=glob(large*)", "model=glob(large*): no choice matches.\nChoices: cerebras_111m"),
        ("-m seed=glob(*)", "glob() chooses among the files of a group, as in model=glob(tiny*)"),
        ("-m +++sweeps=table6", "is not an override"),
        ("-m plan +sweeps=table6", "python -m analysis"),
        ("-m ++sweeps=table6", "Give: -m +sweeps=table6"),
        ("scale=demo", "scale=demo: only the sweeps of this project have scales (freeze_a, full_rank, ladder, "),
        ("-m scale=demo seed=0,1", "Give one: -m +sweeps=table6 scale=demo"),
        ("model@train=tiny_bert", "Give: model=tiny_bert"),
        ("-m --cfg=job", "a sweep has many configurations"),
        ("-c job --info all", "--cfg with --info: give one of them"),
        ("--resolve", "works only with --cfg"),
        ("-mr", "give each flag by itself"),
        ("--scale demo", "scale=demo: only the sweeps of this project have scales"),
        ("--scale=demo", "scale=demo: only the sweeps of this project have scales"),
    ],
)
def test_what_makes_no_run_is_refused_in_words(refused: Refused, line: str, words: str) -> None:
    assert words in refused("lora_repro", *TINY, *line.split(" "))


@pytest.mark.parametrize(
    "line",
    [
        "hydra.sweeper._target_=os.system",
        "hydra.launcher._target_=os.system",
        "hydra.launcher={_target_:os.system}",
        "hydra.launcher.ray={init:{_target_:os.system}}",
        "hydra.launcher.list=[{_target_:os.system}]",
        "+hydra.callbacks.mine={_target_:os.system,command:touch}",
        "+hydra.job_logging.handlers.console.class=os.system",
        "hydra/job_logging=default",
        "hydra/sweeper=basic",
        "hydra.searchpath=[file://mine]",
        "hydra.run.dir=mine/run",
        "hydra.sweep.dir=mine/sweep",
        "hydra.mode=MULTIRUN",
        "hydra.job.env_set={A:b}",
        "hydra/launcher=null",
        "hydra/launcher=[joblib]",
    ],
)
@pytest.mark.parametrize("sweep", [[], ["-m"]])
def test_nothing_of_hydra_is_set_but_the_launcher_and_no_class_is_named(
    refused: Refused, line: str, sweep: list[str]
) -> None:
    assert "launcher" in refused("lora_repro", *sweep, *TINY, line)


@pytest.mark.parametrize("flag", ["--experimental-rerun", "--exp", "--experimental-rerun="])
def test_no_pickle_of_hydras_is_opened(refused: Refused, tmp_path: Path, flag: str) -> None:
    bomb(tmp_path / "config.pickle", tmp_path)
    given = [f"{flag}config.pickle"] if flag.endswith("=") else [flag, "config.pickle"]
    assert "it would open a pickle" in refused("lora_repro", *TINY, *given)
    assert not (tmp_path / BOMB).exists()


@pytest.mark.parametrize("flag", ["--config-path", "-cp", "--config-p", "--config-dir", "-cd", "--config-name", "-cn"])
def test_no_configuration_is_read_from_elsewhere(refused: Refused, tmp_path: Path, flag: str) -> None:
    """A foreign YAML may set what Hydra runs, and nested aliases of one can fill the memory."""
    (tmp_path / "mine" / "config.yaml").write_text("hydra: {callbacks: {x: {_target_: os.system}}}\n")
    assert "configurations are read from conf/ and sweeps/" in refused("lora_repro", *TINY, flag, "mine")
    assert "configurations are read from conf/ and sweeps/" in refused("lora_repro", *TINY, f"{flag}=mine")


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("lora_repro", "model=tiny_bert task=generated method.r=9999"),
        ("lora_repro", "-m model=tiny_bert task=generated method.r=1,9999"),
        ("lora_repro", "model=tiny_bert task=movies train.learning_rate=1e-3 paths.cache=mine"),
        ("lora_repro", "model=tiny_bert task=generated train.init_from=nothing"),
        ("lora_repro", "model=tiny_bert task=generated task.train_size=9999"),
        ("lora_repro", "model=tiny_bert task=generated compute.device=gpu9"),
        ("analysis", "plan model=tiny_bert task=generated method.r=9999"),
        ("analysis", "status +sweeps=table6 scale=nothing"),
        ("analysis", "table 6 method.rank=4 --scale smoke --out mine/table.md"),
        ("analysis", "figure 3 --scale smoke --out mine/figure.svg"),
        ("analysis", "inspect nothing"),
        ("analysis", "diff nothing nothing"),
    ],
)
def test_a_refused_command_leaves_the_disk_as_it_was(
    refused: Refused, program: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_REPRO_WANDB", "offline")
    refused(program, *line.split(" "))


@pytest.mark.parametrize(
    ("given", "choices", "meant"),
    [
        ("table2", ["table5", "table6", "table7"], None),
        ("table66", ["table6"], None),
        ("figure5", ["figure3", "figure4"], None),
        ("tabel6", ["table5", "table6"], "table6"),
        ("dora", ["full", "head_only", "lora"], None),
        ("qlora", ["lora"], None),
        ("lorra", ["full", "head_only", "lora"], "lora"),
        ("LoRA", ["full", "lora"], "lora"),
        ("head-only", ["full", "head_only"], "head_only"),
        ("bert_tiny", ["tiny_bert"], None),
        ("llama", ["tiny_bert", "tiny_llama"], "tiny_llama"),
        ("movis", ["movies", "tweets"], "movies"),
        ("a-r8-s7-39297d46f6", ["a-r8-s1-39297d46f6"], None),
        ("a-r8-s1-39297d46f", ["a-r8-s1-39297d46f6"], "a-r8-s1-39297d46f6"),
    ],
)
def test_only_what_may_have_been_meant_is_suggested(given: str, choices: list[str], meant: str | None) -> None:
    assert did_you_mean(given, choices) == ("" if meant is None else f" Did you mean {meant!r}?")


def test_a_file_of_conf_that_is_no_text_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "conf" / "model" / "mine.yaml"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"name: \xff")
    monkeypatch.setattr("lora_repro.cli.HOME", tmp_path)

    def read() -> None:
        bad.read_text(encoding="utf-8")

    assert guard(read) == 1
    assert capsys.readouterr().err.startswith(f"Error: {bad}: not UTF-8 text")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("/models/model.safetensors", "Permission denied.\nGive one that you may read"),
        ("{store}/runs/lock", "or give another store: paths.outputs=DIR"),
        (None, "or give another store: paths.outputs=DIR"),
    ],
)
def test_another_store_is_proposed_only_where_the_store_failed(
    file: str | None, words: str, tiny: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", file.format(store=tmp_path) if file else None)

    monkeypatch.setattr("lora_repro.training.train.train", fail)
    with pytest.raises(RunFailedError) as ended:
        run_job(tiny())
    assert words in str(ended.value)
    assert ("paths.outputs" in str(ended.value)) == ("paths.outputs" in words)
