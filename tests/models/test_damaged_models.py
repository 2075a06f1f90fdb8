"""A damaged folder of a model (model=local) is told in words, whatever is wrong in it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.fixture_types import Compose
from helpers.local_models import words_tokenizer, write

from lora_repro.config.resolve import resolve
from lora_repro.errors import InputError, MissingInputError
from lora_repro.models.json_files import read_keys
from lora_repro.tasks import encoding
from lora_repro.training.train import build

CPU = torch.device("cpu")
DEEP = "[" * 100_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "m", "llama", words_tokenizer(pad_token="<unk>"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def used(tiny: Compose, folder: Path) -> float:
    """Loads a model and looks at four examples."""
    resolved = resolve(tiny("model=local", f"paths.model={folder}", "preset@train=tiny_llama", "train.dtype=fp32"))
    encoding._encoded.clear()
    split = encoding.encode(resolved.run, resolved.settings)["train"]
    return split.loss(build(resolved, CPU), [0, 1, 2, 3], resolved.run.train.dtype, CPU).item()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocab_size", "64"),
        ("hidden_size", [32]),
        ("num_attention_heads", None),
        ("head_dim", "x"),
        ("hidden_act", 5),
        ("hidden_act", ["silu"]),
        ("rms_norm_eps", "small"),
        ("initializer_range", "x"),
        ("initializer_range", -1),
        ("pad_token_id", "x"),
        ("pad_token_id", [0]),
        ("eos_token_id", {"a": 1}),
        ("rope_parameters", "x"),
        ("rope_parameters", {"rope_type": "unheard of"}),
        ("dtype", 5),
        ("id2label", ["a", "b"]),
        ("id2label", {"x": 1}),
        ("architectures", 3),
        ("model_type", 7),
        ("model_type", "t5"),
        ("is_decoder", "x"),
    ],
)
def test_a_wrong_value_in_the_configuration_ends_in_words_or_changes_nothing(
    key: str, value: object, tiny: Compose, folder: Path
) -> None:
    expected = used(tiny, folder)
    edit(folder / "config.json", **{key: value})
    try:
        assert used(tiny, folder) == expected
    except InputError as error:
        assert len(str(error).splitlines()) > 1 or "Known:" in str(error)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rms_norm_eps", "small"), ("pad_token_id", "x"), ("attention_dropout", "x"), ("initializer_range", None)],
)
def test_a_value_of_a_wrong_type_is_the_fault_of_the_configuration(
    key: str, value: object, tiny: Compose, folder: Path
) -> None:
    edit(folder / "config.json", **{key: value, "id2label": {"0": "a", "1": "b"}})
    with pytest.raises(
        MissingInputError, match=rf"config\.json: {key} is {json.dumps(value)} \(.*(float|int).*\)\.\nGive the"
    ) as told:
        used(tiny, folder)
    assert "tokenizer" not in str(told.value)


def test_labels_without_numbers_are_the_fault_of_the_configuration(tiny: Compose, folder: Path) -> None:
    edit(folder / "config.json", id2label=[1])
    with pytest.raises(MissingInputError, match=r"config\.json: id2label is \[1\] \(.*'items'\)\.\nGive the"):
        used(tiny, folder)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.json", "{}", "the tokenizer in .* cannot be read"),
        ("tokenizer.json", '{"model": 5}', "the tokenizer in .* cannot be read"),
        ("tokenizer.json", DEEP, r"tokenizer\.json is no JSON: it is nested deeper"),
        ("tokenizer.json", '{"model":' + "[" * 900 + "]" * 900 + "}", "cannot be read"),
        ("tokenizer_config.json", '{"tokenizer_class": 5}', "the tokenizer in .* cannot be read"),
        ("tokenizer_config.json", DEEP, "nested"),
        ("config.json", DEEP, r"config\.json is no JSON: it is nested deeper"),
        ("config.json", '{"a":' + "[" * 500 + "]" * 500 + "}", "nested"),
        ("config.json", "\x00", r"config\.json is no JSON"),
        ("config.json", "[1]", r"config\.json is not a JSON object"),
        ("model.safetensors", "", "is damaged"),
    ],
)
def test_a_damaged_file_is_named(name: str, content: str, words: str, tiny: Compose, folder: Path) -> None:
    (folder / name).write_text(content)
    with pytest.raises(MissingInputError, match=words):
        used(tiny, folder)


def test_a_deeply_nested_index_is_damaged(tiny: Compose, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(DEEP)
    with pytest.raises(MissingInputError, match=r"index\.json is damaged"):
        used(tiny, folder)


def test_a_folder_that_may_not_be_read_is_no_matter_of_the_store(
    tiny: Compose, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny("model=local", f"paths.model={folder}", "preset@train=tiny_llama")
    real = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(
        MissingInputError, match=r"paths.model: .* cannot be read: Permission denied.\nMake it readable"
    ):
        resolve(cfg)
    monkeypatch.undo()
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()  # as the system says it of any file that may not be read
    with pytest.raises(MissingInputError, match=r"config\.json cannot be read: Is a directory"):
        read_keys(folder / "config.json")


@pytest.mark.parametrize("threads", [0, -1, 1025, 2147483648])
def test_an_impossible_number_of_threads_is_refused(threads: int, tiny: Compose) -> None:
    with pytest.raises(InputError, match=r"compute\.threads: must be from 1 to 1024"):
        resolve(tiny(f"compute.threads={threads}"))
