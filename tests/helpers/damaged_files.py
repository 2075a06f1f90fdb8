"""Folders and files that are wrong, each in one way: adapters, models, results, data. Built without torch."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models

from lora_repro.models.arch import arch_of

TINY_BERT = {
    "model_type": "bert",
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "pad_token_id": 0,
}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BOMB = "exploded"
"""The name of the file that appears when a pickle is read."""

Tensors = dict[str, np.ndarray]


class Bomb:
    """Creates a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        """Returns the call that reading the pickle makes."""
        return open, (str(self.path), "w")


def bomb(path: Path, files: Path) -> None:
    """Writes a pickle that creates `files / BOMB`."""
    path.write_bytes(pickle.dumps(Bomb(files / BOMB)))


def change_json(path: Path, **changes: object) -> None:
    """Changes keys of a JSON file; None takes a key out."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def change_tensors(path: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Changes the tensors of a file."""
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def fill_first(value: float) -> Callable[[Tensors], Tensors]:
    """Returns a change that puts a value into the first place of the first tensor by name."""

    def change(tensors: Tensors) -> Tensors:
        tensors[min(tensors)].flat[0] = value
        return tensors

    return change


def cut(path: Path) -> None:
    """Leaves the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def adapters(files: Path, whole: Path) -> None:
    """Builds PEFT folders from a whole one, named by what is wrong."""

    def fake(name: str) -> Path:
        return Path(shutil.copytree(whole, files / "adapters" / name))

    config, weights = "adapter_config.json", "adapter_model.safetensors"
    for name, changes in {
        "rank": {"r": 4},
        "alpha": {"lora_alpha": 99},
        "rslora": {"use_rslora": True},
        "prompt": {"peft_type": "PROMPT_TUNING"},
    }.items():
        change_json(fake(name) / config, **changes)
    for name, change in {
        "lacks": lambda tensors: {
            key: tensors[key] for key in tensors if key != min(k for k in tensors if "lora" in k)
        },
        "extra": lambda tensors: tensors | {"base_model.model.other.lora_A.weight": np.zeros((8, 32), np.float32)},
        "nan": fill_first(float("nan")),
    }.items():
        change_tensors(fake(name) / weights, change)
    (fake("no_json") / config).write_text("{r: 8")
    cut(fake("cut") / weights)
    (fake("no_config") / config).unlink()
    pickled = fake("pickle")
    (pickled / weights).unlink()
    bomb(pickled / "adapter_model.bin", files)


def strangers(files: Path) -> None:
    """Writes files that are no adapters, or bad ones, named by what is wrong; `good` is not wrong."""
    folder = files / "strange"
    folder.mkdir()
    query, key = ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj")
    A, B = np.ones((2, 8), np.float32), np.ones((8, 2), np.float32)
    hostile = '=HYPERLINK("x")\u202e<script>alert(1)</script>../../\\input{x}\x1b[2J'
    for name, tensors in {
        "good": {f"{query}.lora_A": A, f"{query}.lora_B": B},
        "key": {f"{key}.lora_A": A, f"{key}.lora_B": B},
        "wide": {f"{query}.lora_A": np.ones((2, 16), np.float32), f"{query}.lora_B": B},
        "no_rank": {f"{query}.lora_A": A[:0], f"{query}.lora_B": B[:, :0]},
        "misfit": {f"{query}.lora_A": A, f"{query}.lora_B": np.ones((8, 3), np.float32)},
        "vector": {f"{query}.lora_A": A[0], f"{query}.lora_B": B},
        "hostile": {f"{hostile}.lora_A": A},
        "whole_numbers": {f"{query}.lora_A": A.astype(np.int8), f"{query}.lora_B": B.astype(np.int8)},
        "other": {"some.weight": A},
        "zero": {f"{query}.lora_A": A, f"{query}.lora_B": 0 * B},
    }.items():
        save_file(tensors, folder / f"{name}.safetensors")
    (folder / "empty.safetensors").write_bytes(b"")
    bomb(folder / "bomb.pt", files)
    bomb(folder / "bomb.safetensors", files)


def bases(files: Path) -> None:
    """Builds models as transformers saves them, named by what is wrong with them; `whole` is not wrong."""
    whole = files / "models" / "whole"
    whole.mkdir(parents=True)
    (whole / "config.json").write_text(json.dumps(TINY_BERT))
    arch = arch_of(TINY_BERT, 2)
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(0, 0.02, shape).astype(np.float32)
        for name, shape in arch.parameters.items()
        if not arch.is_head(name)
    }
    save_file(tensors, whole / "model.safetensors", metadata={"format": "pt"})
    roles = [chr(ord("a") + i) for i in range(26)]
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *roles, *(f"##{role}" for role in roles)])}
    Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")).save(str(whole / "tokenizer.json"))
    (whole / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))

    def fake(name: str) -> Path:
        return Path(shutil.copytree(whole, files / "models" / name))

    for name, changes in {
        "no_key": {"intermediate_size": None},
        "no_type": {"model_type": None},
        "zero": {"hidden_size": 0},
        "layers": {"num_hidden_layers": 10**9},
        "wide": {"intermediate_size": 10**6},
        "heads": {"num_attention_heads": 5},
        "act": {"hidden_act": "magic"},
        "code": {"auto_map": {"AutoConfig": "code.Config", "AutoModelForSequenceClassification": "code.Model"}},
    }.items():
        change_json(fake(name) / "config.json", **changes)
    (files / "models" / "code" / "code.py").write_text(f"open({str(files / BOMB)!r}, 'w')\n")
    own = fake("tokenizer_code")
    change_json(own / "tokenizer_config.json", tokenizer_class="Mine", auto_map={"AutoTokenizer": ["code.Mine", None]})
    (own / "code.py").write_text(f"open({str(files / BOMB)!r}, 'w')\n")
    some = min(tensors)
    for name, change in {
        "shape": lambda tensors: tensors | {some: tensors[some][..., :5]},
        "lacks": lambda tensors: {key: value for key, value in tensors.items() if key != some},
        "nan": fill_first(float("nan")),
    }.items():
        change_tensors(fake(name) / "model.safetensors", change)
    pickled = fake("pickle")
    (pickled / "model.safetensors").unlink()
    bomb(pickled / "pytorch_model.bin", files)
    with (pickled / "pytorch_model.bin").open("ab") as file:
        file.write(bytes(100_000))  # as large as the weights it pretends to be
    disguised = fake("disguised")
    bomb(disguised / "model.safetensors", files)
    (fake("bad_tokenizer") / "tokenizer.json").write_text('{"model": {"type"')


def damage_result(folder: Path, how: str) -> None:
    """Damages the result.json of a run's directory: of a new schema, without finite values, or a folder."""
    path = folder / "result.json"
    result = json.loads(path.read_text())
    if how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "schema":
        path.write_text(json.dumps(result | {"schema": 99}))
    else:
        path.write_text(json.dumps(result | {"metrics": result["metrics"] | {"eval/accuracy": float("nan")}}))


def data(files: Path) -> None:
    """Writes files that are no archive of ratings, and a few that are no folder."""
    (files / "text").write_text("not a folder")
    (files / "cut.tar.gz").write_bytes(b"\x1f\x8b\x08\x00half of it")
    bomb(files / "data.pkl", files)
    (files / "empty").mkdir()
