"""Bad input over the real command line: refused in a few lines, with cause and remedy, and nothing is lost."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from lora_repro.config import HOME

SMOKE = ("model=tiny_bert", "task=generated")

CASES = [
    # arguments, what the words must hold: the cause, and the remedy
    (["method.rank=4"], "method.rank: there is no such key", "Keys of method: alpha, dropout"),
    (["+method.rank=4"], "method.rank: there is no such key", "Keys of method: alpha, dropout"),
    (["methd=lora"], "methd: there is no such key", "Did you mean 'method'?"),
    (["+extra.key=1"], "extra: there is no such key", "Keys at the top"),
    (["method=lorra"], "method: no 'lorra' here", "Did you mean 'lora'?"),
    (["task=moveis"], "task: no 'moveis' here", "Did you mean 'movies'?"),
    (["preset@train=minilm_lorra"], "preset@train: no 'minilm_lorra' here", "Did you mean 'minilm_lora'?"),
    (["scale=big"], "scale: no 'big' here", "Choices: demo, paper, proxy, smoke"),
    (["method=full", "method.r=4"], "method.r: there is no such key", "Keys of method: name"),
    (["~method"], "nothing can be taken out", "Set the value you want"),
    (["method.r=[1"], "cannot be read as an override", "KEY=VALUE"),
    (["+sweep=table6"], "sweeps are named by +sweeps", "Give: -m +sweeps=table6"),
    (["+sweeps=table6"], "asks for many runs", "Give -m: python -m lora_repro -m"),
    (["-m", "+sweeps=tabel6"], "no sweep 'tabel6'", "Did you mean 'table6'?"),
    (["-m", "sweeps=table6"], "added with a plus", "Give: -m +sweeps=table6"),
    (["-m", "method.r=1,99"], "method.r: must be from 1 to 32", "method.r=99"),
    (["-m", "scale=smoke,demo"], "a sweep has one scale", "start one sweep for each"),
    (["-m", "paths.outputs=a,b"], "a sweep has one paths.outputs", "Give one value"),
    (["-m", "preset@train=tiny_bert_lora,tiny_bert_lorra"], "no 'tiny_bert_lorra' here", "Did you mean"),
    (["model.config.num_attention_heads=8"], "model.config: belongs to model=tiny_bert", "conf/model"),
    (["-m", "method.rr=1,2"], "method.rr: there is no such key", "Did you mean 'r'?"),
    (["method.r=0"], "method.r: must be from 1 to 32", "given: 0"),
    (["method.r=-1"], "method.r: must be from 1 to 32", "given: -1"),
    (["method.r=33"], "method.r: must be from 1 to 32", "given: 33"),
    (["method.r=eight"], "method.r: must be of type integer", "given: eight"),
    (["method.r=8.5"], "method.r: must be of type integer", "given: 8.5"),
    (["method.targets=[]"], "at least one matrix", "method.targets=[q,v]"),
    (["method.targets=[q,x]"], "no matrix 'x'", "Matrices here: q, k, v, o"),
    (["method.targets=[q,q]"], "q stands more than once", "method.targets=[q,v]"),
    (["method.targets=q"], "must be a list", "method.targets=[q,v]"),
    (["method.targets=[[q]]"], "a list of letters", "method.targets=[q,v]"),
    (["method.alpha=nan"], "method.alpha: must be a finite number above 0", "given: nan"),
    (["method.alpha=-8"], "method.alpha: must be a finite number above 0", "given: -8"),
    (["method.dropout=1"], "method.dropout: must be in [0, 1)", "given: 1"),
    (["train.learning_rate=inf"], "train.learning_rate: must be a finite number above 0", "given: inf"),
    (["train.learning_rate=nan"], "train.learning_rate: must be a finite number above 0", "given: nan"),
    (["train.learning_rate=-1"], "train.learning_rate: must be a finite number above 0", "given: -1"),
    (["train.batch_size=0"], "train.batch_size: must be at least 1", "given: 0"),
    (["train.epochs=-1"], "train.epochs: must be 0 (score only) or more", "given: -1"),
    (["train.max_length=999"], "train.max_length: must be from 3 to 128 tokens", "given: 999"),
    (["train.dtype=fp8"], "train.dtype: must be one of bf16, fp32", "given: fp8"),
    (["seed=-1"], "seed: must be 0 or more", "given: -1"),
    (["task.train_size=9999"], "generated has 400 train examples", "or null for all"),
    (["task.eval_size=0"], "task.eval_size: must be at least 1", "given: 0"),
    (["model.name=../../x"], "A name is made of a-z, 0-9 and _", "given: '../../x'"),
    (["model=local", "model.source=random", "train.learning_rate=1"], "model.source: belongs to model=local", "conf/"),
    (["task.name=foo"], "task.name: follows from the choice", "given: foo"),
    (["task.num_labels=3"], "task.num_labels: belongs to task=generated", "conf/task"),
    (["method.r=1,2"], "several values are a sweep", "Give -m"),
    (["method.r=null"], "method.r: must have a value", "given: null"),
    (["seed=99999999999999999999"], "seed: must be 0 or more, and below 2**32", "given: 9999"),
    (["paths.outputs="], "paths.outputs: no folder is given", "paths.outputs=DIR"),
    (["compute.threads=0"], "compute.threads: must be at least 1", "given: 0"),
    (["-m", "+sweeps=table6", "scale=paper"], "Nothing of this sweep can be run yet", "come with later issues"),
    (["method.name=full"], "method.name: follows from the choice", "given: full"),
    (["compute.device=gpu9"], "compute.device: no device 'gpu9'", "Use auto, cpu, cuda"),
    (["log.level=loud"], "log.level: must be one of", "given: loud"),
    (["train.init_from=nothing"], "neither a run id", "run ids are the folders' names"),
    (["model=local", "train.learning_rate=1"], "paths.model: model=local needs a folder", "paths.model=DIR"),
    (["model=minilm", "paths.model=/nowhere"], "no folder /nowhere", "python -m lora_repro.fetch minilm"),
    (["task=movies", "paths.cache=/nowhere"], "no hutto_ICWSM_2014.tar.gz", "python -m lora_repro.fetch movies"),
    (["model=local", "paths.model=/nowhere", "train.learning_rate=1"], "/nowhere/config.json is missing", "a folder"),
    (["paths.outputs=/proc/nothing"], "/proc/nothing: No such file or directory", "paths.outputs=DIR"),
    (["paths.outputs=/dev/null/x"], "Not a directory", "paths.outputs=DIR"),
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Path, bytes]]:
    """A store with one finished run, and every byte of it."""
    folder = tmp_path_factory.mktemp("store")
    done = run([*SMOKE, "task.train_size=32", f"paths.outputs={folder}"])
    assert done.returncode == 0, done.stderr
    return folder, contents(folder)


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lora_repro", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=HOME)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("arguments", "cause", "remedy"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_bad_input_is_refused_in_words(
    store: tuple[Path, dict[Path, bytes]], arguments: list[str], cause: str, remedy: str
) -> None:
    folder, before = store
    done = run([f"paths.outputs={folder}", *SMOKE, *arguments])
    assert done.returncode == 1
    assert cause in done.stderr and remedy in done.stderr
    assert done.stderr.startswith("Error: ") and "Traceback" not in done.stderr and done.stdout == ""
    assert len(done.stderr.splitlines()) <= 4
    for path, content in before.items():
        assert path.read_bytes() == content


def test_a_truncated_download_is_told_with_the_command_that_mends_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "hutto_ICWSM_2014.tar.gz").write_bytes(b"half of it")
    done = run(
        [
            "model=tiny_bert",
            "task=movies",
            f"paths.cache={tmp_path}",
            f"paths.outputs={tmp_path}",
            "train.learning_rate=1e-3",
        ]
    )
    assert done.returncode == 1 and "is damaged or another file" in done.stderr
    assert f"python -m lora_repro.fetch movies --cache {tmp_path}" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_sweep_in_one_line_and_keeps_what_is_finished(number: int, tmp_path: Path) -> None:
    arguments = [*SMOKE, "train.epochs=1,400", "method=full", f"paths.outputs={tmp_path}"]
    command = [sys.executable, "-m", "lora_repro", "-m", *arguments]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests in the background inherit that it is ignored
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=HOME, preexec_fn=heard)
    try:
        deadline = time.time() + 60
        while not list(tmp_path.glob("runs/*/result.json")) and time.time() < deadline:
            time.sleep(0.05)
        time.sleep(1)  # the second run is on its way
        process.send_signal(number)
        _, words = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert (
        words.splitlines()[-1]
        == "Interrupted; finished runs are kept, the same command goes on; an interrupted run starts over."
    )
    assert "Traceback" not in words
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 1
    states = [path.read_text() for path in tmp_path.glob("runs/*/status.json")]
    assert sum('"interrupted"' in state for state in states) == 1


def test_the_programs_answer_quickly_without_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "lora_repro", "--cfg", "job"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HOME)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "lora_repro.config" in imported and not imported & {"torch", "transformers", "pandas", "wandb"}
    assert os.linesep + "method:" in done.stdout
