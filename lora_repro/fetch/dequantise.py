"""Makes a folder of fp32 safetensors from a GGUF file, in a process of its own that fetch starts.

transformers' from_pretrained holds all weights in memory, 9 GB of a model of 1.8 billion. Here they are dequantised and
written one by one, by the same functions, so that memory must hold the largest of them alone.
"""

import json
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
    read_field,
)

from lora_repro.models.arch import Shape


def dequantise(path: Path, folder: Path) -> None:
    """Writes weights, configuration and tokenizer; the same file gives the same bytes of weights.

    Args:
        path: A GGUF file of a language model that transformers can read.
        folder: An existing folder to fill.
    """
    given = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    config = AutoConfig.from_pretrained(**given)
    write_weights(path, config, folder / "model.safetensors")
    keys = {key: value for key, value in config.to_dict().items() if key != "quantization_config"}
    (folder / "config.json").write_text(json.dumps(keys, indent=2, sort_keys=True) + "\n")
    AutoTokenizer.from_pretrained(**given).save_pretrained(str(folder))


def write_weights(path: Path, config: PretrainedConfig, target: Path) -> None:
    """Writes the weights of a language model to a file of safetensors, one after the other.

    Args:
        path: The GGUF file.
        config: The configuration of the model that it holds.
        target: The file to write.

    Raises:
        ValueError: If the file lacks a weight, or has one of another shape.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    reader = GGUFReader(path)
    architecture = str(read_field(reader, "general.architecture")[0])
    kind = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
    processor = kind(config=config.to_dict())
    names = get_gguf_hf_weights_map(model, processor)
    with target.open("wb") as stream:
        places = _begin(stream, shapes)
        for tensor in reader.tensors:
            found = processor.process(
                weights=dequantize(tensor.data, tensor.tensor_type),
                name=tensor.name,
                tensor_key_mapping=names,
                parsed_parameters={},
            )
            name = names.get(found.name)
            if name not in places:
                continue
            if found.weights.shape != shapes[name]:
                raise ValueError(f"{tensor.name} has shape {found.weights.shape}, expected {shapes[name]}")
            stream.seek(places.pop(name))
            stream.write(np.ascontiguousarray(found.weights, dtype=np.float32).data)
    if places:
        raise ValueError(f"{len(places)} weights are not in the file, the first is {min(places)}")


def _begin(stream: BinaryIO, shapes: dict[str, Shape]) -> dict[str, int]:
    """Writes the header of a file of safetensors, and returns where each tensor begins."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts, end = {}, 0
    for name, shape in sorted(shapes.items()):
        starts[name], end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [starts[name], end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little") + text)
    return {name: stream.tell() + start for name, start in starts.items()}


if __name__ == "__main__":
    dequantise(Path(sys.argv[1]), Path(sys.argv[2]))
