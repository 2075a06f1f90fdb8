"""Counts of every method of the paper: golden integers."""

import pytest
from helpers.architectures import PAPER_ARCHS

from lora_repro.config.schema import load_group
from lora_repro.errors import InputError
from lora_repro.methods import (
    METHODS,
    AdapterDConfig,
    AdapterHConfig,
    AdapterLConfig,
    AdapterPConfig,
    BitFitConfig,
    FTTop2Config,
    FullConfig,
    LoRAConfig,
    LoRAPrefixEmbedConfig,
    LoRAPrefixLayerConfig,
    MethodConfig,
    PrefixEmbedConfig,
    PrefixLayerConfig,
    SizedConfig,
)
from lora_repro.models.arch import arch_of


def lora(targets: str, r: int) -> LoRAConfig:
    return LoRAConfig("lora", targets.split(","), r, 1.0, 0.0)


GOLDEN: list[tuple[str, MethodConfig, int]] = [
    ("gpt3_175b", FullConfig("full"), 174_604_259_328),
    ("gpt3_175b", lora("q,v", 1), 4_718_592),
    ("gpt3_175b", lora("q,v", 8), 37_748_736),
    *(("gpt3_175b", lora(one, 8), 18_874_368) for one in "qkvo"),
    ("gpt3_175b", lora("q,k", 4), 18_874_368),
    ("gpt3_175b", lora("q,v", 4), 18_874_368),
    ("gpt3_175b", lora("q,k,v,o", 2), 18_874_368),
    ("roberta_base", lora("q,v", 8), 294_912),
    ("roberta_large", lora("q,v", 8), 786_432),
    ("deberta_v2_xxlarge", lora("q,v", 16), 4_718_592),
    ("gpt2_medium", lora("q,v", 4), 393_216),
    ("gpt2_large", lora("q,v", 4), 737_280),
    ("gpt2_medium", FTTop2Config("ft_top2"), 25_192_448),
    ("roberta_base", BitFitConfig("bitfit"), 102_144),
    ("gpt3_175b", PrefixEmbedConfig("prefix_embed", l_p=256, l_i=8), 3_244_032),
    ("gpt3_175b", PrefixLayerConfig("prefix_layer", l_p=8, l_i=8), 18_874_368),
    ("gpt3_175b", AdapterHConfig("adapter_h", bottleneck=1), 7_078_080),
    ("gpt3_175b", AdapterHConfig("adapter_h", bottleneck=8), 40_109_568),
    ("roberta_large", AdapterHConfig("adapter_h", bottleneck=8), 835_968),
    ("roberta_large", AdapterPConfig("adapter_p", bottleneck=16), 811_392),
    ("gpt2_medium", AdapterLConfig("adapter_l", bottleneck=6), 368_784),
    ("gpt2_medium", AdapterLConfig("adapter_l", bottleneck=224), 11_089_152),
    ("gpt2_large", AdapterLConfig("adapter_l", bottleneck=8), 875_808),
    ("gpt2_large", AdapterLConfig("adapter_l", bottleneck=248), 23_002_848),
    ("roberta_base", AdapterDConfig("adapter_d", bottleneck=48, dropped=0), 12 * (2 * 768 * 48 + 48 + 768)),
    ("roberta_base", AdapterDConfig("adapter_d", bottleneck=48, dropped=5), 7 * (2 * 768 * 48 + 48 + 768)),
    (
        "gpt3_175b",
        LoRAPrefixEmbedConfig("lora_prefix_embed", ["q", "v"], 8, 1.0, 0.0, l_p=8, l_i=4),
        37_748_736 + 12 * 12_288,
    ),
    (
        "gpt3_175b",
        LoRAPrefixLayerConfig("lora_prefix_layer", ["q", "v"], 8, 1.0, 0.0, l_p=8, l_i=4),
        37_748_736 + 96 * 12 * 12_288,
    ),
]


@pytest.mark.parametrize(("model", "method", "count"), GOLDEN)
def test_counts_never_change(model: str, method: MethodConfig, count: int) -> None:
    arch = PAPER_ARCHS[model]
    method.check(arch)
    found = method.count(arch)
    assert found.method == count == sum(found.by_module.values())
    added = 0 if method.unfrozen(arch) else count
    assert (found.head, found.total) == (arch.head_size, arch.size() + added)
    assert METHODS[method.name] is type(method)


