"""Stand-in, to be replaced."""

from pathlib import Path

from lora_repro.config import Circumstances


def begin(folder: Path, circumstances: Circumstances) -> None:
    """Nothing yet."""


def end(folder: Path, circumstances: Circumstances) -> None:
    """Nothing yet."""
