"""Turns a composed configuration into a checked Run and its settings, which all other code uses. No torch."""

from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from lora_repro.config.catalogue import NAME, SCALES, group_names, is_choice
from lora_repro.config.declared_types import refuse_lost_keys, refuse_other_types
from lora_repro.config.schema import Config, Run, load_group
from lora_repro.config.settings import Settings
from lora_repro.costs import budget
from lora_repro.errors import InputError
from lora_repro.methods import METHODS, SizedConfig
from lora_repro.methods.base import Demonstrations
from lora_repro.models.arch import ModelConfig
from lora_repro.models.architecture import read_blueprint
from lora_repro.models.inputs import identify_local, refuse_impossible_weights
from lora_repro.store.adapter_identity import identify_adapter
from lora_repro.tasks.base import is_fetching


class Resolved(NamedTuple):
    """A checked configuration: what is computed, and the settings that change no number."""

    run: Run
    settings: Settings
    init_from: str | None
    """train.init_from as it was given: a path or a run id."""


SETTINGS, RUN = (tuple(f.name for f in fields(part)) for part in (Settings, Run))
"""The keys of the configuration that change no number, and those that do."""

DESCRIBED = {"digest", *(f.name for f in fields(ModelConfig) if not f.metadata.get("in_id", True))}
"""What belongs to the choice of a model."""


def resolve(cfg: DictConfig) -> Resolved:
    """Turns a composed configuration into a checked Run and its settings.

    It reads files only for model=local, for data of the user's own (task=table), and for a train.init_from that is no
    run: their digests enter the run's id.

    Raises:
        InputError: If a key is unknown or missing, or a value impossible.
    """
    try:
        config = typed(cfg)
    except MissingMandatoryValue:
        missing = sorted(OmegaConf.missing_keys(cfg))
        raise InputError(
            f"{missing[0]}: no value is given, and conf/ has none for this model and method.\n"
            f"Give it: {missing[0]}=VALUE" + (f" (missing too: {', '.join(missing[1:])})" if missing[1:] else "")
        ) from None
    assert isinstance(config, Config)
    return check(config)


def typed(cfg: DictConfig, path: str = "") -> Any:
    """Returns the dataclass that a composed configuration, or a section of it, stands for.

    Args:
        cfg: The configuration, or the section.
        path: The key of the section; empty for the whole.

    Raises:
        InputError: If a key is unknown, or a value of another type than declared.
        MissingMandatoryValue: If a value is missing.
    """
    given = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(given, dict)
    refuse_other_types(cfg, {str(key): value for key, value in given.items()}, f"{path}." if path else "")
    found: Any = OmegaConf.to_object(cfg)
    refuse_lost_keys(given, asdict(found), path)
    return found


def check(config: Config) -> Resolved:
    """Refuses impossible values, and turns a typed configuration into a Run and its settings.

    It sets fields of the sections of `config`: a method's size from its budget, what is read of a folder.

    Raises:
        InputError: If a value is impossible.
    """
    settings = Settings(**{name: getattr(config, name) for name in SETTINGS})
    run = Run(**{name: getattr(config, name) for name in RUN})
    _refuse_changed_choices(run)
    _check_scale(settings.scale.name)
    settings.check()
    run.task.identify(settings.paths.data, settings.paths.cache)
    if run.model.name == "local":
        folder = Path(settings.paths.model or "").expanduser()
        run.model.config, run.model.digest = identify_local(settings.paths.model)
        run.model.blueprint = read_blueprint(folder, run.model.config, run.task.head_width)
        refuse_impossible_weights(folder, run.arch)
    run.model.check()
    run.model.sites = _whole_patterns(run)
    run.task.check()
    try:
        arch = run.arch
    except InputError:
        if not is_fetching():
            raise
        return Resolved(run, settings, None)  # what is fetched together need not be run together
    if run.model.head_dropout is not None and (arch.is_decoder or not arch.head_modules):
        raise InputError(
            f"model.head_dropout: {run.model.name} has no dropout in front of a head here (given: "
            f"{run.model.head_dropout}).\nLeave it out: model.head_dropout=null"
        )
    if isinstance(run.method, SizedConfig) and run.method.budget is not None:
        run.method = run.method.with_size(budget.solve(run.method, arch))
    run.method.check(arch)
    _refuse_other_use(run)
    run.train.check(arch, run.method.added_tokens)
    if run.train_examples is not None and (steps := run.train.steps(run.train_examples)):
        run.method.check_steps(steps)
    if not 0 <= run.seed < 2**32:
        raise InputError(f"seed: must be 0 or more, and below 2**32 (given: {run.seed}).")
    init_from = run.train.init_from
    if init_from is not None:
        run.train.init_from = identify_adapter(init_from)
    return Resolved(run, settings, init_from)


