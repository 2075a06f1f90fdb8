"""What a run is: the typed configuration, its one resolution, and the id of the science in it. No torch."""

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, fields
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from lora_repro import budget, workers
from lora_repro.arch import Arch, ModelConfig, arch_of
from lora_repro.circumstances import Circumstances, ScaleConfig
from lora_repro.containers import refuse_other_types
from lora_repro.errors import InputError, MissingInputError, did_you_mean, no_such_choice
from lora_repro.identity import fingerprint
from lora_repro.inputs import identify_local, refuse_impossible_weights
from lora_repro.methods import METHODS, MethodConfig, SizedConfig
from lora_repro.reading import parse_foreign_json
from lora_repro.tasks import FAMILIES, TaskConfig

HOME = next(
    folder
    for folder in (Path(__file__).resolve().parent, Path(__file__).resolve().parent.parent)
    if (folder / "conf" / "config.yaml").is_file()
)
"""The folder that holds conf/ and sweeps/: this package in an installed wheel, the repository in a checkout."""

RUN_ID = re.compile(r"[a-z0-9_]+-[a-z0-9_-]+-s\d+-[0-9a-f]{10}")
NAME = re.compile(r"[a-z0-9_]+")

PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""The files of an adapter in PEFT's layout."""


GROUPS = ("model", "task", "method", "train", "scale", "preset@train")
"""The keys that choose a file of conf/."""


class Dtype(str, Enum):
    """Precision of the products and of the frozen weights; what is trained is kept in fp32 by both."""

    bf16 = "bf16"
    fp32 = "fp32"


class Schedule(str, Enum):
    """What the learning rate does after the warm-up."""

    linear = "linear"
    constant = "constant"


@dataclass
class TrainConfig:
    """How a run is trained. What a paper table prints has no default here: its value stands in YAML."""

    epochs: int = MISSING
    """0 scores without training."""
    batch_size: int = MISSING
    learning_rate: float = MISSING
    warmup_ratio: float = MISSING
    """Part of all steps over which the learning rate rises linearly from 0."""
    schedule: Schedule = MISSING
    weight_decay: float = MISSING
    """AdamW's decay, on matrices only: not on biases and LayerNorms, as in transformers' Trainer."""
    max_grad_norm: float | None = MISSING
    """Clips the norm over all trained parameters (null: no clipping)."""
    max_length: int = MISSING
    """Longer inputs are cut, in tokens."""
    dtype: Dtype = MISSING
    max_steps: int | None = None
    """Ends the training early; the schedule ends with it."""
    warmup_steps: int | None = None
    """Replaces warmup_ratio."""
    head_learning_rate: float | None = None
    """Learning rate of the head (null: learning_rate)."""
    init_from: str | None = None
    """Start from the adapter and head of a run (its id or directory) or of a PEFT folder."""

    def check(self, arch: Arch) -> None:
        """Refuses impossible values.

        Raises:
            InputError: Naming the key, the value and what is possible.
        """
        head_rate = self.head_learning_rate if self.head_learning_rate is not None else self.learning_rate
        clip = self.max_grad_norm if self.max_grad_norm is not None else 1.0
        rules = [
            ("epochs", self.epochs >= 0, "0 (score only) or more"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "a finite number above 0"),
            ("head_learning_rate", 0 < head_rate < math.inf, "a finite number above 0, or null"),
            ("warmup_ratio", 0 <= self.warmup_ratio <= 1, "in [0, 1]"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "a finite number, 0 or more"),
            ("max_grad_norm", 0 < clip < math.inf, "a finite number above 0, or null"),
            ("max_length", 3 <= self.max_length <= arch.max_length, f"from 3 to {arch.max_length} tokens"),
            ("max_steps", self.max_steps is None or self.max_steps >= 1, "at least 1, or null"),
            ("warmup_steps", self.warmup_steps is None or self.warmup_steps >= 0, "0 or more, or null"),
        ]
        for key, holds, legal in rules:
            if not holds:
                raise InputError(f"train.{key}: must be {legal} (given: {getattr(self, key)}).")


@dataclass
class Run:
    """The science: everything that can change a number, and nothing else."""

    model: ModelConfig = MISSING
    task: TaskConfig = MISSING
    method: MethodConfig = MISSING
    train: TrainConfig = MISSING
    seed: int = MISSING

    @property
    def arch(self) -> Arch:
        """Shapes of the model with this task's head."""
        return arch_of(self.model.config, self.task.head_width)

    @property
    def trained_by_method(self) -> int:
        """Number of weights that the method trains, the head apart."""
        return self.method.count(self.arch).method

    @property
    def utilisation(self) -> float | None:
        """These weights over those that the method's budget names; None without a budget."""
        return budget.utilisation(self.method, self.arch)


@dataclass
class Config(Circumstances, Run):
    """The Hydra root: a Run and its circumstances."""


