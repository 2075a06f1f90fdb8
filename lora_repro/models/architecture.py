"""Reads the architecture of a model that no function here counts from its folder.

For a decoder with a single layer as its head the headers of the weights' files are enough, and torch is not imported.
For any other model transformers' class is built on the device "meta", which allocates no memory for weights.
"""

from collections.abc import Mapping
from functools import lru_cache
from json import dumps, loads
from pathlib import Path
from typing import Any, NoReturn

from lora_repro.errors import InputError
from lora_repro.models.arch import HOW_TO_ADD, Blueprint, Shape, is_counted
from lora_repro.models.arch.listing import matrices
from lora_repro.models.weights import shapes_in, weight_files

_HEADS = {"score.weight", "lm_head.weight", "lm_head.bias"}
"""The tensors outside the backbone in the files of a decoder."""


def read_blueprint(folder: Path, config: Mapping[str, Any], num_labels: int | None) -> dict[str, Any]:
    """Returns what `ModelConfig.blueprint` holds; nothing for an architecture that a function here counts.

    Args:
        folder: A folder of the user's, already identified.
        config: The keys of its config.json.
        num_labels: Width of the head's output; None of a language model.

    Raises:
        InputError: If transformers has no class for it, or what must be known of the class is not; with the list of
            its matrices.
    """
    return (
        {} if is_counted(config) else _blueprint(folder, dumps(dict(config), sort_keys=True, default=str), num_labels)
    )


@lru_cache(maxsize=8)
def _blueprint(folder: Path, config_json: str, num_labels: int | None) -> dict[str, Any]:
    config, files = loads(config_json), weight_files(folder)
    shapes = shapes_in(files)
    found = from_headers(config, shapes, num_labels) if shapes is not None else None
    if found is None:
        from lora_repro.models.meta import Unreadable, build

        try:
            found = build(folder / "config.json", config, num_labels)
        except Unreadable as error:
            _refuse(config, str(error), shapes, files[0])
    return found.to_dict()


def _refuse(config: Mapping[str, Any], why: str, shapes: Mapping[str, Shape] | None, weights: Path) -> NoReturn:
    """Refuses an architecture with the list of its matrices.

    Raises:
        InputError: Always.
    """
    if shapes is None:
        listed = [f"{weights} is a pickle, whose matrices cannot be listed: save_pretrained writes safetensors."]
    else:
        listed = [f"Matrices in {weights}:", *(f"  {line}" for line in matrices(shapes))]
    family = str(config.get("model_type"))
    raise InputError("\n".join([f"model: {family} (model_type in config.json): {why}", *listed, HOW_TO_ADD]))


def from_headers(config: Mapping[str, Any], shapes: Mapping[str, Shape], num_labels: int | None) -> Blueprint | None:
    """Returns the blueprint that follows from the headers of the weights' files; None if they are not enough.

    They are enough for a language model whose tensors belong to one backbone and an output layer. As a classifier
    transformers gives it a bias-free layer, `score`, over the last token.
    """
    names = [name for name in shapes if not name.endswith(".inv_freq")]  # a buffer that old versions saved
    classes = config.get("architectures")
    numbers = [config.get(key) for key in ("hidden_size", "num_attention_heads", "max_position_embeddings")]
    vocabulary = config.get("vocab_size")
    backbone = {name: shapes[name] for name in names if name not in _HEADS}
    if (
        not (isinstance(classes, list) and len(classes) == 1 and str(classes[0]).endswith("ForCausalLM"))
        or config.get("is_encoder_decoder")
        or {"text_config", "vision_config", "quantization_config"} & config.keys()
        or len({name.partition(".")[0] for name in backbone}) != 1
        or any("expert" in name for name in names)
        or not all(type(number) is int and number > 0 for number in (*numbers, vocabulary))
    ):
        return None
    d_model, heads, positions = (int(number) for number in numbers if number is not None)
    head: tuple[str, ...] = ()
    if num_labels is not None:
        head, backbone["score.weight"] = ("score",), (num_labels, d_model)
    else:
        output = {name: shapes[name] for name in names if name.startswith("lm_head.")}
        if "lm_head.weight" in output and config.get("tie_word_embeddings") is None:  # the class decides
            return None
        if config.get("tie_word_embeddings"):
            output.pop("lm_head.weight", None)
        backbone |= output
    width = config.get("head_dim") or d_model // heads
    return Blueprint(backbone, head, d_model, heads, heads * width, positions, int(vocabulary or 0), is_decoder=True)