def _refuse_other_use(run: Run) -> None:
    """Refuses what would change nothing: training without a method, demonstrations or smoothing that nothing reads."""
    name, given = run.method.name, run.train.init_from
    shown = run.method.demonstrations
    asks_alone = run.task.writes_texts and shown == Demonstrations(0, is_calibrated=False)
    if shown is not None and not run.task.takes_demonstrations and not asks_alone:
        raise InputError(
            f"method={name}: shows solved examples to a language model that answers with label words, and task="
            f"{run.task.name} asks otherwise here.\nChoose a decoder, and a task with classes: task.form=text. A task "
            "whose texts are written is asked without examples: method.shots=0"
        )
    if run.train.label_smoothing and not run.task.writes_texts:
        raise InputError(
            f"train.label_smoothing: smooths the loss of texts to be written, and task={run.task.name} has none "
            f"(given: {run.train.label_smoothing}).\nLeave it out."
        )
    if run.train.score_merged and (why := run.method.why_not_merged) is not None:
        raise InputError(f"train.score_merged: method={name} cannot be merged here, as {why}.\nLeave it out.")
    if run.train.packing and not run.task.writes_texts:
        raise InputError(
            f"train.packing: puts several texts to be written into one row, and task={run.task.name} has none.\n"
            "Leave it out."
        )
    if run.train.packing and run.method.needs_a_row_of_its_own:
        raise InputError(
            f"train.packing: method={name} puts a prefix in front of each text, which cannot be done where several "
            "share a row.\nLeave it out."
        )
    if not run.method.is_trained and run.train.epochs:
        raise InputError(
            f"train.epochs: must be 0, as method={name} trains nothing (given: {run.train.epochs}).\n"
            "Give train.epochs=0."
        )
    if not run.method.is_trained and given is not None:
        raise InputError(
            f"train.init_from: method={name} trains nothing, so it has no place for an adapter (given: {given}).\n"
            "Leave it out; to score an adapter, give its own method and train.epochs=0."
        )


def _whole_patterns(run: Run) -> dict[str, str | None]:
    """Returns the given sites with the whole names of their modules, so that two spellings of one site are one run."""
    reading = run.arch.reading if run.model.given_sites else None
    return {key: reading.given[key] for key in run.model.given_sites} if reading is not None else {}


def _check_scale(name: str) -> None:
    """Refuses a name of a scale that was set past the choice."""
    if name not in SCALES:
        raise InputError(f"scale.name cannot be set by itself (given: {name}). Choose a scale: scale=demo")


def _refuse_changed_choices(run: Run) -> None:
    """Refuses overrides of what describes a chosen model or task: numbers would change, but the id would not."""
    for group, part in (("model", run.model), ("task", run.task), ("method", run.method)):
        if not NAME.fullmatch(part.name):
            raise InputError(f"{group}.name: may hold only a-z, 0-9 and _ (given: {part.name!r}).")
    if METHODS.get(run.method.name) is not type(run.method):
        raise InputError(_set_by_itself("method", run.method.name, "lora"))
    read_there = {"config", "digest"} if run.model.name == "local" else set()
    for group, part, keys in (
        ("model", run.model, DESCRIBED - read_there),
        ("task", run.task, set(run.task.fixed)),
    ):
        if not is_choice(group, part.name):
            raise InputError(_set_by_itself(group, part.name, group_names(group)[0]))
        declared = _declared(group, part.name)
        for key in sorted(keys):
            if getattr(part, key) != getattr(declared, key, None):
                raise InputError(
                    f"{group}.{key}: belongs to {group}={part.name} and cannot be overridden.\n"
                    f"Choose another {group}, or write a file of its own in conf/{group}."
                )


def _set_by_itself(group: str, given: str, example: str) -> str:
    return f"{group}.name cannot be set by itself (given: {given}). Choose a {group}: {group}={example}"


@cache
def _declared(group: str, name: str) -> Any:
    return load_group(group, name)
