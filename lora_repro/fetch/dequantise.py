"""Makes a folder of fp32 safetensors from a GGUF file, in a process of its own that fetch starts."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def dequantise(path: Path, folder: Path) -> None:
    """Writes weights, configuration and tokenizer; the same file gives the same bytes of weights.

    Args:
        path: A GGUF file of a language model that transformers can read.
        folder: An existing folder to fill.
    """
    given = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    model = AutoModelForCausalLM.from_pretrained(**given, dtype=torch.float32)
    tensors = {name: parameter.detach().contiguous() for name, parameter in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    AutoTokenizer.from_pretrained(**given).save_pretrained(str(folder))


if __name__ == "__main__":
    dequantise(Path(sys.argv[1]), Path(sys.argv[2]))
