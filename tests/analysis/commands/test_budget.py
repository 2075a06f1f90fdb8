"""`python -m analysis budget`: what meets a budget, as a table and as JSON, at once; bytes where they are asked for."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers.commands import call
from helpers.fixture_types import Captured

from lora_repro.config.schema import load_group
from lora_repro.costs.memory import Batch, Case, Products, estimate
from lora_repro.methods import LoRAConfig
from lora_repro.models.arch import arch_of

TABLE_5 = {"q": 8, "k": 8, "v": 8, "o": 8, "q,k": 4, "q,v": 4, "q,k,v,o": 2}
GPT3 = ("budget", "--model", "gpt3_175b", "--budget", "18M")


def offers(capsys: Captured, *arguments: str) -> list[dict[str, Any]]:
    code, out, err = call(capsys, *arguments, "--format", "json")
    assert (code, err) == (0, "")
    return json.loads(out)


class Printed(NamedTuple):
    out: str
    seconds: float
    """Of the processor."""
    resident: float
    """The most memory, in bytes."""


@cache
def of_gpt3(form: str) -> Printed:
    """What a process without torch and pandas prints. No types are checked in it, so it is four times as fast."""
    program = (
        "import resource, sys; sys.modules['torch'] = sys.modules['transformers'] = sys.modules['pandas'] = None\n"
        "from analysis.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "finally:\n"
        "    used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "    try: (peak,) = [line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')]\n"
        "    except OSError: peak = used.ru_maxrss\n"  # which of a forked process counts its parent's memory too
        "    print(used.ru_utime + used.ru_stime, peak, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, *GPT3, "--format", form]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seconds, resident = map(float, done.stderr.split())
    return Printed(done.stdout, seconds, resident * (1 if sys.platform == "darwin" else 1024))


def test_18m_of_gpt3_holds_table_5_and_the_baselines() -> None:
    entries = json.loads(of_gpt3("json").out)
    lora = {",".join(entry["settings"]["targets"]): entry for entry in entries if entry["method"] == "lora"}
    assert {targets: lora[targets]["settings"]["r"] for targets in TABLE_5} == TABLE_5
    assert len(lora) == 17  # 4 single matrices, 6 pairs, all four, up, down, and both beside three of attention
    assert {lora[targets]["trained"] for targets in TABLE_5} == {18_874_368}
    assert {lora[one]["trained"] for one in ("up", "down")} == {3 * 96 * 5 * 12288} == {17_694_720}
    others = {entry["method"]: entry for entry in entries if entry["method"] != "lora"}
    assert others["prefix_layer"]["sizes_that_meet"] == [7, 8] and others["prefix_layer"]["settings"]["l_i"] == 8
    assert others["adapter_p"]["settings"] == {"bottleneck": 7} and others["adapter_d"]["ways"] == 88
    assert not {"adapter_h", "bitfit", "full", "ft_top2"} & others.keys()
    assert all(17_500_000 <= entry["trained"] < 19_000_000 for entry in entries)
    assert all(entry["utilisation"] == pytest.approx(entry["trained"] / 18e6) for entry in entries)
    groups = [entry["group"] for entry in entries]
    assert groups == sorted(groups, key=["LoRA", "LoRA and prefix", "prefix", "adapters"].index)
    for group in set(groups):
        off = [abs(entry["utilisation"] - 1) for entry in entries if entry["group"] == group]
        assert off == sorted(off)


def test_bytes_are_the_estimates(capsys: Captured) -> None:
    given = ("--targets", "q", "--batch-size", "2", "--length", "8", "--dtype", "fp32", "--device", "cpu", "--memory")
    tiny = ("budget", "--model", "tiny_bert", "--budget", "0.5K", *given)
    entries = {entry["method"]: entry for entry in offers(capsys, *tiny)}
    config = load_group("model", "tiny_bert").config
    batch = Batch(2, 8, Products.fp32, on_gpu=False)
    r = entries["lora"]["settings"]["r"]
    held = estimate(Case(LoRAConfig("lora", ["q"], r, 1.0, 0.0), arch_of(config, 2), config, batch))
    assert entries["lora"]["bytes"] == {**held._asdict(), "training": held.training, "on_cpu": held.on_cpu}
    assert held.step is not None and held.training == held.weights + held.optimizer + held.step
    others = [
        entry["bytes"] for name, entry in entries.items() if name.startswith(("prefix", "adapter", "lora_prefix"))
    ]
    assert others and all(held["activations"] > 0 and held["gradients"] > 0 for held in others)


def test_without_memory_no_bytes_are_shown(capsys: Captured) -> None:
    assert all("bytes" not in entry for entry in json.loads(of_gpt3("json").out))
    code, out, _ = call(capsys, "budget", "--model", "tiny_bert", "--budget", "0.5K", "--targets", "q")
    assert code == 0 and "activations" not in out and "--memory adds what training takes" in out
    code, out, _ = call(capsys, "budget", "--model", "tiny_bert", "--budget", "0.5K", "--targets", "q", "--memory")
    assert code == 0 and "| activations |" in out and "unknown" not in out


def test_the_table_names_what_is_near_and_what_is_unequal(capsys: Captured) -> None:
    code, out, err = call(capsys, "budget", "--model", "smollm2", "--budget", "0.5M", "--targets", "q", "k", "q,k,v,o")
    assert (code, err) == (0, "")
    assert out.startswith(
        "## Budget 0.5M on smollm2\n\n500,000 weights, the head apart; counts from 450,000 to 599,999"
    )
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line[:1] == "|"]
    assert lines[2][:5] == ["lora", "k, r = 22", "506,880", "101.4 %", "20 to 26"]
    assert lines[3][:5] == ["lora", "q, r = 14", "483,840", "96.8 % (!)", "14 to 17"]
    assert "- (!) outside 97 to 105 % of the budget: not a comparison at equal budgets." in out
    assert "- k, v of this llama are narrower than the other attention matrices (grouped)" in out
    assert "  - bitfit: this llama has no biases." in out and "  - full: trains 134,515,008 (134.5M)" in out


def test_neighbours_stand_beneath_what_meets_the_budget(capsys: Captured) -> None:
    out = of_gpt3("md").out
    assert "  - lora on q,k,v: r = 2 trains 14,155,776 (14M), r = 3 trains 21,233,664 (21M)" in out
    assert "  - adapter_h: bottleneck = 3 trains 16,515,648 (17M), bottleneck = 4 trains 21,234,432 (21M)" in out
    assert "grouped" not in out and "(!)" not in out
    code, out, _ = call(capsys, "budget", "--model", "tiny_bert", "--budget", "10", "--targets", "q")
    assert code == 0 and "10 weights, the head apart; an upper bound." in out and "\n|" not in out


def test_a_folder_of_the_users_is_counted_by_its_config(tmp_path: Path, capsys: Captured) -> None:
    config = load_group("model", "minilm").config
    (tmp_path / "config.json").write_text(json.dumps(config))
    given = ("--budget", "36864", "--num-labels", "3", f"paths.model={tmp_path}")
    ours = offers(capsys, "budget", "model=local", *given)
    named = offers(capsys, "budget", "--model", "minilm", *given[:-1])
    assert [entry | {"model": "minilm"} for entry in ours] == named and len(named) > 15


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "gpt3_175b"], ["needs a model and a budget", "--budget 18M"]),
        (["--budget", "18M"], ["needs a model and a budget"]),
        (["--model", "gpt3", "--budget", "18M"], ["model: there is no 'gpt3'", "Did you mean 'gpt3_175b'?"]),
        (["--model", "minilm", "--budget", "0,35M"], ["method.budget", "given: 0,35M"]),
        (["--model", "minilm", "--budget", "1M", "method.budget=2M"], ["method.budget: given as 2M and 1M"]),
        (["--model", "minilm", "--budget", "1M", "--targets", "q,x"], ["no matrix 'x' in bert", "Matrices here"]),
        (["--model", "minilm", "--budget", "1M", "--targets", "q,q"], ["q is named more than once"]),
        (["--model", "minilm", "--budget", "1M", "--length", "513"], ["--length: must be at least 1 and at most 512"]),
        (
            ["--model", "minilm", "--budget", "1M", "--batch-size", "0"],
            ["--batch-size: must be at least 1", "given: 0"],
        ),
        (["--model", "minilm", "--budget", "1M", "--num-labels", "0"], ["--num-labels: must be at least 1"]),
        (["--model", "minilm", "--budget", "1M", "seed=1"], ["budget: takes no seed=1"]),
        (["--model", "local", "--budget", "1M"], ["model=local needs a folder", "paths.model=DIR"]),
        (["--model", "local", "--budget", "1M", "paths.model=/nowhere"], ["/nowhere/config.json is missing"]),
        (["--model", "minilm", "--budget", "1M", "--dtype", "fp16"], ["--dtype", "bf16"]),
    ],
)
def test_bad_input_is_refused(arguments: list[str], words: list[str], capsys: Captured) -> None:
    code, out, err = call(capsys, "budget", *arguments)
    assert code != 0 and out == "" and "Traceback" not in err
    for word in words:
        assert word in err


def test_it_needs_no_torch_no_pandas_two_seconds_and_little_memory() -> None:
    done = of_gpt3("md")
    assert done.out.startswith("## Budget 18M on gpt3_175b")
    assert done.seconds < 2.0  # of the processor, whatever else the machine does
    assert done.resident < 2**28