def register() -> None:
    """Makes the schemas known to Hydra, under the names that conf/ uses."""
    store = ConfigStore.instance()
    store.store(name="config_schema", node=Config)
    store.store(group="model", name="model_schema", node=ModelConfig)
    store.store(group="train", name="train_schema", node=TrainConfig)
    store.store(group="scale", name="scale_schema", node=ScaleConfig)
    for name, family in FAMILIES.items():
        store.store(group="task", name=f"{name}_schema", node=family)
    for name, method in METHODS.items():
        store.store(group="method", name=f"{name}_schema", node=method)
    workers.register()
    OmegaConf.register_new_resolver("lora_repro_home", lambda: str(HOME), replace=True)


class Resolved(NamedTuple):
    """A configuration, taken apart."""

    run: Run
    circumstances: Circumstances
    init_from: str | None
    """train.init_from as it was given: a path or a run id."""


def resolve(cfg: DictConfig) -> Resolved:
    """Turns a composed configuration into a Run and its circumstances. Everything behind it sees only these.

    Reads nothing but, for model=local and a foreign train.init_from, the files whose digests are their identity.

    Raises:
        InputError: If a key is unknown or missing, or a value impossible.
    """
    try:
        given = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue:
        missing = sorted(OmegaConf.missing_keys(cfg))
        raise InputError(
            f"{missing[0]}: no value is given, and conf/ has none for this model and method.\n"
            f"Give it: {missing[0]}=VALUE" + (f" (missing too: {', '.join(missing[1:])})" if missing[1:] else "")
        ) from None
    assert isinstance(given, dict)
    refuse_other_types(cfg, {str(key): value for key, value in given.items()})
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config)
    _refuse_lost_keys(given, asdict(config), "")
    circumstances = Circumstances(**{f.name: getattr(config, f.name) for f in fields(Circumstances)})
    run = Run(**{f.name: getattr(config, f.name) for f in fields(Run)})
    _refuse_changed_choices(run)
    _check_scale(circumstances.scale.name)
    circumstances.check()
    if run.model.name == "local":
        run.model.config, run.model.digest = identify_local(circumstances.paths.model)
        refuse_impossible_weights(Path(circumstances.paths.model or "").expanduser(), run.arch)
    run.model.check()
    run.task.check()
    run.train.check(run.arch)
    if isinstance(run.method, SizedConfig) and run.method.budget is not None:
        setattr(run.method, run.method.size_key, budget.solve(run.method, run.arch))
    run.method.check(run.arch)
    if not 0 <= run.seed < 2**32:
        raise InputError(f"seed: must be 0 or more, and below 2**32 (given: {run.seed}).")
    init_from = run.train.init_from
    if init_from is not None:
        run.train.init_from = identify_adapter(init_from)
    return Resolved(run, circumstances, init_from)


def _check_scale(name: str) -> None:
    """Refuses a scale that is no choice."""
    if name not in group_names("scale"):
        raise InputError(f"scale: follows from the choice of the scale (given: scale.name={name}).")


def identify_adapter(given: str) -> str:
    """Returns the identity of an adapter: its run's id, or the sha256 of a foreign file.

    Args:
        given: A run id, a run directory, or a PEFT folder.

    Raises:
        MissingInputError: If it is neither a run id nor a folder that holds an adapter.
    """
    folder = adapter_folder(given)
    name = run_name(folder) if (folder / "config.yaml").is_file() else folder.name if "/" not in given else ""
    if RUN_ID.fullmatch(name):
        return name
    weights, settings = folder / PEFT_WEIGHTS, folder / PEFT_CONFIG
    if not (weights.is_file() and settings.is_file()):
        raise MissingInputError(
            f"train.init_from: neither a run id, nor a run directory, nor a PEFT folder (given: {given}).\n"
            f"A PEFT folder holds {PEFT_CONFIG} and {PEFT_WEIGHTS}; "
            "run ids are the folders' names under outputs/runs/."
        )
    try:
        config = parse_foreign_json(settings.read_bytes())
        science_of_it = {key: value for key, value in config.items() if key != "base_model_name_or_path"}
        text = json.dumps(science_of_it, sort_keys=True).encode()
    except (ValueError, AttributeError, RecursionError) as error:
        raise MissingInputError(
            f"train.init_from: {settings} is damaged ({error}).\nGive it as PEFT's save_pretrained writes it."
        ) from error
    return "sha256:" + hashlib.sha256(text + weights.read_bytes()).hexdigest()


def adapter_folder(given: str) -> Path:
    """Returns the folder that is meant: of a run's `adapter/` the run's directory, else the one that is given."""
    folder = Path(given).expanduser()
    return folder.parent if folder.name == "adapter" and (folder.parent / "config.yaml").is_file() else folder


def run_name(folder: Path) -> str:
    """Returns the run that a directory stands for: by its own name, or, of a link by another name, by its target's."""
    name = folder.absolute().name
    return name if RUN_ID.fullmatch(name) else folder.resolve().name


