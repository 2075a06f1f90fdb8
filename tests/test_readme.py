import re
import shlex
import subprocess
import sys
from pathlib import Path

from lora_repro.config.catalogue import HOME
from lora_repro.config.compose import compose
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve

SMOKE = {
    "model=minilm": "model=tiny_bert",
    "task=movies": "task=generated",
    "scale=demo": "scale=smoke",
    "--scale demo": "--scale smoke",
    "--model minilm --budget 73728": "--model tiny_bert --budget 1024",
    "fetch minilm movies": "fetch tiny_bert generated",
}
"""What makes of a command of docs/running.md the same command at smoke scale."""


def test_daily_commands_run_at_smoke_scale(tmp_path: Path) -> None:
    """All commands of the section on daily use, one after the other, from another directory."""
    text = (HOME / "docs" / "running.md").read_text().partition("## Daily commands")[2]
    block = re.search(r"```bash\n(.*?)```", text, re.DOTALL)
    assert block is not None
    commands = [line for line in block[1].splitlines() if line and not line.startswith("#")]
    assert len(commands) >= 10 and all(command.startswith("python -m ") for command in commands)
    for command in commands:
        smoke = command
        for full, small in SMOKE.items():
            smoke = smoke.replace(full, small)
        assert "minilm" not in smoke and "movies" not in smoke, "a command that this test would run at full size"
        done = subprocess.run(
            [sys.executable, *shlex.split(smoke)[1:]], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, f"{smoke}\n{done.stderr}"
    assert len(list(tmp_path.glob("outputs/runs/*/result.json"))) > 20


def test_readme_names_only_files_that_exist() -> None:
    text = (HOME / "README.md").read_text()
    named = re.findall(r"`((?:conf|sweeps|lora_repro|analysis|hydra_plugins|tests)/[\w./]*)`", text)
    assert len(named) > 5
    for name in named:
        assert (HOME / name).exists(), name


def test_readme_holds_no_placeholder_and_shows_the_papers_numbers_beside_ours() -> None:
    text = (HOME / "README.md").read_text()
    assert "<!--" not in text and not re.search(r"\b(TODO|TABLE|HEAD_[A-Z]+)\b", text)
    assert not [path.name for path in (HOME / "conf").rglob("*.yaml") if "TODO" in path.read_text()]
    assert run_id(resolve(compose([])).run) in text
    assert "demo, not judged" in text and "| 73.4 " in text and "n=2" in text
