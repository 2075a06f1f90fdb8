"""Adapters made by numpy alone: what a test must know of them is their factors."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

Factors = dict[tuple[int, str], tuple[np.ndarray, np.ndarray]]
"""A and B by layer and letter."""


def factors(r: int, seed: int, layers: int = 2, roles: Sequence[str] = "qv", d: int = 24) -> Factors:
    """Draws factors whose directions have an order: each row of A is weaker than the one before."""
    rng = np.random.default_rng(seed)
    weaker = 0.8 ** np.arange(r)
    return {
        (layer, role): (
            (rng.normal(size=(r, d)) * weaker[:, None]).astype(np.float32),
            rng.normal(size=(d, r)).astype(np.float32),
        )
        for layer in range(layers)
        for role in roles
    }


def write_peft(
    folder: Path, made: Factors, alpha: float = 8, module: str = "model.layers.{}.self_attn.{}_proj"
) -> Path:
    """Writes factors as PEFT does."""
    folder.mkdir(parents=True)
    tensors = {}
    for (layer, role), pair in made.items():
        for name, factor in zip("AB", pair, strict=True):
            tensors[f"base_model.model.{module.format(layer, role)}.lora_{name}.weight"] = factor
    save_file(tensors, folder / "adapter_model.safetensors")
    r = len(next(iter(made.values()))[0])
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": r, "lora_alpha": alpha}))
    return folder


def write_loralib(path: Path, made: Factors, module: str = "model.layers.{}.self_attn.{}_proj") -> Path:
    """Writes factors under loralib's names."""
    save_file(
        {
            f"{module.format(layer, role)}.lora_{name}": factor
            for (layer, role), pair in made.items()
            for name, factor in zip("AB", pair, strict=True)
        },
        path,
    )
    return path


def write_large(path: Path, r: int, d: int, layers: int, block: np.ndarray, deficient: bool = False) -> None:
    """Writes q and v of many wide layers in fp32 without holding them: every matrix is another piece of one block.

    In a deficient one, every column of the second half of B is one of the first.
    """
    header, end = {}, 0
    for layer in range(layers):
        for role in "qv":
            for name, shape in (("A", [r, d]), ("B", [d, r])):
                entry = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + 4 * r * d]}
                header[f"model.layers.{layer}.self_attn.{role}_proj.lora_{name}"] = entry
                end += 4 * r * d
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for index in range(len(header)):
            begin = 997 * index % (block.size - r * d)
            piece = block[begin : begin + r * d].copy()
            if deficient and index % 2:
                B = piece.reshape(d, r)
                B[:, r // 2 :] = B[:, : r - r // 2]
            file.write(piece.tobytes())