def _refuse_changed_choices(run: Run) -> None:
    """Refuses overrides of what only describes a chosen model or task: numbers would change, and not the id."""
    for part in (run.model, run.task, run.method):
        if not NAME.fullmatch(part.name):
            raise InputError(f"A name is made of a-z, 0-9 and _ (given: {part.name!r}).")
    if METHODS.get(run.method.name) is not type(run.method):
        raise InputError(f"method.name: follows from the choice of the method (given: {run.method.name}).")
    described = [f.name for f in fields(ModelConfig) if not f.metadata.get("science", True)]
    read_there = {"config", "digest"} if run.model.name == "local" else set()
    for group, part, keys in (
        ("model", run.model, {"digest", *described} - read_there),
        ("task", run.task, {"digest", "num_labels"}),
    ):
        if part.name not in group_names(group):
            raise InputError(f"{group}.name: follows from the choice of the {group} (given: {part.name}).")
        declared = _declared(group, part.name)
        for key in sorted(keys):
            if getattr(part, key) != getattr(declared, key, None):
                raise InputError(
                    f"{group}.{key}: belongs to {group}={part.name} and cannot be overridden.\n"
                    f"Choose another {group}, or write a file of its own in conf/{group}."
                )


@cache
def _declared(group: str, name: str) -> Any:
    return load_group(group, name)


def _refuse_lost_keys(given: Any, kept: Any, path: str) -> None:
    """Refuses keys that got past the schema (`+method.rank=4`) and would vanish in to_object without a word."""
    if not (isinstance(given, dict) and isinstance(kept, dict)) or path in ("sweep", "model.config", "model.files"):
        return
    for key, value in given.items():
        where = f"{path}.{key}" if path else str(key)
        if key not in kept:
            raise InputError(unknown_key(where, sorted(map(str, kept))))
        _refuse_lost_keys(value, kept[key], where)


def unknown_key(where: str, keys: list[str]) -> str:
    """Says that a dotted key does not exist, and which do."""
    parent, _, key = where.rpartition(".")
    return (
        f"{where}: there is no such key.{did_you_mean(key, keys)}\n"
        f"Keys {f'of {parent}' if parent else 'at the top'}: {', '.join(keys)}."
    )


def run_id(run: Run) -> str:
    """Returns a readable prefix and the fingerprint of the science: no path, no weights, no data are needed."""
    return f"{run.model.name}-{run.task.name}-{run.method.label}-s{run.seed}-{fingerprint(run)}"


def integral(key: str, value: Any) -> Any:
    """Returns 8 for 8.0 where a dotted key is declared as an integer; any other value as it is."""
    if not isinstance(value, float) or not value.is_integer():
        return value
    group, _, name = key.rpartition(".")
    sections = {"model": [ModelConfig], "task": FAMILIES.values(), "method": METHODS.values(), "train": [TrainConfig]}
    declared = [f.type for section in sections.get(group, [Config]) for f in fields(section) if f.name == name]
    return int(value) if any(kind is int or int in get_args(kind) for kind in declared) else value


def load_group(group: str, name: str) -> Any:
    """Returns the typed configuration of conf/<group>/<name>.yaml, for a group whose file needs no other.

    Raises:
        InputError: If there is no such file.
    """
    names = group_names(group)
    if name not in names:
        raise InputError(no_such_choice(group, name, names))
    raw = OmegaConf.load(HOME / "conf" / group / f"{name}.yaml")
    assert isinstance(raw, DictConfig)
    schema = str(raw.pop("defaults")[0])
    node = ConfigStore.instance().load(f"{group}/{schema}.yaml").node
    return OmegaConf.to_object(OmegaConf.merge(node, raw))


def refuse_bare_sweep(name: str) -> None:
    """Refuses a sweep file without its first line: Hydra would merge its keys in the wrong place.

    Raises:
        InputError: With the line.
    """
    if not (HOME / "sweeps" / f"{name}.yaml").read_bytes().startswith(b"# @package sweep\n"):
        raise InputError(f"sweeps/{name}.yaml: the first line must be: # @package sweep")


def refuse_no_choice(group: str, given: Any) -> None:
    """Refuses what is no name where one is chosen; any other key passes.

    A preset that does not exist is refused too: as the default one is optional, Hydra would leave it out in silence.

    Args:
        group: A group of conf/, as model, method or preset@train; or another key.
        given: One value for it.

    Raises:
        InputError: With the choices.
    """
    if group not in GROUPS:
        return
    names = group_names(group.partition("@")[0])
    if isinstance(given, list):
        several = ",".join(map(str, given))
        raise InputError(f"{group}: one name is chosen (given: [{several}]).\nA sweep over them: -m {group}={several}")
    if not isinstance(given, str) or not given or "${" in given:
        shown = "null" if given is None else "nothing" if given == "" else given
        raise InputError(f"{group}: a name is needed (given: {shown}).\nChoices: {', '.join(names)}.")
    if group == "preset@train" and given not in names:
        raise InputError(no_such_choice(group, given, names))


def group_names(group: str) -> list[str]:
    """Returns the choices of a group of conf/ (or of sweeps)."""
    folder = HOME / "sweeps" if group == "sweeps" else HOME / "conf" / group
    return sorted(path.stem for path in folder.glob("*.yaml"))


register()
