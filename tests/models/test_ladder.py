"""The paper's models and the ladder that stands for GPT-3: they compose, count, and equal transformers' classes."""

import json
import re
import subprocess
import sys
from typing import Any, NamedTuple

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from lora_repro.config.catalogue import HOME, group_names
from lora_repro.config.compose import compose
from lora_repro.config.resolve import resolve
from lora_repro.config.schema import load_group
from lora_repro.errors import InputError
from lora_repro.methods.prefixes.config import ASKED_ATTENTION
from lora_repro.models.arch import ModelConfig, arch_of


class Published(NamedTuple):
    """What others print of a model."""

    layers: int
    d_model: int
    heads: int
    hub_gb: float | None
    """Size of the weights' files as the hub lists them at the pinned commit."""
    bytes_each: int = 4
    masks: int = 0
    """Bytes of causal masks that the file holds beside the weights."""
    language_head: int = 0
    """Weights of the masked language model's output, which the file holds beside the backbone."""


MASK = 2048 * 2048
"""Bytes of a Cerebras-GPT layer's mask: a byte for each pair of positions."""
PUBLISHED = {
    # Liu et al. 2019, Table 9; the output is a linear layer, a LayerNorm and a bias for each token.
    "roberta_base": Published(12, 768, 12, 0.498818, language_head=768 * 768 + 3 * 768 + 50265),
    "roberta_large": Published(24, 1024, 16, None),
    # The hub's config.json; its file, too, holds the output of the masked language model.
    "deberta_v2_xxlarge": Published(48, 1536, 24, 3.14, bytes_each=2, language_head=1536 * 1536 + 3 * 1536 + 128100),
    # Radford et al. 2019, Table 2; the heads stand in the hub's config.json.
    "gpt2_medium": Published(24, 1024, 16, None),
    "gpt2_large": Published(36, 1280, 20, None),
    # The table of the models' cards, which corrects the heads of the 2.7B.
    "cerebras_111m": Published(10, 768, 12, 0.486, masks=10 * MASK),
    "cerebras_256m": Published(14, 1088, 17, 1.08, masks=14 * MASK),
    "cerebras_590m": Published(18, 1536, 12, 2.44, masks=18 * MASK),
    "cerebras_1_3b": Published(24, 2048, 16, 5.36, masks=24 * MASK),
    "cerebras_2_7b": Published(32, 2560, 32, 10.7, masks=32 * MASK),
    "cerebras_6_7b": Published(32, 4096, 32, 26.767978209, masks=32 * MASK),
    "cerebras_13b": Published(40, 5120, 40, 29.7 + 21.9, masks=40 * MASK),
    # Zhang et al. 2022, Table 1.
    "opt_125m": Published(12, 768, 12, None),
    "opt_350m": Published(24, 1024, 16, 331_196_416 * 2e-9, bytes_each=2),
    "opt_1_3b": Published(24, 2048, 32, 1_315_758_080 * 2e-9, bytes_each=2),
    "opt_2_7b": Published(32, 2560, 32, None),
    "opt_6_7b": Published(32, 4096, 32, 9.96 + 3.36, bytes_each=2),
    "opt_13b": Published(40, 5120, 40, None),
    "opt_30b": Published(48, 7168, 56, None),
    "opt_66b": Published(64, 9216, 72, None),
}
DECODERS = [name for name in PUBLISHED if name.startswith(("gpt2", "cerebras", "opt"))]


def described(name: str) -> ModelConfig:
    config = load_group("model", name)
    assert isinstance(config, ModelConfig)
    return config


def test_every_file_that_only_the_hub_supplies_is_published_here_and_pinned() -> None:
    pinned = {name: described(name) for name in group_names("model") if described(name).revision is not None}
    assert set(pinned) == set(PUBLISHED)
    for name, config in pinned.items():
        assert re.fullmatch(r"[0-9a-f]{40}", config.digest) and config.revision == config.digest, name
        assert config.name == name and config.hub is not None
    assert len({config.digest for config in pinned.values()}) == len({c.hub for c in pinned.values()}) == len(pinned)


@pytest.mark.parametrize("name", PUBLISHED)
def test_layers_widths_and_heads_are_the_published_ones(name: str) -> None:
    arch, published = arch_of(described(name).config, 2), PUBLISHED[name]
    assert (arch.num_layers, arch.d_model, arch.num_heads) == published[:3]


@pytest.mark.parametrize("name", [name for name, published in PUBLISHED.items() if published.hub_gb is not None])
def test_the_weights_fill_the_files_that_the_hub_lists(name: str) -> None:
    arch, published = arch_of(described(name).config, 2), PUBLISHED[name]
    weights = arch.size() - arch.head_size + published.language_head
    assert (weights * published.bytes_each + published.masks) / 1e9 == pytest.approx(published.hub_gb, rel=0.005)


