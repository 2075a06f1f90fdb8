"""What of PEFT is not offered here, and why; and keys that would do nothing. No torch, no PEFT."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lora_repro.errors import InputError, did_you_mean

FOLLOWS = {
    "peft_type": "give method.peft_type",
    "task_type": "it follows from the task",
    "modules_to_save": "the head is trained by every method, and nothing else beside the tuner",
    "fan_in_fan_out": "it follows from the layers",
    "total_step": "it is the number of steps of the run",
    "inference_mode": "it follows from train.epochs",
    "base_model_name_or_path": "it follows from the model",
    "revision": "it follows from the model",
    "auto_mapping": "it follows from the model",
    "peft_version": "it is in the record's provenance",
    "token_dim": "it follows from the model",
    "num_layers": "it follows from the model",
    "num_attention_heads": "it follows from the model",
    "num_transformer_submodules": "it follows from the model",
}
"""Keys of PEFT that are not given here, and why."""

NOT_HERE = {
    "XLORA": "it mixes adapters that were trained before",
    "POLY": "it routes examples of several tasks",
    "MULTITASK_PROMPT_TUNING": "it routes examples of several tasks",
    "CPT": "it is made of a text of labelled examples and changes the loss",
    "CARTRIDGE": "it is distilled from a text, and not trained on examples",
    "SHADOW": "it runs a second model beside the first",
    "ADAPTION_PROMPT": "its file names tensors by layers that it replaces whole: method=llama_adapter is this method",
    "LILY": "its router averages over a batch, so that the score of an example would depend on its neighbours",
    "PREFIX_TUNING": "method=prefix_layer method.form=key_value is this method, with masks and padding",
    "FROD": "its file holds tables that are no tensors of the model",
    "SHIRA": "its file holds indices that are no tensors of the model",
}
"""Types that are not trained here, and why."""

SUCCESSORS = {"BONE": "MISS"}
"""Types that an earlier PEFT had, and the type that took their place."""

REFUSED = {
    "loftq_config": "it rounds the base with bitsandbytes, and here all methods train on the same base in fp32 or bf16",
    "corda_config": "its start needs covariances of the inputs, which are not measured here",
    "lora_ga_config": "its start needs gradients of the base, which are not measured here",
    "layer_replication": "it repeats layers, so that the model is another one",
    "megatron_config": "it is for Megatron's layers on several GPUs",
    "alora_invocation_tokens": "it is switched on by tokens of a prompt",
    "arrow_config": "it mixes adapters that were trained before",
    "kasa_config": "PEFT leaves its term of the loss to the user",
    "monteclora_config": "PEFT leaves its term of the loss to the user",
    "target_parameters": "it adapts parameters and not layers",
    "trainable_token_indices": "it trains rows of the embedding too: method.peft_type=TRAINABLE_TOKENS does",
    "megatron_core": "it is for megatron_config, which is not offered",
    "use_qalora": "it changes layers of GPTQ alone, and no base is quantised here",
    "qalora_group_size": "it is for use_qalora, which is not offered",
    "use_asa": "its scores are in no checkpoint",
    "use_dynamic_rank": "ranks would follow from the weights, so that no count is known before a run",
    "tokenizer_name_or_path": "it is for a start from a text",
    "prompt_tuning_init_text": "it needs the tokenizer of a repository; a random start needs none",
    "generator_seed": "its noise would be that of no seed of a run, and begin anew where a run goes on",
    "sample_at_inference": "the score of an example would depend on what was scored before it",
    "runtime_offload_base_weight": "the frozen weights are checked, and stay where they are",
}
"""Options of tuners that are not offered here, and why."""

STARTS_REFUSED = {
    "loftq": REFUSED["loftq_config"],
    "corda": REFUSED["corda_config"],
    "lora_ga": REFUSED["lora_ga_config"],
    "pissa_niter": "it is drawn at random, so that PEFT could not open the adapter on the same base: give pissa",
}
"""Starts of LoRA (init_lora_weights), by how they begin."""

BY_SHORT_NAMES = ("layers_to_transform", "layers_pattern")
"""Keys that PEFT reads where target_modules are the last parts of names, and not where they are whole names."""

IDLE_IN_ADALORA = {
    "r": "its ranks are init_r and target_r",
    "use_rslora": "it divides lora_alpha by its rank",
    "init_lora_weights": "it starts with singular values of 0, and offers no other start",
    "rank_pattern": "its allocator hands out the ranks",
    "alpha_pattern": "lora_alpha is that of all its matrices",
    "lora_bias": "it trains no bias beside its factors",
    "use_bdlora": "its factors are whole",
    "velora_config": "it keeps its inputs whole",
}
"""Keys that AdaLoRA inherits from LoRA and does not read, and why."""

UNEVEN = {"OFT": ("its blocks must divide the width of every layer", "oft_block_size:16")}
"""Types whose size does not change in equal steps, why, and how it is given."""


def refuse_idle_patterns(peft_type: str, given: Mapping[str, Any], modules: Sequence[str]) -> None:
    """Refuses keys of rank_pattern, alpha_pattern and the like that match none of the modules that are adapted.

    PEFT takes a key as a pattern of a module's whole name or of its end (OSF of any part), and passes over others.

    Raises:
        InputError: With the key, and how the names of the modules end.
    """
    whole = "{}" if peft_type == "OSF" else r"^(.*\.)?({})$"
    patterns = {name: value for name, value in given.items() if name.endswith("_pattern")}
    for name, key in ((name, key) for name, value in patterns.items() if isinstance(value, dict) for key in value):
        try:
            is_idle = not any(re.search(whole.format(key), module) for module in modules)
        except re.error:
            is_idle = True
        if is_idle:
            ends = list(dict.fromkeys(module.rpartition(".")[2] for module in modules))
            raise InputError(
                f"method.config.{name}: {key} matches none of the modules that {peft_type} adapts here."
                f"{did_you_mean(str(key), ends)}\nTheir names end in: {', '.join(ends)}."
            )
