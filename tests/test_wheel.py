"""The wheel works from any directory, with nothing of the checkout within reach. It is built by way of the sdist."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("lora_repro", "analysis", "hydra_plugins")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is unpacked into."""
    dist, site = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run(site: Path, cwd: Path, *arguments: str) -> str:
    """Runs Python with the wheel and the dependencies, and returns what it prints.

    With -S no .pth file is read, so that the checkout's editable installation cannot hide what the wheel lacks.
    """
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), sysconfig.get_path("purelib")])}
    command = [sys.executable, "-S", *arguments]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(folder: Path, *suffixes: str) -> set[str]:
    """Returns the files below a folder by their paths in it, without conf/local/, which belongs to a machine."""
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in suffixes}
    return {path for path in paths if not path.startswith("local/")}


@pytest.mark.parametrize("package", PACKAGES)
def test_wheel_holds_all_modules(site: Path, package: str) -> None:
    modules = files(ROOT / package, ".py")
    assert modules
    assert files(site / package, ".py") == modules


@pytest.mark.parametrize(
    ("here", "there"), [("conf", "lora_repro/conf"), ("sweeps", "lora_repro/sweeps"), ("analysis", "analysis")]
)
def test_wheel_holds_all_yaml(site: Path, here: str, there: str) -> None:
    settings = files(ROOT / here, ".yaml")
    assert settings
    assert files(site / there, ".yaml") == settings


def test_wheel_holds_nothing_else(site: Path) -> None:
    (metadata,) = site.glob("lora_repro-*.dist-info")
    assert {path.name for path in site.iterdir()} == {*PACKAGES, metadata.name}
    assert files(metadata / "licenses", "") == {"LICENSE"}


def test_console_scripts_come_from_the_wheel(site: Path, tmp_path: Path) -> None:
    code = """
import sys
from importlib.metadata import entry_points
for name in ("lora-repro", "lora-analysis"):
    (script,) = entry_points(group="console_scripts", name=name)
    print(sys.modules[script.load().__module__].__file__)
print(*sys.path, sep="\\n")
"""
    repro, analysis, *path = run(site, tmp_path, "-c", code).splitlines()
    assert Path(repro) == site / "lora_repro" / "__main__.py"
    assert Path(analysis) == site / "analysis" / "__main__.py"
    assert str(ROOT) not in path


def test_configuration_is_printed_in_another_directory(site: Path, tmp_path: Path) -> None:
    assert "targets:" in run(site, tmp_path, "-m", "lora_repro", "--cfg", "job")
    assert list(tmp_path.iterdir()) == []


def test_sweep_runs_in_another_directory(site: Path, tmp_path: Path) -> None:
    one_job = ["scale=smoke", "seed=0", "method.r=1", "method.targets=[q]", "train.max_steps=2"]
    run(site, tmp_path, "-m", "lora_repro", "-m", "+sweeps=table6", *one_job)
    (result,) = tmp_path.glob("outputs/runs/*/result.json")
    assert "tiny_bert-generated-lora-r1-q-s0" in result.parent.name