@pytest.mark.parametrize(
    ("name", "labels"), [(name, labels) for name in PUBLISHED for labels in (2, None) if labels or name in DECODERS]
)
def test_every_parameter_is_that_of_transformers_class(name: str, labels: int | None) -> None:
    """On the device "meta", which keeps shapes alone: 66 billion weights take no memory."""
    keys: dict[str, Any] = dict(described(name).config)
    config = AutoConfig.for_model(keys.pop("model_type"), **keys)
    for key, value in keys.items():
        declared = value.split("|") if key == "pos_att_type" else value
        assert getattr(config, key) == declared, f"{key} is no key of {type(config).__name__}"
    auto: Any = AutoModelForCausalLM
    if labels is not None:
        auto, config.num_labels = AutoModelForSequenceClassification, labels
    with torch.device("meta"):
        model = auto.from_config(config)
    assert {key: tuple(p.shape) for key, p in model.named_parameters()} == dict(
        arch_of(described(name).config, labels).parameters
    )


COMPOSE = """
import json, sys
sys.modules["torch"] = sys.modules["transformers"] = None
from lora_repro.config.catalogue import HOME
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from hydra import compose, initialize_config_dir
with initialize_config_dir(str(HOME / "conf"), version_base="1.3"):
    for model, method, *task in json.load(sys.stdin):
        run = resolve(compose("config", [f"model={model}", f"method={method}", *task, "train.learning_rate=1e-3"])).run
        count = run.method.count(run.arch)
        print(json.dumps([model, method, run.task.name, run_id(run), count.method, count.head]))
"""
MODELS = [name for name in group_names("model") if name != "local"]
FAMILIES = [
    "tiny_bert", "mpnet", "roberta_base", "deberta_v2_xxlarge", "gpt2_medium", "opt_350m", "tiny_llama",
    "qwen2_5_coder_0_5b", "gemma3_270m",
]  # fmt: skip
"""A model of each architecture."""


@pytest.mark.parametrize(
    ("models", "also"),
    [
        pytest.param(FAMILIES, MODELS, id="families"),
        pytest.param(MODELS, [], id="all", marks=pytest.mark.long),
    ],
)
def test_models_compose_and_count_with_every_method_without_torch(models: list[str], also: list[str]) -> None:
    """As classifiers, and decoders as language models too. No weights are needed for an id.

    Tuners of PEFT are left out, as PEFT itself counts them, and few-shot prompting, which no classifier can do.
    """
    writers = ("gpt2", "opt", "gpt_neox", "llama", "qwen2", "gemma3_text")
    families = {model: described(model).config["model_type"] for model in models}
    jobs = [
        (model, method, "task=generated")
        for model in models
        for method in group_names("method")
        if not (method == "bitfit" and families[model] in ("llama", "gemma3_text"))  # which have no biases
        and method not in ("peft", "few_shot")
        and (method != "llama_adapter" or families[model] in ASKED_ATTENTION)
    ]
    jobs += [(model, "lora", "task=generated") for model in also if model not in models]
    jobs += [(model, "lora", "task=movies", "task.form=text") for model in models if families[model] in writers]
    done = subprocess.run(
        [sys.executable, "-c", COMPOSE], input=json.dumps(jobs), cwd=HOME, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows] == [list(job[:2]) for job in jobs]
    assert {model for model, _, task, *_ in rows if task == "movies"} >= set(DECODERS) & set(models)
    assert len({run for _, _, _, run, _, _ in rows}) == len(rows)
    for model, method, task, _, trained, head in rows:
        assert (head == 0) == (task == "movies"), model
        if method == "lora" and model in PUBLISHED:  # r = 8 on q and v, both square (the paper's Section 4.2)
            assert trained == PUBLISHED[model].layers * 2 * 2 * PUBLISHED[model].d_model * 8, model
    lora = {model: trained for model, method, _, _, trained, _ in rows if method == "lora"}
    assert (lora["roberta_base"], lora["roberta_large"]) == (294_912, 786_432)  # Table 2: 0.3M, 0.8M


@pytest.mark.parametrize(
    ("name", "weights"),
    [("gemma3_270m", 268_098_176), ("qwen2_5_coder_0_5b", 494_032_768), ("qwen2_5_coder_1_5b", 1_543_714_304)],
)
def test_models_of_the_registry_have_the_weights_that_the_hub_lists(name: str, weights: int) -> None:
    """With the output layer tied to the embedding, as on the hub."""
    assert arch_of({**described(name).config, "tie_word_embeddings": True}, None).size() == weights


@pytest.mark.parametrize("key", ["final_logit_softcapping", "use_bidirectional_attention"])
def test_a_gemma_that_cannot_write_as_others_do_is_refused_where_it_must(key: str) -> None:
    config = {**described("gemma3_270m").config, key: True}
    assert arch_of(config, 2).size() > arch_of({**config, key: None}, None).size()
    with pytest.raises(InputError, match=f"a Gemma 3 with {key} is not supported for tasks that are answered in words"):
        arch_of(config, None)


def test_a_model_without_a_preset_says_what_is_missing() -> None:
    with pytest.raises(
        InputError, match=r"train\.learning_rate: no value is given.*\nGive it: train\.learning_rate=VALUE"
    ):
        resolve(compose(["model=opt_66b", "task=movies", "task.form=text"]))
