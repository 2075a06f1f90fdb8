"""What --out and --html write: only plain files, never in a record, an adapter or a model."""

import os
from pathlib import Path

import pytest
from helpers.commands import call
from helpers.fixture_types import Captured
from helpers.handmade_adapters import factors, write_peft

from analysis.output import write_output
from lora_repro.errors import InputError


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_peft(tmp_path / "a", factors(r=2, seed=0))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("flag", ["--out", "--html"])
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("a", "is a folder"),
        ("a/adapter_config.json", "an adapter's folder"),
        ("a/adapter_model.safetensors", "an adapter's folder"),
        ("a/page.html", "an adapter's folder"),
        ("a/deeper/page.html", "an adapter's folder"),
        ("out/runs/tiny_bert-x-lora-s0-0123456789/result.json", "a run's directory"),
        ("out/runs/tiny_bert-x-lora-s0-0123456789/new.md", "a run's directory"),
        ("copied/new.md", "a run's directory"),
        ("model/new.md", "a model's folder"),
        ("link", "is a link"),
        ("dangling", "is a link"),
        ("pipe", "is a pipe"),
        ("/dev/null", "is a pipe, a device"),
        ("none/there.md", "cannot be written (No such file or directory)"),
        ("", "no file is given"),
    ],
)
def test_nothing_is_written_into_folders_of_others_or_anything_but_a_plain_file(
    flag: str, place: str, words: str, adapter: Path, tmp_path: Path, capsys: Captured
) -> None:
    (adapter / "deeper").mkdir()
    run = tmp_path / "out" / "runs" / "tiny_bert-x-lora-s0-0123456789"
    for folder, names in (
        (run, ["result.json"]),
        (tmp_path / "copied", ["config.yaml", "result.json"]),
        (tmp_path / "model", ["config.json", "model.safetensors"]),
    ):
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_text('{"run_id": 1}')
    (tmp_path / "notes.md").write_text("# Mine\n")
    (tmp_path / "link").symlink_to(tmp_path / "notes.md")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    before = contents(tmp_path)
    given = place and (place if place.startswith("/") else str(tmp_path / place))
    form = "json" if "json" in place else "md"
    code, _, err = call(capsys, "compare", adapter, adapter, "--format", form, flag, given)
    assert code == 1 and words in err and flag in err and len(err.splitlines()) <= 3
    assert contents(tmp_path) == before and not (tmp_path / "nothing").exists()


def test_a_file_is_replaced_and_two_options_name_two(adapter: Path, tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "written"
    file.write_text("old")
    code, out, err = call(capsys, "inspect", adapter, "--format", "json", "--out", file)
    assert code == 0 and not out and f"Written: {file}" in err and file.read_text().startswith("[\n{")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "written"]
    code, _, err = call(capsys, "compare", adapter, adapter, "--out", file, "--html", file)
    assert code == 1 and "is written by --html too" in err


def test_a_failed_write_leaves_what_was_there_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "table.md"
    write_output("--out", str(file), "old\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_output("--out", str(file), "new")
    assert file.read_text() == "old\n" and list(tmp_path.iterdir()) == [file]
