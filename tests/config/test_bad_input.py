"""Bad input on the command line: refused in a few lines, with cause and remedy, and nothing is lost."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import processes
from helpers.commands import run_here
from helpers.damaged_files import BOMB, adapters, bases, damage_result, data, strangers
from helpers.fixture_types import Captured
from helpers.waiting import PATIENCE_S, wait_for

from lora_repro.config.catalogue import HOME

SMOKE = ("model=tiny_bert", "task=generated")
SMALL = ("task.train_size=32", "task.eval_size=16", "task.test_size=16")
LOCAL = f"model=local preset@train=tiny_bert {' '.join(SMALL)} paths.model={{files}}/models"
SCORE = "train.epochs=0 train.init_from={files}/adapters"
LOOK = "analysis inspect {files}"
BOTH = "analysis compare {files}/strange/good.safetensors {files}/strange"
PROGRAMS = {
    "run": ["lora_repro", "paths.outputs={store}", *SMOKE],
    "sweep": ["lora_repro", "-m", "paths.outputs={store}", *SMOKE],
    "fetch": ["lora_repro.fetch"],
    "analysis": ["analysis"],
}

CASES = [
    # kind of mistake, arguments, what the words must hold: the cause, and the remedy
    ("key", "run method.rank=4", "method.rank: there is no such key", "Keys of method: alpha, bias, budget"),
    ("key", "run +extra.key=1", "extra: there is no such key", "Keys at the top"),
    ("key", "run methd=lora", "methd: there is no such key", "Did you mean 'method'?"),
    ("key", "run method=full method.r=4", "method.r: there is no such key", "Keys of method: name"),
    ("sites", "run model.sites.q=encoder.*.q", "model.sites.q: is only for model=local", "Leave it out"),
    ("choice", "run method=lorra", "method: there is no 'lorra'", "Did you mean 'lora'?"),
    ("choice", "sweep +sweeps=tabel6", "no sweep 'tabel6'", "Did you mean 'table6'?"),
    ("choice", "sweep preset@train=tiny_bert,tiny_bertt", "there is no 'tiny_bertt'", "Did you mean"),
    ("choice", "fetch minilmm", "no model or task 'minilmm'", "Did you mean 'minilm'?"),
    ("choice", "run hydra/launcher=nothing", "hydra/launcher: there is no 'nothing'", "Choices: "),
    ("grammar", "run ~method", "a key cannot be deleted", "Set the value that you want"),
    ("grammar", "run method.r=[1", "is not an override", "KEY=VALUE"),
    ("grammar", "run task=movies,=", "is not an override", "KEY=VALUE"),
    ("grammar", "analysis plan +sweeps=table6 method.r={{1", "is not an override", "KEY=VALUE"),
    ("not a sweep", "run +sweeps=table6", "is a sweep", "Give -m: python -m lora_repro -m"),
    ("not a sweep", "run method.r=1,2", "several values make a sweep", "Give -m"),
    ("not a sweep", "sweep +sweeps=margin scale=paper", "Nothing of this sweep can be run yet", "no head"),
    ("one value", "sweep scale=smoke,demo", "a sweep has one scale", "start one sweep for each"),
    ("one value", "sweep paths.outputs=a,b", "a sweep has one paths.outputs", "Give one value"),
    ("one value", "analysis table 6 --scale demo scale=proxy", "given as proxy and demo", "Give one of --scale"),
    ("targets", "run method.targets=[]", "at least one matrix", "method.targets=[q,v]"),
    ("targets", "run method.targets=q", "must be a list", "method.targets=[q,v]"),
    ("targets", "run method.targets=[[q]]", "must be a list of text", "method.targets=[q,v]"),
    ("rank", "run method.r=0", "method.r: must be from 1 to 32", "given: 0"),
    ("rank", "run method.r=1e309", "method.r: must be of type integer", "given: "),
    ("rank", "run method.r=null", "method.r: must have a value", "given: null"),
    ("number", "run train.learning_rate=nan", "train.learning_rate: must be a finite number above 0", "given: nan"),
    ("number", "run train.max_steps=0", "train.max_steps: must be at least 1, or null", "given: 0"),
    ("number", "run task.train_size=-1", "task.train_size: must be at least 1, or null for all", "given: -1"),
    ("number", "run seed=1.5", "seed: must be of type integer", "given: 1.5"),
    ("number", "run seed=99999999999999999999", "seed: must be 0 or more, and below 2**32", "given: 9999"),
    ("too large", "run train.max_length=999", "train.max_length: must be from 3 to 128 tokens", "given: 999"),
    ("too large", "run task.train_size=9999", "generated has 400 train examples", "or null for all"),
    ("too large", "run method.dropout=1", "method.dropout: must be in [0, 1)", "given: 1"),
    ("setting", "run log.snapshots=[2]", "must be fractions of training, from 0 to 1", "Example: 'log.snap"),
    ("setting", "run log.checkpoint_every_s=-1", "log.checkpoint_every_s: must be 0 or more", "given: -1"),
    ("setting", "run log.resume=maybe", "log.resume: must be one of", "given: maybe"),
    ("setting", "run log.wandb=loud", "log.wandb: must be one of", "given: loud"),
    ("follows", "run model.config.num_attention_heads=8", "model.config: belongs to model=tiny_bert", "conf/model"),
    ("follows", "run task.name=foo", "task.name cannot be set by itself", "given: foo"),
    ("follows", "run task.num_labels=3", "task.num_labels: belongs to task=generated", "conf/task"),
    ("follows", "run model.digest=0", "model.digest: belongs to model=tiny_bert", "conf/model"),
    ("long", "run method={long}", "a name of 10000 characters (given in method=xxxx", "Shorten it: at most 255"),
    ("long", "run train.init_from={long}", "a name of 10000 characters", "Shorten it: at most 255"),
    ("long", "run method.{long}=1", "a name of 10007 characters", "Shorten it: at most 255"),
    ("long", "analysis diff {long} {run}", "a name of 10000 characters", "Shorten it: at most 255"),
    ("grammar", "run model.name=моделью", "model.name=моделью: is not an override", "KEY=VALUE"),
    ("path in a name", "run model=../x", "model: there is no '../x'", "Choices: cerebras_111m"),
    ("path in a name", "run task=../../etc/passwd", "task: there is no '../../etc/passwd'", "Choices: "),
    ("path in a name", "sweep +sweeps=../x", "no sweep '../x'", "Sweeps: freeze_a, full_rank, ladder, leaderboard"),
    ("path in a name", "run preset@train=../train/default", "there is no '../train/default'", "Choices: "),
    ("path in a name", "fetch ../x", "no model or task '../x'", "Models: "),
    ("outside", "run paths.outputs=", "paths.outputs: no folder is given", "paths.outputs=DIR"),
    ("outside", "run paths.outputs=/proc/nothing", "cannot be written (No such file or directory", "paths.outputs=DIR"),
    ("outside", "run paths.outputs={files}/text", "{files}/text/runs/", "paths.outputs=DIR"),
    ("outside", "run hydra.run.dir=/proc/x", "only the launcher can be chosen", "paths.outputs=DIR"),
    ("data", "run task=movies paths.data={files}/cut.tar.gz", "cut.tar.gz is damaged or another", "Correct paths.data"),
    ("data", "run task=movies paths.data={files}/data.pkl", "data.pkl is damaged or another file", "fetch movies"),
    ("data", "LORA_REPRO_CACHE={files}/text fetch movies", "{files}/text", "Give a folder that can be written"),
    ("data", "run task=movies task.member=../../etc/passwd", "no file '../../etc/passwd' in the", "Files here: "),
    ("no model", "run model=minilm paths.model=/nowhere", "no folder /nowhere", "python -m lora_repro.fetch minilm"),
    ("no model", "run model=minilm paths.model={files}/models/whole", "is damaged or another", "leave paths.model out"),
    ("config.json", f"run {LOCAL}/no_key", "config.json of this bert has no key 'intermediate_size'", "Give "),
    ("architecture", f"run {LOCAL}/no_type", "unknown architecture", "To count one"),
    ("config.json", f"run {LOCAL}/act", "magic", "Give "),
    ("shape", f"run {LOCAL}/zero", "hidden_size must be a whole number from 1 to", "given: 0"),
    ("shape", f"run {LOCAL}/layers", "num_hidden_layers must be a whole number from 1 to", "given: 1000000000"),
    ("shape", f"run {LOCAL}/heads", "hidden_size 32 is no multiple of 5 attention heads", "Give "),
    ("shape", f"run {LOCAL}/wide", "too few for the 130015040 weights", "Give weights that belong to"),
    ("weights", f"run {LOCAL}/shape", "not in this shape", "Give weights that belong to"),
    ("weights", f"run {LOCAL}/lacks", "are not in the weights", "Give weights that belong to"),
    ("weights", f"run {LOCAL}/nan", "holds values that are not finite", "Give "),
    ("code", f"run {LOCAL}/code", "auto_map", "never run"),
    ("code", f"run {LOCAL}/tokenizer_code", "auto_map", "never run"),
    ("code", f"run {LOCAL}/disguised", "model.safetensors is damaged", "Copy or download it again"),
    ("code", f"run {LOCAL}/pickle", "names code, which is never run here", "Copy or download it again"),
    ("code", f"run {SCORE}/pickle", "neither a run id", "adapter_model.safetensors"),
    ("tokenizer", f"run {LOCAL}/bad_tokenizer", "tokenizer", "Give "),
    ("no adapter", "run train.init_from=nothing", "neither a run id", "run ids are the folders' names"),
    ("no adapter", "run method=full train.epochs=0 train.init_from={run}", "method=lora", "method=full"),
    ("no adapter", f"run {SCORE}/no_config", "neither a run id", "A PEFT folder holds adapter_config.json"),
    ("other adapter", f"run {SCORE}/rank", "the adapter has r = 4", "method.r=4 method.alpha="),
    ("other adapter", f"run {SCORE}/alpha", "alpha = 99", "method.alpha=99"),
    ("other adapter", f"run {SCORE}/rslora", "has rank 8 and scale 2.82843, the run 8 and 1", "rslora"),
    ("adapter's tensors", f"run {SCORE}/lacks", "does not hold 1 tensors", "Give "),
    ("adapter's tensors", f"run {SCORE}/extra", "holds 1 tensors that", "other settings of the method"),
    ("adapter's tensors", f"run {SCORE}/nan", "values that are not finite", "Give "),
    ("adapter_config.json", f"run {SCORE}/no_json", "adapter_config.json is damaged", "Give "),
    ("adapter_config.json", f"run {SCORE}/prompt", "PROMPT_TUNING", "Give "),
    ("result", "run paths.outputs={files}/edited/schema {same}", "has schema 99", "it is left as it is"),
    ("result", "analysis diff {run} {files}/edited/nan/runs/{id}", "not finite", "Compute the run again"),
    ("result", "analysis diff {run} {files}/edited/folder/runs/{id}", "cannot be read", "Compute the run again"),
    ("adapter file", f"{LOOK}/adapters/cut", "adapter_model.safetensors: is damaged", "Copy or download it again"),
    ("adapter file", f"{LOOK}/adapters/pickle", "would have to be executed; nothing was", "Give safetensors"),
    ("adapter file", f"{LOOK}/strange/bomb.pt", "would have to be executed; nothing was", "Give safetensors"),
    ("adapter file", f"{LOOK}/strange/bomb.safetensors", "bomb.safetensors: is damaged", "Copy or download it again"),
    ("adapter file", f"{LOOK}/strange/empty.safetensors", "the file is empty", "Copy or download it again"),
    ("adapter's values", f"{LOOK}/adapters/nan", "holds values that are not finite", "Give one that did not diverge"),
    ("adapter's values", f"{LOOK}/strange/whole_numbers.safetensors", "is kept as I8", "not quantised"),
    ("factors", f"{LOOK}/adapters/lacks", "stand without their A", "Give a whole copy"),
    ("factors", f"{LOOK}/strange/hostile.safetensors", "\\input{{x}}\\x1b[2J.lora_A", "Give a whole copy"),
    ("factors", f"{LOOK}/strange/no_rank.safetensors", "has shape (0, 8)", "Give a whole copy"),
    ("factors", f"{LOOK}/strange/misfit.safetensors", "has 2 rows and", "r is both.\nGive a whole copy"),
    ("factors", f"{LOOK}/strange/vector.safetensors", "has shape (8,)", "Give a whole copy"),
    ("no LoRA", f"{LOOK}/adapters/prompt", "the adapter is PEFT's PROMPT_TUNING", "Give a LoRA adapter"),
    ("adapter's settings", f"{LOOK}/adapters/no_json", "adapter_config.json: is damaged", "Give it as PEFT's"),
    ("unknown adapter", f"{LOOK}/strange/other.safetensors", "holds no factors of an adapter", "--base MODEL"),
    ("unknown adapter", f"{LOOK}/text", "neither safetensors nor a file of torch.save", "Give a file"),
    ("unknown adapter", f"{LOOK}/empty", "a folder of no adapter that is known here (it holds none)", "Give a run id"),
    ("unknown adapter", f"{LOOK}/strange", "it holds 13: bomb.pt, ", "Give a run id"),
    ("unknown adapter", "analysis inspect /dev/null", "/dev/null: neither a file nor a folder", "Give a run id"),
    ("absent adapter", "analysis inspect /nowhere/adapter", "/nowhere/adapter: no such file or folder", "Give a run"),
    ("absent adapter", "analysis inspect ../../../x", "../../../x: no such file or folder", "Give a run id"),
    ("absent adapter", "analysis inspect {id}x --runs {store}", "Did you mean '{id}'?", "Give a run id"),
    ("absent adapter", f"{LOOK}/adapters/rslora --base nowhere", "no folder, file or model 'nowhere'", "Give a"),
    ("absent adapter", f"{LOOK}/strange/other.safetensors --base {{files}}/strange/good.safetensors",
     "has no matrix in common with the base", "Give the base that it was trained from"),
    ("two adapters", f"{BOTH}/key.safetensors", "the two adapters have no matrix in common", "has model.layers.0"),
    ("two adapters", f"{BOTH}/wide.safetensors", "inputs are 8 wide in", "Give adapters of one base model"),
    ("two adapters", f"{BOTH}/zero.safetensors --side B", "B is zero in all 1 common", "--side A"),
    ("two adapters", f"{BOTH}/good.safetensors x=1", "takes two adapters, and no x=1", "Leave it out"),
    ("which matrices", f"{LOOK}/strange/good.safetensors --layers 0,7", "has no 7 (given: 0, 7)", "There are: 0."),
    ("which matrices", f"{LOOK}/strange/good.safetensors --layers first", "numbers and ranges", "--layers 0,3-5"),
    ("which matrices", f"{LOOK}/strange/good.safetensors --weights v", "has no v (given: v)", "There are: q."),
    ("options of adapters", f"{LOOK}/adapters/rslora --alpha 8", "--alpha: says nothing about PEFT folder", "Leave it"),
    ("options of adapters", f"{LOOK}/strange/good.safetensors --alpha 0", "finite number above 0", "given: 0"),
    ("options of adapters", f"{LOOK}/strange/good.safetensors --top 0", "--top: must be at least 1", "given: 0"),
    ("options of adapters", f"{LOOK}/strange/good.safetensors --enable-lora q,x", "some of q, k and v", "given: q,x"),
    ("section 7", "analysis figure 3 --out x.gif", "--out: a file ending in .svg, .pdf, .png", "given: x.gif"),
    ("usage", "fetch", "the following arguments are required: NAME", "usage: "),
    ("usage", "run --nonsense", "unrecognized arguments: --nonsense", "usage: "),
    ("usage", "analysis tables 6", "invalid choice: 'tables'", "choose from"),
    ("adapters' usage", "analysis compare {run}", "the following arguments are required: ADAPTER", "usage: "),
    ("adapters' usage", "analysis compare {run} {run} --side C", "invalid choice: 'C'", "choose from"),
]  # fmt: skip
"""At most five rows a kind. {store} holds a finished run {run} of the name {id}; {files} the damaged files."""

AS_PROCESSES = [
    "run method.rank=4", "sweep +sweeps=tabel6", "fetch minilmm", "run method.r=1,2", "run seed=1.5",
    "analysis table 6 --scale demo scale=proxy", "analysis diff {long} {run}", "run paths.outputs={files}/text",
    "LORA_REPRO_CACHE={files}/text fetch movies", f"run {LOCAL}/disguised", f"run {SCORE}/nan",
    "run paths.outputs={files}/edited/schema {same}", f"{LOOK}/strange/bomb.pt", f"{BOTH}/wide.safetensors",
    "analysis figure 3 --out x.gif", "run --nonsense", "analysis tables 6",
]  # fmt: skip
"""Rows that are also started as people start them: a process each."""


class Place(NamedTuple):
    """A store with one finished run, damaged files beside it, and every byte of the store."""

    store: Path
    files: Path
    run: Path
    before: dict[Path, bytes | None]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    store, files = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("files")
    done = processes.run(["lora_repro", *SMOKE, *SMALL, f"paths.outputs={store}"])
    assert done.returncode == 0, done.stderr
    (run,) = (store / "runs").iterdir()
    adapters(files, run / "adapter")
    bases(files)
    strangers(files)
    data(files)
    for how in ("schema", "nan", "folder"):
        copied = shutil.copytree(run, files / "edited" / how / "runs" / run.name)
        damage_result(Path(copied), how)
    return Place(store, files, run, contents(store))


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def command_of(line: str, names: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Returns the module with its arguments, and the variables that stand before them."""
    words = shlex.split(line.format(**names))
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    program, *arguments = words[len(variables) :]
    return [*(word.format(**names) for word in PROGRAMS[program]), *arguments], variables


