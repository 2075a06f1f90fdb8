"""Trackers that say what they were asked, hang, fail or flood, in the place of wandb."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HANGS_S = 600
"""How long a tracker hangs: whoever waits for it waits as long, and others far less, on a busy machine too."""
TELLS = """
import json, os
def say(*words):
    with open(os.environ["TOLD"], "a") as file:
        file.write(json.dumps(words) + "\\n")
class Settings:
    def __init__(self, **_): pass
"""
"""How each fake begins: it tells what it is asked in the file that TOLD names."""
RECORDER = (
    TELLS
    + """
class Artifact:
    def __init__(self, *_, **__): pass
    def add_dir(self, path): say("file", path)
    add_file = add_dir
class Run:
    summary = {}
    def log(self, line, step): say("log", step, sorted(line))
    def log_artifact(self, artifact): say("artifact")
    def finish(self, exit_code=0): say("finish", exit_code)
def init(**settings):
    say("init", settings["id"], settings["mode"], settings["resume"])
    return Run()
"""
)
FAKES = {
    "hangs": f"import time\ntime.sleep({HANGS_S})\n",
    "raises": "raise RuntimeError('no tracker today')\n",
    "exits": "import sys\nsys.exit(3)\n",
    "hangs at init": RECORDER + f"def init(**_):\n    import time\n    time.sleep({HANGS_S})\n",
    "floods": "import sys\nwhile True:\n    sys.stderr.write('x' * 65536)\n    sys.stdout.write('x' * 65536)\n",
}


@contextmanager
def tracker(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Puts a tracker of the test's own in wandb's place, and gives the file of what it was told."""
    (tmp_path / "fake").mkdir(exist_ok=True)
    (tmp_path / "fake" / "wandb.py").write_text(code)
    told = tmp_path / "told"
    told.touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    monkeypatch.setenv("TOLD", str(told))
    yield told
