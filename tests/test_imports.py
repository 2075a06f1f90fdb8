"""Imports point one way, and what is typed daily never waits for torch."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "transformers", "datasets", "evaluate", "wandb", "pandas", "matplotlib", "scipy", "pyarrow"}


@cache
def imports(path: Path, functions: bool = True) -> list[str]:
    """Returns the dotted names that a file imports: `lora_repro.tasks`, `lora_repro.tasks.FAMILIES`.

    Args:
        path: The file.
        functions: Wherever in it, functions included; otherwise only at its top.
    """
    return list(_imports(path, functions))


def _imports(path: Path, functions: bool) -> Iterator[str]:
    package = list(path.relative_to(ROOT).parent.parts)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if functions else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module is not None else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def importers(folder: str, target: str) -> set[str]:
    """Returns the files below a folder that import a module or anything below it."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths, f"no Python files in {folder}"
    found = {path for path in paths if any(f"{name}.".startswith(f"{target}.") for name in imports(path))}
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_the_walk_sees_imports_at_the_top_in_functions_and_by_from() -> None:
    assert {"lora_repro/__main__.py", "lora_repro/sweep/campaign.py"} <= importers(
        "lora_repro", "lora_repro.training.job"
    )
    assert "lora_repro/training/job.py" in importers("lora_repro", "lora_repro.training.train")
    assert "hydra_plugins/lora_repro_sweeper.py" in importers("hydra_plugins", "lora_repro.sweep.grid")


@pytest.mark.parametrize(
    ("folder", "target"),
    [
        ("lora_repro", "analysis"),
        ("hydra_plugins", "analysis"),
        ("lora_repro/methods", "lora_repro.tasks"),
        ("lora_repro/tasks", "lora_repro.methods"),
        ("analysis/section7", "analysis.render"),
        ("analysis/adapters", "analysis.render"),
    ],
)
def test_no_import_points_back(folder: str, target: str) -> None:
    assert importers(folder, target) == set()


def test_only_the_command_line_imports_its_commands() -> None:
    imported = importers("analysis", "analysis.commands")
    assert "analysis/__main__.py" in imported
    assert {name for name in imported if not name.startswith("analysis/commands/")} == {"analysis/__main__.py"}


ORDER = [
    {"errors", "draw", "terminal", "environment", "config.identity"},
    {"models.arch"},
    {"config", "costs", "methods", "models", "store", "tasks"},
    {"mirror"},
    {"training", "machine", "interrupt", "library"},
    {"sweep"},
    {"cli", "doctor", "fetch", "bench", "__main__"},
]
"""What may import what is in its own set or in one before it, where a module is loaded; functions may import more."""
AGAINST_THE_ORDER = {
    ("config", "machine"),  # the cores that this process may use
    ("machine", "sweep"),  # the cores that Slurm grants
    ("interrupt", "sweep"),  # whether Slurm is to requeue
}


def test_packages_are_imported_in_their_order() -> None:
    def part(name: str) -> str:
        own = name.removeprefix("lora_repro.")
        return next(
            (two for two in ("config.identity", "models.arch") if f"{own}.".startswith(f"{two}.")), own.split(".")[0]
        )

    place = {name: number for number, names in enumerate(ORDER) for name in names}
    pairs = set()
    for path in (ROOT / "lora_repro").rglob("*.py"):
        own = part(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
        for name in imports(path, functions=False):
            if name.startswith("lora_repro.") and (other := part(name)) in place and own in place:
                pairs.add((own, other))
    assert ("training", "tasks") in pairs and ("sweep", "training") in pairs
    assert {(own, other) for own, other in pairs if place[other] > place[own]} <= AGAINST_THE_ORDER


def test_lora_is_known_in_its_own_folder_and_nowhere_else() -> None:
    imported = importers("lora_repro", "lora_repro.methods.lora")
    imported |= importers("lora_repro", "lora_repro.methods.LoRAConfig")
    word = re.compile(r"lora_?(config|update|a\b|b\b|layers)|isinstance\(.*LoRA", re.IGNORECASE)
    files = (ROOT / "lora_repro").rglob("*.py")
    named = {path.relative_to(ROOT).as_posix() for path in files if word.search(path.read_text(encoding="utf-8"))}
    own = {name for name in imported & named if name.startswith("lora_repro/methods/lora/")}
    assert {"lora_repro/methods/lora/layers.py", "lora_repro/methods/lora/files.py"} <= own
    assert {name for name in imported | named if not name.startswith("lora_repro/methods/lora/")} == {
        "lora_repro/methods/__init__.py",  # the registry
        "lora_repro/library.py",  # attach_lora
        "lora_repro/methods/peft/eva.py",  # PEFT's own LoRA
        "lora_repro/bench/sides/adapters.py",  # PEFT's and loralib's LoRA, which are measured beside ours
        "lora_repro/bench/demo.py",  # which tells a script of PEFT what a run's LoRA is
        "lora_repro/bench/one_run_with_peft.py",  # that script
        "lora_repro/methods/peft/not_offered.py",  # which names keys of PEFT's LoRA
    }


def test_only_the_mirror_imports_wandb() -> None:
    assert importers("lora_repro", "wandb") <= {"lora_repro/mirror/tracked_run.py"}
    assert importers("hydra_plugins", "wandb") == importers("analysis", "wandb") == set()


def test_analysis_imports_torch_only_for_files_of_torch() -> None:
    assert importers("analysis", "torch") == {"analysis/adapters/pickled.py"}
    assert importers("analysis", "analysis.adapters.pickled") == {"analysis/adapters/tensors.py"}  # in a function
    assert importers("analysis", "transformers") == set()


def test_runs_are_composed_counted_and_planned_without_torch() -> None:
    code = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from hydra import compose, initialize_config_dir
from lora_repro.config.catalogue import HOME
from lora_repro.config.identity import run_id
from lora_repro.config.resolve import resolve
from lora_repro.sweep.grid import load
with initialize_config_dir(str(HOME / "conf"), version_base="1.3"):
    def composed(overrides):
        return compose("config", overrides)
    run = resolve(composed(["method.r=8", "method.targets=[q,v]"])).run
    print(run_id(run))
    print(run.method.count(run.arch).method)
    print(len(load(composed, ["+sweeps=table6", "scale=smoke"]).jobs))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    name, method_parameters, jobs = done.stdout.split()
    assert name.startswith("minilm-movies-lora-r8-qv-s0-")
    assert int(method_parameters) == 6 * 2 * 8 * (384 + 384)  # layers, matrices, r, d_in + d_out
    assert int(jobs) == 8


@pytest.mark.parametrize("arguments", [["-m", "lora_repro", "--cfg", "job"], ["-m", "lora_repro", "--help"]])
def test_printing_the_configuration_imports_nothing_heavy(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "method" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert {"lora_repro.config.schema", "omegaconf"} <= imported
    assert HEAVY & {name.partition(".")[0] for name in imported} == set()
