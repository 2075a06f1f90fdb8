"""What `tiny` composes for most tests is what `compose` does, and it refuses the same in the same words."""

import pytest
from helpers.quick_compose import compose_quickly
from omegaconf import OmegaConf

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
