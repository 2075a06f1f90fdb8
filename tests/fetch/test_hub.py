"""Models by the hub's commit are downloaded from a hub on this machine, by the program that users run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.fake_hub import COMMIT, serving, snapshot
from helpers.waiting import PATIENCE_S

from lora_repro.config.catalogue import HOME
from lora_repro.config.schema import load_group
from lora_repro.errors import MissingInputError
from lora_repro.fetch import hub

NAME, REPOSITORY = "cerebras_111m", "cerebras/Cerebras-GPT-111M"


def fetch(home: Path, *names: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the program as a user would, with a hub's cache of its own."""
    return subprocess.run(
        [sys.executable, "-m", "lora_repro.fetch", *names],
        capture_output=True, text=True, check=False, cwd=HOME, timeout=PATIENCE_S,
        env=os.environ | {"HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"} | variables,
    )  # fmt: skip


def test_a_fetched_model_has_what_a_run_reads_once_and_what_it_takes_is_said_first(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    snapshot(folder, "cerebras-gpt", "whole")
    for name in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "README.md"):
        (folder / name).write_bytes(b"another form of the weights")
    wanted = ["config.json", "merges.txt", "model.safetensors", "vocab.json"]
    home = tmp_path / "home"
    with serving({REPOSITORY: {COMMIT: folder}}) as served:
        first = fetch(home, NAME, HF_ENDPOINT=served.endpoint)
        assert first.returncode == 0, first.stderr
        assert sorted(served.downloaded) == wanted
        cost, done = first.stderr.splitlines()
        assert cost.startswith(f"{NAME}: 111 million weights, about 0.4 GB of memory while a run reads them")
        assert f"to download from {REPOSITORY} at d2b54d7, into {home}/hub" in cost
        snapshot_folder = home / "hub" / "models--cerebras--Cerebras-GPT-111M" / "snapshots" / COMMIT
        assert done == f"{NAME}: fetched ({snapshot_folder})"
        assert sorted(path.name for path in snapshot_folder.iterdir()) == wanted
        again = fetch(home, NAME, HF_ENDPOINT=served.endpoint)
        assert again.stderr == f"{NAME}: present ({snapshot_folder})\n" and sorted(served.downloaded) == wanted


@pytest.mark.parametrize(
    ("repositories", "variables", "words"),
    [
        ({}, {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set, so"),
        ({}, {"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 does not answer ("),
        ({}, {}, f"has no repository {REPOSITORY}, or access to it is restricted"),
        ({REPOSITORY: {"0" * 40: "whole"}}, {}, f"{REPOSITORY} has no commit {COMMIT}"),
        ({REPOSITORY: {COMMIT: "bare"}}, {}, f"{REPOSITORY} holds no weights at {COMMIT}"),
    ],
)
def test_a_hub_that_has_it_not_is_told_at_once_in_a_few_lines(
    tmp_path: Path, repositories: dict[str, dict[str, str]], variables: dict[str, str], words: str
) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}")
    (tmp_path / "whole").mkdir()
    with serving(
        {name: {at: tmp_path / of for at, of in all_.items()} for name, all_ in repositories.items()}
    ) as served:
        done = fetch(tmp_path / "home", NAME, **{"HF_ENDPOINT": served.endpoint, **variables})
    assert done.returncode == 1 and done.stdout == ""
    assert words in done.stderr and done.stderr.startswith(f"Error: model {NAME}: {REPOSITORY} from the hub: ")
    assert f"paths.model=.../snapshots/{COMMIT}" in done.stderr and "model=local paths.model=DIR" in done.stderr
    assert len(done.stderr.splitlines()) <= 4 and "Retry" not in done.stderr


def test_a_disk_that_is_too_small_is_told_before_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_group("model", "opt_66b")
    sizes = {"config.json": 651, "merges.txt": 456_318, "vocab.json": 898_822, "pytorch_model.bin": 131_439_403_008}
    monkeypatch.setattr(hub, "_listing", lambda _: sizes)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 9 * 10**11, 10**11))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(MissingInputError, match=r"opt-66b takes 131\.4 GB, and .* has 100\.0 GB free\.\n.*HF_HOME=DIR"):
        hub.download(config)