def test_bitfit_trains_the_biases_of_layers_and_norms() -> None:
    arch = PAPER_ARCHS["roberta_base"]
    found = BitFitConfig("bitfit").count(arch).by_module
    one = {name: n for name, n in found.items() if ".layer.11." in name}
    assert sorted(one.values()) == [768] * 7 + [3072] and len(found) == 12 * 8 + 1
    assert found["roberta.embeddings.LayerNorm"] == 768 and not any("classifier" in name for name in found)


def test_ft_top2_trains_two_blocks_and_nothing_else() -> None:
    arch = PAPER_ARCHS["gpt2_medium"]
    assert {name.split(".")[2] for name in FTTop2Config("ft_top2").unfrozen(arch)} == {"22", "23"}
    d = 1024
    assert FTTop2Config("ft_top2").count(arch).method == 2 * (12 * d * d + 13 * d)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (AdapterHConfig("adapter_h", bottleneck=0), r"method\.bottleneck: must be from 1 to 768.*\(given: 0\)"),
        (AdapterHConfig("adapter_h", bottleneck=769), r"must be from 1 to 768, the model's width \(given: 769\)"),
        (AdapterDConfig("adapter_d", bottleneck=8, dropped=12), r"method\.dropped: must be from 0 to 11, all blocks"),
        (PrefixLayerConfig("prefix_layer", l_p=0, l_i=0), r"no token is trained \(given: 0, with method\.l_i=0\)"),
        (PrefixEmbedConfig("prefix_embed", l_p=-1, l_i=8), r"method\.l_p: must be from 0 to 503.*\(given: -1\)"),
        (PrefixEmbedConfig("prefix_embed", l_p=600, l_i=8), r"method\.l_p: must be from 0 to 503.*\(given: 600\)"),
        (PrefixEmbedConfig("prefix_embed", l_p=8, l_i=512), r"method\.l_i: must be from 0 to 511.*\(given: 512\)"),
        (
            LoRAPrefixLayerConfig("lora_prefix_layer", ["q"], 8, 1.0, 0.0, l_p=600, l_i=4),
            r"method\.l_p: must be from 0 to 507.*\(given: 600\)",
        ),
        (
            LoRAPrefixEmbedConfig("lora_prefix_embed", ["q"], 0, 1.0, 0.0, l_p=8, l_i=4),
            r"method\.r: must be from 1 to 768",
        ),
    ],
)
def test_impossible_settings_are_refused(method: MethodConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        method.check(PAPER_ARCHS["roberta_base"])


def test_a_model_that_lacks_what_is_trained_is_refused() -> None:
    one = arch_of(load_group("model", "gpt2_medium").config | dict(n_layer=1), None)
    with pytest.raises(InputError, match=r"trains the last 2 blocks, and this gpt2 has 1"):
        FTTop2Config("ft_top2").check(one)
    llama = arch_of(load_group("model", "smollm2").config, None)
    with pytest.raises(InputError, match=r"this llama has no biases"):
        BitFitConfig("bitfit").check(llama)


@pytest.mark.parametrize(
    "method", [method for _, method, _ in GOLDEN if method.name not in ("lora", "full", "head_only")]
)
def test_labels_tell_methods_apart(method: MethodConfig) -> None:
    assert method.label.startswith(method.name)
    size = getattr(method, method.size_key) if isinstance(method, SizedConfig) else ""
    assert str(size) in method.label


def test_prefix_tokens_are_as_wide_as_the_embeddings() -> None:
    """OPT-350M embeds in half its width; behind a block the tokens have all of it."""
    config = dict(
        model_type="opt", vocab_size=60, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, ffn_dim=40,
        max_position_embeddings=40, word_embed_proj_dim=12, do_layer_norm_before=False,
    )  # fmt: skip
    arch = arch_of(config, None)
    assert PrefixEmbedConfig("prefix_embed", l_p=3, l_i=2).count(arch).method == 5 * 12
    assert PrefixLayerConfig("prefix_layer", l_p=3, l_i=2).count(arch).method == 3 * 5 * 24
