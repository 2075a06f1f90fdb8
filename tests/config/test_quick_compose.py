"""What `tiny` composes for most tests is what `compose` does, and it refuses the same in the same words."""

import shutil
from pathlib import Path

import pytest
from helpers.quick_compose import compose_quickly
from omegaconf import OmegaConf

from lora_repro.config.catalogue import HOME
from lora_repro.config.compose import compose


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=3", "train.learning_rate=1e-3", "method.targets=[q,v]"],
        ["model=tiny_llama", "task.form=text"],
        ["model=tiny_llama", "method=adapter_h", "preset@train=tiny_llama", "train=default"],
        ["method=peft", "method.peft_type=LORA", "method.config={r:4,init_lora_weights:pissa}"],
        ["method.r_pattern={layers.1.v:3}", "log.snapshots=[0,0.5,1]"],
        ["scale=smoke", "+sweeps=table6"],
        ["seed=1", "seed=2"],
        ["train.batch_size=${seed}", "seed=8"],
    ],
)
def test_it_is_the_same_configuration(overrides: list[str]) -> None:
    given = ["model=tiny_bert", "task=generated", "paths.outputs=x", *overrides]
    for _ in range(2):  # the second is of files that are known
        quick, whole = compose_quickly(given), compose(given)
        assert quick == whole and OmegaConf.to_yaml(quick) == OmegaConf.to_yaml(whole)
        assert quick._metadata.flags == whole._metadata.flags
        quick.seed = 99  # changes nothing for the next


@pytest.mark.parametrize(
    "wrong",
    [
        "method=nothing",
        "method.rank=3",
        "seed=0,1",
        "seed=x",
        "method.config={a:1,a:2}",
        "method.r",
        "train.epochs@x=1",
        "made_up=3",
    ],
)
def test_the_same_is_refused_in_the_same_words(wrong: str) -> None:
    said = []
    for composes in (compose, compose_quickly):
        with pytest.raises(Exception) as refused:
            composes(["model=tiny_bert", "task=generated", "method=peft", wrong])
        said.append((refused.type, str(refused.value)))
    assert said[0] == said[1]


def test_a_file_that_is_written_anew_is_read_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is composed is kept, and nobody's changes of it are."""
    for name in ("conf", "sweeps"):
        shutil.copytree(HOME / name, tmp_path / name)
    monkeypatch.setattr("lora_repro.config.compose.HOME", tmp_path)
    monkeypatch.setattr("lora_repro.config.schema.HOME", tmp_path)
    given = ["model=tiny_bert", "task=generated"]
    first = compose(given)
    first.method.r = 99
    assert compose(given).method.r == 8
    path = tmp_path / "conf" / "method" / "lora.yaml"
    path.write_text(path.read_text().replace("r: 8", "r: 7"))
    assert compose(given).method.r == 7
