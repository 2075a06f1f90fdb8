"""`--base` of another model than the one that was adapted: refused by names and shapes, or told."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import call
from helpers.fixture_types import Captured, Compose
from helpers.handmade_adapters import factors, write_peft
from safetensors.numpy import save_file

from lora_repro.__main__ import main
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.config.schema import load_group
from lora_repro.models.arch import arch_of
from lora_repro.training.job import run_job


def test_a_run_beside_another_model_is_refused_by_its_name(tiny: Compose, capsys: Captured) -> None:
    cfg = tiny()
    run_job(cfg)
    folder = Path(cfg.paths.outputs) / "runs" / run_id(resolve(cfg).run)
    for other in ("minilm", "tiny_llama", "gpt3_175b"):
        code, out, err = call(capsys, "inspect", folder, "--base", other)
        assert (code, out) == (1, "") and f"--base {other}: the run adapts tiny_bert" in err
    own, given = (call(capsys, "inspect", folder, *more, "--format", "json") for more in ((), ("--base", "tiny_bert")))
    assert given[0] == 0 and 'relative_norm": null' in own[1] and 'relative_norm": null' not in given[1]


def test_a_run_beside_a_folder_is_checked_by_shapes_and_digest(tiny: Compose, tmp_path: Path, capsys: Captured) -> None:
    cfg = tiny()
    run_job(cfg)
    folder = Path(cfg.paths.outputs) / "runs" / run_id(resolve(cfg).run)
    config = load_group("model", "tiny_bert").config
    for name, change in (("same", {}), ("wider", {"intermediate_size": 96})):
        shapes = arch_of(config | change, 2).parameters
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(dict(config) | change))
        tensors = {key: np.ones(shape, np.float32) for key, shape in shapes.items()}
        save_file(tensors, tmp_path / name / "model.safetensors")
    code, out, err = call(capsys, "inspect", folder, "--base", tmp_path / "wider")
    assert (code, out) == (1, "") and "has other layers or widths than tiny_bert" in err
    code, out, err = call(capsys, "inspect", folder, "--base", tmp_path / "same", "--format", "json")
    assert code == 0 and "nobody can tell whether these are the weights" in err


@pytest.mark.parametrize(
    ("named", "given", "said"),
    [
        ("minilm", "mpnet", "--base mpnet: the adapter adapts minilm"),
        ("sentence-transformers/all-MiniLM-L6-v2", "tiny_bert", "the adapter adapts minilm"),
        ("org/of-somebody", "tiny_bert", "Names org/of-somebody as its base, and --base is tiny_bert"),
        ("tiny_bert", "tiny_bert", ""),
        (None, "tiny_bert", ""),
        ("../../minilm", "tiny_bert", "Names ../../minilm as its base"),
    ],
)
def test_the_base_that_an_adapter_names_is_held_against_the_one_given(
    named: str | None, given: str, said: str, tmp_path: Path, capsys: Captured
) -> None:
    d = load_group("model", "tiny_bert").config["hidden_size"]
    module = "bert.encoder.layer.{}.attention.self.{}"
    made = factors(r=2, seed=0, layers=1, roles=["query"], d=d)
    path = write_peft(tmp_path / "a", made, module=module) / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": named}))
    code, _, err = call(capsys, "inspect", tmp_path / "a", "--base", given, "--format", "json")
    assert code == ("adapts" in said) and said in err and (said or err == "")


@pytest.mark.parametrize(("arguments"), [("--runs", ""), ("paths.outputs=",)])
def test_an_empty_store_is_no_store(arguments: tuple[str, ...], capsys: Captured) -> None:
    code, out, err = call(capsys, "status", "+sweeps=table6", *arguments)
    assert (code, out) == (1, "") and "no folder is given" in err


@pytest.mark.parametrize("given", ["'~/x'", "~/x"])
def test_a_home_folder_is_never_made_beside(
    given: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell expands ~ only where a word begins with it: not in --runs=~/x, and not where it is quoted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", ["lora_repro", "model=tiny_bert", f"paths.outputs={given}"])
    with pytest.raises(SystemExit):
        main()
    assert f"Give the full path: paths.outputs={tmp_path}/home/x" in capsys.readouterr().err
    _, out, _ = call(capsys, "status", "+sweeps=table6", "scale=smoke", "--runs=~/x")
    assert f"Store: {tmp_path}/home/x" in out
    _, _, err = call(capsys, "status", "+sweeps=table6", "scale=smoke", f"paths.outputs={given}")
    assert f"Give the full path: paths.outputs={tmp_path}/home/x" in err
    assert list(tmp_path.iterdir()) == []