@pytest.mark.parametrize(
    ("how", "kind", "line", "cause", "remedy"),
    [("here", *case) for case in CASES] + [("process", *case) for case in CASES if case[1] in AS_PROCESSES],
    ids=[case[1] for case in CASES] + [f"process: {case[1]}" for case in CASES if case[1] in AS_PROCESSES],
)
def test_bad_input_is_refused_in_words(
    how: str, kind: str, line: str, cause: str, remedy: str, place: Place, capsys: Captured
) -> None:
    names = {"store": str(place.store), "files": str(place.files), "run": str(place.run), "id": place.run.name}
    names |= {"long": "x" * 10_000, "same": " ".join(SMALL)}
    command, variables = command_of(line, names)
    done = run_here(command, capsys, variables) if how == "here" else processes.run(command, variables)
    assert done.returncode == (2 if "usage" in kind else 1), done.stderr
    assert cause.format(**names) in done.stderr and remedy in done.stderr
    said = re.sub(r"\A\w+: Lengths in tokens: .*\n", "", done.stderr)  # told before the error is found
    assert said.startswith("usage: " if "usage" in kind else "Error: ") and "Traceback" not in said
    assert len(done.stderr.splitlines()) <= (20 if "usage" in kind else 16 if kind == "architecture" else 5)
    assert max(map(len, done.stderr.splitlines())) <= 500  # the paths of the tests are long
    assert done.stdout == ""
    assert contents(place.store) == place.before, "a finished run is left as it is, and nothing comes beside it"
    assert not (place.files / BOMB).exists(), "no code of a file is run"


def test_the_cases_are_many_and_of_many_kinds() -> None:
    kinds = Counter(kind for kind, *_ in CASES)
    assert len(CASES) >= 75 and len({line for _, line, *_ in CASES}) == len(CASES) and len(kinds) >= 15
    assert max(kinds.values()) <= 5
    assert {line for _, line, *_ in CASES} >= set(AS_PROCESSES) and len(set(AS_PROCESSES)) >= 15


def test_a_truncated_download_is_told_with_the_command_that_mends_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "hutto_ICWSM_2014.tar.gz").write_bytes(b"half of it")
    done = processes.run(
        [
            "lora_repro",
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
        wait_for(lambda: list(tmp_path.glob("runs/*/result.json")))
        wait_for(lambda: len(list(tmp_path.glob("runs/*/metrics.jsonl"))) == 2)  # the second run is on its way
        process.send_signal(number)
        _, words = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert words.splitlines()[-1] == "Interrupted; finished runs are kept, and the same command goes on from here."
    assert "Traceback" not in words
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 1
    states = [path.read_text() for path in tmp_path.glob("runs/*/status.json")]
    assert sum('"interrupted"' in state for state in states) == 1
