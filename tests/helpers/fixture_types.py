"""Types of what fixtures give to a test."""

from collections.abc import Callable

import pytest
from omegaconf import DictConfig

Compose = Callable[..., DictConfig]
"""`tiny`: composes a tiny run, with more overrides."""
Captured = pytest.CaptureFixture[str]
"""`capsys`."""
