"""What the metrics of texts need beside Python: packages of the extra `text`, and Java with two programs in one."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import metadata, util
from pathlib import Path

from lora_repro.errors import MissingInputError, shown

JAVA = "java"
"""Among what a metric needs: a Java runtime."""

MODULES = {
    "sacrebleu": "sacrebleu",
    "pycocoevalcap": "pycocoevalcap",
    "pyter3": "pyter",
    "rouge-score": "rouge_score",
    "nltk": "nltk",
}
"""The packages by their distributions, and what they are imported as."""

METEOR = Path("meteor", "meteor-1.5.jar")
TOKENIZER = Path("tokenizer", "stanford-corenlp-3.4.1.jar")
"""The two programs, as pycocoevalcap ships them."""

INSTALL_PACKAGES = "pip install 'lora_repro[text]'"
INSTALL_JAVA = (
    "Install a runtime, version 8 or later: apt-get install default-jre-headless, conda install openjdk or "
    "brew install openjdk. Where it is not on the PATH, let JAVA_HOME name its folder."
)

SETTINGS = ("-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US")
"""METEOR reads its own numbers back by the locale: where a comma stands for the point, it stops at the first."""


def refuse_missing(needed: Iterable[str], what: str) -> None:
    """Refuses to go on without a package or Java; takes half a second where Java is needed.

    Args:
        needed: Distributions of MODULES, and JAVA.
        what: What needs them, for the message: "METEOR".

    Raises:
        MissingInputError: With the command that installs what is missing.
    """
    names = dict.fromkeys(needed)
    if missing := [name for name in names if name != JAVA and util.find_spec(MODULES[name]) is None]:
        raise MissingInputError(
            f"{what}: needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.\n"
            f"Install it: {INSTALL_PACKAGES}"
        )
    if JAVA in names:
        java_version(what)


@cache
def java_version(what: str = "METEOR") -> str:
    """Returns the version of the Java that is found, such as 17.0.15, by running it.

    Raises:
        MissingInputError: If there is none, or it does not run.
    """
    program = _java()
    if program is None:
        raise MissingInputError(f"{what}: needs Java, and there is no program java on the PATH.\n{INSTALL_JAVA}")
    try:
        done = subprocess.run([program, "-version"], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingInputError(f"{what}: needs Java, and {program} does not run ({error}).\n{INSTALL_JAVA}") from error
    lines = [line for line in done.stderr.decode(errors="replace").splitlines() if "version" in line]
    if done.returncode or not lines:
        said = shown(done.stderr.decode(errors="replace").strip())
        raise MissingInputError(f"{what}: needs Java, and {program} -version says {said!r}.\n{INSTALL_JAVA}")
    quoted = lines[0].split('"')
    return quoted[1] if len(quoted) > 1 else lines[0]


def jar(program: Path) -> Path:
    """Returns where one of the two programs lies.

    Raises:
        MissingInputError: If pycocoevalcap is not installed, or without it.
    """
    refuse_missing(["pycocoevalcap"], program.name)
    spec = util.find_spec("pycocoevalcap")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec is not None else []
    found = next((folder / program for folder in folders if (folder / program).is_file()), None)
    if found is None:
        raise MissingInputError(
            f"{program.name}: pycocoevalcap is installed without it.\nInstall it again: "
            f"pip install --force-reinstall --no-deps pycocoevalcap"
        )
    return found


def command(arguments: Sequence[str], what: str) -> list[str]:
    """Returns the command that runs Java, with a locale in which the programs work.

    Raises:
        MissingInputError: If there is no Java that runs.
    """
    java_version(what)
    return [_java() or JAVA, *SETTINGS, *arguments]


def versions(needed: Iterable[str]) -> dict[str, str]:
    """Returns the version of each package and of Java; `none` of one that is not there."""
    found = {}
    for name in needed:
        try:
            found[name] = java_version() if name == JAVA else metadata.version(name)
        except (metadata.PackageNotFoundError, MissingInputError):
            found[name] = "none"
    return found


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    program = Path(home, "bin", "java") if home else None
    return str(program) if program is not None and program.is_file() else shutil.which("java")
